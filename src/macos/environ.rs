//! Which programs have a proxy of ours in their environment, by `ps -E`, which shows that of the user's
//! own programs.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// `name, pid N`, of programs of this user.
#[must_use]
pub fn pointing_at(addr: SocketAddr) -> Vec<String> {
    let mut ps = Command::new("ps");
    ps.args(["-E", "-ww", "-x", "-o", "pid=,comm=,command="]).stdin(Stdio::null());
    let output = ps.output().map(|o| o.stdout).unwrap_or_default();
    programs(&String::from_utf8_lossy(&output), addr)
}

/// From lines of pid, program, and arguments with the environment behind them.
fn programs(listing: &str, addr: SocketAddr) -> Vec<String> {
    let own = std::process::id().to_string();
    let lines = listing.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (pid, program) = (words.next()?, words.next()?);
        let leads = words.any(|word| crate::platform::is_proxy_to(word, addr));
        let name = program.rsplit('/').next().unwrap_or(program);
        (leads && pid != own).then(|| format!("{name}, pid {pid}"))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_behind_the_arguments_are_seen() {
        let listing = "  12 /usr/bin/node node a.js HTTPS_PROXY=http://127.0.0.1:8081 A=b\n  \
            13 vim vim HTTPS_PROXY=http://127.0.0.1:80810\n  14 zsh -zsh https_proxy=http://localhost:8081/\n";
        let found = programs(listing, ([127, 0, 0, 1], 8081).into());
        assert_eq!(found, ["node, pid 12", "zsh, pid 14"]);
    }
}
