//! Which process owns a socket, and what the system tells of it. Only processes of the same user are
//! seen; whatever can't be read is `None`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::procinfo::Ends;
use super::{libproc, procinfo};
use crate::platform::{Holder, Origin, neighbours};

/// Whether this platform can tell at all.
pub const AVAILABLE: bool = cfg!(target_os = "macos");

const MAX_ARGUMENTS: usize = 64;
/// Sockets that are remembered.
const SEEN: usize = 16 * 1024;

/// Which process holds which socket, as far as it was come by.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Looked at again before it is believed.
    seen: Mutex<HashMap<Ends, Holder>>,
}

impl Sockets {
    /// The process that holds the socket whose own address is `client` and whose peer is `local`.
    /// `recent` holders are asked first, each for the same descriptor and those around it before all of
    /// its others: a scan of every process costs milliseconds.
    #[must_use]
    pub fn holder(
        &self,
        client: SocketAddr,
        local: SocketAddr,
        recent: &[Holder],
    ) -> Option<Holder> {
        let wanted = Ends { local: plain(client), foreign: plain(local) };
        let holds = |(pid, fd): &Holder| ends(*pid, *fd) == Some(wanted);
        if let Some(holder) = recent.iter().find(|holder| holds(holder)) {
            return Some(*holder);
        }
        if let Some(holder) = neighbours(recent).find(holds) {
            return Some(holder);
        }
        // One search at a time: what it comes by is what the next ones look for.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = seen.get(&wanted).filter(|holder| holds(holder)) {
            return Some(*holder);
        }
        if seen.len() >= SEEN {
            seen.clear();
        }
        let recent: Vec<u32> = recent.iter().map(|(pid, _)| *pid).collect();
        search(&recent, libproc::pids, |pid| {
            for fd in procinfo::sockets(&libproc::descriptors(pid)) {
                seen.extend(ends(pid, fd).map(|ends| (ends, (pid, fd))));
            }
            seen.get(&wanted).copied().filter(|(holder, _)| *holder == pid)
        })
    }
}

/// The user of a socket: nothing here tells it of another user's.
#[must_use]
pub fn uid(_client: SocketAddr, _local: SocketAddr) -> Option<u32> {
    None
}

/// Whether a process of this user's descends from one of that user's: not told here.
#[must_use]
pub fn was_let_in(_guest: u32, _host: u32) -> bool {
    true
}

fn ends(pid: u32, fd: i32) -> Option<Ends> {
    let ends = procinfo::ends(&libproc::socket(pid, fd))?;
    Some(Ends { local: plain(ends.local), foreign: plain(ends.foreign) })
}

/// Tells a process from a later one with the same pid. What it is after an `exec` of the program that it
/// was, it does not tell from that.
pub type Instance = u64;

#[must_use]
pub fn instance(pid: u32) -> Option<Instance> {
    procinfo::started(&libproc::facts(pid))
}

#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    procinfo::parent(&libproc::facts(pid))
}

/// Where a process has its program from. `None`: it can't be told, as of one whose parent has ended.
#[must_use]
pub fn origin(pid: u32) -> Option<Origin> {
    let facts = libproc::facts(pid);
    if procinfo::has_started_a_program(&facts)? {
        return Some(Origin::Own);
    }
    let parent = procinfo::parent(&facts)?;
    (executable(pid)? == executable(parent)?).then_some(Origin::Of(parent))
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

/// Variables of the environment that the process was started with. Of Apple's own programs they can't
/// be seen.
#[must_use]
pub fn variables(pid: u32, names: &[&str]) -> Vec<Option<String>> {
    let block = libproc::arguments(pid);
    let environment = procinfo::started_with(&block).unwrap_or_default().environment;
    let value = |name: &&str| {
        environment.iter().find_map(|entry| {
            let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    };
    names.iter().map(value).collect()
}

/// Young processes first, behind the recent ones: they are those that are not remembered yet.
fn search<T>(
    recent: &[u32],
    all: impl FnOnce() -> Vec<u32>,
    mut held: impl FnMut(u32) -> Option<T>,
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
