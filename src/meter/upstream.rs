//! The connection to the provider: dialled and shaken hands with before the client's first byte is
//! consumed, so that whatever goes wrong here can still become a raw tunnel.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::hello::Hello;
use super::trust::{Trust, noting_certificate_request};
use crate::config;
use crate::dial::{DialError, dial};
use crate::handover::Decline;
use crate::platform;
use crate::threads;

/// A handshake's deadline is waited for in so many steps.
const STEPS: u32 = 10;
/// So much longer than its deadline, and we were not awake all the time.
const SLEPT: Duration = Duration::from_secs(1);

/// An established connection to a provider that passed our check.
#[derive(Debug)]
pub struct Upstream {
    /// Boxed: it stays where it is when the future that holds it changes hands.
    pub tls: Box<TlsStream<TcpStream>>,
    /// What the provider chose of the client's list.
    pub alpn: Option<Vec<u8>>,
}

/// Where to connect to, and how long each step may take.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub host: &'a str,
    pub port: u16,
    pub dial_deadline: Duration,
    pub tls_deadline: Duration,
}

/// Why the connection is left to the edge.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("not a host name that can be verified")]
    BadName,
    #[error("nothing can be verified: no trust roots")]
    NoTrust,
    #[error("handshake with the provider failed: {0}")]
    Tls(#[source] io::Error),
    #[error("the provider did not finish its handshake in time")]
    TlsTimeout,
    /// Says nothing of the provider.
    #[error("the handshake with the provider was slept through")]
    SleptThrough,
    #[error("the provider asks for a client certificate")]
    ClientCertificate,
    #[error("the handshake was given up")]
    GivenUp,
}

impl UpstreamError {
    /// Whether the provider answered, with what only the client can deal with.
    #[must_use]
    pub fn is_the_providers(&self) -> bool {
        match self {
            Self::ClientCertificate => true,
            Self::Tls(e) => e.get_ref().is_some_and(|e| e.is::<rustls::Error>()),
            Self::Dial(_)
            | Self::BadName
            | Self::NoTrust
            | Self::TlsTimeout
            | Self::SleptThrough
            | Self::GivenUp => false,
        }
    }

    #[must_use]
    pub fn decline(&self) -> Decline {
        match self {
            Self::Dial(_) => Decline::DialFailed,
            Self::BadName => Decline::NotTls,
            Self::NoTrust | Self::GivenUp => Decline::Internal,
            Self::Tls(_) => Decline::UpstreamTls,
            Self::TlsTimeout | Self::SleptThrough => Decline::UpstreamSlow,
            Self::ClientCertificate => Decline::ClientCertificate,
        }
    }
}

/// Connects and verifies, offering what the client's own hello offers.
///
/// # Errors
/// In every case in which the client should talk to the provider itself.
pub async fn connect(
    trust: &Trust,
    config: &config::Upstream,
    target: Target<'_>,
    hello: &Hello,
) -> Result<Upstream, UpstreamError> {
    let terms = Terms::new(trust, target.host, hello)?;
    let tcp = dial(config, target.host, target.port, target.dial_deadline).await?;
    let (result, asked) = terms.shake_hands(tcp, target.tls_deadline).await?;
    // Asked and refused, or asked and let through without one: in both cases a client that has a
    // certificate must be able to show it.
    if asked {
        return Err(UpstreamError::ClientCertificate);
    }
    let tls = result.map_err(UpstreamError::Tls)?;
    let alpn = tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    Ok(Upstream { tls: Box::new(tls), alpn })
}

/// The same over a connection that is there, for a client that has left TLS to its proxy: it has no
/// certificate to show, whatever it is asked.
///
/// # Errors
/// When the server is not what it was asked for, or is none.
pub async fn secure(
    trust: &Trust,
    tcp: TcpStream,
    host: &str,
    hello: &Hello,
    deadline: Duration,
) -> Result<Box<TlsStream<TcpStream>>, UpstreamError> {
    let terms = Terms::new(trust, host, hello)?;
    let (result, _) = terms.shake_hands(tcp, deadline).await?;
    result.map(Box::new).map_err(UpstreamError::Tls)
}

/// What goes into a handshake, before anybody is called.
struct Terms {
    name: ServerName<'static>,
    client: Arc<ClientConfig>,
}

impl Terms {
    fn new(trust: &Trust, host: &str, hello: &Hello) -> Result<Self, UpstreamError> {
        let name = hello.sni.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| UpstreamError::BadName)?;
        let client = trust.client_config(hello).ok_or(UpstreamError::NoTrust)?;
        Ok(Self { name, client })
    }

    /// What came of it, and whether a certificate was asked for.
    async fn shake_hands(
        self,
        tcp: TcpStream,
        deadline: Duration,
    ) -> Result<(io::Result<TlsStream<TcpStream>>, bool), UpstreamError> {
        // Boxed: what waits for it would hold it twice.
        let handshake = Box::pin(noting(TlsConnector::from(self.client).connect(self.name, tcp)));
        let began = (Instant::now(), SystemTime::now());
        let handshake = awake(deadline, handshake);
        let done = if platform::is_macos() { elsewhere(handshake).await? } else { handshake.await };
        done.ok_or_else(|| {
            if slept(deadline, began.0.elapsed(), began.1.elapsed().ok()) {
                UpstreamError::SleptThrough
            } else {
                UpstreamError::TlsTimeout
            }
        })
    }
}

/// Waits in steps: one that the machine, or we, slept through is not counted longer than another, so
/// that who wakes up hears first what has come meanwhile. `None`: the time is over.
async fn awake<T>(deadline: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    for _ in 0..STEPS {
        if let Ok(done) = timeout(deadline / STEPS, &mut work).await {
            return Some(done);
        }
    }
    None
}

/// Whether more time went by than was waited, by the monotonic clock, which stands still in sleep, or by
/// the wall clock, which does not (`None`: it was set back).
fn slept(deadline: Duration, steady: Duration, wall: Option<Duration>) -> bool {
    let most = deadline + SLEPT;
    steady > most || wall.is_none_or(|wall| wall > most)
}

/// Runs what may block on a thread of its own: the streams of this one go on meanwhile. macOS asks a
/// service about each certificate, which may ask the network.
async fn elsewhere<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, UpstreamError> {
    let runtime = Handle::current();
    let done = threads::blocking(move || runtime.block_on(work)).await;
    done.map_err(|_| UpstreamError::GivenUp)
}

/// Drives a handshake and says whether the server asked for a client certificate in it.
async fn noting<T>(handshake: impl Future<Output = T>) -> (T, bool) {
    let mut handshake = pin!(handshake);
    let mut asked = false;
    std::future::poll_fn(|cx| {
        let (poll, now) = noting_certificate_request(|| handshake.as_mut().poll(cx));
        asked |= now;
        match poll {
            Poll::Ready(result) => Poll::Ready((result, asked)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::runtime::{Builder, LocalOptions};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_slept_through_is_waited_for_once_more() {
        const DEADLINE: Duration = Duration::from_secs(3);
        let (say, said) = tokio::sync::oneshot::channel();
        let sleeper = async {
            tokio::time::advance(Duration::from_secs(5)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            say.send("hello").unwrap();
        };
        let (heard, ()) = tokio::join!(awake(DEADLINE, said), sleeper);
        assert_eq!(heard, Some(Ok("hello")));
        let began = tokio::time::Instant::now();
        assert_eq!(awake(DEADLINE, std::future::pending::<()>()).await, None);
        assert_eq!(began.elapsed(), DEADLINE);
    }

    #[test]
    fn a_deadline_that_was_slept_through_is_told_by_either_clock() {
        let seconds = Duration::from_secs;
        let slept = |steady, wall| slept(seconds(3), seconds(steady), wall);
        assert!(!slept(3, Some(seconds(3))) && !slept(4, Some(seconds(4))));
        assert!(slept(6, Some(seconds(6))), "stopped");
        assert!(slept(3, Some(seconds(3600))), "asleep");
        assert!(slept(3, None), "set back");
    }

    /// The edge's runtime is a local one.
    #[test]
    fn what_blocks_elsewhere_holds_up_nobody_here() {
        let mut builder = Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(judge_elsewhere());
        let local = builder.build_local(LocalOptions::default()).unwrap();
        local.block_on(judge_elsewhere());
    }

    async fn judge_elsewhere() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut near, _) = listener.accept().await.unwrap();
        let (go, wait) = mpsc::channel();
        let judging = elsewhere(async move {
            let mut far = far;
            wait.recv().unwrap();
            // Its sockets are still served by this thread.
            far.write_all(b"x").await.unwrap();
            far.read_u8().await.unwrap()
        });
        let here = async {
            go.send(()).unwrap();
            let heard = near.read_u8().await.unwrap();
            near.write_all(&[heard]).await.unwrap();
        };
        let (judged, ()) = tokio::join!(judging, here);
        assert_eq!(judged.unwrap(), b'x');
    }
}
