//! The files of the CA directory, held open: programs that run read them again and again, by names that
//! stand in their environment. Whatever removes them, they can be written again, to the letter; unions
//! too, which nothing else could be made of again.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{CaError, anew, lock};
use crate::home::{Home, write_atomic};

/// What was there when somebody looked last.
#[derive(Debug, Default)]
pub struct KeptFiles {
    directory: Option<Directory>,
    /// Keys first: a certificate without its key would look damaged, not missing.
    files: Vec<(PathBuf, File)>,
}

/// Which directory, and since when no name in it has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Directory {
    id: (u64, u64),
    changed: SystemTime,
}

/// What a look finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    Well,
    /// Names have come, gone or been replaced.
    Changed,
    /// Files are missing without which programs or we can't go on.
    Missing,
    /// All of it is another one's: the home was removed, and somebody made a new CA.
    Another,
}

impl KeptFiles {
    /// Cheap: nothing is opened.
    #[must_use]
    pub fn look(&self, home: &Home) -> Standing {
        let needed = [home.ca_key(), home.ca_cert(), home.ca_bundle()];
        // What never was, as a bundle on a system without roots, is not missing.
        let missing = |path: &PathBuf| self.has(path) && !path.exists();
        judge(self.directory, Directory::of(&home.ca_dir()).ok(), needed.iter().any(missing))
    }

    /// Takes note of what is there now.
    ///
    /// # Errors
    /// When it can't be read; then nothing has changed.
    pub fn note(&mut self, home: &Home) -> io::Result<()> {
        let directory = Directory::of(&home.ca_dir())?;
        let mut files = Vec::new();
        for entry in fs::read_dir(home.ca_dir())? {
            let path = entry?.path();
            let lasting = path.extension().is_some_and(|extension| extension == "pem")
                || path == anew::file(home);
            if lasting && path.is_file() {
                let file = File::open(&path)?;
                files.push((path, file));
            }
        }
        let keys = [home.ca_key(), home.next_ca_key()];
        files.sort_by_key(|(path, _)| !keys.contains(path));
        (self.directory, self.files) = (Some(directory), files);
        Ok(())
    }

    /// Writes what is missing. False: the CA there is another one by now, and nothing was done.
    ///
    /// # Errors
    /// When files can't be read or written.
    pub fn restore(&self, home: &Home) -> Result<bool, CaError> {
        let _lock = lock(home)?;
        let mut wanted = Vec::new();
        for (path, file) in &self.files {
            let content = content(file).map_err(CaError::io(path))?;
            let there = super::read(path)?;
            let is_ca = [home.ca_key(), home.ca_cert()].contains(path);
            if is_ca && there.as_ref().is_some_and(|there| *there != content) {
                return Ok(false);
            }
            if there.is_none() {
                wanted.push((path, content));
            }
        }
        for (path, content) in wanted {
            write_atomic(path, &content).map_err(CaError::io(path))?;
        }
        Ok(true)
    }

    fn has(&self, path: &Path) -> bool {
        self.files.iter().any(|(kept, _)| kept == path)
    }
}

impl Directory {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self { id: (meta.dev(), meta.ino()), changed: meta.modified()? })
    }
}

fn judge(before: Option<Directory>, now: Option<Directory>, missing: bool) -> Standing {
    match (before, now) {
        (None, None) => Standing::Well,
        (None, Some(_)) => Standing::Changed,
        (Some(_), _) if missing => Standing::Missing,
        (Some(before), Some(now)) if before == now => Standing::Well,
        (Some(before), Some(now)) if before.id == now.id => Standing::Changed,
        (Some(_), Some(_)) => Standing::Another,
        // Nothing of it was needed.
        (Some(_), None) => Standing::Well,
    }
}

fn content(mut file: &File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_directory_is_another_one_s() {
        let of = |inode, seconds| {
            let changed = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            Some(Directory { id: (1, inode), changed })
        };
        let table = [
            (None, None, false, Standing::Well),
            (None, of(1, 1), false, Standing::Changed),
            (of(1, 1), of(1, 1), false, Standing::Well),
            (of(1, 1), of(1, 2), false, Standing::Changed),
            (of(1, 1), of(1, 2), true, Standing::Missing),
            (of(1, 1), None, true, Standing::Missing),
            (of(1, 1), of(2, 2), true, Standing::Missing),
            (of(1, 1), of(2, 2), false, Standing::Another),
            (of(1, 1), None, false, Standing::Well),
        ];
        for (before, now, missing, standing) in table {
            assert_eq!(judge(before, now, missing), standing, "{before:?} {now:?} {missing}");
        }
    }

    #[test]
    fn what_is_removed_is_written_again_but_not_over_another_ca() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        let mut kept = KeptFiles::default();
        assert_eq!(kept.look(&home), Standing::Well);
        home.create().unwrap();
        let union = home.ca_dir().join("union-1-own.pem");
        let all = [home.ca_key(), home.ca_cert(), home.ca_bundle(), union];
        for path in &all {
            fs::write(path, path.as_os_str().as_encoded_bytes()).unwrap();
        }
        fs::write(home.ca_dir().join("lock"), "").unwrap();
        assert_eq!(kept.look(&home), Standing::Changed);
        kept.note(&home).unwrap();
        assert_eq!((kept.look(&home), kept.files.len()), (Standing::Well, 4));
        for _ in 0..2 {
            fs::remove_dir_all(home.path()).unwrap();
            assert_eq!(kept.look(&home), Standing::Missing);
            home.create().unwrap();
            assert!(kept.restore(&home).unwrap());
            for path in &all {
                assert_eq!(fs::read(path).unwrap(), path.as_os_str().as_encoded_bytes());
            }
        }
        kept.note(&home).unwrap();
        fs::remove_dir_all(home.path()).unwrap();
        home.create().unwrap();
        fs::write(home.ca_cert(), "another").unwrap();
        assert!(!kept.restore(&home).unwrap());
        assert!(!home.ca_key().exists() && !home.ca_bundle().exists());
        fs::write(home.ca_key(), "another").unwrap();
        fs::write(home.ca_bundle(), "another").unwrap();
        assert_eq!(kept.look(&home), Standing::Another);
    }
}
