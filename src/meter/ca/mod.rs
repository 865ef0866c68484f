//! Our certificate authority: made on first use, kept 0600, constrained to the metered hosts.
//!
//! A stolen key can impersonate no other host: the constraint is critical and stands in the
//! certificate that clients trust. What is loaded is put to the test before it is used, so a
//! certificate that is not constrained, not ours, or about to expire is replaced, and each leaf is
//! verified once against the CA before a client sees it: a clock that jumped or a host that is not
//! covered ends in a raw tunnel, not in a failed handshake.

mod bundle;
mod inspect;
mod leaf;
mod make;

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{Issuer, KeyPair};
use rustix::fs::{FlockOperation, flock};
use rustls::ServerConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

pub use bundle::Bundle;
#[cfg(any(test, fuzzing))]
pub(crate) use inspect::inspect_files;
pub use inspect::{Inspected, inspect};

use crate::config::HostPattern;
use crate::home::{Home, write_atomic};

/// A CA with less life than this left is replaced when it is loaded.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why there is no CA, or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot use a certificate of our own: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the CA does not cover this host: {0}")]
    NotCovered(#[source] rustls::Error),
    #[error("by this clock the CA is not valid now")]
    NotValidNow,
    #[error("not a host name that a certificate can carry")]
    BadName,
    #[error("no root certificates found on this system")]
    NoRoots,
}

impl CaError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}

/// Why a CA on disk can't be used and a new one is made.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("there is none yet")]
    Missing,
    #[error("its key or certificate is damaged")]
    Damaged,
    #[error("by this clock it is not valid, or not for much longer")]
    Expired,
    #[error("it does not cover every metered host, or its key is another's")]
    DoesNotCover,
    #[error("it is not constrained to metered hosts")]
    Unconstrained,
}

/// The authority, ready to answer handshakes. Leaves live in memory only.
pub struct Ca {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    /// Seconds since 1970. Verifiers look at it, ours included, only if the root isn't an anchor.
    validity: RangeInclusive<i64>,
    /// Trusts our CA and nothing else.
    verifier: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
    leaves: leaf::Cache,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive()
    }
}

impl Ca {
    /// Loads the CA of this home, or makes one when there is none that fits `hosts`. Safe to call
    /// from several processes at once.
    ///
    /// # Errors
    /// When the files can't be read or written. A damaged file is no error: it is replaced.
    pub fn load_or_create(
        home: &Home,
        hosts: &[HostPattern],
        log: &slog::Logger,
    ) -> Result<Self, CaError> {
        let lock_path = home.ca_dir().join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(CaError::io(&lock_path))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|e| CaError::Io { path: lock_path, source: e.into() })?;
        let now = SystemTime::now();
        match Self::load(home, hosts, now)? {
            Ok(ca) => Ok(ca),
            Err(unfit) => {
                if matches!(unfit, Unfit::Missing) {
                    slog::info!(log, "making a certificate authority");
                } else {
                    let kept = retire(home, now)?;
                    slog::warn!(log, "making a new certificate authority: running programs \
                        trust it after their next start";
                        "old_one" => %unfit, "kept_as" => kept.display());
                }
                Self::create(home, hosts, now)
            }
        }
    }

    /// Server configuration for one connection: a leaf for `name` (the SNI, else the CONNECT
    /// host) and exactly the protocol that the provider chose.
    ///
    /// # Errors
    /// When no certificate can be made that a client would accept: leave the connection raw.
    pub fn server_config(
        &self,
        name: &str,
        alpn: Option<&[u8]>,
    ) -> Result<Arc<ServerConfig>, CaError> {
        self.leaves.config(self, name, alpn, SystemTime::now())
    }

    /// Our own certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.der
    }

    fn load(
        home: &Home,
        hosts: &[HostPattern],
        now: SystemTime,
    ) -> Result<Result<Self, Unfit>, CaError> {
        let loaded = Self::open(home)?;
        if !matches!(loaded, Err(Unfit::Missing)) {
            tighten(&home.ca_key())?;
        }
        Ok(match loaded {
            Ok(ca) => ca.examine(hosts, now)?.map_or(Ok(ca), Err),
            Err(unfit) => Err(unfit),
        })
    }

    /// What is on the disk, as far as it can be used at all.
    fn open(home: &Home) -> Result<Result<Self, Unfit>, CaError> {
        let (Some(cert), Some(key)) = (read(&home.ca_cert())?, read(&home.ca_key())?) else {
            return Ok(Err(Unfit::Missing));
        };
        Ok(Self::parse(&cert, &key).ok_or(Unfit::Damaged))
    }

    /// Of the two files' contents.
    fn parse(cert: &[u8], key: &[u8]) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(cert).ok()?;
        let key = KeyPair::from_pem(std::str::from_utf8(key).ok()?).ok()?;
        let issuer = Issuer::from_ca_cert_der(&der, key).ok()?;
        Self::assemble(der, issuer).ok()
    }

    fn create(home: &Home, hosts: &[HostPattern], now: SystemTime) -> Result<Self, CaError> {
        let (certificate, key) = make::authority(hosts, now)?;
        // The key first: a certificate without its key would look damaged, not missing.
        write_atomic(&home.ca_key(), key.serialize_pem().as_bytes())
            .map_err(CaError::io(&home.ca_key()))?;
        write_atomic(&home.ca_cert(), certificate.pem().as_bytes())
            .map_err(CaError::io(&home.ca_cert()))?;
        let der = CertificateDer::from(certificate);
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Self::assemble(der, issuer)
    }

    fn assemble(
        der: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    ) -> Result<Self, CaError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der.clone())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
                .build()
                .map_err(|e| rustls::Error::General(e.to_string()))?;
        let validity = {
            let (_, parsed) = x509_parser::parse_x509_certificate(&der)
                .map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
            let validity = parsed.validity();
            validity.not_before.timestamp()..=validity.not_after.timestamp()
        };
        let leaves = leaf::Cache::new()?;
        Ok(Self { der, issuer, validity, verifier, provider, leaves })
    }

    /// Puts the CA to the test by what it signs, rather than by reading its fields.
    fn examine(&self, hosts: &[HostPattern], now: SystemTime) -> Result<Option<Unfit>, CaError> {
        if !self.is_valid_at(now) || !self.is_valid_at(now + RENEW_BEFORE) {
            return Ok(Some(Unfit::Expired));
        }
        let names: Vec<String> = hosts.iter().map(make::example_name).collect();
        if let Some(first) = names.first() {
            let (der, _) = make::leaf(&self.issuer, &names, now, RENEW_BEFORE)?;
            if self.verify(&der, first, now).is_err() {
                return Ok(Some(Unfit::DoesNotCover));
            }
        }
        for foreign in ["halton-meter.invalid", "192.0.2.1"] {
            let (der, _) = make::leaf(&self.issuer, &[foreign.to_owned()], now, RENEW_BEFORE)?;
            if self.verify(&der, foreign, now).is_ok() {
                return Ok(Some(Unfit::Unconstrained));
            }
        }
        Ok(None)
    }

    fn is_valid_at(&self, at: SystemTime) -> bool {
        let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        i64::try_from(seconds).is_ok_and(|s| self.validity.contains(&s))
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        name: &str,
        at: SystemTime,
    ) -> Result<(), rustls::Error> {
        let name = ServerName::try_from(name)
            .map_err(|_| rustls::Error::General("bad name".to_owned()))?;
        let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap_or_default());
        self.verifier.verify_server_cert(leaf, &[], &name, &[], at).map(|_| ())
    }
}

/// Puts an unfit CA aside. Its certificate stays, so that it can still be named and untrusted; its
/// key goes: nothing should ever be signed with it again.
fn retire(home: &Home, now: SystemTime) -> Result<PathBuf, CaError> {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let kept = home.ca_dir().join(format!("retired-{seconds}.pem"));
    let absent_is_fine =
        |e: io::Error| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) };
    fs::rename(home.ca_cert(), &kept).or_else(absent_is_fine).map_err(CaError::io(&kept))?;
    let key = home.ca_key();
    fs::remove_file(&key).or_else(absent_is_fine).map_err(CaError::io(&key))?;
    Ok(kept)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, CaError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(CaError::io(path)(e)),
    }
}

fn tighten(path: &Path) -> Result<(), CaError> {
    let mode = fs::metadata(path).map_err(CaError::io(path))?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(CaError::io(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
