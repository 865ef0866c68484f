//! One root for the origin and the intercepting baseline, in a file that both read.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The metered host that everything is about.
pub const HOST: &str = "api.anthropic.com";

pub fn root_pem(dir: &Path) -> PathBuf {
    dir.join("root.pem")
}

fn root_key(dir: &Path) -> PathBuf {
    dir.join("root.key")
}

/// Makes the root.
pub fn create(dir: &Path) -> Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Bench Root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    fs::write(root_pem(dir), params.self_signed(&key)?.pem())?;
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(root_key(dir))?;
    Ok(file.write_all(key.serialize_pem().as_bytes())?)
}

/// A server for [`HOST`] that speaks these protocols.
pub fn server(dir: &Path, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>> {
    let issuer = Issuer::from_ca_cert_pem(
        &fs::read_to_string(root_pem(dir))?,
        KeyPair::from_pem(&fs::read_to_string(root_key(dir))?)?,
    )?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![HOST.to_owned()])?;
    params.use_authority_key_identifier_extension = true;
    let leaf = params.signed_by(&key, &issuer)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )?;
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client that trusts the certificates of these files.
pub fn client(roots: &[PathBuf], alpn: &[&[u8]], resume: bool) -> Result<Arc<ClientConfig>> {
    let mut store = RootCertStore::empty();
    for file in roots {
        for root in CertificateDer::pem_file_iter(file)? {
            store.add(root?)?;
        }
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    if !resume {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
