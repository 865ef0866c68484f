//! A look at the CA that changes nothing, for `doctor` and the like.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use super::{Ca, CaError, Unfit};
use crate::config::{HostPattern, SELFTEST_HOST};
use crate::home::Home;

/// What was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Inspected {
    pub certificate: CertificateDer<'static>,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Why it can't be used; the next start makes another one.
    pub unfit: Option<String>,
    /// One that an earlier version made has no place for the self-test's host.
    pub covers_selftest: bool,
}

/// `Ok(Err(why))`: there is nothing that could be looked at.
///
/// # Errors
/// When a file can't be read.
pub fn inspect(home: &Home, hosts: &[HostPattern]) -> Result<Result<Inspected, String>, CaError> {
    let ca = match Ca::open(home)? {
        Ok(ca) => ca,
        Err(unfit) => return Ok(Err(unfit.to_string())),
    };
    let unfit = ca.examine(hosts, SystemTime::now())?;
    Ok(Ok(Inspected {
        certificate: ca.certificate().clone(),
        not_after: *ca.validity.end(),
        unfit: unfit.as_ref().map(Unfit::to_string),
        covers_selftest: ca.server_config(SELFTEST_HOST, None).is_ok(),
    }))
}
