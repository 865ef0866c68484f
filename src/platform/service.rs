//! What a service manager and a session keep for the user, as `init` asks them for it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::home::Home;
use crate::setup::{Step, StepError};

/// What `init` installs, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Installation {
    /// Our program, by its absolute path: services start it.
    pub program: PathBuf,
    pub home: Home,
    /// What is to be in the services' environment: `HALTON_METER_HOME` if it is not the default.
    pub environment: BTreeMap<String, String>,
    pub edge: SocketAddr,
    pub user: User,
}

/// Whose machine it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    pub uid: u32,
    /// `HOME`: not ours.
    pub home: PathBuf,
    /// `XDG_CONFIG_HOME`, else `~/.config`.
    pub config: PathBuf,
}

impl User {
    /// Of this process. `None`: `HOME` is not set.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        let set = |name| std::env::var_os(name).filter(|v: &OsString| !v.is_empty());
        let home = PathBuf::from(set("HOME")?);
        let config = set("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
        Some(Self { uid: rustix::process::geteuid().as_raw(), home, config })
    }
}

/// What the service manager keeps running.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Service {
    /// The root with only the edge below it; its socket with it.
    Edge,
    Daemon,
    Watchdog,
}

impl Service {
    pub const ALL: [Self; 3] = [Self::Edge, Self::Daemon, Self::Watchdog];
    /// What `stop` and `start` are about.
    pub const METERING: [Self; 2] = [Self::Daemon, Self::Watchdog];
}

/// What the service manager says of one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServiceState {
    /// A definition of it is there; the program that it starts.
    pub program: Option<PathBuf>,
    /// The one that the manager would start until the next login, if that is another one.
    pub known_by: Option<PathBuf>,
    /// The next login starts it.
    pub enabled: bool,
    pub pid: Option<u32>,
    /// How it ended last, if it is not running and the manager says so.
    pub last_exit: Option<String>,
    /// The manager does not start it any more, as its program's file is another one than when it was loaded.
    pub refused: bool,
}

/// launchd, or `systemd --user`.
pub trait ServiceManager {
    /// How people call it.
    fn name(&self) -> &'static str;

    /// Why it can't be used here: no systemd, no graphical session, … `None`: it can.
    fn missing(&self) -> Option<String>;

    fn state(&self, user: &User, service: Service) -> Result<ServiceState, StepError>;

    /// Definitions written, known to the manager, started: what is not so yet. All of it is undone by
    /// its own undo. Empty: nothing to do.
    fn install(&self, wanted: &Installation) -> Result<Vec<Step>, StepError>;

    /// Everything of ours out. `keep_edge`: the edge runs on until the next reboot, its port with it.
    fn uninstall(&self, user: &User, keep_edge: bool) -> Result<Vec<Step>, StepError>;

    /// In this order; what runs is left alone.
    fn start(&self, user: &User, services: &[Service]) -> Vec<Step>;

    /// Until they are started again, or the next login.
    fn stop(&self, user: &User, services: &[Service]) -> Vec<Step>;

    /// Each ends, within its drain, and is started.
    fn restart(&self, user: &User, services: &[Service]) -> Vec<Step>;

    /// What the user should know or do beyond it, a line each: `enable-linger`, login items.
    fn advice(&self, _user: &User) -> Vec<String> {
        Vec::new()
    }
}

/// The variables of programs that the session starts: `launchctl setenv`, `environment.d`.
pub trait SessionEnvironment {
    /// How people call it.
    fn name(&self) -> &'static str;

    /// Why what is asked and set from here are not the variables of the session at the screen. `None`: they
    /// are.
    fn out_of_reach(&self, _user: &User) -> Result<Option<String>, StepError> {
        Ok(None)
    }

    /// Those of `names` that are set, by whomever.
    fn read(&self, user: &User, names: &[&str]) -> Result<BTreeMap<String, String>, StepError>;

    /// They are set now where that is possible, and from the next login on. Empty: they are.
    fn set(
        &self,
        wanted: &Installation,
        vars: &BTreeMap<String, String>,
    ) -> Result<Vec<Step>, StepError>;

    /// Ours are set no more, and `was` is again. What is not ours stays. Empty: nothing of ours.
    fn unset(
        &self,
        user: &User,
        names: &[&str],
        was: &BTreeMap<String, String>,
    ) -> Result<Vec<Step>, StepError>;
}
