//! Names in which no key was found: the same ones come with each request, and are not searched each time.

use std::cell::RefCell;
use std::thread::LocalKey;

const PLACES: usize = 64;
/// Of a longer one another may come next time.
const LONGEST: usize = 128;

/// The latest at each place.
pub(super) type Harmless = RefCell<Vec<String>>;

/// Whether `is_one` finds a key, which it is asked of a name that is new.
pub(super) fn or_search(
    known: &'static LocalKey<Harmless>,
    name: &str,
    is_one: impl Fn(&str) -> bool,
) -> bool {
    known.with_borrow_mut(|known| {
        known.resize_with(PLACES, String::new);
        let Some(place) = known.get_mut(place(name)).filter(|_| name.len() <= LONGEST) else {
            return is_one(name);
        };
        if place == name {
            return false;
        }
        let found = is_one(name);
        if !found {
            name.clone_into(place);
        }
        found
    })
}

/// FNV-1a: for a few dozen bytes nothing is faster.
fn place(name: &str) -> usize {
    let fold = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = name.bytes().fold(0x811c_9dc5, fold);
    usize::try_from(hash >> 16).unwrap_or(0) % PLACES
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static KNOWN: Harmless = const { RefCell::new(Vec::new()) };
    }

    #[test]
    fn a_name_is_searched_once_and_a_key_each_time() {
        let asked = Cell::new(0);
        let is_key = |name: &str| {
            asked.set(asked.get() + 1);
            name.starts_with("sk-")
        };
        let long = "x".repeat(LONGEST + 1);
        for (name, found, times) in
            [("gpt-5", false, 1), ("sk-1", true, 3), ("", false, 0), (long.as_str(), false, 3)]
        {
            asked.set(0);
            for _ in 0..3 {
                assert_eq!(or_search(&KNOWN, name, is_key), found, "{name}");
            }
            assert_eq!(asked.get(), times, "{name}");
        }
        // More than there are places.
        for name in (0..1_000).map(|n| n.to_string()) {
            assert!(!or_search(&KNOWN, &name, is_key));
        }
        assert!(or_search(&KNOWN, "sk-1", is_key));
    }
}
