//! Files of the home directory that commands write and people edit: prices, budgets, names.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{budget, price, projects};
use crate::home::{Home, write_kept};

/// Why such a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}:{line}: {message}", path.display())]
    Toml { path: PathBuf, line: usize, message: String },
    #[error("{path}: {source}")]
    Text { path: PathBuf, source: toml::ser::Error },
}

impl OwnError {
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. } | Self::Toml { path, .. } | Self::Text { path, .. } => path,
        }
    }
}

/// Which of them can't be used, and why. Who only reads goes on as if there were none.
#[must_use]
pub fn problems(home: &Home) -> Vec<OwnError> {
    let prices = price::read_own(&home.prices_file()).err();
    let projects = projects::read(&home.projects_file()).err();
    let budgets = budget::read(&home.budgets_file()).err();
    [prices, projects, budgets].into_iter().flatten().collect()
}

/// What `parse` reads of a file; the default when there is none.
///
/// # Errors
/// Names the file, and the line of what is wrong in it.
pub(super) fn read<T: Default>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, toml::de::Error>,
) -> Result<T, OwnError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(T::default()),
        Err(source) => return Err(OwnError::Io { path: path.to_path_buf(), source }),
    };
    parse(&text).map_err(|e| {
        let before = text.get(..e.span().map_or(0, |span| span.start)).unwrap_or_default();
        OwnError::Toml {
            path: path.to_path_buf(),
            line: before.matches('\n').count() + 1,
            // One line, whatever the parser makes of it.
            message: e.message().trim_end().replace('\n', ", "),
        }
    })
}

/// Writes a text in place of what the file said.
///
/// # Errors
/// When the file can't be written.
pub(super) fn write(path: &Path, text: Result<String, toml::ser::Error>) -> Result<(), OwnError> {
    let text = text.map_err(|source| OwnError::Text { path: path.to_path_buf(), source })?;
    write_kept(path, text.as_bytes())
        .map_err(|source| OwnError::Io { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::ledger::fixture::home;

    #[test]
    fn each_file_with_a_mistake_is_named_in_one_line() {
        let (_dir, home) = home();
        assert!(problems(&home).is_empty());
        std::fs::write(home.prices_file(), "\n[[price]]\nprovider = 'a\n").unwrap();
        std::fs::write(home.projects_file(), "[shown]\na = 'b'\n").unwrap();
        std::fs::write(home.budgets_file(), "[[budget]]\nname = 'a'\nlimit = '5'\nper = 'year'\n")
            .unwrap();
        let said: Vec<String> = problems(&home).iter().map(ToString::to_string).collect();
        let starts = ["prices.toml:3: ", "projects.toml:1: ", "budgets.toml:4: "];
        assert_eq!(said.len(), starts.len(), "{said:?}");
        for (said, start) in said.iter().zip(starts) {
            assert!(said.contains(start) && !said.contains('\n'), "{said}");
        }
    }
}
