//! Which program listens on a port: asked of `lsof`, which every macOS has.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// `name, pid N`, if the owner can be seen.
#[must_use]
pub fn on(addr: SocketAddr) -> Option<String> {
    let output = Command::new("/usr/sbin/lsof")
        .args(["-nP", "-Fpc", "-sTCP:LISTEN"])
        .arg(format!("-iTCP:{}", addr.port()))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    owner(&String::from_utf8_lossy(&output.stdout))
}

/// The first process in `lsof -Fpc` output: a `pPID` line, then `cNAME`.
pub(crate) fn owner(fields: &str) -> Option<String> {
    let mut lines = fields.lines();
    let pid = lines.find_map(|l| l.strip_prefix('p'))?;
    let name = lines.find_map(|l| l.strip_prefix('c'))?;
    Some(format!("{name}, pid {pid}"))
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn field_output_is_read() {
        assert_eq!(owner("p501\ncnginx\nf6\n"), Some("nginx, pid 501".to_owned()));
        assert_eq!(owner(""), None);
    }
}
