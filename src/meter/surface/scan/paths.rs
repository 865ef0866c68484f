//! Which values are wanted, as a tree.

use std::sync::Arc;

/// What to pick: paths like `usage`, `response.usage`, `output[].type`, as a tree.
#[derive(Debug)]
pub struct Paths(Vec<Node>);

/// A place in documents that wanted paths lead through or end at.
#[derive(Debug, Default)]
struct Node {
    /// An object's members, the short names first.
    keys: Vec<(&'static str, Place)>,
    /// An array's elements.
    each: Option<Place>,
    /// The path that ends here.
    path: Option<usize>,
}

/// The number of a [`Node`].
pub(super) type Place = usize;

/// A whole document.
pub(super) const ROOT: Place = 0;

impl Paths {
    /// No path may be a prefix of another (the shorter one would take its value).
    #[must_use]
    pub fn new(paths: &[&'static str]) -> Arc<Self> {
        let mut tree = Self(vec![Node::default()]);
        for (number, path) in paths.iter().enumerate() {
            let mut at = ROOT;
            for part in path.split('.') {
                at = tree.key_or_new(at, part.trim_end_matches("[]"));
                if part.ends_with("[]") {
                    at = tree.each_or_new(at);
                }
            }
            tree.at(at).path = Some(number);
        }
        tree.0.iter_mut().for_each(|node| node.keys.sort_unstable_by_key(|(key, _)| order(key)));
        Arc::new(tree)
    }

    fn key_or_new(&mut self, at: Place, key: &'static str) -> Place {
        let new = self.0.len();
        let keys = &mut self.at(at).keys;
        if let Some((_, place)) = keys.iter().find(|(known, _)| *known == key) {
            return *place;
        }
        keys.push((key, new));
        self.0.push(Node::default());
        new
    }

    fn each_or_new(&mut self, at: Place) -> Place {
        let new = self.0.len();
        let each = *self.at(at).each.get_or_insert(new);
        if each == new {
            self.0.push(Node::default());
        }
        each
    }

    #[expect(clippy::indexing_slicing, reason = "places are given out by this tree only")]
    fn at(&mut self, place: Place) -> &mut Node {
        &mut self.0[place]
    }

    pub(super) fn key(&self, at: Place, key: &str) -> Option<Place> {
        let keys = &self.0.get(at)?.keys;
        let found = keys.binary_search_by_key(&order(key), |(known, _)| order(known)).ok()?;
        keys.get(found).map(|(_, place)| *place)
    }

    pub(super) fn each(&self, at: Place) -> Option<Place> {
        self.0.get(at)?.each
    }

    pub(super) fn path(&self, at: Place) -> Option<usize> {
        self.0.get(at)?.path
    }
}

/// Most keys differ in their length from those that are looked for.
fn order(key: &str) -> (usize, &str) {
    (key.len(), key)
}
