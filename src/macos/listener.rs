//! Which program listens on a port: asked of `lsof`, which every macOS has.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// `name, pid N`, if the owner can be seen.
#[must_use]
pub fn on(addr: SocketAddr) -> Option<String> {
    let output = Command::new("/usr/sbin/lsof")
        .args(["-nP", "-Fpcn", "-sTCP:LISTEN"])
        .arg(format!("-iTCP:{}", addr.port()))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    owner(&String::from_utf8_lossy(&output.stdout), addr)
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
    use super::owner;

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
