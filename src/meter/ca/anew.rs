//! A CA that took the place of another at once, as that could not sign any more: what runs knows the other
//! one only. Beside it stands when that was, so that such programs are left alone until their next start.
//! One that was the next one before ([`super::rotate`]) had its time to become known.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{CaError, files, read};
use crate::home::{Home, write_atomic};
use crate::platform;

/// For how long a CA that was made anew then has been in the bundle that programs start with. `None`: it
/// is not there.
#[must_use]
pub fn given(home: &Home, made: SystemTime) -> Option<Duration> {
    let bundle = fs::metadata(home.ca_bundle()).and_then(|m| m.modified());
    // Later it is written for other reasons too. Where there are no roots there is none.
    let known = bundle.map_or(true, |written| written >= made);
    // By a clock that was set back it has just come.
    known.then(|| SystemTime::now().duration_since(made).unwrap_or_default())
}

/// Where it stands.
pub(super) fn file(home: &Home) -> PathBuf {
    home.ca_dir().join("made-anew")
}

/// Whether programs may know a CA of ours, though there is none that could sign.
pub(super) fn has_predecessor(home: &Home) -> bool {
    // A home that was purged still has what running programs read.
    home.ca_bundle().exists() || !files(home).is_empty()
}

/// Says that the CA which is about to be written takes the place of another.
pub(super) fn note(home: &Home, now: SystemTime) -> Result<(), CaError> {
    let text = line(now, platform::place_of_pids());
    write_atomic(&file(home), text.as_bytes()).map_err(CaError::io(&file(home)))
}

/// The CA that signs now had its time to become known.
pub(super) fn forget(home: &Home) -> Result<(), CaError> {
    match fs::remove_file(file(home)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(CaError::io(&file(home))(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// When the CA was made anew, as long as a program may run that began before.
pub(super) fn made(home: &Home) -> Result<Option<SystemTime>, CaError> {
    let text = read(&file(home))?;
    Ok(text.and_then(|text| parse(&String::from_utf8_lossy(&text), platform::place_of_pids())))
}

fn line(at: SystemTime, boot: Option<&str>) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{} {}\n", since.as_millis(), boot.unwrap_or_default())
}

/// `None` after a boot, too: everything has begun since.
fn parse(text: &str, boot: Option<&str>) -> Option<SystemTime> {
    let (ms, then) = text.trim_end_matches('\n').split_once(' ')?;
    let over = boot.is_some_and(|now| !then.is_empty() && then != now);
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(ms.parse().ok()?))?;
    (!over).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_until_the_next_boot() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        for (then, now, expected) in [
            (Some("a pid:[1]"), Some("a pid:[1]"), Some(at)),
            (Some("a pid:[1]"), Some("b pid:[1]"), None),
            // It can't be told.
            (None, Some("b"), Some(at)),
            (Some("a"), None, Some(at)),
            (None, None, Some(at)),
        ] {
            assert_eq!(parse(&line(at, then), now), expected, "{then:?} {now:?}");
        }
        for garbage in ["", "1", "x y", "-1 a", "99999999999999999999999 a"] {
            assert_eq!(parse(garbage, Some("a")), None, "{garbage}");
        }
    }

    #[test]
    fn it_is_given_once_the_bundle_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let now = SystemTime::now();
        assert!(given(&home, now).is_some(), "no roots, no bundle");
        let bundle = fs::File::create(home.ca_bundle()).unwrap();
        let minute = Duration::from_secs(60);
        for (written, known) in [(now - minute, false), (now, true), (now + minute, true)] {
            bundle.set_modified(written).unwrap();
            assert_eq!(given(&home, now).is_some(), known, "{written:?}");
        }
        assert_eq!(given(&home, now + minute), Some(Duration::ZERO));
        assert!(given(&home, now - minute) >= Some(minute));
    }
}
