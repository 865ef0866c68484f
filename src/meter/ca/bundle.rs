//! The exported bundle: the system's roots and ours in one file, for tools that take only one.

use rustls::pki_types::CertificateDer;

use super::{Ca, CaError};
use crate::config::base64;
use crate::home::{Home, write_atomic};
use crate::meter::trust::system_roots;

/// What is in the bundle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bundle {
    /// Roots besides ours.
    pub roots: usize,
    /// False: the file was already right.
    pub written: bool,
}

impl Ca {
    /// Writes the system's roots (or those of the user's own `SSL_CERT_FILE`), `extra` and our
    /// certificate to [`Home::ca_bundle`], whole or not at all.
    ///
    /// # Errors
    /// [`CaError::NoRoots`] rather than a bundle with our CA alone: with that, a tool could reach
    /// no other host.
    pub fn write_bundle(
        &self,
        home: &Home,
        extra: &[CertificateDer<'static>],
    ) -> Result<Bundle, CaError> {
        let mut roots = system_roots(home);
        if roots.is_empty() {
            return Err(CaError::NoRoots);
        }
        roots.extend_from_slice(extra);
        roots.retain(|root| root != self.certificate());
        roots.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        roots.dedup();
        let mut text = String::from("# System roots and the CA of Halton Meter; made by it.\n");
        for der in roots.iter().chain([self.certificate()]) {
            push_pem(&mut text, der);
        }
        let path = home.ca_bundle();
        let written = super::read(&path)?.is_none_or(|old| old != text.as_bytes());
        if written {
            write_atomic(&path, text.as_bytes()).map_err(CaError::io(&path))?;
        }
        Ok(Bundle { roots: roots.len(), written })
    }
}

fn push_pem(text: &mut String, der: &CertificateDer<'_>) {
    let body = base64(der);
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END CERTIFICATE-----\n");
}
