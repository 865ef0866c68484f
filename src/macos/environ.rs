//! Which programs have a proxy of ours in their environment: what the user's own were started with.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{libproc, procinfo};
use crate::platform::{Running, is_proxy_to};

/// By pid.
#[must_use]
pub fn pointing_at(addr: SocketAddr) -> Vec<Running> {
    let now = now();
    let own = std::process::id();
    let pids = libproc::pids().into_iter().filter(|pid| *pid != own);
    let mut found: Vec<_> = pids
        .filter(|pid| leads_to(&libproc::arguments(*pid), addr))
        .map(|pid| running(pid, &libproc::path(pid), &libproc::facts(pid), now))
        .collect();
    found.sort_unstable_by_key(|running| running.pid);
    found
}

/// For how long a process has been running.
#[must_use]
pub fn age(pid: u32) -> Option<Duration> {
    age_at(&libproc::facts(pid), now())
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn age_at(facts: &[u8], now: Duration) -> Option<Duration> {
    now.checked_sub(Duration::from_micros(procinfo::started(facts)?))
}

fn leads_to(started_with: &[u8], addr: SocketAddr) -> bool {
    let variables = procinfo::started_with(started_with).map(|with| with.environment);
    variables
        .into_iter()
        .flatten()
        .any(|variable| std::str::from_utf8(variable).is_ok_and(|text| is_proxy_to(text, addr)))
}

fn running(pid: u32, path: &[u8], facts: &[u8], now: Duration) -> Running {
    let path = String::from_utf8_lossy(path);
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    Running { pid, name, age: age_at(facts, now) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started_with(argument: &str, variable: &str) -> Vec<u8> {
        let mut block = 2_u32.to_ne_bytes().to_vec();
        block.extend(format!("/bin/x\0\0x\0{argument}\0A=b\0{variable}\0\0").into_bytes());
        block
    }

    #[test]
    fn only_variables_count() {
        let addr = ([127, 0, 0, 1], 8081).into();
        let proxy = "HTTPS_PROXY=http://127.0.0.1:8081";
        assert!(leads_to(&started_with("a.js", proxy), addr));
        assert!(!leads_to(&started_with(proxy, "C=d"), addr), "an argument is none");
        assert!(!leads_to(&started_with("", "HTTPS_PROXY=http://127.0.0.1:80810"), addr));
        assert!(!leads_to(&[], addr), "another user's");
    }

    #[test]
    fn a_program_is_called_by_its_whole_name() {
        let path = b"/Applications/Visual Studio Code.app/Contents/MacOS/Code Helper (Plugin)";
        let now = Duration::from_secs(100);
        let mut facts = vec![0; procinfo::FACTS];
        facts[120..128].copy_from_slice(&35_u64.to_ne_bytes());
        let found = running(12, path, &facts, now);
        assert_eq!(found.to_string(), "Code Helper (Plugin), pid 12");
        assert_eq!(found.age, Some(Duration::from_secs(65)));
        assert_eq!(running(12, path, &[], now).age, None);
    }
}
