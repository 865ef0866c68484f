//! Our CA in the system's trust store: a plan of [steps](crate::setup). Which ones, the platform says.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

use crate::digest::sha256;
use crate::meter::trust::read_certificates;
use crate::setup::{Step, StepError};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    Trust,
    Untrust,
}

/// A certificate of ours in a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Authority {
    pub file: PathBuf,
    pub certificate: CertificateDer<'static>,
}

impl Authority {
    /// `None`: there is no certificate in this file.
    #[must_use]
    pub fn read(file: &Path) -> Option<Self> {
        let certificate = read_certificates(file).into_iter().next()?;
        Some(Self { file: file.to_path_buf(), certificate })
    }

    /// SHA-256 in upper-case hex: what `security` calls a certificate by.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        sha256(&self.certificate).iter().map(|b| format!("{b:02X}")).collect()
    }
}

/// The trust store of a platform.
pub trait TrustStore {
    /// What the change takes. `authorities`: the one in use first, then earlier ones.
    ///
    /// # Errors
    /// When the store is not known, or can't be asked.
    fn plan(&self, change: Change, authorities: &[Authority]) -> Result<Plan, TrustStoreError>;
}

/// What would be done.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// How people call this store.
    pub store: String,
    /// Empty: it is as wanted.
    pub steps: Vec<Step>,
    /// We may not do it.
    pub needs_root: bool,
}

/// Why the store can't be changed.
#[derive(Debug, thiserror::Error)]
pub enum TrustStoreError {
    #[error("no trust store that we know: {0}")]
    Unknown(String),
    #[error(transparent)]
    Tool(#[from] StepError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_sha_256() {
        let authority =
            Authority { file: "x".into(), certificate: CertificateDer::from(b"abc".to_vec()) };
        assert_eq!(
            authority.fingerprint(),
            "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"
        );
    }
}
