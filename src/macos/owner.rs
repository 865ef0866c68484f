//! Which process owns a socket, and what the system tells of it. Only processes of the same user are
//! seen; whatever can't be read is `None`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::{libproc, procinfo};

/// Whether this platform can tell at all.
pub const AVAILABLE: bool = cfg!(target_os = "macos");

const MAX_ARGUMENTS: usize = 64;

/// A process and the descriptor by which it holds a socket.
pub type Holder = (u32, i32);

/// The process that holds the socket whose own address is `client` and whose peer is `local`.
/// `recent` holders are asked first, each for the same descriptor before all of its others: a scan of
/// every process costs milliseconds.
#[must_use]
pub fn of_socket(client: SocketAddr, local: SocketAddr, recent: &[Holder]) -> Option<Holder> {
    let (client, local) = (plain(client), plain(local));
    let is_it = |ends: procinfo::Ends| plain(ends.local) == client && plain(ends.foreign) == local;
    let by = |pid, fd| procinfo::ends(&libproc::socket(pid, fd)).is_some_and(is_it);
    if let Some(holder) = recent.iter().find(|(pid, fd)| by(*pid, *fd)) {
        return Some(*holder);
    }
    let recent: Vec<u32> = recent.iter().map(|(pid, _)| *pid).collect();
    search(&recent, libproc::pids, |pid| {
        let descriptors = libproc::descriptors(pid);
        procinfo::sockets(&descriptors).find(|fd| by(pid, *fd)).map(|fd| (pid, fd))
    })
}

#[must_use]
pub fn start_time(pid: u32) -> Option<u64> {
    procinfo::started(&libproc::facts(pid))
}

#[must_use]
pub fn executable(pid: u32) -> Option<PathBuf> {
    path(&libproc::path(pid))
}

#[must_use]
pub fn working_directory(pid: u32) -> Option<PathBuf> {
    path(procinfo::working_directory(&libproc::directories(pid))?)
}

/// The command line, as far as it matters.
#[must_use]
pub fn arguments(pid: u32) -> Vec<String> {
    let block = libproc::arguments(pid);
    let arguments = procinfo::started_with(&block).unwrap_or_default().arguments;
    let text = |a: &[u8]| String::from_utf8_lossy(a).into_owned();
    arguments.into_iter().take(MAX_ARGUMENTS).map(text).collect()
}

/// One variable of the environment that the process was started with. Of Apple's own programs it can't
/// be seen.
#[must_use]
pub fn variable(pid: u32, name: &str) -> Option<String> {
    let block = libproc::arguments(pid);
    let environment = procinfo::started_with(&block)?.environment;
    environment.into_iter().find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// Young processes first, behind the recent ones: they are those that are not remembered yet.
fn search<T>(
    recent: &[u32],
    all: impl FnOnce() -> Vec<u32>,
    held: impl Fn(u32) -> Option<T>,
) -> Option<T> {
    if let Some(holder) = recent.iter().find_map(|pid| held(*pid)) {
        return Some(holder);
    }
    let mut pids = all();
    pids.retain(|pid| !recent.contains(pid));
    pids.sort_unstable_by(|a, b| b.cmp(a));
    pids.into_iter().find_map(held)
}

fn path(bytes: &[u8]) -> Option<PathBuf> {
    bytes.starts_with(b"/").then(|| OsString::from_vec(bytes.to_vec()).into())
}

/// Without IPv4-mapped IPv6 addresses and scopes.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn recent_ones_are_asked_first_and_once() {
        let asked = RefCell::new(Vec::new());
        let holds = |wanted: u32| {
            let asked = &asked;
            move |pid| {
                asked.borrow_mut().push(pid);
                (pid == wanted).then_some(pid)
            }
        };
        let never = || panic!("no scan for one that is known");
        assert_eq!(search(&[7, 5], never, holds(5)), Some(5));
        assert_eq!(search(&[7], || vec![1, 7, 3, 9], holds(3)), Some(3));
        assert_eq!(*asked.borrow(), [7, 5, 7, 9, 3]);
        assert_eq!(search(&[], Vec::new, holds(1)), None);
    }

    #[test]
    fn a_path_is_absolute() {
        assert_eq!(path(b"/bin/ls"), Some(PathBuf::from("/bin/ls")));
        assert_eq!(path(b""), None);
    }
}
