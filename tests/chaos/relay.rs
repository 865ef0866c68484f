//! The way to the provider, which can be made to fail. A relay in front of the test origin, so that
//! what is under way fails too.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    Pass,
    /// The port is closed; what is open goes on.
    Refuse,
    /// Nothing moves.
    Stall,
    Reset,
    /// Ends in the middle, as if complete: a FIN.
    Truncate,
    /// Leads to the impostor of an origin.
    Foreign,
}

#[derive(Debug)]
pub struct Relay {
    pub addr: SocketAddr,
    mode: watch::Sender<Mode>,
}

const CUT_AFTER: [usize; 4] = [0, 700, 2_500, 6_000];
const REBIND: Duration = Duration::from_millis(5);
const GOODBYE: Duration = Duration::from_secs(1);

impl Relay {
    /// Call within a runtime.
    pub fn start(addr: SocketAddr, origin: SocketAddr, foreign: SocketAddr) -> Self {
        let (mode, modes) = watch::channel(Mode::Pass);
        tokio::spawn(serve(addr, origin, foreign, modes));
        Self { addr, mode }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn serve(
    addr: SocketAddr,
    origin: SocketAddr,
    foreign: SocketAddr,
    mut mode: watch::Receiver<Mode>,
) {
    let mut count = 0;
    let modes = mode.clone();
    loop {
        let Ok(listener) = TcpListener::bind(addr).await else {
            sleep(REBIND).await;
            continue;
        };
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((client, _)) = accepted {
                    count += 1;
                    tokio::spawn(connection(client, count, origin, foreign, modes.clone()));
                },
                // The sender is gone: so is the storm.
                refuse = until(&mut mode, |m| m == Mode::Refuse) => match refuse {
                    Some(_) => break,
                    None => return,
                },
            }
        }
        drop(listener);
        if until(&mut mode, |m| m != Mode::Refuse).await.is_none() {
            return;
        }
    }
}

/// `None`: the storm is over.
async fn until(mode: &mut watch::Receiver<Mode>, is: impl Fn(Mode) -> bool) -> Option<Mode> {
    mode.wait_for(|m| is(*m)).await.ok().map(|m| *m)
}

async fn connection(
    mut client: TcpStream,
    count: usize,
    origin: SocketAddr,
    foreign: SocketAddr,
    mut mode: watch::Receiver<Mode>,
) {
    let _ = client.set_nodelay(true);
    let Some(now) = until(&mut mode, |m| m != Mode::Stall).await else { return };
    if now == Mode::Reset {
        let _ = client.set_zero_linger();
        return;
    }
    let target = if now == Mode::Foreign { foreign } else { origin };
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let _ = server.set_nodelay(true);
    let limit = (now == Mode::Truncate).then(|| CUT_AFTER[count % CUT_AFTER.len()]);
    let (mut ending, up, down) = (mode.clone(), mode.clone(), mode);
    let end = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let both = async {
            tokio::try_join!(
                pump(&mut from_client, &mut to_server, up, None),
                pump(&mut from_server, &mut to_client, down, limit),
            )
        };
        tokio::select! {
            moved = both => match moved {
                Ok(_) => End::Over,
                Err(e) if e.kind() == io::ErrorKind::WriteZero => End::Cut,
                Err(_) => End::Broken,
            },
            mode = until(&mut ending, |m| matches!(m, Mode::Reset | Mode::Truncate)), if limit.is_none() => {
                if mode == Some(Mode::Truncate) { End::Cut } else { End::Broken }
            }
        }
    };
    match end {
        End::Over => {}
        End::Broken => {
            let _ = client.set_zero_linger();
            let _ = server.set_zero_linger();
        }
        End::Cut => {
            let _ = client.shutdown().await;
            let _ = server.shutdown().await;
            // To close with unread bytes would be a reset.
            let mut sink = vec![0; 64 * 1024];
            let drain = async { while let Ok(1..) = client.read(&mut sink).await {} };
            let _ = timeout(GOODBYE, drain).await;
        }
    }
}

enum End {
    Over,
    Broken,
    Cut,
}

/// `WriteZero`: the limit, which holds for as long as the provider truncates, is reached.
async fn pump(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    mut mode: watch::Receiver<Mode>,
    mut limit: Option<usize>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if until(&mut mode, |m| m != Mode::Stall).await.is_none() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if read == 0 {
            return to.shutdown().await;
        }
        if *mode.borrow() != Mode::Truncate {
            limit = None;
        }
        let take = limit.map_or(read, |l| l.min(read));
        to.write_all(&buffer[..take]).await?;
        if let Some(left) = &mut limit {
            *left -= take;
            if *left == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
    }
}
