//! Which programs have a proxy of ours in their environment, by `ps -E`, which shows that of the user's
//! own programs.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::platform::Running;

/// As `ps` lists them.
#[must_use]
pub fn pointing_at(addr: SocketAddr) -> Vec<Running> {
    let mut ps = Command::new("ps");
    ps.args(["-E", "-ww", "-x", "-o", "pid=,etime=,comm=,command="]).stdin(Stdio::null());
    let output = ps.output().map(|o| o.stdout).unwrap_or_default();
    programs(&String::from_utf8_lossy(&output), addr)
}

/// From lines of pid, time since the start, program, and arguments with the environment behind them.
fn programs(listing: &str, addr: SocketAddr) -> Vec<Running> {
    let own = std::process::id();
    let lines = listing.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (pid, age, program) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
        let leads = words.any(|word| crate::platform::is_proxy_to(word, addr));
        let name = program.rsplit('/').next().unwrap_or(program).to_owned();
        (leads && pid != own).then(|| Running { pid, name, age: elapsed(age) })
    });
    lines.collect()
}

/// `[[days-]hours:]minutes:seconds`.
fn elapsed(text: &str) -> Option<Duration> {
    let (days, clock) = text.split_once('-').unwrap_or(("0", text));
    let mut seconds: u64 = 0;
    for part in clock.split(':') {
        seconds = seconds.checked_mul(60)?.checked_add(part.parse().ok()?)?;
    }
    let days: u64 = days.parse().ok()?;
    Some(Duration::from_secs(days.checked_mul(86_400)?.checked_add(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_behind_the_arguments_are_seen() {
        let listing = "  12 01:05 /usr/bin/node node a.js HTTPS_PROXY=http://127.0.0.1:8081 A=b\n  \
            13 00:01 vim vim HTTPS_PROXY=http://127.0.0.1:80810\n  \
            14 2-03:00:01 zsh -zsh https_proxy=http://localhost:8081/\n  \
            15 x sh sh https_proxy=http://localhost:8081/\n";
        let found = programs(listing, ([127, 0, 0, 1], 8081).into());
        let shown: Vec<_> =
            found.iter().map(|r| (r.to_string(), r.age.map(|age| age.as_secs()))).collect();
        let expected = [
            ("node, pid 12".to_owned(), Some(65)),
            ("zsh, pid 14".to_owned(), Some(183_601)),
            ("sh, pid 15".to_owned(), None),
        ];
        assert_eq!(shown, expected);
    }
}
