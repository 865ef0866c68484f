//! Which state of a file was read, so that a process sees that somebody edited it since.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Between a look that finds an edited file and its reading: who writes in place is done by then.
pub const SETTLED: Duration = Duration::from_millis(300);

/// Differs after each change, of rights as well: what could not be read may be readable by now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// As it is now; `None`: there is none, or it can't be reached.
    #[must_use]
    pub fn of(file: &Path) -> Option<Self> {
        fs::metadata(file).ok().filter(Metadata::is_file).as_ref().map(Self::from)
    }
}

impl From<&Metadata> for Stamp {
    fn from(file: &Metadata) -> Self {
        let changed = (file.ctime(), file.ctime_nsec());
        Self { inode: file.ino(), size: file.size(), changed }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = self.changed;
        write!(f, "{}-{}-{seconds}.{nanos:09}", self.inode, self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_file_has_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        assert_eq!(Stamp::of(&file), None);
        fs::write(&file, "a").unwrap();
        let before = Stamp::of(&file).unwrap();
        assert_eq!(Stamp::of(&file).as_ref(), Some(&before));
        assert_eq!(Stamp::from(&fs::metadata(&file).unwrap()), before);
        fs::write(&file, "ab").unwrap();
        let longer = Stamp::of(&file).unwrap();
        fs::write(dir.path().join("g"), "ab").unwrap();
        fs::rename(dir.path().join("g"), &file).unwrap();
        let replaced = Stamp::of(&file).unwrap();
        assert!(before != longer && longer != replaced);
        assert_ne!(before.to_string(), longer.to_string());
    }
}
