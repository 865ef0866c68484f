//! Starts our processes.

use std::io;
use std::path::PathBuf;
use std::process::{Child as OsChild, Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};

use super::port::Port;
use crate::home::{HOME_VAR, Home, open_append};
use crate::inherit;

#[derive(Debug)]
pub(super) struct Launcher {
    pub(super) exe: io::Result<PathBuf>,
    pub(super) home: Home,
    pub(super) foreground: bool,
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
    pub(super) fn start(&self, process: &str, port: Option<&Port>) -> io::Result<OsChild> {
        let exe = self.exe.as_ref().map_err(|e| io::Error::new(e.kind(), e.to_string()))?;
        let mut command = Command::new(exe);
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
        if let Some(port) = port {
            let parent_fd = port.listener()?;
            command
                .env("LISTEN_FDS", "1")
                .fd_mappings(vec![FdMapping { parent_fd, child_fd: 3 }])
                .map_err(|e| io::Error::other(e.to_string()))?;
        }
        command.spawn()
    }
}
