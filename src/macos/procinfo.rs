//! Reads what libproc and `sysctl` return. Pure: bytes in, facts out, `None` for what is too short.
//! The layouts are those of `sys/proc_info.h`, held to it by `tools/macos/layout.c`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `sizeof(struct socket_fdinfo)`.
pub const SOCKET: usize = 792;
/// `sizeof(struct proc_bsdinfo)`.
pub const FACTS: usize = 136;
/// `sizeof(struct proc_vnodepathinfo)`.
pub const DIRECTORIES: usize = 2352;

const PROX_FDTYPE_SOCKET: u32 = 2;
const SOCKINFO_TCP: u32 = 2;
const INI_IPV4: u8 = 1;
/// In `socket_fdinfo`.
const KIND_AT: usize = 256;
const FOREIGN_PORT_AT: usize = 264;
const LOCAL_PORT_AT: usize = 268;
const VERSION_AT: usize = 288;
const FOREIGN_AT: usize = 296;
const LOCAL_AT: usize = 312;
/// In `proc_bsdinfo`.
const FLAGS_AT: usize = 0;
const PROC_FLAG_EXEC: u32 = 0x4000;
const PARENT_AT: usize = 16;
const STARTED_AT: usize = 120;
const STARTED_MICROS_AT: usize = 128;
/// In `proc_vnodepathinfo`: `pvi_cdir.vip_path`.
const CWD_AT: usize = 152;
const CWD_LENGTH: usize = 1024;

/// What a program was given.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StartedWith<'a> {
    pub arguments: Vec<&'a [u8]>,
    pub environment: Vec<&'a [u8]>,
}

/// Both ends of a TCP socket.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Ends {
    pub local: SocketAddr,
    pub foreign: SocketAddr,
}

#[must_use]
pub fn pids(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).filter_map(|pid| word(pid, 0)).filter(|pid| *pid != 0).collect()
}

/// The sockets among `proc_fdinfo`s.
pub fn sockets(bytes: &[u8]) -> impl Iterator<Item = i32> {
    bytes.chunks_exact(8).filter_map(|entry| {
        let (fd, kind) = (word(entry, 0)?, word(entry, 4)?);
        (kind == PROX_FDTYPE_SOCKET).then(|| i32::try_from(fd).ok())?
    })
}

/// `None`: it is no TCP socket.
#[must_use]
pub fn ends(socket: &[u8]) -> Option<Ends> {
    if word(socket, KIND_AT)? != SOCKINFO_TCP {
        return None;
    }
    let v4 = *socket.get(VERSION_AT)? & INI_IPV4 != 0;
    let end = |address: usize, port: usize| {
        // An IPv4 address is at the end of the room for an IPv6 one. Ports are as on the wire.
        let octets: [u8; 16] = array(socket, address)?;
        let v4_octets: [u8; 4] = array(socket, address + 12)?;
        let v6 = Ipv6Addr::from(octets).to_canonical();
        let ip = if v4 { IpAddr::V4(Ipv4Addr::from(v4_octets)) } else { v6 };
        Some(SocketAddr::new(ip, u16::from_be_bytes(array(socket, port)?)))
    };
    Some(Ends { local: end(LOCAL_AT, LOCAL_PORT_AT)?, foreign: end(FOREIGN_AT, FOREIGN_PORT_AT)? })
}

/// Microseconds since 1970: tells a process from a later one with the same pid.
#[must_use]
pub fn started(facts: &[u8]) -> Option<u64> {
    let seconds = u64::from_ne_bytes(array(facts, STARTED_AT)?);
    let micros = u64::from_ne_bytes(array(facts, STARTED_MICROS_AT)?);
    Some(seconds.saturating_mul(1_000_000).saturating_add(micros))
}

/// Since it was forked.
#[must_use]
pub fn has_started_a_program(facts: &[u8]) -> Option<bool> {
    word(facts, FLAGS_AT).map(|flags| flags & PROC_FLAG_EXEC != 0)
}

#[must_use]
pub fn parent(facts: &[u8]) -> Option<u32> {
    word(facts, PARENT_AT)
}

#[must_use]
pub fn working_directory(directories: &[u8]) -> Option<&[u8]> {
    let path = directories.get(CWD_AT..CWD_AT + CWD_LENGTH)?;
    let path = path.split(|b| *b == 0).next()?;
    path.starts_with(b"/").then_some(path)
}

/// Of `KERN_PROCARGS2`: a count, the program's path, zeros, the arguments, the environment.
#[must_use]
pub fn started_with(block: &[u8]) -> Option<StartedWith<'_>> {
    let count = usize::try_from(word(block, 0)?).ok()?;
    let rest = block.get(4..)?;
    let path = rest.iter().position(|b| *b == 0)?;
    let rest = rest.get(path..)?;
    let first = rest.iter().position(|b| *b != 0).unwrap_or(rest.len());
    let mut words = rest.get(first..)?.split(|b| *b == 0);
    let arguments = words.by_ref().take(count).collect();
    // What follows the environment is the kernel's own, behind an empty word.
    let environment = words.take_while(|word| !word.is_empty()).collect();
    Some(StartedWith { arguments, environment })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_ne_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
        bytes[at..at + what.len()].copy_from_slice(what);
    }

    fn socket(version: u8) -> Vec<u8> {
        let mut bytes = vec![0; SOCKET];
        put(&mut bytes, KIND_AT, &SOCKINFO_TCP.to_ne_bytes());
        put(&mut bytes, LOCAL_PORT_AT, &50_000_u16.to_be_bytes());
        put(&mut bytes, FOREIGN_PORT_AT, &8081_u16.to_be_bytes());
        bytes[VERSION_AT] = version;
        bytes
    }

    #[test]
    fn both_ends_of_a_socket() {
        let mut v4 = socket(INI_IPV4);
        put(&mut v4, LOCAL_AT + 12, &[127, 0, 0, 1]);
        put(&mut v4, FOREIGN_AT + 12, &[127, 0, 0, 2]);
        let expected =
            Ends { local: ([127, 0, 0, 1], 50_000).into(), foreign: ([127, 0, 0, 2], 8081).into() };
        assert_eq!(ends(&v4), Some(expected));
        // An IPv4 client on an IPv6 socket.
        let mut mapped = socket(2);
        put(&mut mapped, LOCAL_AT, &Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
        put(&mut mapped, FOREIGN_AT, &Ipv4Addr::new(127, 0, 0, 2).to_ipv6_mapped().octets());
        assert_eq!(ends(&mapped), Some(expected));
        let mut v6 = socket(2);
        put(&mut v6, LOCAL_AT, &Ipv6Addr::LOCALHOST.octets());
        assert_eq!(ends(&v6).unwrap().local, (Ipv6Addr::LOCALHOST, 50_000).into());
        let mut unix = v4.clone();
        put(&mut unix, KIND_AT, &3_u32.to_ne_bytes());
        assert_eq!(ends(&unix), None);
        for length in 0..LOCAL_AT + 16 {
            assert_eq!(ends(&v4[..length]), None, "{length}");
        }
    }

    #[test]
    fn lists_and_facts() {
        let numbers = |n: &[u32]| n.iter().flat_map(|n| n.to_ne_bytes()).collect::<Vec<_>>();
        assert_eq!(pids(&numbers(&[1, 0, 501])), [1, 501]);
        assert_eq!(sockets(&numbers(&[0, 1, 7, 2, 8, 5, 9, 2])).collect::<Vec<_>>(), [7, 9]);
        let mut facts = vec![0; FACTS];
        put(&mut facts, PARENT_AT, &501_u32.to_ne_bytes());
        assert_eq!((parent(&facts), parent(&[])), (Some(501), None));
        assert_eq!(has_started_a_program(&facts), Some(false));
        facts[..4].copy_from_slice(&0x4010_u32.to_ne_bytes());
        assert_eq!((has_started_a_program(&facts), has_started_a_program(&[])), (Some(true), None));
        put(&mut facts, STARTED_AT, &3_u64.to_ne_bytes());
        put(&mut facts, STARTED_MICROS_AT, &7_u64.to_ne_bytes());
        assert_eq!((started(&facts), started(&facts[..130])), (Some(3_000_007), None));
        let mut directories = vec![0; DIRECTORIES];
        assert_eq!(working_directory(&directories), None);
        put(&mut directories, CWD_AT, b"/Users/j doe/work\0/rest");
        assert_eq!(working_directory(&directories), Some(&b"/Users/j doe/work"[..]));
    }

    #[test]
    fn arguments_and_variables() {
        let mut block = 2_u32.to_ne_bytes().to_vec();
        block.extend(b"/bin/x\0\0\0\0x\0\0A=1\0HALTON_PROJECT=p q\0\0stack_guard=\0\0");
        let StartedWith { arguments, environment } = started_with(&block).unwrap();
        assert_eq!(arguments, [&b"x"[..], b""]);
        assert_eq!(environment, [&b"A=1"[..], b"HALTON_PROJECT=p q"]);
        for length in 0..block.len() {
            // Whatever it is, it is no panic.
            let _ = started_with(&block[..length]);
        }
        assert_eq!(started_with(b"\0\0\0\0/bin/x"), None);
    }
}
