//! Exit codes and failures that say what, why and what next.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use crate::meter::own_file::OwnError;

/// Exit code of a command (contract: sysexits where they fit).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exit(pub u8);

impl Exit {
    pub const OK: Self = Self(0);
    pub const FAILED: Self = Self(1);
    pub const USAGE: Self = Self(2);
    pub const UNAVAILABLE: Self = Self(69);
    pub const CANT_CREATE: Self = Self(73);
    pub const NO_PERMISSION: Self = Self(77);
    pub const CONFIG: Self = Self(78);
    pub const NOT_EXECUTABLE: Self = Self(126);
    pub const NOT_FOUND: Self = Self(127);
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// A command that failed.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: message.to_string(), hint: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn print(&self, to: &mut impl Write) {
        let _ = writeln!(to, "halton-meter: {}", self.message);
        if let Some(hint) = &self.hint {
            let _ = writeln!(to, "  hint: {hint}");
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<crate::home::HomeError> for Failure {
    fn from(e: crate::home::HomeError) -> Self {
        use crate::home::HomeError;
        let exit = match &e {
            HomeError::Unknown | HomeError::ForeignOwner { .. } => Exit::NO_PERMISSION,
            HomeError::Io { .. } => Exit::CANT_CREATE,
        };
        Self::new(exit, e)
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        // A closed pipe (`| head`) is the reader's choice, not a failure of ours.
        let exit = if e.kind() == std::io::ErrorKind::BrokenPipe { Exit::OK } else { Exit::FAILED };
        Self::new(exit, e)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(e: anyhow::Error) -> Self {
        let exit = e.chain().find_map(of_cause).unwrap_or(Exit::FAILED);
        Self::new(exit, format!("{e:#}"))
    }
}

/// What a cause of a failure has a code for.
fn of_cause(cause: &(dyn Error + 'static)) -> Option<Exit> {
    matches!(cause.downcast_ref(), Some(OwnError::Toml { .. })).then_some(Exit::CONFIG)
}
