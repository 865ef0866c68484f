//! News of the network: the kernel's routing socket, which says when interfaces and addresses come and
//! go. Reading it takes no privilege.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, recv};

/// In `rt_msghdr`: length (2), version, type.
const TYPE_AT: usize = 3;
/// An address came or went, an interface changed. Routes change all the time and mean nothing here.
const RTM_NEWADDR: u8 = 0xc;
const RTM_DELADDR: u8 = 0xd;
const RTM_IFINFO: u8 = 0xe;

/// Open as long as it lives.
#[derive(Debug)]
pub struct News(OwnedFd);

impl News {
    /// # Errors
    /// When there is no such socket here.
    #[cfg(target_os = "macos")]
    pub fn open() -> io::Result<Self> {
        use rustix::net::{AddressFamily, SocketType, socket};
        let socket = socket(AddressFamily::ROUTE, SocketType::RAW, None)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Self(socket))
    }

    /// # Errors
    /// Always.
    #[cfg(not(target_os = "macos"))]
    pub fn open() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Blocks until something changed.
    ///
    /// # Errors
    /// When the socket does not work any more.
    pub fn wait(&self) -> io::Result<()> {
        let mut message = [0; 2048];
        loop {
            match recv(&self.0, &mut message[..], RecvFlags::empty()) {
                Ok((_, length)) if is_change(message.get(..length).unwrap_or_default()) => {
                    return Ok(());
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // More was said than it holds: something has changed.
                Err(rustix::io::Errno::NOBUFS) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

pub(crate) fn is_change(message: &[u8]) -> bool {
    message.get(TYPE_AT).is_some_and(|kind| [RTM_NEWADDR, RTM_DELADDR, RTM_IFINFO].contains(kind))
}

#[cfg(test)]
mod tests {
    use super::is_change;

    #[test]
    fn addresses_and_interfaces_are_news_and_routes_are_not() {
        for kind in [0xc, 0xd, 0xe] {
            assert!(is_change(&[4, 0, 5, kind]));
        }
        for kind in [1, 2, 3, 4, 7] {
            assert!(!is_change(&[4, 0, 5, kind]));
        }
        assert!(!is_change(&[4, 0, 5]));
    }
}
