//! Files of the home directory that commands write and people edit: prices, budgets, names.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::home::write_kept;

/// Why such a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Toml { path: PathBuf, message: String },
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
    parse(&text).map_err(|e| OwnError::Toml {
        path: path.to_path_buf(),
        message: e.to_string().trim_end().to_owned(),
    })
}

/// Writes a text in place of what the file said.
///
/// # Errors
/// When the file can't be written.
pub(super) fn write(path: &Path, text: Result<String, toml::ser::Error>) -> Result<(), OwnError> {
    let text =
        text.map_err(|e| OwnError::Toml { path: path.to_path_buf(), message: e.to_string() })?;
    write_kept(path, text.as_bytes())
        .map_err(|source| OwnError::Io { path: path.to_path_buf(), source })
}
