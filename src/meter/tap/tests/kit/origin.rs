//! A TLS origin with a CA of its own.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS12;
use rustls::{DEFAULT_VERSIONS, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, server};

use super::PATIENCE;

type OriginStream = server::TlsStream<TcpStream>;

/// A TLS server for one test.
pub(in crate::meter::tap::tests) struct Origin {
    name: String,
    alpn: Vec<Vec<u8>>,
    expired: bool,
    untrusted: bool,
    client_certificate: bool,
    mute: bool,
    tls12: bool,
    pub(super) ca_pem: String,
    pub(super) addr: SocketAddr,
    task: Option<Mutex<JoinHandle<Vec<u8>>>>,
    resumed: Arc<AtomicUsize>,
}

impl Origin {
    pub(in crate::meter::tap::tests) fn new() -> Self {
        Self {
            name: "api.example.com".to_owned(),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            expired: false,
            untrusted: false,
            client_certificate: false,
            mute: false,
            tls12: false,
            ca_pem: String::new(),
            addr: ([127, 0, 0, 1], 0).into(),
            task: None,
            resumed: Arc::default(),
        }
    }

    pub(in crate::meter::tap::tests) fn alpn(mut self, list: &[&str]) -> Self {
        self.alpn = list.iter().map(|p| p.as_bytes().to_vec()).collect();
        self
    }

    pub(in crate::meter::tap::tests) fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    pub(in crate::meter::tap::tests) fn expired(mut self) -> Self {
        self.expired = true;
        self
    }

    pub(in crate::meter::tap::tests) fn untrusted(mut self) -> Self {
        self.untrusted = true;
        self
    }

    pub(in crate::meter::tap::tests) fn asks_for_certificate(mut self) -> Self {
        self.client_certificate = true;
        self
    }

    /// Speaks nothing newer.
    pub(in crate::meter::tap::tests) fn tls12(mut self) -> Self {
        self.tls12 = true;
        self
    }

    /// Accepts TCP and says nothing.
    pub(in crate::meter::tap::tests) fn mute(mut self) -> Self {
        self.mute = true;
        self
    }

    /// Serves each connection with `handle`; the result is that of the last one that ended.
    pub(in crate::meter::tap::tests) fn start<F, W>(mut self, handle: F) -> Self
    where
        F: Fn(OriginStream) -> W + Send + Sync + 'static,
        W: Future<Output = Vec<u8>> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        self.addr = listener.local_addr().unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(self.server_config()));
        let (mute, resumed) = (self.mute, Arc::clone(&self.resumed));
        self.task = Some(Mutex::new(tokio::spawn(async move {
            let mut kept = Vec::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                if mute {
                    kept.push(tcp);
                    continue;
                }
                let Ok(tls) = acceptor.accept(tcp).await else { continue };
                if tls.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                    resumed.fetch_add(1, Ordering::SeqCst);
                }
                let result = handle(tls).await;
                if !result.is_empty() {
                    return result;
                }
            }
        })));
        self
    }

    pub(in crate::meter::tap::tests) async fn result(&self) -> Vec<u8> {
        let task = std::mem::replace(
            &mut *self.task.as_ref().unwrap().lock().unwrap(),
            tokio::spawn(async { Vec::new() }),
        );
        timeout(PATIENCE, task).await.expect("the origin ends").unwrap()
    }

    pub(in crate::meter::tap::tests) async fn stop(&self) {
        let task = std::mem::replace(
            &mut *self.task.as_ref().unwrap().lock().unwrap(),
            tokio::spawn(async { Vec::new() }),
        );
        task.abort();
        let _ = task.await;
    }

    pub(in crate::meter::tap::tests) fn resumed(&self) -> usize {
        self.resumed.load(Ordering::SeqCst)
    }

    fn server_config(&mut self) -> ServerConfig {
        let ca_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).unwrap();
        let issuer = Issuer::from_ca_cert_der(ca.der(), &ca_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec![self.name.clone()]).unwrap();
        if self.expired {
            leaf.not_after = (SystemTime::now() - Duration::from_secs(3600)).into();
        }
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        self.ca_pem = if self.untrusted {
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
        } else {
            ca.pem()
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = if self.tls12 { &[&TLS12][..] } else { DEFAULT_VERSIONS };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap();
        let builder = if self.client_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(ca.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .allow_unauthenticated()
                .build()
                .unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = builder.with_single_cert(vec![leaf.into()], key).unwrap();
        config.alpn_protocols.clone_from(&self.alpn);
        config
    }
}
