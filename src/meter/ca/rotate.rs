//! A new CA in place of the old one, without a handshake that fails.
//!
//! Publish the next one; wait for the programs that began before; change over. Each step is one file
//! after the other, and whoever loads the CA finishes what was cut short ([`super::Ca::load_or_create`]).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::signer::{Place, Signer};
use super::{CaError, anew, lock, read};
use crate::config::HostPattern;
use crate::home::{Home, write_atomic};

/// Publishes a next CA, unless one waits already; the bundle is the caller's to write.
///
/// # Errors
/// When the files can't be read or written.
pub fn begin(home: &Home, hosts: &[HostPattern]) -> Result<(), CaError> {
    let _lock = lock(home)?;
    let now = SystemTime::now();
    if Signer::load(&Place::next(home), hosts, now)?.fit().is_none() {
        publish(home, hosts, now)?;
    }
    Ok(())
}

/// For how long the next CA has been there to be read. `None`: there is none.
#[must_use]
pub fn waiting(home: &Home) -> Option<Duration> {
    let published = fs::metadata(home.next_ca_cert()).and_then(|m| m.modified()).ok()?;
    // By a clock that was set back it has just come.
    Some(SystemTime::now().duration_since(published).unwrap_or_default())
}

/// So coarse are the clocks of processes and files; no program has read its roots so soon.
const COARSE: Duration = Duration::from_millis(20);

/// For how long the next CA has been in the bundle that programs start with. `None`: it is not there.
#[must_use]
pub fn given(home: &Home) -> Option<Duration> {
    let modified = |path| fs::metadata(path).and_then(|m| m.modified()).ok();
    // The bundle is written behind the certificate, and when it changes only.
    let (next, bundle) = (modified(home.next_ca_cert())?, modified(home.ca_bundle())?);
    let since = SystemTime::now().duration_since(bundle).unwrap_or_default();
    (bundle >= next).then_some(since)
}

/// Whether a program of this age was given a CA that has been there for so long. Who can't be told was not.
#[must_use]
pub fn knows(age: Option<Duration>, given: Option<Duration>) -> bool {
    age.zip(given).is_some_and(|(age, given)| age <= given + COARSE)
}

/// The next CA signs from now on, for whoever reads the files anew.
///
/// # Errors
/// When the files can't be read or written, or there is no next CA.
pub fn finish(home: &Home, hosts: &[HostPattern]) -> Result<(), CaError> {
    let _lock = lock(home)?;
    let now = SystemTime::now();
    if Signer::load(&Place::next(home), hosts, now)?.fit().is_none() {
        return Err(CaError::NoNext);
    }
    promote(home, now)
}

/// Makes the next CA; one that lies there will not do.
pub(super) fn publish(
    home: &Home,
    hosts: &[HostPattern],
    now: SystemTime,
) -> Result<Signer, CaError> {
    let place = Place::next(home);
    if place.certificate.exists() {
        retire(home, &place, now)?;
    }
    Signer::create(&place, hosts, now)
}

/// The next one's files become the current one's. Cut short anywhere, the current pair does not fit
/// together and the next one is whole, so that it is done again.
pub(super) fn promote(home: &Home, now: SystemTime) -> Result<(), CaError> {
    let (current, next) = (Place::current(home), Place::next(home));
    let content = |path: &Path| read(path)?.ok_or(CaError::NoNext);
    let (key, certificate) = (content(&next.key)?, content(&next.certificate)?);
    if let Some(old) = read(&current.certificate)?
        && old != certificate
    {
        let kept = retired(home, now);
        write_atomic(&kept, &old).map_err(CaError::io(&kept))?;
    }
    write_atomic(&current.key, &key).map_err(CaError::io(&current.key))?;
    write_atomic(&current.certificate, &certificate).map_err(CaError::io(&current.certificate))?;
    anew::forget(home)?;
    next.clear()
}

/// Puts an unfit CA aside. Its certificate stays, so that it can still be named and untrusted; its
/// key goes: nothing should ever be signed with it again.
pub(super) fn retire(home: &Home, place: &Place, now: SystemTime) -> Result<PathBuf, CaError> {
    let kept = retired(home, now);
    let absent_is_fine =
        |e: io::Error| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) };
    fs::rename(&place.certificate, &kept).or_else(absent_is_fine).map_err(CaError::io(&kept))?;
    fs::remove_file(&place.key).or_else(absent_is_fine).map_err(CaError::io(&place.key))?;
    Ok(kept)
}

/// A name that none has yet.
fn retired(home: &Home, now: SystemTime) -> PathBuf {
    let mut seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    loop {
        let path = home.ca_dir().join(format!("retired-{seconds}.pem"));
        if !path.exists() {
            return path;
        }
        seconds += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_began_before_or_can_t_be_told_was_not_given_the_next_one() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let given = ms(60_000);
        for (age, given, expected) in [
            (None, given, false),
            (ms(10), None, false),
            (ms(60_500), given, false),
            (ms(60_010), given, true),
            (ms(59_990), given, true),
            (ms(10), given, true),
        ] {
            assert_eq!(knows(age, given), expected, "{age:?}");
        }
    }
}
