//! A client for tests that make many connections: CONNECT, TLS and HTTP/1.1 on std's sockets, a
//! thousand times lighter than a program.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Bounds a failure; nothing here waits that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far a connection came that did not come to a handshake.
#[derive(Debug)]
pub enum Failed {
    /// The proxy did not answer `200`: nothing was said to anyone behind it.
    Proxy,
    /// The ClientHello is out, and what became of it can't be known here.
    Handshake,
}

/// A connection through a proxy to one host.
#[derive(Debug)]
pub struct Client {
    tls: StreamOwned<ClientConnection, TcpStream>,
    host: String,
}

/// Trusts these roots (PEM).
pub fn trusting(roots: &[&str]) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    for pem in roots {
        for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            store.add(root.expect("PEM")).expect("root");
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_root_certificates(store)
        .with_no_client_auth();
    Arc::new(config)
}

impl Client {
    /// From CONNECT to the end of the handshake.
    pub fn connect(
        proxy: SocketAddr,
        host: &str,
        config: &Arc<ClientConfig>,
    ) -> Result<Self, Failed> {
        let tcp = established(proxy, host).map_err(|_| Failed::Proxy)?;
        let name = ServerName::try_from(host.to_owned()).expect("host name");
        let tls = ClientConnection::new(Arc::clone(config), name).expect("TLS client");
        let mut tls = StreamOwned::new(tls, tcp);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock).map_err(|_| Failed::Handshake)?;
        }
        Ok(Self { tls, host: host.to_owned() })
    }

    /// The certificate that the other side showed.
    pub fn peer_certificate(&self) -> CertificateDer<'static> {
        let chain = self.tls.conn.peer_certificates().unwrap_or_default();
        chain.first().expect("a certificate").clone().into_owned()
    }

    /// One exchange; the answer's body.
    pub fn post(&mut self, path: &str, body: &str) -> io::Result<Vec<u8>> {
        write!(
            self.tls,
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.host,
            body.len(),
        )?;
        self.tls.flush()?;
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            if let Some((head, length)) = head(&answer)? {
                while answer.len() < head + length {
                    more(&mut self.tls, &mut chunk, &mut answer)?;
                }
                return Ok(answer.split_off(head));
            }
            more(&mut self.tls, &mut chunk, &mut answer)?;
        }
    }

    /// Says goodbye, as most clients do.
    pub fn close(mut self) {
        self.tls.conn.send_close_notify();
        let _ = self.tls.flush();
    }
}

fn more(from: &mut impl Read, chunk: &mut [u8], into: &mut Vec<u8>) -> io::Result<()> {
    let n = from.read(chunk)?;
    if n == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    into.extend_from_slice(&chunk[..n]);
    Ok(())
}

fn established(proxy: SocketAddr, host: &str) -> io::Result<TcpStream> {
    let mut tcp = TcpStream::connect(proxy)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_nodelay(true)?;
    write!(tcp, "CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        more(&mut tcp, &mut byte, &mut answer)?;
    }
    if answer.starts_with(b"HTTP/1.1 200") { Ok(tcp) } else { Err(io::Error::other("no 200")) }
}

/// Length of the head and of the body behind it; `None`: it is not whole yet.
fn head(answer: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(answer).map_err(io::Error::other)? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(head) => {
            let length = response
                .headers
                .iter()
                .find(|h| h.name.eq_ignore_ascii_case("content-length"))
                .and_then(|h| std::str::from_utf8(h.value).ok()?.parse().ok())
                .ok_or_else(|| io::Error::other("an answer without a length"))?;
            Ok(Some((head, length)))
        }
    }
}
