//! What is mounted where, from the kernel's table: nothing that is mounted is asked.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

#[must_use]
pub fn mounted_on(dir: &Path) -> Option<PathBuf> {
    innermost(&std::fs::read("/proc/self/mountinfo").ok()?, dir)
}

/// The innermost mount point above `dir` in such a table.
fn innermost(table: &[u8], dir: &Path) -> Option<PathBuf> {
    let points = table.split(|b| *b == b'\n').filter_map(|line| {
        let field = line.split(|b| *b == b' ').nth(4)?;
        Some(PathBuf::from(OsString::from_vec(plain(field))))
    });
    points.filter(|point| dir.starts_with(point)).max_by_key(|point| point.components().count())
}

/// Blanks and the like are written as `\040`.
fn plain(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, more)) = rest.split_first() {
        let octal = more
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        plain.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { more.get(3..).unwrap_or_default() } else { more };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 22 0:50 / /mnt/nas rw,relatime shared:1 - nfs4 nas:/a rw\n\
            31 30 0:51 / /mnt/nas/my\\040disk rw - fuse x rw\nshort line\n";
        for (dir, expected) in [
            ("/home/me/job", "/"),
            ("/mnt/nas", "/mnt/nas"),
            ("/mnt/nas/job/src", "/mnt/nas"),
            ("/mnt/nas2", "/"),
            ("/mnt/nas/my disk/job", "/mnt/nas/my disk"),
        ] {
            assert_eq!(
                innermost(table, Path::new(dir)).as_deref(),
                Some(Path::new(expected)),
                "{dir}"
            );
        }
        assert_eq!(innermost(b"", Path::new("/a")), None);
        assert!(mounted_on(Path::new("/proc/self")).is_some());
    }
}
