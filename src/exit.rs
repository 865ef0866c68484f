//! Exit codes: a command's are the contract with scripts, a process's tell whoever started it.

/// A code of `sysexits.h` where one fits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exit(pub u8);

impl Exit {
    pub const OK: Self = Self(0);
    pub const FAILED: Self = Self(1);
    pub const USAGE: Self = Self(2);
    pub const UNAVAILABLE: Self = Self(69);
    /// A process whose root supervisor gave up; the service manager, or our own root, is the next
    /// supervisor.
    pub const ESCALATED: Self = Self(70);
    pub const CANT_CREATE: Self = Self(73);
    /// Somebody else has the port or the home: trying later may help.
    pub const BUSY: Self = Self(75);
    pub const NO_PERMISSION: Self = Self(77);
    pub const CONFIG: Self = Self(78);
    pub const NOT_EXECUTABLE: Self = Self(126);
    pub const NOT_FOUND: Self = Self(127);
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}
