//! Which programs have a proxy of ours in their environment, as `/proc/PID/environ` shows it: what
//! they were started with.

use std::fs;
use std::net::SocketAddr;

/// `name, pid N`, of programs of this user.
#[must_use]
pub fn pointing_at(addr: SocketAddr) -> Vec<String> {
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found: Vec<_> = processes
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            // Of another user's it can't be read.
            let environ = fs::read(entry.path().join("environ")).ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            (pid != own && leads_to(&environ, addr)).then(|| (pid, name.trim().to_owned()))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(pid, name)| format!("{name}, pid {pid}")).collect()
}

fn leads_to(environ: &[u8], addr: SocketAddr) -> bool {
    environ.split(|b| *b == 0).any(|variable| {
        std::str::from_utf8(variable).is_ok_and(|text| crate::platform::is_proxy_to(text, addr))
    })
}
