//! The repository around a working directory, from its files alone: no `git` is run.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::{cleaned, file_name};

const MAX_DEPTH: usize = 64;

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
    // A worktree belongs to the project it was made from.
    let name = main_root(&git_dir).as_deref().and_then(file_name).or_else(|| file_name(root))?;
    Some(Repository { name, branch: branch(&git_dir) })
}

fn is_repository(dot_git: &Path) -> bool {
    dot_git.join("HEAD").exists() || dot_git.is_file()
}

/// Where a `.git` file (worktree, submodule) points.
fn linked(root: &Path, dot_git: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(dot_git).ok()?;
    let path = text.lines().next()?.strip_prefix("gitdir:")?.trim();
    Some(root.join(path))
}

/// `…/project/.git/worktrees/name` → `…/project`.
fn main_root(git_dir: &Path) -> Option<PathBuf> {
    let worktrees = git_dir.parent()?;
    let dot_git = worktrees.parent()?;
    let is = |path: &Path, name: &str| path.file_name().is_some_and(|n| n == name);
    (is(worktrees, "worktrees") && is(dot_git, ".git")).then_some(())?;
    let root = dot_git.parent()?;
    (!root.components().any(|c| c == Component::ParentDir)).then(|| root.to_path_buf())
}

fn branch(git_dir: &Path) -> Option<String> {
    let head = fs::read_to_string(git_dir.join("HEAD")).ok()?;
    head.trim().strip_prefix("ref: refs/heads/").map(str::to_owned).and_then(cleaned)
}
