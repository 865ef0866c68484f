//! The home directory of Halton Meter: where each file is, and with which mode.
//!
//! Directories are 0700, files 0600. No other module builds a path of its own.

mod files;
mod lock;

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use files::{
    beside, open_append, through_links, unfinished, write_atomic, write_atomic_with, write_kept,
};
pub use lock::{Kept, PidLock, lock_exclusively};

/// Environment variable that moves the home directory.
pub const HOME_VAR: &str = "HALTON_METER_HOME";

/// The home directory and the names in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Home(PathBuf);

/// Why the home directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("neither {HOME_VAR} nor HOME is set")]
    Unknown,
    #[error("{path} belongs to another user (uid {uid})")]
    ForeignOwner { path: PathBuf, uid: u32 },
    #[error(
        "{path} is too long a path for a socket, so nothing can be metered; \
         set {HOME_VAR} to a directory with a shorter name"
    )]
    TooLong { path: PathBuf },
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl Home {
    /// `HALTON_METER_HOME`, else `~/.halton-meter`. Nothing is created.
    pub fn from_env() -> Result<Self, HomeError> {
        Self::from_vars(|name| std::env::var_os(name))
    }

    /// Absolute: its paths go into variables of programs that work in other directories.
    fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> Result<Self, HomeError> {
        let set = |name| var(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let path = set(HOME_VAR)
            .or_else(|| set("HOME").map(|h| h.join(".halton-meter")))
            .ok_or(HomeError::Unknown)?;
        std::path::absolute(&path).map(Self).map_err(|source| HomeError::Io { path, source })
    }

    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Tells homes apart, to whoever knows their paths: everybody may read it, so it is too short to guess
    /// a path by.
    #[must_use]
    pub fn tag(&self) -> String {
        // FNV-1a: another version of us must come to the same.
        let hash =
            self.0.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        format!("{:04x}", (hash >> 48) ^ (hash & 0xffff))
    }

    /// Nobody else's home. Nor is one made as root (by `sudo`, which may keep `HOME`) in a directory of another
    /// user's, who could never use it: root can make it there first.
    pub fn is_ours(&self) -> Result<(), HomeError> {
        let there = self.0.ancestors().find_map(|dir| Some((dir, fs::metadata(dir).ok()?)));
        let Some((path, uid)) = there.map(|(dir, meta)| (dir, meta.uid())) else { return Ok(()) };
        let us = rustix::process::geteuid();
        let anothers = uid != us.as_raw() && (path == self.0 || us.is_root());
        if anothers {
            return Err(HomeError::ForeignOwner { path: path.to_path_buf(), uid });
        }
        Ok(())
    }

    /// Makes the directories (0700), tightening modes that are too wide.
    pub fn create(&self) -> Result<(), HomeError> {
        self.is_ours()?;
        for dir in self.dirs() {
            if let Some(e) = not_a_directory(&dir) {
                return Err(e);
            }
            let fail = |source| HomeError::Io { path: dir.clone(), source };
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(fail)?;
            let meta = fs::metadata(&dir).map_err(fail)?;
            let uid = rustix::process::geteuid().as_raw();
            if meta.uid() != uid {
                return Err(HomeError::ForeignOwner { path: dir, uid: meta.uid() });
            }
            if meta.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(fail)?;
            }
        }
        Ok(())
    }

    fn dirs(&self) -> [PathBuf; 5] {
        [self.0.clone(), self.ca_dir(), self.run_dir(), self.spool_dir(), self.log_dir()]
    }

    /// What has the place of one of its directories.
    #[must_use]
    pub fn in_the_way(&self) -> Option<HomeError> {
        self.dirs().iter().find_map(|dir| not_a_directory(dir))
    }

    /// Whether the sockets can be bound: their paths have some hundred bytes at most. The edge does
    /// without them, unmetered; so this is for whoever is about to ask for more.
    pub fn holds_sockets(&self) -> Result<(), HomeError> {
        // The longest is the same in every home.
        let path = self.control_socket();
        match SocketAddr::from_pathname(&path) {
            Ok(_) => Ok(()),
            Err(_) => Err(HomeError::TooLong { path }),
        }
    }

    /// Holds up whoever else is about to read a file of ours, change it and write it, until this is dropped.
    /// Where there is no home yet, or its file system has no such lock, they may still meet.
    #[must_use]
    pub fn change_one_by_one(&self) -> Option<File> {
        let home = File::open(&self.0).ok()?;
        rustix::fs::flock(&home, rustix::fs::FlockOperation::LockExclusive).ok()?;
        Some(home)
    }

    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.0.join("config.toml")
    }
    /// The user's own prices.
    #[must_use]
    pub fn prices_file(&self) -> PathBuf {
        self.0.join("prices.toml")
    }
    /// What projects are shown as.
    #[must_use]
    pub fn projects_file(&self) -> PathBuf {
        self.0.join("projects.toml")
    }
    #[must_use]
    pub fn budgets_file(&self) -> PathBuf {
        self.0.join("budgets.toml")
    }
    /// Which of their thresholds were told.
    #[must_use]
    pub fn budgets_told(&self) -> PathBuf {
        self.0.join("budgets-told.json")
    }
    #[must_use]
    pub fn ledger_file(&self) -> PathBuf {
        self.0.join("db.sqlite")
    }
    /// What the ledger's disk has room for, in bytes. It may be a link to another one than the home's.
    #[must_use]
    pub fn room(&self) -> Option<u64> {
        let of = |path: &Path| rustix::fs::statvfs(path).ok();
        let disk = of(&self.ledger_file()).or_else(|| of(self.path()))?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
    /// What names of accounts are hashed with.
    #[must_use]
    pub fn account_salt(&self) -> PathBuf {
        self.0.join("account-salt")
    }
    /// Bodies of requests and answers, for who wants them kept.
    #[must_use]
    pub fn bodies_dir(&self) -> PathBuf {
        self.0.join("bodies")
    }
    #[must_use]
    pub fn journal_file(&self) -> PathBuf {
        self.0.join("events.jsonl")
    }
    #[must_use]
    pub fn ca_dir(&self) -> PathBuf {
        self.0.join("ca")
    }
    #[must_use]
    pub fn ca_key(&self) -> PathBuf {
        self.ca_dir().join("key.pem")
    }
    #[must_use]
    pub fn ca_cert(&self) -> PathBuf {
        self.ca_dir().join("ca.pem")
    }
    /// The CA that will be in its place, as long as one waits.
    #[must_use]
    pub fn next_ca_key(&self) -> PathBuf {
        self.ca_dir().join("next-key.pem")
    }
    #[must_use]
    pub fn next_ca_cert(&self) -> PathBuf {
        self.ca_dir().join("next.pem")
    }
    /// System roots plus our CA, for tools that take one file.
    #[must_use]
    pub fn ca_bundle(&self) -> PathBuf {
        self.ca_dir().join("bundle.pem")
    }
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.0.join("run")
    }
    /// Control channel: the daemon listens, the edge connects.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir().join("daemon.sock")
    }
    /// `upgrade` names the new program here before it signals.
    #[must_use]
    pub fn upgrade_request(&self) -> PathBuf {
        self.run_dir().join("upgrade")
    }
    /// Hands out the edge's listening socket, and so tells that the edge lives.
    #[must_use]
    pub fn edge_socket(&self) -> PathBuf {
        self.run_dir().join("edge.sock")
    }
    /// Bearer token of the admin API.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.run_dir().join("token")
    }
    /// Leads a browser to the dashboard, with a login in it; gone when that was used.
    #[must_use]
    pub fn login_page(&self) -> PathBuf {
        self.run_dir().join("dashboard.html")
    }
    /// Which life of the daemon is the present one, as its `/health` names it.
    #[must_use]
    pub fn instance_file(&self) -> PathBuf {
        self.run_dir().join("daemon.instance")
    }
    /// The root's program, where it takes a copy to start it after its file is gone.
    #[must_use]
    pub fn program_copy(&self) -> PathBuf {
        self.run_dir().join("halton-meter")
    }
    /// Which clients stay raw because they refused our certificate, for the next daemon.
    #[must_use]
    pub fn bypass_file(&self) -> PathBuf {
        self.run_dir().join("bypass.json")
    }
    /// `stop` and `restart` write it: with the next daemon those may try again, which removes it.
    #[must_use]
    pub fn try_again(&self) -> PathBuf {
        self.run_dir().join("try-again")
    }
    /// Pid and lock of a process: `edge`, `daemon`, `watchdog`, `root`.
    #[must_use]
    pub fn pid_file(&self, process: &str) -> PathBuf {
        self.run_dir().join(format!("{process}.pid"))
    }
    /// `stop` writes it, `start` removes it: the root leaves daemon and watchdog down.
    #[must_use]
    pub fn user_stopped(&self) -> PathBuf {
        self.0.join("user-stopped")
    }
    /// How `init` was called; there as long as services of ours are installed.
    #[must_use]
    pub fn install_mode(&self) -> PathBuf {
        self.0.join("install-mode")
    }
    /// We are in charge of the shells' and the session's environment.
    #[must_use]
    pub fn apps_managed(&self) -> PathBuf {
        self.0.join("apps-managed")
    }
    /// We are in charge of the system proxy: the daemon turns it on when it starts.
    #[must_use]
    pub fn proxy_managed(&self) -> PathBuf {
        self.0.join("proxy-managed")
    }
    /// What `init` found, for `uninstall` to restore.
    #[must_use]
    pub fn system_state(&self) -> PathBuf {
        self.0.join("system-state.json")
    }
    /// Lives as long as a run that changes the user's machine: how to take back what it has done.
    #[must_use]
    pub fn setup_journal(&self) -> PathBuf {
        self.0.join("setup-journal.jsonl")
    }
    /// The lock of daemon or watchdog. As a service, whoever holds it may end first, and a user who
    /// stopped metering is left alone: `None` then, and when another one runs.
    pub fn take_turn(&self, process: &str, service: bool) -> io::Result<Option<PidLock>> {
        let wanted = || service && !self.user_stopped().exists();
        if service && !wanted() {
            return Ok(None);
        }
        PidLock::acquire_waiting(&self.pid_file(process), wanted)
    }
    #[must_use]
    pub fn spool_dir(&self) -> PathBuf {
        self.0.join("spool")
    }
    /// One JSON line per raw tunnel to a metered host, written by the edge.
    #[must_use]
    pub fn passthrough_spool(&self) -> PathBuf {
        self.spool_dir().join("passthrough.jsonl")
    }
    /// What a running self-test lays out for edge and daemon: a home with a ledger of its own.
    #[must_use]
    pub fn selftest(&self) -> Self {
        Self(self.run_dir().join("selftest"))
    }
    /// In [`Home::selftest`]: where its origin is.
    #[must_use]
    pub fn notice_file(&self) -> PathBuf {
        self.0.join("notice.json")
    }
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.0.join("logs")
    }
    #[must_use]
    pub fn log_file(&self, process: &str) -> PathBuf {
        self.log_dir().join(format!("{process}.err.log"))
    }
}

/// The system would say of it that the file exists.
fn not_a_directory(path: &Path) -> Option<HomeError> {
    let other = fs::metadata(path).is_ok_and(|found| !found.is_dir());
    other.then(|| {
        let what = "it is no directory: move it away";
        let source = io::Error::new(io::ErrorKind::NotADirectory, what);
        HomeError::Io { path: path.to_path_buf(), source }
    })
}

/// Our own program, also after a newer one took its place on disk.
pub fn own_program() -> io::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let text = exe.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or_else(|| exe.clone(), PathBuf::from))
}

#[cfg(test)]
mod tests;
