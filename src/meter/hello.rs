//! The ClientHello, read without taking it: until the edge has granted the connection, the bytes
//! in the socket are still the edge's.

use std::io;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use rustls::server::{Acceptor, ClientHello};
use rustls::{NamedGroup, SignatureScheme, SupportedCipherSuite};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

mod extensions;

use extensions::{Extensions, extensions};

/// A ClientHello is a few hundred bytes, with post-quantum shares about 2 KiB.
const MAX_HELLO: usize = 64 * 1024;
/// A client that sends its hello in more pieces than this is not served.
const MAX_PIECES: usize = 64;
const FIRST_READ: usize = 4 * 1024;

/// What we need of a ClientHello.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hello {
    pub sni: Option<String>,
    /// In the client's order; empty: it offers no protocol.
    pub alpn: Vec<Vec<u8>>,
    /// It would rather have no connection than one of an older version.
    pub tls13_only: bool,
}

impl Hello {
    /// What we ask for ourselves, of a server of this name.
    #[must_use]
    pub fn ours(name: &str) -> Self {
        Self { sni: Some(name.to_owned()), alpn: vec![b"http/1.1".to_vec()], tls13_only: false }
    }
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    #[error("the first bytes are no ClientHello that can be served")]
    NotTls,
    #[error("no whole ClientHello came in time")]
    Timeout,
    #[error("the client closed before its ClientHello was whole")]
    Closed,
    #[error("cannot look at the client's bytes: {0}")]
    Io(#[from] io::Error),
}

/// Result of a look at the first bytes.
#[derive(Debug, Eq, PartialEq)]
pub enum Look {
    /// More bytes are needed.
    Partial,
    NotTls,
    Whole(Hello),
}

/// Judges the bytes that a client sent so far.
#[must_use]
pub fn look(bytes: &[u8]) -> Look {
    // Handshake record, major version 3: no need to ask rustls about anything else.
    match bytes {
        [] | [0x16] => return Look::Partial,
        [0x16, 3, ..] => {}
        _ => return Look::NotTls,
    }
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if !matches!(acceptor.read_tls(&mut rest), Ok(1..)) {
            return Look::NotTls;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let also = extensions(bytes).filter(|also| servable(&hello, *also));
                return also.map_or(Look::NotTls, |also| Look::Whole(read(&hello, also)));
            }
            Ok(None) => {}
            Err(_) => return Look::NotTls,
        }
    }
    Look::Partial
}

/// Waits until the socket holds a whole ClientHello and leaves every byte of it there.
///
/// # Errors
/// Whenever there is none that can be served before `deadline`.
pub async fn peek(socket: &TcpStream, deadline: Duration) -> Result<Hello, HelloError> {
    let deadline = Instant::now() + deadline;
    let mut buffer = vec![0; FIRST_READ];
    let mut seen = 0;
    for _ in 0..MAX_PIECES {
        seen = timeout_at(deadline, grown(socket, &mut buffer, seen))
            .await
            .map_err(|_| HelloError::Timeout)??;
        match look(buffer.get(..seen).unwrap_or_default()) {
            Look::Whole(hello) => return Ok(hello),
            Look::NotTls => return Err(HelloError::NotTls),
            Look::Partial if seen < buffer.len() => {}
            Look::Partial if buffer.len() >= MAX_HELLO => return Err(HelloError::NotTls),
            Look::Partial => buffer.resize((buffer.len() * 4).min(MAX_HELLO), 0),
        }
    }
    Err(HelloError::NotTls)
}

/// Waits until more than `seen` bytes can be peeked at; returns how many.
async fn grown(socket: &TcpStream, buffer: &mut [u8], seen: usize) -> Result<usize, HelloError> {
    loop {
        let ready = socket.ready(Interest::READABLE).await?;
        let peeked = socket.try_io(Interest::READABLE, || {
            let (_, n) = recv(socket, &mut *buffer, RecvFlags::PEEK)?;
            // No growth is reported as "would block": tokio then waits for the next arrival
            // instead of finding the same bytes readable for ever.
            if n > seen { Ok(n) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match peeked {
            Ok(n) => return Ok(n),
            // A closed socket stays ready, so this must be told apart.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && ready.is_read_closed() => {
                return Err(HelloError::Closed);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn read(hello: &ClientHello<'_>, also: Extensions) -> Hello {
    Hello {
        sni: hello.server_name().map(str::to_ascii_lowercase),
        alpn: hello.alpn().map(|list| list.map(<[u8]>::to_vec).collect()).unwrap_or_default(),
        tls13_only: also.tls13 && !also.older,
    }
}

/// What a leaf of ours signs with.
const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;

/// Whether our handshake can succeed: leaves are P-256, key exchange is what ring has. What comes early is
/// for the provider, which may take it; it can't be read here, nor always passed over.
fn servable(hello: &ClientHello<'_>, also: Extensions) -> bool {
    // rustls takes the newest version, whether or not there is a suite for it.
    let ours = rustls::crypto::ring::DEFAULT_CIPHER_SUITES.iter().filter(|suite| match suite {
        SupportedCipherSuite::Tls12(suite) => !also.tls13 && suite.sign.contains(&SCHEME),
        SupportedCipherSuite::Tls13(_) => also.tls13,
    });
    let suite = ours.into_iter().any(|suite| hello.cipher_suites().contains(&suite.suite()));
    let scheme = hello.signature_schemes().contains(&SCHEME);
    let group = hello.named_groups().is_some_and(|groups| {
        [NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1]
            .iter()
            .any(|g| groups.contains(g))
    });
    suite && scheme && group && !also.early_data
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::crypto::CryptoProvider;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn client_hello(name: &'static str, alpn: &[&[u8]]) -> Vec<u8> {
        hello_of(rustls::crypto::ring::default_provider(), name, alpn)
    }

    fn hello_of(provider: CryptoProvider, name: &'static str, alpn: &[&[u8]]) -> Vec<u8> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let name = ServerName::try_from(name).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_prefix_is_partial_and_the_whole_is_read() {
        let bytes = client_hello("api.Example.com", &[b"h2", b"http/1.1"]);
        for n in 0..bytes.len() {
            assert_eq!(look(&bytes[..n]), Look::Partial, "{n}");
        }
        let mut whole = bytes.clone();
        whole.extend_from_slice(b"early");
        for bytes in [bytes, whole] {
            let Look::Whole(hello) = look(&bytes) else { panic!("not read") };
            assert_eq!(hello.sni.as_deref(), Some("api.example.com"));
            assert_eq!(hello.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        }
    }

    #[test]
    fn what_is_not_tls_is_known_at_once() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0", b"\x16\x02", b"\0"] {
            assert_eq!(look(bytes), Look::NotTls, "{bytes:?}");
        }
        let mut broken = client_hello("a.example", &[]);
        broken[9] ^= 0xff;
        broken[5] = 7;
        assert_eq!(look(&broken), Look::NotTls);
    }

    #[test]
    fn what_comes_early_is_for_the_provider() {
        let mut bytes = client_hello("a.example", &[]);
        let usual = Extensions { tls13: true, older: true, early_data: false };
        assert_eq!(extensions(&bytes), Some(usual));
        // Behind the session's id, the suites and the compressions.
        let at = |bytes: &[u8], at: usize| usize::from(bytes[at]);
        let suites = 44 + at(&bytes, 43);
        let compressions = suites + 2 + at(&bytes, suites) * 256 + at(&bytes, suites + 1);
        let end = compressions + 1 + at(&bytes, compressions);
        bytes.splice(end + 2..end + 2, [0, 42, 0, 0]);
        for (place, of) in [(3, 5), (7, 9), (end, end + 2)] {
            let length = u16::try_from(bytes.len() - of).unwrap();
            bytes[place..place + 2].copy_from_slice(&length.to_be_bytes());
        }
        assert_eq!(extensions(&bytes), Some(Extensions { early_data: true, ..usual }));
        assert_eq!(look(&bytes), Look::NotTls);
        // In several records it is the same.
        let split: Vec<u8> = bytes[5..]
            .chunks(50)
            .flat_map(|piece| [&[0x16, 3, 1, 0, piece.len() as u8], piece].concat())
            .collect();
        assert_eq!(extensions(&split), extensions(&bytes));
        for cut in 0..split.len() {
            assert_eq!(extensions(&split[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn a_suite_of_the_newest_version_is_wanted() {
        let mut bytes = client_hello("a.example", &[]);
        let suites = 46 + usize::from(bytes[43]);
        // Of 1.3 only AES in CCM.
        for suite in bytes[suites..suites + 20].chunks_mut(2).filter(|suite| suite[0] == 0x13) {
            suite[1] = 4;
        }
        assert!(extensions(&bytes).unwrap().tls13);
        assert_eq!(look(&bytes), Look::NotTls);
    }

    #[test]
    fn who_takes_no_certificate_of_ours_stays_raw() {
        use rustls::crypto::ring::cipher_suite::{
            TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 as ECDSA,
            TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 as RSA,
        };
        let with = |suites: &[SupportedCipherSuite]| {
            let provider = CryptoProvider {
                cipher_suites: suites.to_vec(),
                ..rustls::crypto::ring::default_provider()
            };
            look(&hello_of(provider, "a.example", &[]))
        };
        assert_eq!(with(&[RSA]), Look::NotTls);
        assert!(matches!(with(&[RSA, ECDSA]), Look::Whole(_)));
    }

    #[tokio::test]
    async fn peeking_waits_for_growth_and_takes_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let bytes = client_hello("a.example", &[]);
        let (first, second) = bytes.split_at(100);
        client.write_all(first).await.unwrap();
        let (hello, ()) = tokio::join!(peek(&server, Duration::from_secs(10)), async {
            server.readable().await.unwrap();
            client.write_all(second).await.unwrap();
        });
        assert_eq!(hello.unwrap().sni.as_deref(), Some("a.example"));
        let mut got = vec![0; bytes.len()];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(got, bytes);
    }

    #[tokio::test]
    async fn a_client_that_closes_early_does_not_spin() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(&client_hello("a.example", &[])[..50]).await.unwrap();
        client.shutdown().await.unwrap();
        let end = peek(&server, Duration::from_secs(10)).await;
        assert!(matches!(end, Err(HelloError::Closed)), "{end:?}");
    }

    #[tokio::test]
    async fn a_silent_client_ends_at_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(b"\x16\x03\x01").await.unwrap();
        let end = peek(&server, Duration::from_millis(20)).await;
        assert!(matches!(end, Err(HelloError::Timeout)), "{end:?}");
    }
}
