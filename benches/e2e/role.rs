//! Origin and baselines are processes of their own, so that each one's CPU time is its own: this
//! program again, with the role as its first argument. A role ends with whoever started it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use tokio::net::{TcpListener, TcpSocket};

/// A running role. Its stdin is a pipe that only we hold: it ends when we do, however we end.
#[derive(Debug)]
pub struct Role {
    child: Child,
    pub addrs: Vec<SocketAddr>,
}

impl Role {
    /// Starts a role and waits until it listens.
    pub fn start(role: &str, dir: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(role)
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the {role}"))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let ports = line.split_whitespace().map(str::parse).collect::<Result<Vec<u16>, _>>()?;
        let addrs: Vec<_> = ports.into_iter().map(|p| (Ipv4Addr::LOCALHOST, p).into()).collect();
        if addrs.is_empty() {
            let _ = child.kill();
            bail!("the {role} does not listen: its complaint is above");
        }
        Ok(Self { child, addrs })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the role's process: ends it when the one who started it is gone.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        wait_for_parent();
        std::process::exit(0);
    });
}

/// In a baseline's process: a session of its own, as our processes have. Where the scheduler groups by
/// session, who belongs to the load's own group is preempted far less by those whom it wakes.
pub fn leave_session() {
    let _ = rustix::process::setsid();
}

/// Returns when whoever holds the other end of stdin is gone.
pub fn wait_for_parent() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// In the role's process: tells where it listens.
pub fn announce(listeners: &[&TcpListener]) -> Result<()> {
    let mut line = String::new();
    for listener in listeners {
        line.push_str(&format!("{} ", listener.local_addr()?.port()));
    }
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// A listener on a free port, with a queue for all connections of a load at once.
pub fn listen() -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    Ok(socket.listen(4096)?)
}
