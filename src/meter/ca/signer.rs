//! One authority: its certificate and key on the disk, and what it can sign.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::ServerConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::{CaError, leaf, make, read, tighten};
use crate::config::HostPattern;
use crate::home::{Home, write_atomic};

/// A CA with less life than this left gets a next one beside it when it is loaded.
pub(super) const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
/// With less than this it is not used any more.
const SWITCH_BEFORE: Duration = Duration::from_secs(3 * 24 * 3600);

/// Why a CA on disk can't be used, or not for all, and a new one is made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("there is none yet")]
    Missing,
    /// A certificate without its key, too: whoever trusts it still does.
    #[error("its key is missing or another's, or one of the two is damaged")]
    Damaged,
    #[error("by this clock it is not valid, or not for much longer")]
    Expired,
    #[error("by this clock it is not valid for much longer")]
    Expiring,
    #[error("it does not cover every metered host")]
    DoesNotCover,
    #[error("it is not constrained to metered hosts")]
    Unconstrained,
}

/// The two files of an authority.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Place {
    pub(super) fn current(home: &Home) -> Self {
        Self { certificate: home.ca_cert(), key: home.ca_key() }
    }

    pub(super) fn next(home: &Home) -> Self {
        Self { certificate: home.next_ca_cert(), key: home.next_ca_key() }
    }

    /// The certificate first: a key alone is no authority.
    pub(super) fn clear(&self) -> Result<(), CaError> {
        for path in [&self.certificate, &self.key] {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(CaError::io(path)(e));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// What lies in a [`Place`].
#[derive(Debug)]
pub(super) enum Found {
    Good(Signer),
    /// It signs well, but not for all hosts, or not for much longer.
    Limited(Signer, Unfit),
    Unfit(Unfit),
}

impl Found {
    pub(super) fn fit(self) -> Option<Signer> {
        match self {
            Self::Good(signer) => Some(signer),
            Self::Limited(..) | Self::Unfit(_) => None,
        }
    }
}

/// Certificate and key, and the leaves that were signed with it. Those live in memory only.
pub(super) struct Signer {
    der: CertificateDer<'static>,
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// Seconds since 1970. Verifiers look at it, ours included, only if the root isn't an anchor.
    validity: RangeInclusive<i64>,
    /// Trusts our CA and nothing else.
    verifier: Arc<WebPkiServerVerifier>,
    pub(super) provider: Arc<CryptoProvider>,
    leaves: leaf::Cache,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl PartialEq for Signer {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Signer {
    pub(super) fn load(
        place: &Place,
        hosts: &[HostPattern],
        now: SystemTime,
    ) -> Result<Found, CaError> {
        let signer = match Self::open(place)? {
            Err(unfit) => return Ok(Found::Unfit(unfit)),
            Ok(signer) => signer,
        };
        tighten(&place.key)?;
        signer.examine(hosts, now)
    }

    /// What is on the disk, as far as it can be used at all.
    pub(super) fn open(place: &Place) -> Result<Result<Self, Unfit>, CaError> {
        let Some(cert) = read(&place.certificate)? else { return Ok(Err(Unfit::Missing)) };
        let key = read(&place.key)?;
        Ok(key.and_then(|key| Self::parse(&cert, &key)).ok_or(Unfit::Damaged))
    }

    /// Of the two files' contents.
    pub(super) fn parse(cert: &[u8], key: &[u8]) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(cert).ok()?;
        let key = KeyPair::from_pem(std::str::from_utf8(key).ok()?).ok()?;
        let public = key.subject_public_key_info();
        let issuer = Issuer::from_ca_cert_der(&der, key).ok()?;
        let is_its = |signer: &Self| signer.public_key() == Some(public);
        Self::assemble(der, issuer).ok().filter(is_its)
    }

    pub(super) fn create(
        place: &Place,
        hosts: &[HostPattern],
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let (certificate, key) = make::authority(hosts, now)?;
        // The key first: a certificate without its key would look damaged, not missing.
        write_atomic(&place.key, key.serialize_pem().as_bytes())
            .map_err(CaError::io(&place.key))?;
        write_atomic(&place.certificate, certificate.pem().as_bytes())
            .map_err(CaError::io(&place.certificate))?;
        let der = CertificateDer::from(certificate);
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Self::assemble(der, issuer)
    }

    fn assemble(
        der: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    ) -> Result<Self, CaError> {
        let provider = Arc::new(leaf::provider());
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

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Seconds since 1970.
    pub(super) fn not_after(&self) -> i64 {
        *self.validity.end()
    }

    /// Of its time.
    pub(super) fn beginning(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(u64::try_from(*self.validity.start()).unwrap_or(0))
    }

    pub(super) fn server_config(
        &self,
        name: &str,
        alpn: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<Arc<ServerConfig>, CaError> {
        self.leaves.config(self, name, alpn, now)
    }

    /// Puts the CA to the test by what it signs, rather than by reading its fields.
    pub(super) fn examine(self, hosts: &[HostPattern], now: SystemTime) -> Result<Found, CaError> {
        if !self.is_valid_at(now) || !self.is_valid_at(now + SWITCH_BEFORE) {
            return Ok(Found::Unfit(Unfit::Expired));
        }
        for foreign in ["halton-meter.invalid", "192.0.2.1"] {
            if self.can_sign(&[foreign.to_owned()], now)? {
                return Ok(Found::Unfit(Unfit::Unconstrained));
            }
        }
        let names: Vec<String> = hosts.iter().map(make::example_name).collect();
        Ok(if !names.is_empty() && !self.can_sign(&names, now)? {
            Found::Limited(self, Unfit::DoesNotCover)
        } else if !self.is_valid_at(now + RENEW_BEFORE) {
            Found::Limited(self, Unfit::Expiring)
        } else {
            Found::Good(self)
        })
    }

    /// Whether a certificate for all of these would be accepted.
    fn can_sign(&self, names: &[String], now: SystemTime) -> Result<bool, CaError> {
        let Some(first) = names.first() else { return Ok(true) };
        let (der, _) = make::leaf(&self.issuer, names, now, RENEW_BEFORE)?;
        Ok(self.verify(&der, first, now).is_ok())
    }

    pub(super) fn is_valid_at(&self, at: SystemTime) -> bool {
        let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        i64::try_from(seconds).is_ok_and(|s| self.validity.contains(&s))
    }

    pub(super) fn verify(
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

    fn public_key(&self) -> Option<Vec<u8>> {
        let (_, parsed) = x509_parser::parse_x509_certificate(&self.der).ok()?;
        Some(parsed.public_key().raw.to_vec())
    }
}
