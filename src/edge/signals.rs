//! What the edge is told from outside.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;

use rustix::net::RecvFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    End,
    Reload,
    /// Take over a new program in place.
    Upgrade,
}

/// Signals as bytes on sockets: no thread, and nothing happens in the handler but a write.
#[derive(Debug)]
pub struct Signals {
    end: UnixStream,
    reload: UnixStream,
    upgrade: UnixStream,
}

impl Signals {
    pub fn new() -> io::Result<Self> {
        let listen = |signals: &[i32]| {
            let (read, write) = StdUnixStream::pair()?;
            for signal in signals {
                signal_hook::low_level::pipe::register(*signal, write.try_clone()?)?;
            }
            read.set_nonblocking(true)?;
            UnixStream::from_std(read)
        };
        Ok(Self {
            end: listen(&[SIGTERM, SIGINT])?,
            reload: listen(&[SIGHUP])?,
            upgrade: listen(&[SIGUSR2])?,
        })
    }

    /// Whether [`Signals::next`] would say so, without taking it.
    pub fn is_end_pending(&self) -> bool {
        rustix::net::recv(&self.end, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT)
            .is_ok_and(|(seen, _)| seen > 0)
    }

    pub async fn next(&mut self) -> Signal {
        let (mut a, mut b, mut c) = ([0; 16], [0; 16], [0; 16]);
        tokio::select! {
            biased;
            _ = self.end.read(&mut a) => Signal::End,
            _ = self.reload.read(&mut b) => Signal::Reload,
            _ = self.upgrade.read(&mut c) => Signal::Upgrade,
        }
    }
}
