//! A client by hand: one TLS connection through the edge, on which a test decides when each byte goes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, RootCertStore, StreamOwned};

use crate::harness::{DEADLINE, Stand};

pub const HOST: &str = "api.anthropic.com";

/// What a test asks for when the answer matters less than the connection.
pub const GET: &[u8] = b"GET /plain HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n";
pub const BODY: &[u8] = b"plain answer\n";

pub struct Wire(StreamOwned<ClientConnection, TcpStream>);

impl Wire {
    /// For a client that trusts the origin's root and our CA.
    pub fn connect(stand: &Stand) -> io::Result<Self> {
        Self::handshake(stand, Self::open(stand)?)
    }

    /// One that is metered: on a busy machine the daemon may be too late for one, which goes raw.
    pub fn metered(stand: &Stand) -> Self {
        let mut metered = None;
        stand.wait("a metered connection", || {
            metered = Some(Self::connect(stand).expect("served")).filter(Self::is_metered);
            metered.is_some()
        });
        metered.expect("waited for")
    }

    /// As far as the proxy's `200`.
    pub fn open(stand: &Stand) -> io::Result<TcpStream> {
        let mut tcp = TcpStream::connect(stand.edge)?;
        tcp.set_read_timeout(Some(DEADLINE))?;
        tcp.set_nodelay(true)?;
        write!(tcp, "CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n")?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tcp.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
        Ok(tcp)
    }

    pub fn handshake(stand: &Stand, mut tcp: TcpStream) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for file in [stand.root_pem(), stand.home.ca_cert()] {
            // There is no CA of ours before the first start.
            for cert in CertificateDer::pem_file_iter(file).into_iter().flatten().flatten() {
                roots.add(cert).expect("a root");
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(HOST).expect("a name");
        let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok(Self(StreamOwned::new(tls, tcp)))
    }

    /// Whether it is our certificate that the client got.
    pub fn is_metered(&self) -> bool {
        let leaf = &self.0.conn.peer_certificates().expect("a certificate")[0];
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf).expect("DER");
        !leaf.issuer().to_string().contains("Test Origin Root")
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    /// Head and body of an answer with a length; `None`: the connection ended, cleanly, instead.
    pub fn answer(&mut self) -> io::Result<Option<(String, Vec<u8>)>> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match self.0.read(&mut byte)? {
                0 if head.is_empty() => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => head.push(byte[0]),
            }
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length:"));
        let length = length.and_then(|l| l.trim().parse().ok()).expect("a length");
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(Some((head, body)))
    }

    /// `GET /plain`, answered as it should be.
    pub fn get(&mut self) {
        self.send(GET).expect("sent");
        let (_, body) = self.answer().expect("an answer").expect("an answer, not the end");
        assert_eq!(body, BODY);
    }

    /// Waits for the end of the connection, which must be a clean one.
    pub fn assert_closed(&mut self) {
        let end = self.0.read(&mut [0; 16]);
        assert!(matches!(end, Ok(0)), "{end:?}");
    }
}
