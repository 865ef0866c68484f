//! Files of JSON lines, as crashes leave them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Calls `each` for every readable line. Torn, foreign, blank and overlong ones are skipped; a read
/// error ends the file where it is.
pub(super) fn read<T: DeserializeOwned, E>(
    file: impl Read,
    cap: u64,
    mut each: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(cap).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => {
                if let Ok(value) = serde_json::from_slice(&line) {
                    each(value)?;
                }
            }
        }
    }
}

#[cfg(any(test, fuzzing))]
pub(super) fn said_in<T: DeserializeOwned>(
    bytes: &[u8],
    cap: u64,
    say: impl Fn(T) -> String,
) -> Vec<String> {
    let mut said = Vec::new();
    let mut each = |value| {
        said.push(say(value));
        Ok::<(), std::convert::Infallible>(())
    };
    let Ok(()) = read(bytes, cap, &mut each);
    said
}

/// The files of a directory whose names begin and end so, oldest first: between are UUIDv7s.
pub(super) fn files(dir: &Path, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
            name.starts_with(prefix) && name.ends_with(suffix)
        })
        .collect();
    found.sort();
    found
}
