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
    match Ca::open(home)? {
        Ok(ca) => look(&ca, hosts, SystemTime::now()).map(Ok),
        Err(unfit) => Ok(Err(unfit.to_string())),
    }
}

fn look(ca: &Ca, hosts: &[HostPattern], now: SystemTime) -> Result<Inspected, CaError> {
    let unfit = ca.examine(hosts, now)?;
    Ok(Inspected {
        certificate: ca.certificate().clone(),
        not_after: *ca.validity.end(),
        unfit: unfit.as_ref().map(Unfit::to_string),
        covers_selftest: ca.server_config(SELFTEST_HOST, None).is_ok(),
    })
}

/// Looks at what two files of these contents hold, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn inspect_files(
    cert: &[u8],
    key: &[u8],
    hosts: &[HostPattern],
    now: SystemTime,
) -> Option<Inspected> {
    Ca::parse(cert, key).and_then(|ca| look(&ca, hosts, now).ok())
}
