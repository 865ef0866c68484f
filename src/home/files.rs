//! How a file of ours is written: whole or not at all, and for nobody else to read.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Writes a file whole or not at all, 0600.
pub fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content, |_| Ok(()))
}

/// The same with other rights, past the umask: what others must read, they can.
pub fn write_atomic_with(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    replace(path, content, |file| file.set_permissions(Permissions::from_mode(mode)))
}

/// The same for a file that people keep too: who links to it from somewhere else keeps the link.
pub fn write_kept(path: &Path, content: &[u8]) -> io::Result<()> {
    write_atomic(&through_links(path)?, content)
}

/// The file that `path` stands for, also where it is a link to one that is not there yet.
///
/// # Errors
/// When that one's directory is not there either: where a whole collection of files is missing, a file
/// of ours would be in the way of it.
pub fn through_links(path: &Path) -> io::Result<PathBuf> {
    let mut file = path.to_path_buf();
    // As many as the system follows.
    for _ in 0..40 {
        match fs::canonicalize(&file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let Ok(target) = fs::read_link(&file) else { return Ok(file) };
        file = file.parent().unwrap_or(Path::new("/")).join(target);
        // A name alone is one in the working directory.
        let there = |dir: &Path| dir.as_os_str().is_empty() || dir.is_dir();
        if !file.parent().is_some_and(there) {
            let why = format!("it is a link to {}, whose directory is not there", file.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
    }
    Err(io::ErrorKind::InvalidInput.into())
}

/// Opens for appending, 0600.
pub fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The name that a file has until all of it is written.
#[must_use]
pub fn unfinished(path: &Path) -> PathBuf {
    beside(path, format!(".{}.tmp", std::process::id()))
}

/// The file of the same name with `suffix` behind it.
#[must_use]
pub fn beside(path: &Path, suffix: impl AsRef<OsStr>) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn replace(
    path: &Path,
    content: &[u8],
    before: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let tmp = unfinished(path);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
    let written = file.write_all(content).and_then(|()| before(&file));
    let written = written.and_then(|()| file.sync_data());
    written.and_then(|()| fs::rename(&tmp, path)).inspect_err(|_| {
        // A full disk had room for its beginning.
        let _ = fs::remove_file(&tmp);
    })
}
