//! What a response did with the provider's own tools, as far as it is billed by count.

use serde_json::Value;

use super::Field;
use super::count::plus;
use super::scan::Found;
use crate::meter::usage::Counts;

/// What a web search call does besides searching; no other tool's action is called so.
const PAGE_ACTIONS: [&str; 3] = ["open_page", "find_in_page", "find"];

#[derive(Clone, Debug, Default)]
pub(super) struct ToolCalls {
    /// `None`: there was none.
    pub(super) searches: Option<u64>,
    pub(super) counts: Counts,
}

impl ToolCalls {
    /// Adds those of one response: the types of its outputs, and what its actions are called.
    pub(super) fn add(&mut self, found: &Found, outputs: Field, actions: Field) {
        let texts = |field: Field| found.all(field as usize).filter_map(Value::as_str);
        let mut searches = 0_u64;
        for kind in texts(outputs) {
            let name = match kind {
                "web_search_call" => {
                    searches += 1;
                    continue;
                }
                "file_search_call" => "file_searches",
                "code_interpreter_call" => "code_runs",
                "image_generation_call" => "images",
                _ => continue,
            };
            *self.counts.entry(name.to_owned()).or_default() += 1;
        }
        // A page that is read is such a call too; what is billed is the search.
        let read = texts(actions).filter(|action| PAGE_ACTIONS.contains(action)).count() as u64;
        self.searches = plus(self.searches, Some(searches.saturating_sub(read)).filter(|n| *n > 0));
    }
}
