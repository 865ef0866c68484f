//! The writer thread: appends, rotates.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

use rustix::fs::{FlockOperation, flock};

use super::Message;
use crate::home::{beside, open_append};

/// Size at which the file is set aside, over the one before.
pub(super) const ROTATE_AT: u64 = 4 << 20;

pub(super) fn run(path: &Path, messages: &Receiver<Message>, lost: &AtomicU64) {
    let mut file = None;
    // The last write may have left half a line.
    let mut torn = false;
    while let Ok(message) = messages.recv() {
        match message {
            Message::Line(line) => {
                let line = if torn { [b"\n", &*line].concat() } else { line };
                torn = append(path, &mut file, &line).is_err();
                if torn {
                    lost.fetch_add(1, Ordering::Relaxed);
                    file = None;
                }
            }
            Message::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

fn append(path: &Path, file: &mut Option<File>, line: &[u8]) -> io::Result<()> {
    // Another process may have set the file aside.
    if file.as_ref().is_none_or(|f| !is_at(f, path)) {
        *file = Some(open_append(path)?);
    }
    let Some(open) = file.as_mut() else { return Ok(()) };
    if open.metadata()?.len() >= ROTATE_AT && rotate(path, open) {
        *open = open_append(path)?;
    }
    // One write for the whole line: O_APPEND makes it atomic among processes. What is left of a
    // short write (disk full) is a broken line, which readers skip; the next one begins behind it.
    let written = open.write(line)?;
    if written == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

/// Whether the file was set aside. The lock lets one process do it; the others go on with what
/// they have and find the new file at their next line.
fn rotate(path: &Path, open: &File) -> bool {
    let Ok(lock) = open_append(&beside(path, ".lock")) else { return false };
    flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        && is_at(open, path)
        && fs::rename(path, rotated(path)).is_ok()
}

/// `events.jsonl` → `events.1.jsonl`.
pub(super) fn rotated(path: &Path) -> PathBuf {
    path.with_extension("1.jsonl")
}
