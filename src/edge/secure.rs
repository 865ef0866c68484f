//! A request for an `https://` address in absolute form: the edge sends it on over TLS itself.
//!
//! axios before 1.17 asks every proxy so, as if it were for `http://`. Nothing is decrypted here that
//! came encrypted: the client has left TLS to its proxy. The edge's only module with TLS (ADR 0026),
//! of which nothing is loaded before the first such request.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;

use super::answer::refuse;
use super::connect::Target;
use super::extent::{Extent, Within};
use super::live::Passed;
use super::serve::Shared;
use super::tunnel::Summary;
use crate::dial::{LOOK, is_break, is_gone, watch_half_closed};
use crate::meter::hello::Hello;
use crate::meter::plain::Plain;
use crate::meter::pump::Peer;
use crate::meter::trust::Trust;
use crate::meter::upstream::{UpstreamError, secure};
use crate::threads;

/// For the server's handshake; as long as the daemon gives it.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// How long a client may be silent after its answer.
const LINGER: Duration = Duration::from_secs(1);
/// One read.
const CHUNK: usize = 16 * 1024;

/// Whom such servers are believed by; empty until one is asked for.
#[derive(Debug, Default)]
pub struct Secure(RefCell<Option<Loaded>>);

#[derive(Debug)]
struct Loaded {
    /// `upstream.extra_ca_file` at that time.
    extra: Option<PathBuf>,
    trust: Arc<Trust>,
}

/// A request and where it goes.
#[derive(Debug)]
pub struct Exchange<'a> {
    pub client: TcpStream,
    pub server: TcpStream,
    pub target: &'a Target,
    pub head: &'a [u8],
    /// Another process may hold a copy of the client's descriptor, so closing ours ends nothing.
    pub offered: bool,
}

impl Secure {
    /// Kept from an earlier request, or read now.
    pub(super) async fn trust(&self, shared: &Shared) -> (Arc<Trust>, Roots) {
        let extra = shared.config.load().upstream.extra_ca_file.clone();
        if let Some(loaded) = self.0.borrow().as_ref().filter(|loaded| loaded.extra == extra) {
            return (Arc::clone(&loaded.trust), Roots::Kept);
        }
        let load = {
            let (home, file) = (shared.home.clone(), extra.clone());
            move || Trust::load(&home, file.as_ref())
        };
        // It reads some hundred files: the others must not wait for that. But rather than no answer.
        let trust = match threads::blocking(load.clone()).await {
            Ok(trust) => trust,
            Err(_) => load(),
        };
        let trust = Arc::new(trust);
        // What is missing may be there the next time: without descriptors no file can be read.
        if trust.problem().is_none() {
            self.0.replace(Some(Loaded { extra, trust: Arc::clone(&trust) }));
        }
        (trust, Roots::New)
    }

    /// What was loaded may be older than the certificate that it did not vouch for.
    fn forget(&self) {
        self.0.take();
    }
}

/// Whether they were read before, or just now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Roots {
    Kept,
    New,
}

/// Serves it to its end; `passed` is set for a metered host. `again` is a second connection to the server.
pub async fn serve(
    shared: &Shared,
    exchange: Exchange<'_>,
    again: impl Future<Output = Option<TcpStream>>,
    passed: Option<Passed>,
) {
    let Exchange { client, server, target, head, offered } = exchange;
    let server = match shake_hands(shared, &target.host, server, again).await {
        Ok(tls) => Plain::over(tls).with_gate(head),
        Err(e) => {
            slog::debug!(shared.log, "no TLS with a server"; "host" => &*target.host, "error" => %e);
            let (status, why) = told(&e);
            return refuse(client, status, &why).await;
        }
    };
    shared.counters.raw();
    if let Some(passed) = &passed {
        shared.spool.begin(passed.line(None)).await;
    }
    let summary = pump(client, server, head, offered).await;
    if let Some(passed) = passed {
        super::ended(&shared.counters, &shared.spool, &passed, summary);
    }
}

/// A certificate that roots of before do not vouch for is held against those of now.
async fn shake_hands(
    shared: &Shared,
    host: &str,
    server: TcpStream,
    again: impl Future<Output = Option<TcpStream>>,
) -> Result<Box<TlsStream<TcpStream>>, UpstreamError> {
    let hello = Hello::ours(host);
    let (trust, read) = shared.secure.trust(shared).await;
    let first = secure(&trust, server, host, &hello, HANDSHAKE).await;
    if read == Roots::New || !first.as_ref().is_err_and(is_distrusted) {
        return first;
    }
    shared.secure.forget();
    let (trust, _) = shared.secure.trust(shared).await;
    match again.await {
        Some(server) => secure(&trust, server, host, &hello, HANDSHAKE).await,
        None => first,
    }
}

fn is_distrusted(error: &UpstreamError) -> bool {
    matches!(error, UpstreamError::Tls(e) if of_rustls(e)
        .is_some_and(|e| matches!(e, rustls::Error::InvalidCertificate(_))))
}

fn of_rustls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// The status and the line that the client gets.
fn told(error: &UpstreamError) -> (u16, String) {
    match error {
        UpstreamError::Tls(e) if is_distrusted(error) => (
            502,
            format!(
                "the server's certificate cannot be verified ({e}); roots of your own go into \
                 upstream.extra_ca_file"
            ),
        ),
        UpstreamError::Tls(e) => (502, format!("no TLS with the server: {e}")),
        UpstreamError::TlsTimeout | UpstreamError::SleptThrough => (504, error.to_string()),
        UpstreamError::Dial(_)
        | UpstreamError::BadName
        | UpstreamError::NoTrust
        | UpstreamError::ClientCertificate
        | UpstreamError::GivenUp => (502, error.to_string()),
    }
}

/// Moves bytes to the end of the exchange; how a side ends is passed on, as in a tunnel.
async fn pump<S: Peer>(
    mut client: TcpStream,
    server: Plain<S>,
    head: &[u8],
    offered: bool,
) -> Summary {
    let (up, down, broke) = (Cell::new(0), Cell::new(0), Cell::new(false));
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let ended = {
        let (from_client, mut to_client) = client.split();
        let mut from_client = head.chain(Within::new(from_client, Extent::of(head)));
        let asking = async {
            let way = Way::Asking { broke: &broke };
            let took = one_way(&mut from_client, &mut to_server, &up, way).await?;
            Ok((took, from_client.into_inner().1.into_inner()))
        };
        let way = Way::Answering { broke: &broke, says_goodbye: S::SAYS_GOODBYE };
        let answering = one_way(&mut from_server, &mut to_client, &down, way);
        both(asking, answering, &up).await
    };
    if ended.is_err() {
        // Closing now sends a reset, as the side that broke off did.
        let _ = client.set_zero_linger();
        from_server.unsplit(to_server).abort();
    }
    if offered {
        let _ = rustix::net::shutdown(&client, Shutdown::Both);
    }
    let aborted = !matches!(ended, Ok(true));
    Summary { up: up.get(), down: down.get(), aborted }
}

/// With the answer the exchange is over: a client that has nothing more to say then, and does not close,
/// is not waited for. Nor is the answer of a server that says nothing, once the client is gone; with the
/// client's half `asking` gives back what to look at.
async fn both<'a>(
    asking: impl Future<Output = io::Result<(bool, ReadHalf<'a>)>>,
    answering: impl Future<Output = io::Result<bool>>,
    asked: &Cell<u64>,
) -> io::Result<bool> {
    let (mut asking, mut answering) = (pin!(asking), pin!(answering));
    let mut taken: Option<(bool, ReadHalf<'a>)> = None;
    loop {
        tokio::select! {
            asked = &mut asking, if taken.is_none() => {
                let (_, client) = taken.insert(asked?);
                watch_half_closed(client.as_ref());
            }
            answered = &mut answering => {
                answered?;
                break;
            }
            () = sleep(LOOK), if taken.is_some() => {
                // The server is closed, not reset: what it has not read yet is still its.
                if taken.as_ref().is_some_and(|(_, client)| is_gone(client.as_ref())) {
                    return Ok(false);
                }
            }
        }
    }
    while taken.is_none() {
        let before = asked.get();
        match timeout(LINGER, &mut asking).await {
            Ok(asked) => taken = Some(asked?),
            Err(_) if asked.get() == before => break,
            Err(_) => {}
        }
    }
    Ok(taken.is_none_or(|(took, _)| took))
}

/// What becomes of the rest when the destination takes no more, and what an end of the source is. A write
/// that finds the server's connection broken takes that from the kernel, which says it once: `broke`.
#[derive(Clone, Copy, Debug)]
enum Way<'a> {
    /// The rest is read: a client that is still uploading gets to read the answer that came early.
    Asking { broke: &'a Cell<bool> },
    /// Nobody is left to answer: whoever makes the answer is to hear of it at once.
    Answering { broke: &'a Cell<bool>, says_goodbye: bool },
}

impl Way<'_> {
    fn refused(self, error: io::Error) -> io::Result<()> {
        match self {
            Self::Asking { broke } => {
                broke.set(broke.get() || is_break(&error));
                Ok(())
            }
            Self::Answering { .. } => Err(error),
        }
    }

    /// Whether an end of the source's TCP, which says goodbye before (`said`) or does not, is a reset.
    fn is_cut(self, said: bool) -> bool {
        match self {
            Self::Asking { .. } => false,
            Self::Answering { broke, says_goodbye } => broke.get() && !(said && says_goodbye),
        }
    }
}

/// An error when the source broke off; false when the destination took no more.
async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moved: &Cell<u64>,
    way: Way<'_>,
) -> io::Result<bool> {
    let mut buffer = vec![0; CHUNK].into_boxed_slice();
    let mut takes = true;
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) if way.is_cut(true) => return Err(io::ErrorKind::ConnectionReset.into()),
            Ok(0) => break,
            Ok(count) => count,
            // It ended without saying so in TLS.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && !way.is_cut(false) => break,
            Err(e) => return Err(e),
        };
        if takes {
            let chunk = buffer.get(..count).unwrap_or_default();
            if let Err(e) = write(to, chunk).await {
                way.refused(e)?;
                takes = false;
            }
            moved.set(moved.get() + count as u64);
        }
    }
    if takes && let Err(e) = to.shutdown().await {
        // The connection is gone already, and needs no goodbye.
        let _ = way.refused(e);
    }
    Ok(takes)
}

/// Nothing is held back: the other side may wait for just this.
async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::*;
    use crate::testing::pair;

    #[tokio::test]
    async fn an_answer_without_end_ends_with_its_client() {
        let (user, client) = pair().await;
        let (server, mut provider) = pair().await;
        let pumping = pump(client, Plain::new(server), b"GET / HTTP/1.1\r\n\r\n", false);
        // It goes on although the client has said that it sends no more.
        let answering = async {
            provider.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            drop(user);
            while provider.write_all(&[b'x'; 1024]).await.is_ok() {}
        };
        let both = async { tokio::join!(pumping, answering) };
        let (summary, ()) = timeout(Duration::from_secs(60), both).await.expect("it hears of it");
        assert!(summary.aborted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_gone_takes_no_answer_of_the_server_to_be_noticed() {
        let ((mut user, client), (server, mut provider)) = (pair().await, pair().await);
        let pumping = pump(client, Plain::new(server), b"question", false);
        let talking = async {
            user.shutdown().await.unwrap();
            let mut got = Vec::new();
            provider.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"question");
            // One that waits for its answer is there.
            for _ in 0..2 {
                sleep(LOOK * 3).await;
                provider.write_all(b"answer").await.unwrap();
                user.read_exact(&mut [0; 6]).await.unwrap();
            }
            // What its kernel answers a minute after it was closed.
            user.set_zero_linger().unwrap();
            drop(user);
        };
        let both = async { tokio::join!(pumping, talking) };
        let (summary, ()) = timeout(LOOK * 100, both).await.expect("noticed");
        assert!(summary.aborted);
        // It was not broken off.
        assert_eq!(provider.read(&mut [0]).await.unwrap(), 0);
    }

    /// The first write to a socket that was reset gets the reset, and a read after it would get an end.
    #[tokio::test]
    async fn a_reset_that_a_write_was_told_of_is_no_end() {
        // Whether the write or the read comes first is left to chance.
        for _ in 0..20 {
            let ((mut user, client), (server, mut provider)) = (pair().await, pair().await);
            provider.write_all(b"half an answ").await.unwrap();
            provider.set_zero_linger().unwrap();
            drop(provider);
            let pumping = pump(client, Plain::new(server), b"question", false);
            let reading = async {
                let mut got = [0; 12];
                user.read_exact(&mut got).await.unwrap();
                assert_eq!(&got, b"half an answ");
                let error = user.read(&mut got).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            };
            let (summary, ()) = tokio::join!(pumping, reading);
            assert!(summary.aborted);
        }
    }

    #[tokio::test]
    async fn what_is_behind_the_request_is_not_for_this_server() {
        let ((mut user, client), (server, mut provider)) = (pair().await, pair().await);
        let head = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n";
        let pumping = pump(client, Plain::new(server), head, false);
        let talking = async {
            user.write_all(b"bodyGET https://elsewhere.example/ HTTP/1.1\r\n\r\n").await.unwrap();
            user.shutdown().await.unwrap();
            let mut got = Vec::new();
            provider.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, [&head[..], b"body"].concat());
            provider.write_all(b"answer").await.unwrap();
            drop(provider);
            got.clear();
            user.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"answer");
        };
        let (summary, ()) = tokio::join!(pumping, talking);
        assert!(!summary.aborted);
    }

    /// The server keeps its side open, and so does the client, with its next request.
    #[tokio::test(start_paused = true)]
    async fn the_connection_ends_with_the_answer() {
        let ((mut user, client), (server, mut provider)) = (pair().await, pair().await);
        let head = b"GET / HTTP/1.1\r\n\r\n";
        let pumping = pump(client, Plain::new(server).with_gate(head), head, false);
        let talking = async {
            user.write_all(b"GET https://elsewhere.example/ HTTP/1.1\r\n\r\n").await.unwrap();
            provider.read_exact(&mut [0; 18]).await.unwrap();
            provider.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            let mut got = String::new();
            user.read_to_string(&mut got).await.unwrap();
            assert!(got.ends_with("Connection: close\r\n\r\nok"), "{got}");
        };
        let both = async { tokio::join!(pumping, talking) };
        let (summary, ()) = timeout(LINGER * 60, both).await.expect("it ends");
        assert!(!summary.aborted);
    }

    #[tokio::test]
    async fn an_end_before_the_reset_is_one() {
        let ((mut user, client), (server, mut provider)) = (pair().await, pair().await);
        let pumping = pump(client, Plain::new(server), b"question", false);
        let talking = async {
            provider.write_all(b"answer").await.unwrap();
            provider.shutdown().await.unwrap();
            let mut got = Vec::new();
            user.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"answer");
            provider.set_zero_linger().unwrap();
            drop(provider);
            let _ = user.write_all(b"still sending").await;
            drop(user);
        };
        tokio::join!(pumping, talking);
    }

    /// Its TCP ends, of which it had said nothing in TLS.
    struct Bare;

    impl AsyncRead for Bare {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
        }
    }

    #[tokio::test]
    async fn behind_a_break_only_a_goodbye_is_an_end() {
        let (mut to, moved) = (Vec::new(), Cell::new(0));
        for (broken, says_goodbye, said_ends, bare_ends) in [
            (false, true, true, true),
            (false, false, true, true),
            (true, true, true, false),
            (true, false, false, false),
        ] {
            let broke = Cell::new(broken);
            let way = Way::Answering { broke: &broke, says_goodbye };
            let said = one_way(&mut &b"answer"[..], &mut to, &moved, way).await;
            let bare = one_way(&mut Bare, &mut to, &moved, way).await;
            assert_eq!((said.is_ok(), bare.is_ok()), (said_ends, bare_ends), "{way:?}");
        }
    }
}
