//! The client of a self-test: CONNECT through the edge, TLS, HTTP/1.1. Blocking, with a limit on
//! every wait.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::origin::MODEL;
use crate::config::SELFTEST_HOST;
use crate::near;

/// For one answer. The chain's own deadlines are shorter.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Why a request did not come through.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, #[source] io::Error),
    #[error("the edge refused: {0}")]
    Refused(String),
    /// What the client thinks of the certificate that it was shown.
    #[error("the certificate is not accepted: {0}")]
    Certificate(rustls::CertificateError),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Timeout,
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    #[error("the answer is not what was sent")]
    Garbled,
}

impl From<io::Error> for ClientError {
    fn from(e: io::Error) -> Self {
        let tls = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match (tls, e.kind()) {
            (Some(rustls::Error::InvalidCertificate(why)), _) => Self::Certificate(why.clone()),
            (_, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Self::Timeout,
            (_, _) => Self::Broken(e),
        }
    }
}

/// What a client believes.
#[derive(Clone, Debug)]
pub struct Client {
    edge: SocketAddr,
    config: Arc<ClientConfig>,
}

/// A connection through the edge, ready for requests.
pub struct Connection {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Client {
    /// `None`: the TLS library refuses its own defaults.
    #[must_use]
    pub fn trusting(
        edge: SocketAddr,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Option<Self> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .ok()?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each connection is to show its certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Some(Self { edge, config: Arc::new(config) })
    }

    /// A tunnel to `host:port` by the edge, and TLS with whoever is at its end.
    pub fn connect(&self, host: &str, port: u16) -> Result<Connection, ClientError> {
        let mut tcp = near::connect_timeout(&self.edge, PATIENCE)
            .map_err(|e| ClientError::Connect(self.edge, e))?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        tcp.set_nodelay(true)?;
        write!(tcp, "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n")?;
        let head = read_head(&mut tcp)?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(ClientError::Refused(head.lines().next().unwrap_or_default().to_owned()));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| ClientError::Garbled)?;
        let tls = ClientConnection::new(Arc::clone(&self.config), name)
            .map_err(|e| ClientError::Broken(io::Error::other(e)))?;
        let mut stream = StreamOwned::new(tls, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// To the self-test's host.
    pub fn connect_metered(&self) -> Result<Connection, ClientError> {
        self.connect(SELFTEST_HOST, 443)
    }
}

impl Connection {
    /// Whether this is the certificate that we were shown.
    #[must_use]
    pub fn shows(&self, leaf: &CertificateDer<'_>) -> bool {
        let shown = self.stream.get_ref().conn.peer_certificates();
        shown.and_then(|chain| chain.first()).is_some_and(|first| first == leaf)
    }

    /// Asks the model; gives the answer's body. `begun` is called when its first piece is there.
    pub fn ask(&mut self, stream: bool, begun: impl FnOnce()) -> Result<Vec<u8>, ClientError> {
        let body = format!(
            r#"{{"model":"{MODEL}","max_tokens":16,"stream":{stream},"messages":[{{"role":"user","content":"self-test"}}]}}"#
        );
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: {SELFTEST_HOST}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        self.stream.get_mut().write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        self.stream.get_mut().flush()?;
        let head = self.head()?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(ClientError::Garbled);
        }
        let field = |name: &str| {
            head.lines().filter_map(|l| l.split_once(':')).find(|(n, _)| *n == name).map(|(_, v)| v)
        };
        let mut answer = Vec::new();
        if let Some(length) = field("content-length") {
            answer.resize(size(length, 10)?, 0);
            self.stream.read_exact(&mut answer)?;
            return Ok(answer);
        }
        let mut begun = Some(begun);
        loop {
            let size = size(&self.line()?, 16)?;
            let start = answer.len();
            answer.resize(start + size, 0);
            self.stream.read_exact(answer.get_mut(start..).unwrap_or_default())?;
            self.line()?;
            if size == 0 {
                return Ok(answer);
            }
            if let Some(begun) = begun.take() {
                begun();
            }
        }
    }

    fn head(&mut self) -> Result<String, ClientError> {
        let mut head = String::new();
        loop {
            let line = self.line()?;
            if line.trim_end().is_empty() {
                return Ok(head);
            }
            head.push_str(&line);
        }
    }

    fn line(&mut self) -> Result<String, ClientError> {
        let mut line = String::new();
        if self.stream.by_ref().take(8 * 1024).read_line(&mut line)? == 0 {
            return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(line)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // An end that was meant, for whoever is in between to see.
        let stream = self.stream.get_mut();
        stream.conn.send_close_notify();
        let _ = stream.flush();
    }
}

/// A length, as far as our origin's go.
fn size(text: &str, radix: u32) -> Result<usize, ClientError> {
    let size = usize::from_str_radix(text.trim(), radix).ok();
    size.filter(|n| *n <= 64 * 1024).ok_or(ClientError::Garbled)
}

/// Byte by byte: what follows the head is TLS.
fn read_head(tcp: &mut TcpStream) -> Result<String, ClientError> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8 * 1024 {
        if tcp.read(&mut byte)? == 0 {
            return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        head.extend_from_slice(&byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
