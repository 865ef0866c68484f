//! A copy of the program that runs: macOS has no link to it once its file is gone.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Puts a copy of `program` there, 0700, whole or not at all. A copy and no link: what is written into
/// the file itself would be in the link too. On the same volume it is a clone, which takes no room.
///
/// # Errors
/// When the program is gone already, or the disk is full.
pub fn keep(program: &Path, copy: &Path) -> io::Result<()> {
    // A clone takes a free name.
    let new = copy.with_extension("new");
    let _ = fs::remove_file(&new);
    let made = fs::copy(program, &new)
        .and_then(|_| fs::set_permissions(&new, fs::Permissions::from_mode(0o700)))
        .and_then(|()| fs::rename(&new, copy));
    made.inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_outlives_the_file_and_what_is_written_into_it() {
        let dir = tempfile::tempdir().unwrap();
        let [program, copy] = ["program", "copy"].map(|name| dir.path().join(name));
        fs::write(&program, "old").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        keep(&program, &copy).unwrap();
        fs::write(&program, "new").unwrap();
        assert_eq!(fs::read(&copy).unwrap(), b"old");
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o700);
        keep(&program, &copy).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), b"new", "the next root's");
        fs::remove_file(&program).unwrap();
        assert!(keep(&program, &copy).is_err());
        assert_eq!(fs::read(&copy).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
