//! A look at the CA that changes nothing, for `doctor` and the like.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use super::CaError;
use super::signer::{Found, Place, Signer};
use crate::config::{HostPattern, SELFTEST_HOST};
use crate::home::Home;

/// What was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Inspected {
    pub certificate: CertificateDer<'static>,
    /// The one that will take its place, if one waits.
    pub next: Option<CertificateDer<'static>>,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Why it can't be used, or not for all; the next start makes another one.
    pub unfit: Option<String>,
    /// One that an earlier version made has no place for the self-test's host.
    pub covers_selftest: bool,
}

/// `Ok(Err(why))`: there is nothing that could be looked at.
///
/// # Errors
/// When a file can't be read.
pub fn inspect(home: &Home, hosts: &[HostPattern]) -> Result<Result<Inspected, String>, CaError> {
    match Signer::open(&Place::current(home))? {
        Ok(current) => {
            let next = Signer::open(&Place::next(home))?.ok();
            look(current, next, hosts, SystemTime::now()).map(Ok)
        }
        Err(unfit) => Ok(Err(unfit.to_string())),
    }
}

fn look(
    current: Signer,
    next: Option<Signer>,
    hosts: &[HostPattern],
    now: SystemTime,
) -> Result<Inspected, CaError> {
    let next = match next {
        Some(next) => next.examine(hosts, now)?.fit(),
        None => None,
    };
    let signers = [Some(&current), next.as_ref()];
    let covers_selftest =
        signers.into_iter().flatten().any(|s| s.server_config(SELFTEST_HOST, None, now).is_ok());
    let (certificate, not_after) = (current.certificate().clone(), current.not_after());
    let unfit = match current.examine(hosts, now)? {
        Found::Good(_) => None,
        // What it can't do any more or never could, the next one does.
        Found::Limited(..) | Found::Unfit(_) if next.is_some() => None,
        Found::Limited(_, unfit) | Found::Unfit(unfit) => Some(unfit.to_string()),
    };
    Ok(Inspected {
        certificate,
        next: next.map(|next| next.certificate().clone()),
        not_after,
        unfit,
        covers_selftest,
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
    let [current, next] = [(); 2].map(|()| Signer::parse(cert, key));
    look(current?, next, hosts, now).ok()
}
