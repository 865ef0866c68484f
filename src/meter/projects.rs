//! The names that projects are shown under.
//!
//! Rows keep the names that were found when the request was made. A rename or a merge is a rule about
//! them (`projects.toml`), which is applied whenever rows are read: so it holds for what was and for
//! what will be, costs nothing, and can be taken back (docs/adr/0017-project-names.md).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::own_file::{self, OwnError};

/// What names are shown as. Those that are not here are shown as they are.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// By the recorded name. No value is a key.
    #[serde(default)]
    shown_as: BTreeMap<String, String>,
}

/// The rules of a file; none when there is none.
///
/// # Errors
/// Names the file, and what is wrong in it.
pub fn read(path: &Path) -> Result<Names, OwnError> {
    own_file::read(path, parse)
}

pub(crate) fn parse(text: &str) -> Result<Names, toml::de::Error> {
    toml::from_str(text).map(|names: Names| names.resolved())
}

/// # Errors
/// When the file can't be written.
pub fn write(path: &Path, names: &Names) -> Result<(), OwnError> {
    own_file::write(path, print(names))
}

pub(crate) fn print(names: &Names) -> Result<String, toml::ser::Error> {
    let head = "# What projects are shown as. `halton-meter project rename`, `merge` and `restore` write \
        this file.\n\n";
    toml::to_string(names).map(|text| format!("{head}{text}"))
}

impl Names {
    #[must_use]
    pub fn shown<'a>(&'a self, recorded: &'a str) -> &'a str {
        self.shown_as.get(recorded).map_or(recorded, String::as_str)
    }

    /// Every name that is shown as the same as `name`, which may be any of them.
    #[must_use]
    pub fn recorded(&self, name: &str) -> Vec<String> {
        let shown = self.shown(name);
        let others = self.shown_as.iter().filter(|(_, to)| *to == shown).map(|(from, _)| from);
        std::iter::once(shown).chain(others.map(String::as_str)).map(str::to_owned).collect()
    }

    /// What is shown as `from` is shown as `to` from now on.
    pub fn show_as(&mut self, from: &str, to: &str) {
        for shown in self.shown_as.values_mut().filter(|shown| *shown == from) {
            to.clone_into(shown);
        }
        self.shown_as.insert(from.to_owned(), to.to_owned());
        // Back to what it was: `to` shows itself.
        self.shown_as.remove(to);
        self.shown_as.retain(|from, to| from != to);
    }

    /// A recorded name is shown as it is again; a shown one gives back all that it stands for.
    /// `false`: there is no rule of either.
    pub fn restore(&mut self, name: &str) -> bool {
        let before = self.shown_as.len();
        if self.shown_as.remove(name).is_none() {
            self.shown_as.retain(|_, to| to != name);
        }
        self.shown_as.len() < before
    }

    /// Recorded names with a rule, and what they are shown as.
    pub fn rules(&self) -> impl Iterator<Item = (&str, &str)> {
        self.shown_as.iter().map(|(from, to)| (from.as_str(), to.as_str()))
    }

    /// A file that was written by hand may have chains; what goes in a circle shows itself.
    fn resolved(&self) -> Self {
        let end = |from: &String| {
            let mut to = from;
            for _ in 0..=self.shown_as.len() {
                match self.shown_as.get(to) {
                    Some(next) => to = next,
                    None => return Some(to.clone()),
                }
            }
            None
        };
        let rules = self.shown_as.keys().filter_map(|from| Some((from.clone(), end(from)?)));
        Self { shown_as: rules.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(rules: &[(&str, &str)]) -> Names {
        let shown_as = rules.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Names { shown_as }
    }

    #[test]
    fn renames_and_merges_never_chain() {
        let mut rules = Names::default();
        rules.show_as("a", "b");
        assert_eq!((rules.shown("a"), rules.shown("b"), rules.shown("x")), ("b", "b", "x"));
        rules.show_as("c", "b");
        rules.show_as("b", "d");
        assert_eq!(rules, names(&[("a", "d"), ("b", "d"), ("c", "d")]));
        assert_eq!(rules.recorded("a"), ["d", "a", "b", "c"]);
        assert_eq!(rules.recorded("d"), ["d", "a", "b", "c"]);
        assert_eq!(rules.recorded("x"), ["x"]);
        // And back to a name of before.
        rules.show_as("d", "a");
        assert_eq!(rules, names(&[("b", "a"), ("c", "a"), ("d", "a")]));
    }

    #[test]
    fn what_was_done_can_be_taken_back() {
        let mut rules = names(&[("a", "d"), ("b", "d"), ("x", "y")]);
        assert!(rules.restore("a"));
        assert_eq!(rules, names(&[("b", "d"), ("x", "y")]));
        assert!(rules.restore("d"));
        assert_eq!(rules, names(&[("x", "y")]));
        assert!(!rules.restore("a"));
        let mut there_and_back = names(&[]);
        there_and_back.show_as("a", "b");
        there_and_back.show_as("b", "a");
        assert_eq!(there_and_back.shown("a"), "a");
    }

    #[test]
    fn a_file_comes_back_and_one_by_hand_is_made_sense_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("projects.toml");
        assert_eq!(read(&path).unwrap(), Names::default());
        let rules = names(&[("old \"name\"", "new"), ("é", "new")]);
        write(&path, &rules).unwrap();
        assert_eq!(read(&path).unwrap(), rules);
        std::fs::write(&path, "[shown_as]\na = 'b'\nb = 'c'\nx = 'y'\ny = 'x'\nz = 'z'").unwrap();
        assert_eq!(read(&path).unwrap(), names(&[("a", "c"), ("b", "c")]));
        std::fs::write(&path, "[shown]\na = 'b'\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("projects.toml"));
    }
}
