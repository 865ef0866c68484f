//! `.halton.toml`: a directory that says itself which project it is.
//!
//! ```toml
//! [project]
//! name = "shop"
//! ```

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::Deserialize;

use super::file::{self, Links};
use super::{MAX_DEPTH, cleaned};
use crate::platform;

pub const NAME: &str = ".halton.toml";
const MOST: u64 = 64 * 1024;
const FOLDERS: &str =
    "allow halton-meter in System Settings > Privacy & Security > Files and Folders";

/// A file that can't be used.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Problem {
    pub file: PathBuf,
    pub why: String,
}

#[derive(Deserialize)]
struct Contents {
    project: Option<Project>,
}

#[derive(Deserialize)]
struct Project {
    name: Option<String>,
}

/// The name in the nearest file above `dir` that has one, and that file. What is wrong in the nearest
/// is no reason to believe one further up, which is about more than this directory.
pub(super) fn nearest(dir: &Path) -> Result<Option<(String, PathBuf)>, Problem> {
    for dir in dir.ancestors().take(MAX_DEPTH) {
        let file = dir.join(NAME);
        match name_in(&file) {
            Ok(None) => {}
            Ok(Some(name)) => return Ok(Some((name, file))),
            Err(why) => return Err(Problem { file, why }),
        }
    }
    Ok(None)
}

/// `None`: it is not there, or says nothing of a name.
///
/// # Errors
/// Why it can't be used, in words; nothing of what is in it.
pub fn name_in(path: &Path) -> Result<Option<String>, String> {
    let (text, meta) = match file::read(path, MOST, Links::Followed) {
        Ok(read) => read,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) if is_kept_from(&e) => return Err(format!("{e}; {FOLDERS}")),
        Err(e) => return Err(e.to_string()),
    };
    // In a directory that everybody may write to, somebody else would name our projects.
    let own = rustix::process::geteuid().as_raw();
    if meta.uid() != own && meta.uid() != 0 {
        return Err("it belongs to another user".to_owned());
    }
    name_of(&text)
}

/// macOS's privacy says so, and not that we lack the right to read it.
fn is_kept_from(error: &std::io::Error) -> bool {
    platform::is_macos() && error.raw_os_error() == Some(Errno::PERM.raw_os_error())
}

pub(super) fn name_of(text: &str) -> Result<Option<String>, String> {
    // Its line alone: the error shows what stands there.
    let contents: Contents = toml::from_str(text).map_err(|e| {
        let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        format!("line {line}: expected [project] with name = \"…\"")
    })?;
    match contents.project.and_then(|project| project.name) {
        None => Ok(None),
        Some(name) => match cleaned(name) {
            None => Err("the name is empty".to_owned()),
            name => Ok(name),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn put(dir: &Path, text: &str) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(NAME), text).unwrap();
    }

    fn named(dir: &Path) -> Option<String> {
        nearest(dir).unwrap().map(|(name, _)| name)
    }

    #[test]
    fn the_nearest_that_has_a_name_wins() {
        let home = tempfile::tempdir().unwrap();
        let (outer, inner) = (home.path().join("a"), home.path().join("a/b/c"));
        put(&outer, "[project]\nname = \" the outer \"\n[other]\nkey = 1\n");
        fs::create_dir_all(inner.join("deep/er")).unwrap();
        assert_eq!(named(&inner.join("deep/er")).as_deref(), Some("the outer"));
        put(&inner, "# nothing of a name yet\n[project]\n");
        assert_eq!(named(&inner.join("deep")).as_deref(), Some("the outer"));
        put(&inner, "project.name = 'inner'");
        let found = nearest(&inner.join("deep")).unwrap();
        assert_eq!(found, Some(("inner".to_owned(), inner.join(NAME))));
        assert_eq!(named(home.path()), None);
        assert_eq!(named(&outer.join("gone/away")).as_deref(), Some("the outer"));
    }

    #[test]
    fn what_is_wrong_has_a_reason_and_shows_nothing_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(NAME);
        let why = || {
            let problem = nearest(dir.path()).unwrap_err();
            assert_eq!(problem.file, file);
            assert!(!problem.why.contains("sk-secret"), "{}", problem.why);
            problem.why
        };
        for (text, said) in [
            ("[project\nname = \"sk-secret\"", "line 1: expected"),
            ("project = \"sk-secret\"", "line 1: expected"),
            ("[project]\nname = 5", "line 2: expected"),
            ("[project]\nname = \" \\n\"", "empty"),
        ] {
            fs::write(&file, text).unwrap();
            assert!(why().contains(said), "{text}: {}", why());
        }
        fs::write(&file, [b'#', 0xff]).unwrap();
        assert!(why().contains("no text"));
        fs::write(&file, "#".repeat(64 * 1024 + 1)).unwrap();
        assert!(why().contains("too long"));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(why().contains("no file"));
        fs::remove_dir(&file).unwrap();
        symlink(&file, &file).unwrap();
        assert!(!why().is_empty(), "a link to itself");
        fs::remove_file(&file).unwrap();
        // Nobody writes to it: to open it must not wait.
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        assert!(why().contains("no file"));
    }
}
