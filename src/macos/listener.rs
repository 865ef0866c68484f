//! Which program listens on a port: asked of `lsof`, which every macOS has.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpSocket;

use crate::setup::{Call, Machine, Os};

/// It looks at every process, and a dead network disk can hold it for long.
const PATIENCE: Duration = Duration::from_secs(5);

/// `name, pid N`, if the owner can be seen.
#[must_use]
pub fn on(addr: SocketAddr) -> Option<String> {
    let port = format!("-iTCP:{}", addr.port());
    let call = Call::new("/usr/sbin/lsof", ["-nP", "-Fpcn", "-sTCP:LISTEN", &port]);
    let mut os = Os { patience: Some(PATIENCE), ..Os::default() };
    owner(&os.ask(&call).ok()?.out, addr)
}

/// macOS lets a local address be bound beside another program's socket on all addresses, which then gets
/// no connection any more: whether there is one, `who` is asked, where the address could be bound.
///
/// # Errors
/// When somebody has it.
pub fn nobody_on(
    addr: SocketAddr,
    who: impl FnOnce(SocketAddr) -> Option<String>,
) -> io::Result<()> {
    // Not to listen: that would take the other one's connections while it is being looked for.
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    drop(socket);
    let Some(who) = who(addr) else { return Ok(()) };
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{who} listens on {addr}")))
}

/// The first process in `lsof -Fpcn` output whose socket takes connections to `addr`: a `pPID` line,
/// then `cNAME`, then for each of its sockets `nADDRESS:PORT`.
pub(crate) fn owner(fields: &str, addr: SocketAddr) -> Option<String> {
    let takes = [addr.to_string(), format!("*:{}", addr.port())];
    let (mut pid, mut name) = ("", "");
    for line in fields.lines() {
        match line.split_at_checked(1)? {
            ("p", value) => pid = value,
            ("c", value) => name = value,
            ("n", value) if takes.iter().any(|address| address == value) => {
                return Some(format!("{name}, pid {pid}"));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn lsof_is_asked_only_where_the_port_could_be_bound() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = held.local_addr().unwrap();
        let taken = nobody_on(addr, |_| panic!("asked")).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(held);
        nobody_on(addr, |_| None).unwrap();
        let taken = nobody_on(addr, |_| Some("node, pid 7".to_owned())).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(taken.to_string(), format!("node, pid 7 listens on {addr}"));
    }

    #[test]
    fn field_output_is_read() {
        let addr = ([127, 0, 0, 1], 8081).into();
        let nginx = Some("nginx, pid 501".to_owned());
        assert_eq!(owner("p501\ncnginx\nf6\nn127.0.0.1:8081\n", addr), nginx);
        let metro = "p7\ncx\nf3\nn[::1]:8081\np501\ncnginx\nf5\nn10.0.0.1:8081\nf6\nn*:8081\n";
        assert_eq!(owner(metro, addr), nginx, "whoever listens everywhere listens here");
        assert_eq!(owner("p7\ncx\nf3\nn[::1]:8081\n", addr), None, "not in our way");
        assert_eq!(owner("", addr), None);
    }
}
