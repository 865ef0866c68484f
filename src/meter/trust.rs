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
use rustls::version::TLS13;
use rustls::{ClientConfig, DEFAULT_VERSIONS, RootCertStore, SignatureScheme};

use super::hello::Hello;
use crate::home::Home;
use crate::platform;

/// Roots of the common systems. Which of them counts is no question of the environment: one shell's
/// variables are no business of the others.
const ROOT_FILES: [&str; 8] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",
    "/opt/etc/ssl/certs/ca-certificates.crt",
    "/usr/local/share/certs/ca-root-nss.crt",
];
/// What an administrator puts here counts too, whether or not the file has it.
const ROOT_DIRECTORIES: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];
const FILE_VAR: &str = "SSL_CERT_FILE";
const DIRECTORY_VAR: &str = "SSL_CERT_DIR";
/// Sessions kept for resumption, over all providers.
const SESSIONS: usize = 256;
/// A client chooses its own protocol list; what is over this is built each time.
const MAX_CONFIGS: usize = 64;

type Roots = Vec<CertificateDer<'static>>;

/// Whether a process that verifies providers must start over without `SSL_CERT_FILE` and
/// `SSL_CERT_DIR`, before its threads start. Where they point into our home (a shell with our variables
/// set), it would trust our own CA as a provider's. On macOS whatever they say hides the keychain.
#[must_use]
pub fn environment_misleads(home: &Home) -> bool {
    misleads(home, platform::is_macos(), &of_environment)
}

type Get<'a> = &'a dyn Fn(&str) -> Option<OsString>;

fn of_environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn misleads(home: &Home, keychain: bool, get: Get<'_>) -> bool {
    points_home(home, get) || (keychain && is_named(get))
}

/// An empty one counts: rustls-native-certs obeys it.
fn is_named(get: Get<'_>) -> bool {
    [FILE_VAR, DIRECTORY_VAR].into_iter().any(|name| get(name).is_some())
}

fn points_home(home: &Home, get: Get<'_>) -> bool {
    let canonical = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.to_path_buf());
    let ours = canonical(home.path());
    [FILE_VAR, DIRECTORY_VAR].into_iter().filter_map(get).any(|value| {
        std::env::split_paths(&value)
            .any(|path| path.starts_with(home.path()) || canonical(&path).starts_with(&ours))
    })
}

/// The system's roots, whatever the environment names, as they go into the bundle that every program
/// shares; never our own CA.
#[must_use]
pub fn system_roots(home: &Home) -> Roots {
    roots(home, platform::is_macos(), &of_environment)
}

/// The system's roots, and those that this process's environment names. For whoever judges, and hands
/// them to nobody.
#[must_use]
pub fn all_roots(home: &Home) -> Roots {
    let mut all = system_roots(home);
    all.extend(named(home, &of_environment));
    all
}

fn roots(home: &Home, keychain: bool, get: Get<'_>) -> Roots {
    let in_keychain = || {
        if keychain && !is_named(get) {
            rustls_native_certs::load_native_certs().certs
        } else {
            Roots::new()
        }
    };
    let earlier = || read_certificates(&home.ca_bundle());
    choose(home, keychain, [&in_keychain, &earlier, &system_files, &|| named(home, get)])
}

/// On macOS (`keychain`) it is asked first, and has our own CA among its roots after `ca trust`. The earlier
/// bundle comes next: it was made with the keychain's roots, which no file has. Elsewhere the system's
/// files are complete, and newer. A system without any (Nix, Guix, a bare container) has what its
/// environment names.
fn choose(
    home: &Home,
    keychain: bool,
    [in_keychain, earlier, system, named]: [&dyn Fn() -> Roots; 4],
) -> Roots {
    let order = if keychain {
        [in_keychain, earlier, system, named]
    } else {
        [system, named, earlier, in_keychain]
    };
    let ours = own(home);
    let without = |mut found: Roots| {
        found.retain(|c| !ours.contains(c));
        found
    };
    order.iter().map(|read| without(read())).find(|found| !found.is_empty()).unwrap_or_default()
}

fn system_files() -> Roots {
    let mut files = ROOT_FILES.iter().map(|file| read_certificates(Path::new(file)));
    let mut found = files.find(|found| !found.is_empty()).unwrap_or_default();
    ROOT_DIRECTORIES.iter().for_each(|dir| found.extend(read_directory(Path::new(dir))));
    found
}

/// What the user's own `SSL_CERT_FILE` and `SSL_CERT_DIR` name; nothing where they lead to us.
fn named(home: &Home, get: Get<'_>) -> Roots {
    if points_home(home, get) {
        return Roots::new();
    }
    let mut found: Roots =
        get(FILE_VAR).map(|file| read_certificates(Path::new(&file))).unwrap_or_default();
    let directories = get(DIRECTORY_VAR).unwrap_or_default();
    let directories = std::env::split_paths(&directories).filter(|d| !d.as_os_str().is_empty());
    directories.for_each(|directory| found.extend(read_directory(&directory)));
    // A copy of our bundle may lie anywhere.
    let ours = own(home);
    found.retain(|c| !ours.contains(c));
    found
}

fn read_directory(path: &Path) -> Roots {
    rustls_native_certs::load_certs_from_paths(None, Some(path)).certs
}

fn own(home: &Home) -> Roots {
    super::ca::files(home).iter().flat_map(|file| read_certificates(file)).collect()
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
    tls13_only: bool,
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

    /// Offers exactly the client's protocols, a server name only if it does, and TLS 1.2 only to who does: a
    /// provider without 1.3 is for the client to refuse.
    #[must_use]
    pub fn client_config(&self, hello: &Hello) -> Option<Arc<ClientConfig>> {
        let Hello { sni, alpn, tls13_only } = hello;
        let wanted = Wanted { alpn: alpn.clone(), sni: sni.is_some(), tls13_only: *tls13_only };
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = configs.get(&wanted) {
            return Some(Arc::clone(config));
        }
        let verifier = self.verifier.as_ref().ok()?;
        let versions = if *tls13_only { &[&TLS13][..] } else { DEFAULT_VERSIONS };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)
            .ok()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(verifier))
            .with_client_cert_resolver(Arc::clone(&self.certificates));
        config.alpn_protocols.clone_from(&wanted.alpn);
        config.enable_sni = wanted.sni;
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
    // Elsewhere the platform's verifier is the same over the roots of the environment alone.
    if platform::is_macos() && !environment_misleads(home) {
        let own = rustls_platform_verifier::Verifier::new_with_extra_roots(
            extra.iter().cloned(),
            Arc::clone(provider),
        );
        if let Ok(own) = own {
            return Ok(Arc::new(own));
        }
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(all_roots(home).into_iter().chain(extra));
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
            let get = |name: &str| (name == FILE_VAR).then(|| value.clone().into());
            let keychain = misleads(&home, true, &get);
            assert!(keychain, "it hides the keychain, wherever it leads");
            misleads(&home, false, &get)
        };
        assert!(with(home.ca_bundle()));
        assert!(with(link.join("ca/bundle.pem")) || !home.ca_bundle().exists());
        std::fs::write(home.ca_bundle(), "").unwrap();
        assert!(with(link.join("ca/bundle.pem")), "through a link");
        assert!(!with(dir.path().join("corp.pem")));
        assert!(![false, true].iter().any(|keychain| misleads(&home, *keychain, &|_| None)));
    }

    fn pem(byte: char) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{byte}w==\n-----END CERTIFICATE-----\n")
    }

    fn der(text: &str) -> Roots {
        certificates(text.as_bytes())
    }

    /// Else one shell's setting is everybody's, and all but its company's hosts are refused.
    #[test]
    fn a_file_that_the_environment_names_takes_nothing_from_the_systems_roots() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let (corp, more) = (dir.path().join("corp.pem"), dir.path().join("more"));
        std::fs::create_dir(&more).unwrap();
        std::fs::write(home.ca_cert(), pem('B')).unwrap();
        std::fs::write(&corp, pem('A') + &pem('B')).unwrap();
        std::fs::write(more.join("c.pem"), pem('C')).unwrap();
        let without = roots(&home, false, &|_| None);
        assert!(without.len() > 50, "{} of the system", without.len());
        for value in [corp.clone(), dir.path().join("none.pem"), PathBuf::new()] {
            for name in [FILE_VAR, DIRECTORY_VAR] {
                let get = |n: &str| (n == name).then(|| value.clone().into());
                assert_eq!(roots(&home, false, &get), without, "{name}={}", value.display());
            }
        }
        let both = |name: &str| {
            Some(if name == FILE_VAR { corp.clone().into() } else { more.clone().into() })
        };
        assert_eq!(named(&home, &both), der(&(pem('A') + &pem('C'))), "and never ours");
        let ours = |name: &str| (name == FILE_VAR).then(|| home.ca_cert().into());
        assert_eq!(named(&home, &ours), []);
    }

    #[test]
    fn what_has_the_roots_depends_on_the_system() {
        let home = Home::at("/nowhere");
        let (a, b, c) = (|| der(&pem('A')), || der(&pem('B')), || der(&pem('C')));
        let none = || Roots::new();
        assert_eq!(choose(&home, true, [&none, &a, &b, &c]), a());
        assert_eq!(choose(&home, true, [&none, &none, &b, &c]), b());
        assert_eq!(choose(&home, false, [&none, &a, &b, &c]), b());
        let choice = choose(&home, false, [&none, &a, &none, &c]);
        assert_eq!(choice, c(), "newer than what was written once");
        assert_eq!(choose(&home, false, [&none, &a, &none, &none]), a());
    }

    /// `ca trust` puts it there.
    #[test]
    fn our_own_ca_in_the_keychain_is_no_root() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        std::fs::create_dir_all(home.ca_dir()).unwrap();
        std::fs::write(home.ca_cert(), pem('A')).unwrap();
        let both = || [der(&pem('A')), der(&pem('B'))].concat();
        let (ours, none) = (|| der(&pem('A')), Roots::new);
        assert_eq!(choose(&home, true, [&both, &none, &none, &none]), der(&pem('B')));
        assert_eq!(choose(&home, true, [&ours, &none, &both, &none]), der(&pem('B')));
    }

    /// Else a shell that has our variables takes a company's root out of the bundle.
    #[test]
    fn the_keychains_roots_in_the_bundle_survive_an_environment_that_hides_the_keychain() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let hidden = |name: &str| (name == FILE_VAR).then(|| home.ca_bundle().into());
        let (private, ours) = (pem('A'), pem('B'));
        std::fs::write(home.ca_cert(), &ours).unwrap();
        std::fs::write(home.ca_bundle(), private.clone() + &ours).unwrap();
        assert_eq!(roots(&home, true, &hidden), der(&private));
        assert_ne!(roots(&home, false, &hidden), der(&private), "the system's files are complete");
        std::fs::write(home.ca_bundle(), &ours).unwrap();
        let system = roots(&home, true, &hidden);
        assert!(!system.is_empty() && system == roots(&home, false, &hidden));
    }
}
