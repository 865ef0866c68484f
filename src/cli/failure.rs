//! Failures that say what, why and what next, each with its exit code.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use super::output::harmless_lines;
use crate::exit::Exit;
use crate::home::HomeError;
use crate::meter::ledger::{self, LedgerError};
use crate::meter::own_file::OwnError;

/// A command that failed.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    message: String,
    hint: Option<String>,
    /// The ledger is damaged.
    damage: bool,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: message.to_string(), hint: None, damage: false }
    }

    /// A file that the user named; its directory may be missing, too.
    pub fn cannot_write(path: &Path, why: &io::Error) -> Self {
        let exit = of_io(why.kind()).unwrap_or(Exit::CANT_CREATE);
        Self::new(exit, format!("cannot write {}: {why}", path.display()))
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A ledger that is damaged: where it is, and what to do.
    #[must_use]
    pub fn of_ledger(mut self, path: &Path) -> Self {
        if self.damage {
            let place = path.display().to_string();
            if !self.message.contains(&place) {
                self.message = format!("{} ({place})", self.message);
            }
            self.hint.get_or_insert_with(|| ledger::recovery(path));
        }
        self
    }

    /// Nothing, if it is none to the user.
    pub fn print(&self, to: &mut impl Write) {
        if self.exit == Exit::OK {
            return;
        }
        let _ = writeln!(to, "halton-meter: {}", harmless_lines(&self.message));
        if let Some(hint) = &self.hint {
            let _ = writeln!(to, "  hint: {}", harmless_lines(hint));
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<HomeError> for Failure {
    fn from(e: HomeError) -> Self {
        anyhow::Error::from(e).into()
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        anyhow::Error::from(e).into()
    }
}

impl From<anyhow::Error> for Failure {
    fn from(e: anyhow::Error) -> Self {
        let failure = Self::new(e.chain().find_map(of_cause).unwrap_or(Exit::FAILED), told(&e));
        let ledger = e.chain().find_map(|cause| cause.downcast_ref::<LedgerError>());
        Self { damage: ledger.is_some_and(LedgerError::is_damage), ..failure }
    }
}

/// What went wrong, and why. Most of our texts have their cause's in them: it is not said again.
pub fn told(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.contains(&cause) {
            break;
        }
        if !said.is_empty() {
            said.push_str(": ");
        }
        said.push_str(&cause);
    }
    said
}

/// What a cause of a failure has a code for.
fn of_cause(cause: &(dyn Error + 'static)) -> Option<Exit> {
    if let Some(OwnError::Toml { .. }) = cause.downcast_ref() {
        return Some(Exit::CONFIG);
    }
    if let Some(e) = cause.downcast_ref::<HomeError>() {
        return Some(of_home(e));
    }
    if let Some(e) = cause.downcast_ref::<rusqlite::Error>() {
        use rusqlite::ErrorCode::{DiskFull, PermissionDenied, ReadOnly};
        return match e.sqlite_error_code() {
            Some(ReadOnly | DiskFull) => Some(Exit::CANT_CREATE),
            Some(PermissionDenied) => Some(Exit::NO_PERMISSION),
            Some(_) | None => None,
        };
    }
    let json = || cause.downcast_ref::<serde_json::Error>()?.io_error_kind();
    of_io(cause.downcast_ref::<io::Error>().map(io::Error::kind).or_else(json)?)
}

fn of_home(error: &HomeError) -> Exit {
    match error {
        HomeError::Unknown | HomeError::ForeignOwner { .. } => Exit::NO_PERMISSION,
        HomeError::TooLong { .. } => Exit::CANT_CREATE,
        HomeError::Io { source, .. } => of_io(source.kind()).unwrap_or(Exit::CANT_CREATE),
    }
}

fn of_io(kind: ErrorKind) -> Option<Exit> {
    use ErrorKind::{BrokenPipe, FileTooLarge, PermissionDenied, QuotaExceeded};
    use ErrorKind::{ReadOnlyFilesystem, StorageFull};
    // A closed pipe (`| head`) is the reader's choice, not a failure of ours.
    let gone = (kind == BrokenPipe).then_some(Exit::OK);
    let denied = (kind == PermissionDenied).then_some(Exit::NO_PERMISSION);
    let full = matches!(kind, ReadOnlyFilesystem | StorageFull | QuotaExceeded | FileTooLarge);
    gone.or(denied).or(full.then_some(Exit::CANT_CREATE))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn io(kind: ErrorKind) -> io::Error {
        kind.into()
    }

    fn sqlite(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some("so it is".to_owned()))
    }

    #[test]
    fn a_message_does_not_drive_the_terminal() {
        let mut said = Vec::new();
        Failure::new(Exit::FAILED, "no \u{9b}31m\u{202e}\nsuch")
            .hint("\u{1b}]0;x")
            .print(&mut said);
        let expected = "halton-meter: no \u{fffd}31m\u{fffd}\nsuch\n  hint: \u{fffd}]0;x\n";
        assert_eq!(String::from_utf8(said).unwrap(), expected);
    }

    #[test]
    fn what_can_t_be_written_is_told_by_the_exit_code() {
        let path = PathBuf::from("/p");
        let own = |kind| OwnError::Io { path: path.clone(), source: io(kind) };
        let home = |kind| HomeError::Io { path: path.clone(), source: io(kind) };
        let cases: Vec<(anyhow::Error, Exit)> = vec![
            (io(ErrorKind::BrokenPipe).into(), Exit::OK),
            (serde_json::Error::io(io(ErrorKind::BrokenPipe)).into(), Exit::OK),
            (io(ErrorKind::NotFound).into(), Exit::FAILED),
            (own(ErrorKind::PermissionDenied).into(), Exit::NO_PERMISSION),
            (own(ErrorKind::ReadOnlyFilesystem).into(), Exit::CANT_CREATE),
            (own(ErrorKind::FileTooLarge).into(), Exit::CANT_CREATE),
            (anyhow::Error::from(own(ErrorKind::StorageFull)).context("so"), Exit::CANT_CREATE),
            (home(ErrorKind::PermissionDenied).into(), Exit::NO_PERMISSION),
            (home(ErrorKind::NotADirectory).into(), Exit::CANT_CREATE),
            (LedgerError::from(sqlite(rusqlite::ffi::SQLITE_READONLY)).into(), Exit::CANT_CREATE),
            (LedgerError::from(sqlite(rusqlite::ffi::SQLITE_NOTADB)).into(), Exit::FAILED),
            (anyhow::anyhow!("else"), Exit::FAILED),
        ];
        for (error, exit) in cases {
            let shown = format!("{error:?}");
            assert_eq!(Failure::from(error).exit, exit, "{shown}");
        }
    }

    #[test]
    fn no_cause_is_said_twice() {
        let said = |error: anyhow::Error| Failure::from(error).to_string();
        let ledger = LedgerError::from(sqlite(rusqlite::ffi::SQLITE_NOTADB));
        assert_eq!(said(ledger.into()), "the ledger: so it is");
        let own = OwnError::Io { path: "/p".into(), source: io(ErrorKind::StorageFull) };
        let once = own.to_string();
        assert_eq!(said(own.into()), once);
        let context = anyhow::Error::new(io(ErrorKind::NotFound)).context("reading");
        assert_eq!(said(context), format!("reading: {}", io(ErrorKind::NotFound)));
    }

    #[test]
    fn a_damaged_ledger_is_named_with_what_to_do() {
        let said = |code| {
            let error = anyhow::Error::from(LedgerError::from(sqlite(code))).context("reading");
            let mut said = Vec::new();
            Failure::from(error).of_ledger(Path::new("/h/db.sqlite")).print(&mut said);
            String::from_utf8(said).unwrap()
        };
        let damaged = said(rusqlite::ffi::SQLITE_CORRUPT);
        assert!(
            damaged.contains("so it is (/h/db.sqlite)") && damaged.contains(".recover"),
            "{damaged}"
        );
        assert!(!said(rusqlite::ffi::SQLITE_BUSY).contains("recover"));
        // It has its path in it already, and no advice of its own.
        let path = PathBuf::from("/h/db.sqlite");
        let source = sqlite(rusqlite::ffi::SQLITE_NOTADB);
        let error = LedgerError::Damaged { path: path.clone(), source };
        let failure = Failure::from(anyhow::Error::from(error)).of_ledger(&path);
        assert_eq!(failure.to_string(), "/h/db.sqlite is no ledger, or a damaged one (so it is)");
        assert_eq!(failure.hint, Some(ledger::recovery(&path)));
    }

    #[test]
    fn who_closed_the_pipe_is_told_nothing() {
        let print = |failure: Failure| {
            let mut said = Vec::new();
            failure.print(&mut said);
            said
        };
        assert!(print(io(ErrorKind::BrokenPipe).into()).is_empty());
        assert!(!print(io(ErrorKind::NotFound).into()).is_empty());
    }
}
