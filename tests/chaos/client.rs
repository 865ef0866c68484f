//! A light HTTP client that goes through the edge, trusts our CA and the origin's, and checks
//! every byte.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::oracle::{Fault, Route, Stage};
use crate::record::Failed;

/// Nobody waits longer: to hang is to fail.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// In the issuer of every leaf that the origin itself made; `FOREIGN`: when it has a bad day.
pub const ORIGIN_ROOT: &str = "Test Origin Root";

/// What a client trusts, for each list of protocols.
#[derive(Clone, Debug)]
pub struct Trust {
    h1: Arc<rustls::ClientConfig>,
    h2: Arc<rustls::ClientConfig>,
}

pub type Tls = TlsStream<TcpStream>;

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    pub io: BufReader<Tls>,
    pub route: Route,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    pub request_id: Option<String>,
    /// What the origin says of this body, and of the one that it got.
    pub sums: Sums,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sums {
    pub body: Option<u32>,
    pub got: Option<u32>,
}

impl Trust {
    /// From PEM texts.
    pub fn new(roots: &[String]) -> Self {
        let mut store = rustls::RootCertStore::empty();
        for pem in roots {
            for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                store.add(der.expect("PEM")).expect("root");
            }
        }
        let config = |alpn: &[&str]| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let mut config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("TLS versions")
                .with_root_certificates(store.clone())
                .with_no_client_auth();
            config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
            Arc::new(config)
        };
        Self { h1: config(&["http/1.1"]), h2: config(&["h2"]) }
    }
}

impl Failed {
    pub fn new(stage: Stage, fault: Fault, text: impl Into<String>) -> Self {
        Self { stage, fault, silent: true, text: text.into() }
    }

    pub fn io(stage: Stage, error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
        let fault = match (tls, error.kind()) {
            (Some(rustls::Error::InvalidCertificate(_)), _) => Fault::Certificate,
            // Garbage instead of a record is as bad as wrong content.
            (Some(_), _) => Fault::Wrong,
            (None, io::ErrorKind::ConnectionRefused) => Fault::Refused,
            (None, io::ErrorKind::TimedOut) => Fault::Timeout,
            (None, io::ErrorKind::InvalidData) => Fault::Wrong,
            (None, _) => Fault::Closed,
        };
        Self::new(stage, fault, format!("{error} ({:?})", error.kind()))
    }

    pub fn timeout(stage: Stage) -> Self {
        Self::new(stage, Fault::Timeout, format!("nothing within {PATIENCE:?}"))
    }
}

/// Through the proxy at `edge` to `host:443`; HTTP/2 if `h2`.
pub async fn open(
    edge: SocketAddr,
    host: &str,
    trust: &Trust,
    h2: bool,
) -> Result<Connection, Failed> {
    let mut stage = Stage::Connect;
    match timeout(PATIENCE, connect(edge, Some(host), host, trust, h2, &mut stage)).await {
        Ok(result) => result,
        Err(_) => Err(Failed::timeout(stage)),
    }
}

/// Straight to `addr`.
pub async fn open_direct(
    addr: SocketAddr,
    host: &str,
    trust: &Trust,
) -> Result<Connection, Failed> {
    let mut stage = Stage::Connect;
    match timeout(PATIENCE, connect(addr, None, host, trust, false, &mut stage)).await {
        Ok(result) => result,
        Err(_) => Err(Failed::timeout(stage)),
    }
}

async fn connect(
    addr: SocketAddr,
    through: Option<&str>,
    host: &str,
    trust: &Trust,
    h2: bool,
    stage: &mut Stage,
) -> Result<Connection, Failed> {
    let mut tcp = TcpStream::connect(addr).await.map_err(|e| Failed::io(*stage, &e))?;
    let _ = tcp.set_nodelay(true);
    if let Some(host) = through {
        *stage = Stage::Proxy;
        let status = ask_proxy(&mut tcp, host).await.map_err(|e| Failed::io(*stage, &e))?;
        if status != 200 {
            return Err(Failed::new(*stage, Fault::Status(status), "the proxy's answer"));
        }
    }
    *stage = Stage::Handshake;
    let name = ServerName::try_from(host.to_owned()).expect("host name");
    let config = if h2 { &trust.h2 } else { &trust.h1 };
    let tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await;
    let tls = tls.map_err(|e| Failed::io(*stage, &e))?;
    let leaf = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let leaf = leaf.map(|c| c.as_ref().to_vec()).unwrap_or_default();
    let by_origin = leaf.windows(ORIGIN_ROOT.len()).any(|w| w == ORIGIN_ROOT.as_bytes());
    let route = if by_origin { Route::Raw } else { Route::Metered };
    Ok(Connection { io: BufReader::with_capacity(64 * 1024, tls), route })
}

async fn ask_proxy(tcp: &mut TcpStream, host: &str) -> io::Result<u16> {
    let head = format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n");
    tcp.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(tcp.read_u8().await?);
    }
    status(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn status(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()
}

/// Sends a request and reads the whole answer; the connection can be used again.
pub async fn exchange<S>(io: &mut BufReader<S>, request: &[u8]) -> Result<Answer, Failed>
where
    S: AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut silent = true;
    let work = async {
        // An answer, or the news of the end, may come before all is sent.
        let sent = async {
            io.get_mut().write_all(request).await?;
            io.get_mut().flush().await
        };
        sent.await?;
        read_answer(io, &mut silent).await
    };
    let failed = match timeout(PATIENCE * 2, work).await {
        Ok(Ok(answer)) => match answer.check(body_of(request)) {
            Ok(()) => return Ok(answer),
            Err(text) => Failed::new(Stage::Exchange, Fault::Wrong, text),
        },
        Ok(Err(e)) => Failed::io(Stage::Exchange, &e),
        Err(_) => Failed::timeout(Stage::Exchange),
    };
    Err(Failed { silent, ..failed })
}

/// What stands behind the head.
fn body_of(request: &[u8]) -> &[u8] {
    let head = request.windows(4).position(|w| w == b"\r\n\r\n").map_or(request.len(), |n| n + 4);
    &request[head..]
}

pub fn sum(bytes: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    sum.sum()
}

impl Answer {
    /// `sent`: the request's body.
    pub fn check(&self, sent: &[u8]) -> Result<(), String> {
        let expected = Sums { body: Some(sum(&self.body)), got: Some(sum(sent)) };
        match self.status {
            200 if self.sums == expected => Ok(()),
            200 => Err(format!("{} bytes: {:?} for {expected:?}", self.body.len(), self.sums)),
            status => Err(format!("status {status}")),
        }
    }
}

/// Lines of a head, without their ends, to the empty one.
pub async fn read_head<S: AsyncRead + Unpin>(
    io: &mut BufReader<S>,
    silent: &mut bool,
) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if io.read_line(&mut line).await? == 0 || !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *silent = false;
        match line.trim_end() {
            "" => return Ok(lines),
            text => lines.push(text.to_owned()),
        }
    }
}

async fn read_answer<S: AsyncRead + Unpin>(
    io: &mut BufReader<S>,
    silent: &mut bool,
) -> io::Result<Answer> {
    let head = read_head(io, silent).await?;
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let status = head.first().and_then(|l| status(l.as_bytes())).ok_or_else(wrong)?;
    let field = |name: &str| {
        head.iter().filter_map(|l| l.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name))
    };
    let value = |name: &str| field(name).map(|(_, v)| v.to_owned());
    let mut body = Vec::new();
    if value("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            if io.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let size = usize::from_str_radix(line.trim_end(), 16).map_err(|_| wrong())?;
            let start = body.len();
            body.resize(start + size + 2, 0);
            io.read_exact(&mut body[start..]).await?;
            if !body.ends_with(b"\r\n") {
                return Err(wrong());
            }
            body.truncate(start + size);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = value("content-length") {
        body.resize(length.parse().map_err(|_| wrong())?, 0);
        io.read_exact(&mut body).await?;
    } else {
        // To the end of the connection: a cut must not look like that.
        io.read_to_end(&mut body).await?;
    }
    Ok(Answer {
        status,
        body,
        request_id: value("request-id"),
        sums: Sums {
            body: value("x-sum").and_then(|v| v.parse().ok()),
            got: value("x-got").and_then(|v| v.parse().ok()),
        },
    })
}
