//! Small files of other people's: never waited for, never read without end.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

/// Whether a link in the last place is followed. Somebody else may have made it: an archive's leads to any
/// file of the user's, and what stands there would become a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::meter) enum Links {
    Followed,
    Refused,
}

/// The text of a regular file of at most `most` bytes, and what it is. A pipe of that name is not
/// waited for.
pub(in crate::meter) fn read(
    path: &Path,
    most: u64,
    links: Links,
) -> io::Result<(String, Metadata)> {
    let refuse = |why: &str| Err(io::Error::other(why.to_owned()));
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let links = match links {
        Links::Followed => OFlags::empty(),
        Links::Refused => OFlags::NOFOLLOW,
    };
    let file = File::from(open(path, flags | links, Mode::empty())?);
    let meta = file.metadata()?;
    if !meta.is_file() {
        return refuse("it is no file");
    }
    let mut text = String::new();
    let length = file.take(most + 1).read_to_string(&mut text);
    if length.map_err(|e| io::Error::new(e.kind(), "it is no text"))? as u64 > most {
        return refuse("it is too long");
    }
    Ok((text, meta))
}
