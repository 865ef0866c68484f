//! How to take back what a run of `init` or `uninstall` has done: a line before each step. Its file
//! lives as long as the run; one that is found tells of a run that was killed.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::machine::{Blob, Machine};
use super::step::Call;

/// Takes one step back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reverse {
    File {
        path: PathBuf,
        before: Option<Blob>,
        /// Directories that the step made.
        made: Vec<PathBuf>,
    },
    /// The section is what it was; the rest of the file is the user's, who may have changed it since.
    Section {
        path: PathBuf,
        before: Option<Blob>,
        /// What we put in.
        body: Option<String>,
        made: Vec<PathBuf>,
    },
    Calls(Vec<Call>),
}

#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    entries: Vec<Reverse>,
}

impl Journal {
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), entries: Vec::new() }
    }

    /// `None`: no run was killed.
    ///
    /// # Errors
    /// When it is there and can't be read.
    pub fn read(machine: &dyn Machine, path: &Path) -> io::Result<Option<Self>> {
        let Some(blob) = machine.read(path)? else { return Ok(None) };
        let lines = blob.content.split(|b| *b == b'\n').filter(|l| !l.is_empty());
        // A line that was cut short by the kill stands for a step that was not begun.
        let entries = lines.map_while(|l| serde_json::from_slice(l).ok()).collect();
        Ok(Some(Self { path: path.to_path_buf(), entries }))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn entries(&self) -> &[Reverse] {
        &self.entries
    }

    /// # Errors
    /// When it can't be written: then the step must not be done.
    pub fn record(&mut self, machine: &mut dyn Machine, back: Reverse) -> io::Result<()> {
        machine.append(&self.path, &line(&back)?)?;
        self.entries.push(back);
        Ok(())
    }

    /// The run has come to its end.
    ///
    /// # Errors
    /// When the file can't be removed.
    pub fn close(&self, machine: &mut dyn Machine) -> io::Result<()> {
        machine.remove(&self.path)
    }

    /// Only these are still to be taken back.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn keep(&self, machine: &mut dyn Machine, entries: &[Reverse]) -> io::Result<()> {
        if entries.is_empty() {
            return machine.remove(&self.path);
        }
        let lines = entries.iter().map(line).collect::<Result<Vec<_>, _>>()?;
        machine.write(&self.path, &Blob { content: lines.concat(), mode: 0o600 })
    }
}

fn line(back: &Reverse) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(back)?;
    line.push(b'\n');
    Ok(line)
}
