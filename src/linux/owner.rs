//! Which process owns a socket, and what `/proc` tells of it. Only processes of the same user are
//! seen; whatever can't be read is `None`.

mod diag;
mod guests;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Access, CWD, Mode, OFlags, RawDir, access, open, readlinkat_raw};
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

use crate::platform::{Holder, Origin, neighbours};
pub use guests::was_let_in;

/// Whether this platform can tell at all.
pub const AVAILABLE: bool = true;

/// An environment block or command line longer than this is not searched.
const MAX_BLOCK: usize = 4 * 1024 * 1024;
const MAX_ARGUMENTS: usize = 64;
/// Processes that are looked at in the order of their age.
const YOUNG: usize = 8;
/// Sockets that are remembered.
const SEEN: usize = 16 * 1024;

/// Which process holds which socket, as far as it was come by.
#[derive(Debug, Default)]
pub struct Sockets {
    /// By inode; looked at again before it is believed.
    seen: Mutex<HashMap<u64, Holder>>,
}

impl Sockets {
    /// The process that holds the socket whose own address is `client` and whose peer is `local`.
    /// `recent` holders are asked first, each for the same descriptor (who closes one socket and opens
    /// another has it there again) and those around it before all of its others: a scan of every
    /// process costs milliseconds, one of a process with hundreds of sockets a millisecond.
    #[must_use]
    pub fn holder(
        &self,
        client: SocketAddr,
        local: SocketAddr,
        recent: &[Holder],
    ) -> Option<Holder> {
        let inode = match diag::inode(client, local) {
            diag::Answer::Inode(inode) => inode,
            diag::Answer::Gone => return None,
            diag::Answer::Unavailable => table_inode(client, local)?,
        };
        let holds = |(pid, descriptor): &Holder| {
            let path = format!("/proc/{pid}/fd/{descriptor}");
            readlinkat_raw(CWD, path, &mut [MaybeUninit::uninit(); 64])
                .is_ok_and(|(target, _)| inode_of_link(target) == Some(inode))
        };
        if let Some(holder) = recent.iter().find(|holder| holds(holder)) {
            return Some(*holder);
        }
        if let Some(holder) = neighbours(recent).find(holds) {
            return Some(holder);
        }
        // One search at a time: what it comes by is what the next ones look for.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = seen.get(&inode).filter(|holder| holds(holder)) {
            return Some(*holder);
        }
        if seen.len() >= SEEN {
            seen.clear();
        }
        search(recent, |pid| {
            note_sockets(pid, &mut seen);
            seen.get(&inode).copied().filter(|(holder, _)| *holder == pid)
        })
    }
}

/// The user whose socket has `client` as its own address and `local` as its peer, if the kernel says it.
#[must_use]
pub fn uid(client: SocketAddr, local: SocketAddr) -> Option<u32> {
    diag::uid(client, local)
}

/// The first process of which `held` says something.
fn search(recent: &[Holder], mut held: impl FnMut(u32) -> Option<Holder>) -> Option<Holder> {
    if let Some(holder) = recent.iter().find_map(|(pid, _)| held(*pid)) {
        return Some(holder);
    }
    let asked = |pid: &u32| recent.iter().any(|(known, _)| known == pid);
    let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| {
        entry.ok()?.file_name().to_str()?.parse::<u32>().ok().filter(|pid| !asked(pid))
    });
    let mut pids: Vec<u32> = pids.collect();
    pids.sort_unstable_by(|a, b| b.cmp(a));
    // Young processes first: they are the ones that are not remembered yet. Then those that have
    // few descriptors; a server with thousands of them is rarely what calls a model.
    let rest = pids.split_off(pids.len().min(YOUNG));
    if let Some(holder) = pids.into_iter().find_map(&mut held) {
        return Some(holder);
    }
    let mut rest: Vec<(u64, u32)> =
        rest.into_iter().filter_map(|pid| Some((descriptors(pid)?, pid))).collect();
    rest.sort_by_key(|(count, _)| *count);
    rest.into_iter().find_map(|(_, pid)| held(pid))
}

/// How many descriptors a process has, where the kernel tells (6.2); `None`: not ours to see.
fn descriptors(pid: u32) -> Option<u64> {
    let path = format!("/proc/{pid}/fd");
    access(&path, Access::READ_OK).ok()?;
    fs::metadata(path).ok().map(|meta| meta.len())
}

/// Tells a process from a later one with the same pid, and from what it was before an `exec`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Instance {
    started: u64,
    /// Where its code, stack, arguments and environment lie: the kernel rolls dice for it at each `exec`. 0
    /// or 1 where nobody may see it.
    image: [u64; 4],
}

#[must_use]
pub fn instance(pid: u32) -> Option<Instance> {
    stat(pid, |text| {
        let image = [26, 28, 48, 50].map(|field| stat_field(text, field).unwrap_or(0));
        Some(Instance { started: stat_field(text, 22)?, image })
    })
}

/// The kernel notes of a process that it was forked and has not started a program since.
const PF_FORKNOEXEC: u64 = 0x40;

/// Where a process has its program from. `None`: it can't be told, as of one whose parent has ended.
#[must_use]
pub fn origin(pid: u32) -> Option<Origin> {
    if stat(pid, |text| stat_field(text, 9))? & PF_FORKNOEXEC == 0 {
        return Some(Origin::Own);
    }
    // A fork's code and stack lie where its parent's do; who took it over has them elsewhere.
    let image = |pid| {
        let Instance { image: [code, stack, ..], .. } = instance(pid)?;
        (code > 1 && stack > 1).then_some((code, stack))
    };
    let parent = parent(pid)?;
    (image(pid)? == image(parent)?).then_some(Origin::Of(parent))
}

/// Start of the process in clock ticks since boot.
#[must_use]
pub fn start_time(pid: u32) -> Option<u64> {
    stat(pid, |text| stat_field(text, 22))
}

#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    stat(pid, |text| stat_field(text, 4)).and_then(|parent| parent.try_into().ok())
}

fn stat<T>(pid: u32, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    // At once: its length is not told beforehand, and it is read for each connection.
    let mut buffer = [0; 1024];
    let length = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut buffer).ok()?;
    read(str::from_utf8(buffer.get(..length)?).ok()?)
}

/// A number among the fields of `/proc/PID/stat`, which are counted from 1.
fn stat_field(stat: &str, field: usize) -> Option<u64> {
    // The name, field 2, may hold anything, parentheses included.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(field.checked_sub(3)?)?.parse().ok()
}

#[must_use]
pub fn executable(pid: u32) -> Option<PathBuf> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(before_removal(&path).unwrap_or(path))
}

/// Of one that was removed, where it was: there may be another one by now.
#[must_use]
pub fn working_directory(pid: u32) -> Option<PathBuf> {
    let dir = fs::read_link(format!("/proc/{pid}/cwd")).ok().filter(|dir| dir.is_absolute())?;
    let before = before_removal(&dir).filter(|_| {
        // A directory may have such a name itself.
        dir.symlink_metadata().is_err_and(|e| e.kind() == ErrorKind::NotFound)
    });
    Some(before.unwrap_or(dir))
}

/// The kernel says so of what was removed.
fn before_removal(path: &Path) -> Option<PathBuf> {
    let before = path.as_os_str().as_bytes().strip_suffix(b" (deleted)")?;
    Some(PathBuf::from(OsStr::from_bytes(before)))
}

/// The command line, as far as it matters.
#[must_use]
pub fn arguments(pid: u32) -> Vec<String> {
    let block = read_block(&format!("/proc/{pid}/cmdline"));
    let arguments = block.strip_suffix(b"\0").unwrap_or(&block).split(|b| *b == 0);
    arguments.take(MAX_ARGUMENTS).map(|a| String::from_utf8_lossy(a).into_owned()).collect()
}

/// Variables of the environment that the process was started with.
#[must_use]
pub fn variables(pid: u32, names: &[&str]) -> Vec<Option<String>> {
    let block = read_block(&format!("/proc/{pid}/environ"));
    let value = |name: &&str| {
        block.split(|b| *b == 0).find_map(|entry| {
            let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    };
    names.iter().map(value).collect()
}

fn read_block(path: &str) -> Vec<u8> {
    fs::read(path).ok().filter(|b| b.len() <= MAX_BLOCK).unwrap_or_default()
}

/// Notes all sockets of a process.
fn note_sockets(pid: u32, seen: &mut HashMap<u64, Holder>) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(dir) = open(format!("/proc/{pid}/fd"), flags, Mode::empty()) else { return };
    let mut names = [MaybeUninit::uninit(); 8 * 1024];
    let mut entries = RawDir::new(&dir, &mut names);
    let mut target = [MaybeUninit::uninit(); 64];
    while let Some(Ok(entry)) = entries.next() {
        // `.` and `..` are no numbers.
        let name = entry.file_name();
        let Some(descriptor) = name.to_str().ok().and_then(|n| n.parse().ok()) else { continue };
        if let Ok((target, _)) = readlinkat_raw(&dir, name, &mut target)
            && let Some(inode) = inode_of_link(target)
        {
            seen.insert(inode, (pid, descriptor));
        }
    }
}

/// `socket:[4242]`
fn inode_of_link(target: &[u8]) -> Option<u64> {
    let inode = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    str::from_utf8(inode).ok()?.parse().ok()
}

/// The slow way, where the kernel does not answer the question directly: milliseconds when there
/// are thousands of sockets, those that only wait for their end included.
fn table_inode(client: SocketAddr, local: SocketAddr) -> Option<u64> {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| inode_of_line(line, client, local))
    })
}

fn inode_of_line(line: &str, client: SocketAddr, local: SocketAddr) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let same = |field: Option<&str>, want| field.and_then(table_address) == Some(plain(want));
    if !same(fields.next(), client) || !same(fields.next(), local) {
        return None;
    }
    fields.nth(6)?.parse().ok().filter(|inode| *inode != 0)
}

/// `0100007F:1F91`: words in the machine's byte order.
fn table_address(field: &str) -> Option<SocketAddr> {
    let (address, port) = field.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(at..at + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match address.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let mut bytes = [0; 16];
            for (i, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(i * 8)?);
            }
            IpAddr::from(bytes)
        }
        _ => return None,
    };
    Some(plain(SocketAddr::new(ip, port)))
}

/// Without IPv4-mapped IPv6 addresses and scopes.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Each reader on bytes of anybody's, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_foreign(data: &[u8], text: &str) {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    for line in text.lines() {
        let _ = inode_of_line(line, at(8081), at(50_000));
        for field in line.split(' ') {
            if let Some(address) = table_address(field) {
                assert!(field.ends_with(&format!(":{:04X}", address.port())) || field.len() > 8);
            }
        }
    }
    for field in 3..8 {
        let _ = stat_field(text, field);
    }
    let _ = inode_of_link(data);
    let _ = diag::parse(data);
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn both_ways_find_the_same_inode() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let local = listener.local_addr().unwrap();
            let client = TcpStream::connect(local).unwrap();
            let from = client.local_addr().unwrap();
            let slow = table_inode(from, local).unwrap();
            let fast = diag::inode(from, local);
            let own = rustix::process::geteuid().as_raw();
            assert!(uid(from, local).is_none_or(|uid| uid == own));
            assert!([diag::Answer::Inode(slow), diag::Answer::Unavailable].contains(&fast));
            let holder = (std::process::id(), client.as_raw_fd());
            for recent in [&[][..], &[(1, 0), holder], &[(1, 0), (holder.0, 0)]] {
                let sockets = Sockets::default();
                assert_eq!(sockets.holder(from, local, recent), Some(holder));
                // What was seen is found again, and what is no more is not believed.
                assert_eq!(sockets.holder(from, local, &[]), Some(holder));
                sockets.seen.lock().unwrap().values_mut().for_each(|seen| *seen = (1, 0));
                assert_eq!(sockets.holder(from, local, &[]), Some(holder));
            }
            drop(client);
            assert_eq!(Sockets::default().holder(from, local, &[holder]), None);
            if fast != diag::Answer::Unavailable {
                assert_eq!(diag::inode(from, local), diag::Answer::Gone, "and no table is read");
            }
        }
    }

    #[test]
    fn the_next_socket_of_a_process_is_found_without_a_search() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let clients = [(); 4].map(|()| TcpStream::connect(local).unwrap());
        let pid = std::process::id();
        for (last, next) in [(&clients[0], &clients[3]), (&clients[3], &clients[0])] {
            let sockets = Sockets::default();
            let recent = [(1, 0), (pid, last.as_raw_fd())];
            let found = sockets.holder(next.local_addr().unwrap(), local, &recent);
            assert_eq!(found, Some((pid, next.as_raw_fd())));
            assert!(sockets.seen.lock().unwrap().is_empty(), "nothing was searched");
        }
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_is_found() {
        let Ok(listener) = TcpListener::bind("[::]:0") else { return };
        let port = listener.local_addr().unwrap().port();
        let Ok(client) = TcpStream::connect(("127.0.0.1", port)) else { return };
        let (server, peer) = listener.accept().unwrap();
        assert!(peer.ip().is_ipv6(), "mapped");
        assert!(Sockets::default().holder(peer, server.local_addr().unwrap(), &[]).is_some());
        drop(client);
    }

    #[test]
    fn table_lines() {
        let line = "   1: 0100007F:1F91 0100007F:C350 01 00000000:00000000 00:00000000 00000000 \
                     1000        0 4242 1 0000000000000000 20 4 30 10 -1";
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        if cfg!(target_endian = "little") {
            assert_eq!(inode_of_line(line, at(0x1f91), at(50_000)), Some(4242));
            assert_eq!(inode_of_line(line, at(50_000), at(0x1f91)), None);
        }
        for bad in ["", "0:", "a b c", "1: 0100007F 0100007F:1 01"] {
            assert_eq!(inode_of_line(bad, at(1), at(2)), None);
        }
    }

    #[test]
    fn a_removed_directory_has_the_name_that_it_had() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        for (name, removed) in [("job", true), ("job (deleted)", true), ("job (deleted)", false)] {
            let dir = root.join(name);
            fs::create_dir(&dir).unwrap();
            let mut sleep = std::process::Command::new("sleep");
            let mut child = sleep.arg("60").current_dir(&dir).spawn().unwrap();
            if removed {
                fs::remove_dir(&dir).unwrap();
            }
            let seen = working_directory(child.id());
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(seen, Some(dir), "{removed}");
        }
    }

    #[test]
    fn facts_of_a_process() {
        let pid = std::process::id();
        assert!(start_time(pid).is_some());
        let own = instance(pid).unwrap();
        assert!(own.image.iter().all(|at| *at > 1), "{own:?}");
        assert_eq!(instance(pid), Some(own));
        assert_eq!(executable(pid), std::env::current_exe().ok());
        assert_eq!(working_directory(pid), std::env::current_dir().ok());
        assert!(!arguments(pid).is_empty());
        assert_eq!(variables(pid, &["PAT", "PATH"]), [None, std::env::var("PATH").ok()]);
        assert_eq!(parent(pid), Some(std::os::unix::process::parent_id()));
    }
}
