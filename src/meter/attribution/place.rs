//! Which project a working directory belongs to, and how that was found out.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::mark::{self, Problem};
use super::{directory, editor, git};

/// How a project was found. The first that says something counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    /// `HALTON_PROJECT`.
    Explicit,
    /// `.halton.toml`.
    File,
    Git,
    /// A folder that an editor was opened on.
    Editor,
    /// The working directory's own name.
    Cwd,
    Program,
}

impl Method {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::File => "file",
            Self::Git => "git",
            Self::Editor => "editor",
            Self::Cwd => "cwd",
            Self::Program => "program",
        }
    }
}

/// What a directory says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Place {
    pub project: Option<(String, Method)>,
    /// The file that names it.
    pub file: Option<PathBuf>,
    pub branch: Option<String>,
    /// The directory is not there any more.
    pub gone: bool,
    /// Why a file was passed over.
    pub problem: Option<Problem>,
}

/// What is known of a process that works in `dir`, besides. `folder`: its editor's.
pub(super) fn of(dir: &Path, folder: Option<&editor::Folder>, home: Option<&Path>) -> Place {
    let mut place = marked(dir, home);
    if place.project.is_some() {
        return place;
    }
    let own = directory::name(dir, home);
    // An editor's folder says nothing of a directory that its user went to from there.
    if let Some(folder) = folder
        && (own.is_none() || dir.starts_with(&folder.path))
    {
        let there = marked(&folder.path, home);
        let plain = || directory::name(&folder.path, home).filter(|_| folder.named);
        let name = there.project.map(|(name, _)| name).or_else(plain);
        if name.is_some() {
            place.branch = place.branch.or(there.branch);
        }
        place.project = name.map(|name| (name, Method::Editor));
        place.problem = place.problem.or(there.problem);
    }
    place.project = place.project.or_else(|| own.map(|name| (name, Method::Cwd)));
    place
}

/// The project of a directory, as a process that works there would get it.
#[must_use]
pub fn of_directory(dir: &Path) -> Place {
    of(dir, None, super::home().as_deref())
}

/// What files around it say.
fn marked(dir: &Path, home: Option<&Path>) -> Place {
    let (marked, problem) = match mark::nearest(dir) {
        Ok(found) => (found, None),
        Err(problem) => (None, Some(problem)),
    };
    let repository = git::repository(dir, home);
    let (name, file) = marked.unzip();
    let git = repository.as_ref().map(|repository| (repository.name.clone(), Method::Git));
    let project = name
        .map(|name| (name, Method::File))
        .or(git)
        .or_else(|| Some((editor::workspace(dir, home)?, Method::Editor)));
    let gone = dir.symlink_metadata().is_err_and(|e| e.kind() == ErrorKind::NotFound);
    Place { project, file, branch: repository.and_then(|r| r.branch), gone, problem }
}
