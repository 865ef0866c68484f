//! One exact question to the kernel: some 4 µs, however many sockets there are.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// In `inet_diag_msg`: 4 bytes, the socket's id (48), expires, two queues, uid, inode.
const UID_AT: usize = HEADER + 64;
const INODE_AT: usize = HEADER + 68;
/// The kernel has the same error for a socket that is not there and for a question that it
/// can't answer; if it ever answered, it is the former.
static ANSWERS: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    Inode(u64),
    /// Closed by now: no process holds it.
    Gone,
    Unavailable,
}

pub(super) fn inode(client: SocketAddr, local: SocketAddr) -> Answer {
    match ask(client, local) {
        Some((_, inode)) => {
            ANSWERS.store(true, Ordering::Relaxed);
            if inode == 0 { Answer::Gone } else { Answer::Inode(inode) }
        }
        None if ANSWERS.load(Ordering::Relaxed) => Answer::Gone,
        None => Answer::Unavailable,
    }
}

pub(super) fn uid(client: SocketAddr, local: SocketAddr) -> Option<u32> {
    ask(client, local).map(|(uid, _)| uid)
}

/// The user and the inode; 0: nobody's any more.
fn ask(client: SocketAddr, local: SocketAddr) -> Option<(u32, u64)> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(SOCK_DIAG),
    )
    .ok()?;
    let request = request(plain(client), plain(local));
    sendto(&socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).ok()?;
    let mut answer = [0; 512];
    // The kernel has answered when the send returns.
    let (_, length) = recv(&socket, &mut answer[..], RecvFlags::DONTWAIT).ok()?;
    parse(answer.get(..length)?)
}

fn request(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let family = if client.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut out = Vec::with_capacity(REQUEST);
    out.extend((REQUEST as u32).to_ne_bytes());
    out.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend(NLM_F_REQUEST.to_ne_bytes());
    out.extend([0; 8]); // sequence, port
    out.extend([family, TCP, 0, 0]);
    out.extend(u32::MAX.to_ne_bytes()); // any state
    out.extend(client.port().to_be_bytes());
    out.extend(local.port().to_be_bytes());
    out.extend(octets(client.ip()));
    out.extend(octets(local.ip()));
    out.extend([0; 4]); // any interface
    out.extend([0xff; 8]); // no cookie
    out
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => {
            let mut out = Ipv6Addr::UNSPECIFIED.octets();
            if let Some(head) = out.first_chunk_mut::<4>() {
                *head = v4.octets();
            }
            out
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

pub(super) fn parse(answer: &[u8]) -> Option<(u32, u64)> {
    let kind = answer.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes)?;
    if kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let word = |at: usize| answer.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    Some((word(UID_AT)?, word(INODE_AT)?.into()))
}
