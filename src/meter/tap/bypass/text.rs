//! The list as a text for the next daemon, whose clock tells nothing of ours: times are the wall clock's.
//!
//! What is read may be anybody's, and that clock may have been set meanwhile. A stay is cut off at what it
//! may last at most; one that is over by then is tried again, as it would have been.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ENOUGH, Entry, Key, MAX_ENTRIES, stay};

const VERSION: u32 = 1;
/// No text of ours is longer, whatever has to be escaped in it.
pub(super) const MOST: u64 = 4 << 20;
/// Of host and program together; no host's name is half as long.
const LONGEST_NAMES: usize = 1024;

/// Why a text is none that we can use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    #[error("it is of version {0}, this program knows {VERSION}")]
    Version(u32),
    #[error("it has {0} entries, {MAX_ENTRIES} are the most")]
    TooMany(usize),
}

#[derive(Deserialize)]
struct Head {
    version: u32,
}

#[derive(Deserialize, Serialize)]
struct Text {
    version: u32,
    entries: Vec<Line>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Line {
    host: String,
    program: Option<String>,
    /// `None`: its stay is over, or it has none so far.
    until: Option<Timestamp>,
    strikes: u32,
    stays: u32,
    refused: bool,
    divided: bool,
}

impl Line {
    fn of(key: &Key, entry: &Entry, now: (Instant, Timestamp)) -> Self {
        let (host, program) = key;
        let left = entry.until.map(|until| until.saturating_duration_since(now.0));
        let left = left.filter(|left| !left.is_zero());
        Self {
            host: host.clone(),
            program: Some(program.clone()).filter(|p| !p.is_empty()),
            until: left.map(|left| now.1.checked_add(left).unwrap_or(Timestamp::MAX)),
            strikes: entry.strikes,
            stays: entry.stays,
            refused: entry.refused,
            divided: entry.divided,
        }
    }

    /// Also whether its stay had to be cut off.
    fn entry(self, now: (Instant, Timestamp)) -> (Key, Entry, bool) {
        let program = self.program.unwrap_or_default();
        let longest = if self.stays == 0 { Duration::ZERO } else { stay(&program, self.stays) };
        let told = self.until.and_then(|until| until.duration_since(now.1).try_into().ok());
        let told: Duration = told.unwrap_or_default();
        let left = told.min(longest);
        let entry = Entry {
            // One more is a stay, so there are no more.
            strikes: self.strikes.min(ENOUGH - 1),
            // Which burst that was of is not known any more.
            struck: None,
            stays: self.stays,
            // Every connection is younger.
            since: None,
            until: now.0.checked_add(left).filter(|_| !left.is_zero()),
            refused: self.refused,
            divided: self.divided,
        };
        ((self.host, program), entry, left != told)
    }
}

/// `now` by both clocks.
pub(super) fn write(entries: &HashMap<Key, Entry>, now: (Instant, Timestamp)) -> Option<String> {
    let told = entries.iter().filter(|((host, program), entry)| {
        !entry.is_idle() && host.len() + program.len() <= LONGEST_NAMES
    });
    let mut lines: Vec<_> = told.map(|(key, entry)| Line::of(key, entry, now)).collect();
    if lines.is_empty() {
        return None;
    }
    lines.sort_unstable_by(|a, b| (&a.host, &a.program).cmp(&(&b.host, &b.program)));
    serde_json::to_string(&Text { version: VERSION, entries: lines }).ok()
}

/// The list, and whether a stay had to be cut off.
pub(super) fn read(
    text: &str,
    now: (Instant, Timestamp),
) -> Result<(HashMap<Key, Entry>, bool), Unusable> {
    let Head { version } = serde_json::from_str(text)?;
    if version != VERSION {
        return Err(Unusable::Version(version));
    }
    let Text { entries: lines, .. } = serde_json::from_str(text)?;
    if lines.len() > MAX_ENTRIES {
        return Err(Unusable::TooMany(lines.len()));
    }
    let (mut entries, mut cut) = (HashMap::new(), false);
    for (key, entry, shortened) in lines.into_iter().map(|line| line.entry(now)) {
        cut |= shortened;
        entries.insert(key, entry);
    }
    entries.retain(|_, entry| !entry.is_idle());
    Ok((entries, cut))
}

#[cfg(test)]
mod tests;
