//! Reading and following the journal, from any process.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::JournalEntry;
use super::write::rotated;

/// A longer line is not ours.
const LINE_CAP: usize = 1 << 20;

/// See [`read_last`].
const LAST: u64 = 256 << 10;
/// So many bytes, and the line that they end in, are read at once by who takes them bit by bit.
const BIT: usize = 64 << 10;

/// How each entry that we write starts. No text in one holds it: quotes in texts are escaped.
const START: &[u8] = br#"{"seq":"#;

/// All entries, the file set aside included. Lines that are none (cut by a full disk) are
/// skipped; no file is no entries.
pub fn read_all(path: &Path) -> io::Result<Vec<JournalEntry>> {
    let mut entries = Vec::new();
    for file in [rotated(path), path.to_owned()] {
        match fs::read(&file) {
            Ok(bytes) => entries.extend(bytes.split(|b| *b == b'\n').filter_map(parse)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(entries)
}

/// The last entries of those kept, `most` at most and not more than are in their last [`LAST`] bytes.
#[must_use]
pub fn read_last(path: &Path, most: usize) -> Vec<JournalEntry> {
    let current = end_of(path, LAST);
    let before = end_of(&rotated(path), LAST.saturating_sub(current.len() as u64));
    let lines = [&before, &current].into_iter().flat_map(|bytes| bytes.split(|b| *b == b'\n'));
    // A line that is cut at its front is none.
    let mut entries: Vec<JournalEntry> = lines.filter_map(parse).collect();
    entries.drain(..entries.len().saturating_sub(most));
    entries
}

fn end_of(path: &Path, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let from = file.metadata().map_or(0, |m| m.len().saturating_sub(most));
        if file.seek(SeekFrom::Start(from)).is_ok() {
            let _ = file.take(most).read_to_end(&mut bytes);
        }
    }
    bytes
}

/// What is left of a line that was cut short has no end: the next process's entry stands behind it in
/// the same line, and is whole.
pub(super) fn parse(line: &[u8]) -> Option<JournalEntry> {
    let start = line.windows(START.len()).rposition(|part| part == START).unwrap_or(0);
    serde_json::from_slice(line.get(start..)?).ok()
}

/// Which file something is.
type Id = (u64, u64);

fn id(file: &Metadata) -> Id {
    (file.dev(), file.ino())
}

/// Of the file that is read, of the journal when it is opened, and of the same by its name.
#[derive(Clone, Copy)]
struct Ids {
    open: Id,
    next: Id,
    named: Id,
}

impl Ids {
    /// Whether the journal is another file. Some file systems number a file anew each time they are asked: there it
    /// is one that is shorter than what was read.
    fn tell_of_another(self, shorter: bool) -> bool {
        let stable = self.next == self.named;
        self.open != self.next && (stable || shorter)
    }
}

/// Follows the journal over rotations. Call [`Tail::poll`] as often as you like.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    partial: Vec<u8>,
}

impl Tail {
    /// From what comes next.
    #[must_use]
    pub fn at_end(path: &Path) -> Self {
        let mut tail = Self::at_start(path);
        tail.file = File::open(path).ok();
        if let Some(file) = &mut tail.file {
            let _ = file.seek(SeekFrom::End(0));
        }
        tail
    }

    /// From the first entry of the current file.
    #[must_use]
    pub fn at_start(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, partial: Vec::new() }
    }

    /// From the first entry that is kept, the file set aside included.
    #[must_use]
    pub fn at_kept(path: &Path) -> Self {
        let file = File::open(rotated(path)).ok();
        Self { file, ..Self::at_start(path) }
    }

    /// What has come since the last call.
    pub fn poll(&mut self) -> Vec<JournalEntry> {
        std::iter::from_fn(|| self.poll_some()).flatten().collect()
    }

    /// A bit of what has come since the last call, however much it is; `None`: that was all for now.
    pub fn poll_some(&mut self) -> Option<Vec<JournalEntry>> {
        let mut entries = Vec::new();
        let mut all = self.drain(&mut entries);
        if all && let Some(next) = self.next_file() {
            // Set aside meanwhile: first the rest of the old one.
            all = self.drain(&mut entries);
            if all {
                self.partial.clear();
                self.file = Some(next);
            }
            // An empty bit would say that there is more.
            if entries.is_empty() {
                all = self.drain(&mut entries);
            }
        }
        (!all || !entries.is_empty()).then_some(entries)
    }

    /// The journal, if it is another file by now.
    fn next_file(&mut self) -> Option<File> {
        let next = File::open(&self.path).ok()?;
        let Some(file) = &mut self.file else { return Some(next) };
        let found = next.metadata().ok()?;
        let ids = Ids {
            open: id(&file.metadata().ok()?),
            next: id(&found),
            named: id(&fs::metadata(&self.path).ok()?),
        };
        ids.tell_of_another(found.len() < file.stream_position().ok()?).then_some(next)
    }

    /// Whether that was all of the file.
    fn drain(&mut self, entries: &mut Vec<JournalEntry>) -> bool {
        let Some(file) = &mut self.file else { return true };
        let mut chunk = [0; 8192];
        for _ in 0..BIT / chunk.len() {
            let Ok(n @ 1..) = file.read(&mut chunk) else { return true };
            for part in chunk.get(..n).unwrap_or_default().split_inclusive(|b| *b == b'\n') {
                if self.partial.len() < LINE_CAP {
                    self.partial.extend_from_slice(part);
                }
                if part.ends_with(b"\n") {
                    entries.extend(parse(&self.partial));
                    self.partial.clear();
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_number_of_its_own_is_not_read_again_and_again() {
        let tell = |open, next, named, shorter| {
            let id = |ino| (1, ino);
            Ids { open: id(open), next: id(next), named: id(named) }.tell_of_another(shorter)
        };
        assert!(!tell(1, 1, 1, false) && !tell(1, 1, 1, true), "the same");
        assert!(tell(1, 2, 2, false) && tell(1, 2, 2, true), "set aside");
        // No two answers agree.
        assert!(!tell(1, 2, 3, false));
        assert!(tell(1, 2, 3, true));
    }
}
