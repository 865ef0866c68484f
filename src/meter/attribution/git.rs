//! The repository around a working directory, from its files alone: no `git` is run.

use std::path::{Component, Path, PathBuf};

use super::file::{self, Links};
use super::{MAX_DEPTH, cleaned, file_name};

/// Of the one-line files in `.git`.
const MOST: u64 = 4096;

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Repository {
    pub name: String,
    pub branch: Option<String>,
}

/// Walks up from `dir`. A repository at `home` itself (dotfiles) is everybody's and nobody's.
pub(super) fn repository(dir: &Path, home: Option<&Path>) -> Option<Repository> {
    let root = dir
        .ancestors()
        .take(MAX_DEPTH)
        .take_while(|dir| Some(*dir) != home)
        .find(|dir| is_repository(&dir.join(".git")))?;
    let dot_git = root.join(".git");
    if dot_git.is_dir() {
        return Some(Repository { name: file_name(root)?, branch: branch(&dot_git) });
    }
    let git_dir = linked(root, &dot_git)?;
    // A worktree belongs to the repository that it was made from. A submodule is one of its own.
    let name = main_of(&git_dir).or_else(|| file_name(root))?;
    Some(Repository { name, branch: branch(&git_dir) })
}

fn is_repository(dot_git: &Path) -> bool {
    dot_git.join("HEAD").exists() || dot_git.is_file()
}

/// Where a `.git` file (worktree, submodule) points.
fn linked(root: &Path, dot_git: &Path) -> Option<PathBuf> {
    // Whatever else stands in it says nothing.
    linked_to(root, &line(dot_git, Links::Followed)?)
}

pub(super) fn linked_to(root: &Path, line: &str) -> Option<PathBuf> {
    Some(plain(&root.join(line.strip_prefix("gitdir:")?.trim())))
}

/// The name of the repository whose worktree has this directory. Only worktrees have a `commondir`.
fn main_of(git_dir: &Path) -> Option<String> {
    main_of_common(git_dir, &line(&git_dir.join("commondir"), Links::Refused)?)
}

pub(super) fn main_of_common(git_dir: &Path, line: &str) -> Option<String> {
    let common = plain(&git_dir.join(line));
    let base = file_name(&common)?;
    if base.starts_with('.') {
        // `…/shop/.git`, `…/shop/.bare`
        return common.parent().and_then(file_name);
    }
    cleaned(base.strip_suffix(".git").unwrap_or(&base))
}

fn branch(git_dir: &Path) -> Option<String> {
    branch_of(&line(&git_dir.join("HEAD"), Links::Refused)?)
}

pub(super) fn branch_of(head: &str) -> Option<String> {
    // With the reftable format, HEAD only says that it says nothing.
    head.strip_prefix("ref: refs/heads/").filter(|name| *name != ".invalid").and_then(cleaned)
}

fn line(path: &Path, links: Links) -> Option<String> {
    line_of(&file::read(path, MOST, links).ok()?.0)
}

pub(super) fn line_of(text: &str) -> Option<String> {
    text.lines().next().map(|line| line.trim().to_owned())
}

/// Without `.` and `..`, by the text alone.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut done, part| {
        match part {
            Component::ParentDir => {
                done.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => done.push(part),
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_to_a_secret_is_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("job");
        fs::create_dir_all(root.join("g")).unwrap();
        fs::write(root.join(".git"), "gitdir: g\n").unwrap();
        fs::write(root.join("g/HEAD"), "ref: refs/heads/main\n").unwrap();
        let found = || repository(&root, None).unwrap();
        fs::write(root.join("g/commondir"), "../../shop/.git\n").unwrap();
        assert_eq!(found(), Repository { name: "shop".into(), branch: Some("main".into()) });

        let secret = dir.path().join(".vault-token");
        fs::write(&secret, "ref: refs/heads/hvs.secret-1\nhvs.secret-2\n").unwrap();
        for name in ["g/commondir", "g/HEAD"] {
            fs::remove_file(root.join(name)).unwrap();
            symlink("../../.vault-token", root.join(name)).unwrap();
        }
        assert_eq!(found(), Repository { name: "job".into(), branch: None });
    }
}
