//! Certificates of the origin: a root per test, leaves made for whatever name the client asks for.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use super::Setup;

/// Which certificate the server shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Leaf {
    Good,
    /// Its validity ended years ago.
    Expired,
    /// Signed by a root that nobody trusts.
    Foreign,
}

/// A root certificate with its key.
#[derive(Clone)]
pub struct Root(Arc<Inner>);

struct Inner {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Root")
    }
}

impl Root {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("root key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).expect("root certificate");
        Self(Arc::new(Inner {
            pem: cert.pem(),
            der: cert.der().clone(),
            issuer: Issuer::new(params, key),
        }))
    }

    /// A root from PEM files, e.g. the product's own, to sign what its owner never would.
    pub fn load(cert_pem: &str, key_pem: &str) -> Self {
        let key = KeyPair::from_pem(key_pem).expect("CA key");
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key).expect("CA certificate");
        let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).expect("PEM");
        Self(Arc::new(Inner { pem: cert_pem.to_owned(), der, issuer }))
    }

    pub fn pem(&self) -> &str {
        &self.0.pem
    }

    /// Certificate and key of a client, as PEM.
    pub fn client(&self) -> (String, String) {
        let key = KeyPair::generate().expect("client key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Test Client");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.0.issuer).expect("client certificate");
        (cert.pem(), key.serialize_pem())
    }

    pub(super) fn server_config(&self, setup: &Setup) -> Arc<rustls::ServerConfig> {
        let signer = match setup.leaf {
            Leaf::Good | Leaf::Expired => self.clone(),
            Leaf::Foreign => Self::new("Nobody Trusts This Root"),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("TLS versions");
        let builder = if setup.client_auth {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.0.der.clone()).expect("root");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .expect("client verifier");
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_cert_resolver(Arc::new(Resolver {
            signer,
            expired: setup.leaf == Leaf::Expired,
            made: Mutex::default(),
        }));
        config.alpn_protocols = setup.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    fn leaf(&self, name: &str, expired: bool) -> CertifiedKey {
        let key = KeyPair::generate().expect("leaf key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("leaf name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        if expired {
            params.not_before = rcgen::date_time_ymd(2019, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let cert = params.signed_by(&key, &self.0.issuer).expect("leaf certificate");
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = rustls::crypto::ring::sign::any_supported_type(&der).expect("signing key");
        CertifiedKey::new(vec![cert.der().clone(), self.0.der.clone()], key)
    }
}

struct Resolver {
    signer: Root,
    expired: bool,
    made: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or("localhost").to_owned();
        let mut made = self.made.lock().ok()?;
        let key = made
            .entry(name)
            .or_insert_with_key(|name| Arc::new(self.signer.leaf(name, self.expired)));
        Some(Arc::clone(key))
    }
}
