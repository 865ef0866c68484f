//! Which programs have a proxy of ours in their environment, as `/proc/PID/environ` shows it: what
//! they were started with.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use super::owner;
use crate::platform::Running;

/// Clock ticks of a second, as the kernel counts them for programs on every architecture of ours.
const TICKS: u64 = 100;

/// By pid.
#[must_use]
pub fn pointing_at(addr: SocketAddr) -> Vec<Running> {
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found: Vec<_> = processes
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            // Of another user's it can't be read.
            let environ = fs::read(entry.path().join("environ")).ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            (pid != own && leads_to(&environ, addr)).then(|| Running {
                pid,
                name: name.trim().to_owned(),
                age: age(pid),
            })
        })
        .collect();
    found.sort_unstable_by_key(|running| running.pid);
    found
}

/// For how long a process has been running.
#[must_use]
pub fn age(pid: u32) -> Option<Duration> {
    let started = Duration::from_millis(owner::start_time(pid)? * 1000 / TICKS);
    uptime()?.checked_sub(started)
}

fn uptime() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    Duration::try_from_secs_f64(text.split_ascii_whitespace().next()?.parse().ok()?).ok()
}

fn leads_to(environ: &[u8], addr: SocketAddr) -> bool {
    environ.split(|b| *b == 0).any(|variable| {
        std::str::from_utf8(variable).is_ok_and(|text| crate::platform::is_proxy_to(text, addr))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_program_has_been_running() {
        let began = std::time::Instant::now();
        let before = uptime().unwrap();
        let mut child = std::process::Command::new("cat")
            .env("HTTPS_PROXY", "http://127.0.0.1:7")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // What answers is the program itself by now, with its environment.
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"x").unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let found = pointing_at(([127, 0, 0, 1], 7).into());
        let ours = found.iter().find(|running| running.pid == child.id()).cloned();
        let at_most = began.elapsed() + Duration::from_secs(1);
        child.kill().unwrap();
        child.wait().unwrap();
        let ours = ours.unwrap();
        assert_eq!(ours.name, "cat");
        assert!(ours.age.unwrap() <= at_most && before > Duration::ZERO, "{ours:?}");
    }
}
