//! Pid files that are locks.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::platform;

/// Between two attempts to take a lock that another process holds.
const LOOK: Duration = Duration::from_millis(100);
/// Within this a process that has the lock has written who it is.
const WRITTEN: Duration = Duration::from_millis(250);
/// Before its pid, in a line of its own: who holds the lock is on its way out.
const ENDING: &str = "ending ";

/// Locks a file as long as it is open. `false`: somebody else holds it.
pub fn lock_exclusively(file: &File) -> io::Result<bool> {
    // A reader that looks whether it is locked holds the shared lock for an instant: try a few times.
    for _ in 0..10 {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(e) => return Err(e.into()),
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    Ok(false)
}

/// A pid file whose lock lives as long as its process, whatever ends it: "alive" is a fact of the
/// kernel's, not a number in a file that another process may have by now.
#[derive(Debug)]
pub struct PidLock {
    path: PathBuf,
    /// More than one after the home was removed, or moved away, under us: whoever waits for our end at the
    /// file of before must not take its change for that.
    files: Mutex<Vec<File>>,
}

/// What the live process that holds a lock has written.
#[derive(Debug)]
struct Holder {
    pid: Option<u32>,
    /// Where that counts.
    place: Option<String>,
    ending: bool,
}

impl Holder {
    fn read(text: &str) -> Self {
        let mut lines = text.lines().map(str::trim);
        let pid = lines.next().and_then(|pid| pid.parse().ok());
        let (mut place, mut ending) = (None, false);
        for line in lines {
            match line.strip_prefix(ENDING) {
                // The next one's pid may stand above what is still to be cut off.
                Some(whose) => ending |= pid.is_some() && whose.parse().ok() == pid,
                None => {
                    place.get_or_insert_with(|| line.to_owned());
                }
            }
        }
        Self { pid, place, ending }
    }
}

/// What a look finds where a lock of ours should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    AsBefore,
    /// It was gone, or could not be taken so far, and is written anew.
    Anew,
    /// It is gone and can't be written, or another process's by now.
    Lost,
}

impl PidLock {
    /// The lock that the last image of this process held and left open.
    #[must_use]
    pub fn inherited(path: PathBuf, fd: OwnedFd) -> Self {
        Self { path, files: Mutex::new(vec![fd.into()]) }
    }

    /// One that could not be taken: each look tries again.
    #[must_use]
    pub fn untaken(path: PathBuf) -> Self {
        Self { path, files: Mutex::default() }
    }

    /// What the next image of this process inherits; it holds the lock as well as we do. `None`: so far
    /// there is nothing.
    pub fn handle(&self) -> io::Result<Option<OwnedFd>> {
        let files = self.files();
        let file = current(&self.path, &files);
        Ok(file.map(File::try_clone).transpose()?.map(OwnedFd::from))
    }

    /// Takes the lock and writes our pid. `None`: another live process holds it.
    pub fn acquire(path: &Path) -> io::Result<Option<Self>> {
        let locked = Self::lock(path)?;
        let path = path.to_path_buf();
        Ok(locked.map(|file| Self { path, files: Mutex::new(vec![file]) }))
    }

    fn lock(path: &Path) -> io::Result<Option<File>> {
        // First of all, as it may take a program: while that runs a lock would name what lay there before.
        let place = platform::place_of_pids();
        let mut file = Self::open(path)?;
        if !lock_exclusively(&file)? {
            return Ok(None);
        }
        // Over what lies there, and cut off after it: a full disk has room for that, as a rule.
        let mut said = format!("{}\n", std::process::id());
        if let Some(place) = place {
            said = format!("{said}{place}\n");
        }
        file.write_all(said.as_bytes())?;
        file.set_len(said.len() as u64)?;
        Ok(Some(file))
    }

    /// Takes the lock as soon as it is free; `None` when `wait` says no before.
    pub fn acquire_waiting(
        path: &Path,
        mut wait: impl FnMut() -> bool,
    ) -> io::Result<Option<Self>> {
        loop {
            if let Some(lock) = Self::acquire(path)? {
                return Ok(Some(lock));
            }
            if !wait() {
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Sees to it that we are found where we are looked for: a home can be removed, or moved away, while
    /// everything runs.
    pub fn keep(&self) -> Kept {
        let mut files = self.files();
        if here(&self.path, &files).is_some() {
            return Kept::AsBefore;
        }
        if let Some(dir) = self.path.parent() {
            // Where that fails, so does the next.
            let _ = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        }
        match Self::lock(&self.path) {
            Ok(Some(file)) => {
                files.push(file);
                Kept::Anew
            }
            Ok(None) | Err(_) => Kept::Lost,
        }
    }

    /// The same, and touches the file: a sign of life for whoever looks at its time.
    pub fn beat(&self) -> Kept {
        let kept = self.keep();
        let files = self.files();
        let file = current(&self.path, &files);
        // Without it the root can't tell, and so does nothing.
        let _ = file.map(|file| file.set_modified(std::time::SystemTime::now()));
        kept
    }

    /// Tells whoever looks that we are on our way out. A full disk has room for that, as for the pid.
    pub fn announce_end(&self) -> io::Result<()> {
        let files = self.files();
        let file = current(&self.path, &files).ok_or(io::ErrorKind::NotFound)?;
        let said = format!("{ENDING}{}\n", std::process::id());
        file.write_all_at(said.as_bytes(), file.metadata()?.len())
    }

    /// Whether the live process that holds the lock has announced its end.
    #[must_use]
    pub fn is_ending(path: &Path) -> bool {
        Self::held(path).is_ok_and(|held| held.is_some_and(|holder| holder.ending))
    }

    fn files(&self) -> MutexGuard<'_, Vec<File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pid of the live process that holds the lock.
    pub fn holder(path: &Path) -> io::Result<Option<u32>> {
        Ok(Self::held(path)?.and_then(|holder| holder.pid))
    }

    /// The same if its pid means it here too: several machines, or containers, may share a home. Nobody
    /// else may be signalled.
    #[must_use]
    pub fn holder_here(path: &Path) -> Option<u32> {
        let Holder { pid, place, .. } = Self::held(path).ok()??;
        pid.filter(|_| is_here(place.as_deref(), platform::place_of_pids()))
    }

    /// Whether the live process that holds the lock is one of another machine or container. Looked at twice:
    /// one here may have the lock and not have written yet, over what lay there since the last boot.
    #[must_use]
    pub fn is_elsewhere(path: &Path) -> bool {
        let we = platform::place_of_pids();
        let look = || match Self::held(path) {
            Ok(Some(Holder { pid: Some(_), place, .. })) => !is_here(place.as_deref(), we),
            Ok(Some(Holder { pid: None, .. }) | None) | Err(_) => false,
        };
        look() && {
            std::thread::sleep(WRITTEN);
            look()
        }
    }

    /// Who holds the lock.
    fn held(path: &Path) -> io::Result<Option<Holder>> {
        let mut file = match OpenOptions::new().read(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(None),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(e) => return Err(e.into()),
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(Some(Holder::read(&text)))
    }

    /// Whether a process of this user can hold the lock: not in a home that is read-only or another
    /// user's, on a full disk, or where the file system knows no locks.
    #[must_use]
    pub fn can_be_held(path: &Path) -> bool {
        let Ok(file) = Self::open(path) else { return false };
        let room = rustix::fs::fstatvfs(&file).is_ok_and(|fs| fs.f_bavail > 0);
        let lock = flock(&file, FlockOperation::NonBlockingLockShared);
        room && matches!(lock, Ok(()) | Err(rustix::io::Errno::WOULDBLOCK))
    }

    /// Blocks until no process holds the lock.
    pub fn wait_released(path: &Path) -> io::Result<()> {
        match OpenOptions::new().read(true).open(path) {
            Ok(file) => loop {
                match flock(&file, FlockOperation::LockShared) {
                    Err(rustix::io::Errno::INTR) => {}
                    other => return other.map_err(Into::into),
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn open(path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
    }
}

/// What can't be told, or was not by an older version, is as it mostly is.
fn is_here(holder: Option<&str>, we: Option<&str>) -> bool {
    holder.zip(we).is_none_or(|(holder, we)| holder == we)
}

/// The file at `path`, or else the latest.
fn current<'a>(path: &Path, files: &'a [File]) -> Option<&'a File> {
    here(path, files).and_then(|at| files.get(at)).or(files.last())
}

/// Which of the files is the one at `path`.
fn here(path: &Path, files: &[File]) -> Option<usize> {
    let at = fs::metadata(path).map(|m| (m.dev(), m.ino())).ok()?;
    files.iter().position(|file| file.metadata().is_ok_and(|m| (m.dev(), m.ino()) == at))
}
