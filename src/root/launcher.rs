//! Starts our processes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child as OsChild, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use command_fds::{CommandFdExt, FdMapping};
use slog::Logger;

use super::port::Port;
use super::starts::{Program, Starts};
use crate::home::{self, HOME_VAR, Home, open_append};
use crate::inherit;
use crate::platform;

#[derive(Debug)]
pub(super) struct Launcher {
    exe: io::Result<PathBuf>,
    /// Starts the same program when its file is gone: an upgrade of a package manager's, a collector
    /// of garbage.
    running: PathBuf,
    home: Home,
    foreground: bool,
    log: Logger,
    /// The edge's.
    starts: Mutex<Starts>,
}

/// Proxy variables are for the user's tools: our processes never go through a proxy by them.
const NOT_FOR_US: [&str; 10] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    inherit::VAR,
];
/// Trust of our processes: these must not lead back to our own CA.
const TRUST: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

impl Launcher {
    pub(super) fn new(home: &Home, foreground: bool, log: &Logger) -> Self {
        Self {
            exe: home::own_program(),
            running: platform::running_program(&home.program_copy()),
            home: home.clone(),
            foreground,
            log: log.clone(),
            starts: Mutex::default(),
        }
    }

    /// What has become of the edge's starts.
    pub(super) fn starts(&self) -> MutexGuard<'_, Starts> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With `port`, the edge.
    pub(super) fn start(&self, process: &str, port: Option<&Port>) -> io::Result<OsChild> {
        let socket = port.map(Port::listener).transpose()?;
        let socket = socket.as_ref().map(AsFd::as_fd);
        let [first, other] =
            if port.is_some() { self.starts().order() } else { Program::FILE_FIRST };
        self.spawn(first, process, socket).or_else(|why| {
            let Ok(child) = self.spawn(other, process, socket) else { return Err(why) };
            slog::warn!(self.log, "could not be started, started otherwise";
                "process" => process, "from" => ?other, "error" => %why);
            Ok(child)
        })
    }

    fn spawn(
        &self,
        program: Program,
        process: &str,
        socket: Option<BorrowedFd<'_>>,
    ) -> io::Result<OsChild> {
        let mut command = match (program, &self.exe) {
            (Program::File, Ok(exe)) => Command::new(exe),
            (Program::File, Err(e)) => return Err(io::Error::new(e.kind(), e.to_string())),
            (Program::Running, exe) => {
                let mut command = Command::new(&self.running);
                if let Ok(exe) = exe {
                    command.arg0(exe);
                }
                command
            }
        };
        command.arg(process).stdin(Stdio::null()).stdout(Stdio::null());
        if !self.foreground
            && let Ok(log) = open_append(&self.home.log_file(process))
        {
            command.stderr(log);
        }
        for name in NOT_FOR_US {
            command.env_remove(name);
        }
        for name in TRUST {
            if std::env::var_os(name)
                .is_some_and(|v| std::path::Path::new(&v).starts_with(self.home.path()))
            {
                command.env_remove(name);
            }
        }
        command.env(HOME_VAR, self.home.path());
        if let Some(socket) = socket {
            let parent_fd = socket.try_clone_to_owned()?;
            command
                .env("LISTEN_FDS", "1")
                .fd_mappings(vec![FdMapping { parent_fd, child_fd: 3 }])
                .map_err(|e| io::Error::other(e.to_string()))?;
        }
        let path = command.get_program().to_owned();
        command.spawn().map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
    }
}
