//! Whom we believe upstream: the platform's verifier and roots, plus the user's own.
//!
//! What fails this check is not our decision: the connection stays with the edge, and the client
//! judges the provider itself.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption, Tls12Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};

use crate::home::Home;
use crate::platform;

/// Roots of the common systems, for when the environment points elsewhere.
const ROOT_FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];
/// Sessions kept for resumption, over all providers.
const SESSIONS: usize = 256;
/// A client chooses its own protocol list; what is over this is built each time.
const MAX_CONFIGS: usize = 64;

/// Whether `SSL_CERT_FILE` or `SSL_CERT_DIR` points into our home: a process that starts with that
/// (a shell with our variables set) must drop it before its threads start, or it would trust our
/// own CA as a provider's.
#[must_use]
pub fn environment_points_home(home: &Home) -> bool {
    points_home(home, |name| std::env::var_os(name))
}

fn points_home(home: &Home, get: impl Fn(&str) -> Option<OsString>) -> bool {
    let canonical = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.to_path_buf());
    let ours = canonical(home.path());
    ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(get).any(|value| {
        std::env::split_paths(&value)
            .any(|path| path.starts_with(home.path()) || canonical(&path).starts_with(&ours))
    })
}

/// The system's roots, or those that the user's own `SSL_CERT_FILE` names; never our own CA.
#[must_use]
pub fn system_roots(home: &Home) -> Vec<CertificateDer<'static>> {
    if !environment_points_home(home) {
        let found = rustls_native_certs::load_native_certs().certs;
        if !found.is_empty() {
            return found;
        }
    }
    roots_from_files(home, platform::is_macos())
}

/// On macOS (`keychain`) the earlier bundle comes first: it was made with the keychain's own roots,
/// which no file has. Elsewhere the system's files are complete, and newer.
fn roots_from_files(home: &Home, keychain: bool) -> Vec<CertificateDer<'static>> {
    let bundle = home.ca_bundle();
    let (first, last) = if keychain { (Some(bundle), None) } else { (None, Some(bundle)) };
    let system = ROOT_FILES.iter().map(PathBuf::from);
    let ours: Vec<_> =
        super::ca::files(home).iter().flat_map(|file| read_certificates(file)).collect();
    first
        .into_iter()
        .chain(system)
        .chain(last)
        .map(|file| read_certificates(&file).into_iter().filter(|c| !ours.contains(c)).collect())
        .find(|found: &Vec<_>| !found.is_empty())
        .unwrap_or_default()
}

/// Whether this is a file of the system's own roots, by whatever name.
#[must_use]
pub fn is_system_file(path: &Path) -> bool {
    let real = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.to_path_buf());
    let wanted = real(path);
    ROOT_FILES.iter().any(|file| real(Path::new(file)) == wanted)
}

/// Certificates of a PEM file; what can't be read is not there.
#[must_use]
pub fn read_certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    std::fs::read(path).map(|content| certificates(&content)).unwrap_or_default()
}

pub(crate) fn certificates(content: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(content).filter_map(Result::ok).collect()
}

/// Client configurations for connections to providers.
pub struct Trust {
    verifier: Result<Arc<dyn ServerCertVerifier>, String>,
    /// What is wrong without making all of it useless.
    problem: Option<String>,
    provider: Arc<CryptoProvider>,
    resumption: Resumption,
    /// One for all: sessions resume only between configurations that share it.
    certificates: Arc<dyn ResolvesClientCert>,
    configs: Mutex<HashMap<Wanted, Arc<ClientConfig>>>,
}

#[derive(Clone, Eq, Hash, PartialEq)]
struct Wanted {
    alpn: Vec<Vec<u8>>,
    sni: bool,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("problem", &self.problem()).finish_non_exhaustive()
    }
}

impl Trust {
    /// Never fails: without a verifier, [`Trust::client_config`] gives nothing and every
    /// connection stays raw.
    #[must_use]
    pub fn load(home: &Home, extra_ca_file: Option<&PathBuf>) -> Self {
        let extra = extra_ca_file.map(|path| read_certificates(path)).unwrap_or_default();
        let problem = extra_ca_file
            .filter(|_| extra.is_empty())
            .map(|path| format!("upstream.extra_ca_file: no certificate in {}", path.display()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = verifier(home, extra, &provider);
        Self::with(verifier, problem, provider)
    }

    /// Believes this root and no other.
    #[must_use]
    pub fn only(root: CertificateDer<'static>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let verifier =
            roots.add(root).map_err(|e| e.to_string()).and_then(|()| web_pki(roots, &provider));
        Self::with(verifier, None, provider)
    }

    fn with(
        verifier: Result<Arc<dyn ServerCertVerifier>, String>,
        problem: Option<String>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self {
            verifier,
            problem,
            provider,
            // A TLS 1.2 session that was made while a client certificate was asked for would
            // resume without the question.
            resumption: Resumption::in_memory_sessions(SESSIONS)
                .tls12_resumption(Tls12Resumption::Disabled),
            certificates: Arc::new(NoCertificate),
            configs: Mutex::new(HashMap::new()),
        }
    }

    /// Why nothing can be verified, or what is missing.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.verifier.as_ref().err().or(self.problem.as_ref()).map(String::as_str)
    }

    /// Offers exactly `alpn` (nothing when empty), and a server name only if the client did.
    #[must_use]
    pub fn client_config(&self, alpn: &[Vec<u8>], sni: bool) -> Option<Arc<ClientConfig>> {
        let wanted = Wanted { alpn: alpn.to_vec(), sni };
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = configs.get(&wanted) {
            return Some(Arc::clone(config));
        }
        let verifier = self.verifier.as_ref().ok()?;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .ok()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(verifier))
            .with_client_cert_resolver(Arc::clone(&self.certificates));
        config.alpn_protocols.clone_from(&wanted.alpn);
        config.enable_sni = sni;
        config.resumption = self.resumption.clone();
        let config = Arc::new(config);
        if configs.len() < MAX_CONFIGS {
            configs.insert(wanted, Arc::clone(&config));
        }
        Some(config)
    }
}

fn verifier(
    home: &Home,
    extra: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    if !environment_points_home(home) {
        let own = rustls_platform_verifier::Verifier::new_with_extra_roots(
            extra.iter().cloned(),
            Arc::clone(provider),
        );
        if let Ok(own) = own {
            return Ok(Arc::new(own));
        }
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(system_roots(home).into_iter().chain(extra));
    if roots.is_empty() {
        return Err("no root certificates found on this system".to_owned());
    }
    web_pki(roots, provider)
}

fn web_pki(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let own = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(provider));
    own.build().map(|v| v as Arc<dyn ServerCertVerifier>).map_err(|e| e.to_string())
}

thread_local! {
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// Runs one poll of a handshake and says whether the server asked for a client certificate in it.
///
/// rustls calls the resolver within the poll, on this thread, and a resolver per connection would
/// end session resumption.
pub(super) fn noting_certificate_request<T>(poll: impl FnOnce() -> T) -> (T, bool) {
    ASKED.set(false);
    let result = poll();
    (result, ASKED.replace(false))
}

/// Has none, but takes note of being asked.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        ASKED.set(true);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_bundle_in_the_environment_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(home.path(), &link).unwrap();
        let with = |value: PathBuf| {
            points_home(&home, |name| (name == "SSL_CERT_FILE").then(|| value.clone().into()))
        };
        assert!(with(home.ca_bundle()));
        assert!(with(link.join("ca/bundle.pem")) || !home.ca_bundle().exists());
        std::fs::write(home.ca_bundle(), "").unwrap();
        assert!(with(link.join("ca/bundle.pem")), "through a link");
        assert!(!with(dir.path().join("corp.pem")));
        assert!(!points_home(&home, |_| None));
    }

    /// Else a shell that has our variables takes a company's root out of the bundle.
    #[test]
    fn the_keychains_roots_in_the_bundle_survive_an_environment_that_hides_the_keychain() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let pem = |byte: char| {
            format!("-----BEGIN CERTIFICATE-----\n{byte}w==\n-----END CERTIFICATE-----\n")
        };
        let (private, ours) = (pem('A'), pem('B'));
        let private_root = certificates(private.as_bytes());
        std::fs::write(home.ca_cert(), &ours).unwrap();
        std::fs::write(home.ca_bundle(), private + &ours).unwrap();
        assert_eq!(roots_from_files(&home, true), private_root);
        assert_ne!(roots_from_files(&home, false), private_root, "the system's files are complete");
        std::fs::write(home.ca_bundle(), &ours).unwrap();
        let system = roots_from_files(&home, true);
        assert!(!system.is_empty() && system == roots_from_files(&home, false));
    }
}
