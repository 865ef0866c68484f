//! What a response did with the provider's own tools: billed by count, or by the tokens of a model of
//! their own.

use serde_json::Value;

use super::count::{count, plus, text};
use super::scan::Found;
use super::{Field, openai_responses};
use crate::meter::usage::{Cached, Counts, UsagePart};

/// What a web search call does besides searching; no other tool's action is called so.
const PAGE_ACTIONS: [&str; 3] = ["open_page", "find_in_page", "find"];
/// The tool of former times, and the models with which it has a price of its own: those that do not reason.
const PREVIEW: &str = "web_search_preview";
const PREVIEW_MODELS: [&str; 2] = ["gpt-4o", "gpt-4.1"];
/// What is drawn with code in one response is a few pictures.
const MAX_PARTS: usize = 64;

#[derive(Clone, Debug, Default)]
pub(super) struct ToolCalls {
    /// `None`: there was none.
    pub(super) searches: Option<u64>,
    pub(super) counts: Counts,
    /// What ran on models of its own, beside the usage.
    pub(super) parts: Vec<UsagePart>,
}

/// Where a response tells of its tools.
pub(super) struct Places {
    outputs: Field,
    actions: Field,
    svgs: &'static [Field],
    /// The tools that it might have used.
    tools: Field,
    models: Field,
    usage: Field,
}

/// A response that is a document; images are, too.
pub(super) const DOCUMENT: Places = Places {
    outputs: Field::OutputType,
    actions: Field::ActionType,
    svgs: &[Field::OutputSvg, Field::SvgUsage],
    tools: Field::ToolType,
    models: Field::ToolModel,
    usage: Field::ToolUsage,
};
/// One in the last event of a stream.
pub(super) const RESPONSE: Places = Places {
    outputs: Field::ResponseOutputType,
    actions: Field::ResponseActionType,
    svgs: &[Field::ResponseOutputSvg],
    tools: Field::ResponseToolType,
    models: Field::ResponseToolModel,
    usage: Field::ResponseToolUsage,
};
/// One in a line of a batch.
pub(super) const LINE: Places = Places {
    outputs: Field::BodyOutputType,
    actions: Field::BodyActionType,
    svgs: &[Field::BodyOutputSvg],
    tools: Field::BodyToolType,
    models: Field::BodyToolModel,
    usage: Field::BodyToolUsage,
};

impl ToolCalls {
    /// Those of one response of `model`. `seen` are the items that its stream told of one by one: the
    /// last word on a response that is not stored comes without its output.
    pub(super) fn of(found: &Found, at: &Places, model: Option<&str>, seen: Option<&Self>) -> Self {
        let mut calls = Self::default();
        match seen.filter(|_| found.all(at.outputs as usize).next().is_none()) {
            Some(seen) => calls = seen.clone(),
            None => calls.see(found, at.outputs, at.actions, at.svgs),
        }
        if let Some(usage) = found.field(at.usage) {
            // Not every search that is in the output is billed; this says how many are.
            if let Some(billed) = count(usage, &["web_search", "num_requests"]) {
                calls.searches = Some(billed).filter(|n| *n > 0);
            }
            calls.images(found, at, usage.get("image_gen"));
        }
        let tools = || texts(found, at.tools);
        let searching = |tool: &&str| tool.starts_with("web_search");
        let old = tools().any(|tool| tool.starts_with(PREVIEW))
            && tools().filter(searching).all(|tool| tool.starts_with(PREVIEW));
        let dearer = |name: &str| PREVIEW_MODELS.iter().any(|model| name.starts_with(model));
        if old
            && model.is_some_and(dearer)
            && let Some(searches) = calls.searches.take()
        {
            calls.counts.insert("preview_searches".to_owned(), searches);
        }
        calls
    }

    /// An item that a stream says is whole.
    pub(super) fn see_item(&mut self, found: &Found) {
        self.see(found, Field::ItemType, Field::ItemActionType, &[Field::ItemSvg]);
    }

    /// Takes those of another response too.
    pub(super) fn add(&mut self, other: Self) {
        self.searches = plus(self.searches, other.searches);
        for (name, n) in other.counts {
            let all = self.counts.entry(name).or_default();
            *all = all.saturating_add(n);
        }
        self.parts.extend(other.parts);
    }

    fn see(&mut self, found: &Found, outputs: Field, actions: Field, svgs: &[Field]) {
        let mut searches = 0_u64;
        for kind in texts(found, outputs) {
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
        let read =
            texts(found, actions).filter(|action| PAGE_ACTIONS.contains(action)).count() as u64;
        self.searches = plus(self.searches, Some(searches.saturating_sub(read)).filter(|n| *n > 0));
        let told = svgs.iter().flat_map(|field| found.all(*field as usize));
        for usage in told.filter(|usage| usage.is_object()) {
            if self.parts.len() < MAX_PARTS {
                self.parts.push(svg(usage));
            }
        }
    }

    /// Images that a tool made, by their tokens, if it is known which model did: then they are not
    /// counted too.
    fn images(&mut self, found: &Found, at: &Places, usage: Option<&Value>) {
        let Some(usage) =
            usage.filter(|usage| count(usage, &["output_tokens"]).is_some_and(|n| n > 0))
        else {
            return;
        };
        let mut models = texts(found, at.models);
        let Some(model) = models.next().filter(|model| models.all(|other| other == *model)) else {
            // How many there were may not be told: one at least.
            self.counts.entry("images".to_owned()).or_insert(1);
            return;
        };
        self.counts.remove("images");
        let mut tokens = openai_responses::tokens(usage);
        // Which of them came out of a cache is told in words of its own.
        let cached = count(usage, &["cached_tokens"]);
        let image = count(usage, &["cached_tokens_details", "cached_image_tokens"]);
        let fresh = |all: Option<u64>, read: Option<u64>| {
            all.map(|all| all.saturating_sub(read.unwrap_or(0)))
        };
        tokens.input = fresh(tokens.input, cached);
        tokens.image_input = fresh(tokens.image_input, image);
        tokens.cache_read = tokens.cache_read.or(cached);
        tokens.image_output = tokens.image_output.or(tokens.output);
        self.parts.push(UsagePart {
            model: Some(model.to_owned()),
            tokens,
            cached: Cached { audio: None, image },
            ..UsagePart::default()
        });
    }
}

/// A picture that is drawn with code is written by a model that is no model of images.
fn svg(usage: &Value) -> UsagePart {
    let mut tokens = openai_responses::tokens(usage);
    tokens.reasoning = tokens.reasoning.or_else(|| count(usage, &["reasoning_tokens"]));
    UsagePart { model: text(usage, &["model"]).map(str::to_owned), tokens, ..UsagePart::default() }
}

fn texts(found: &Found, field: Field) -> impl Iterator<Item = &str> {
    found.all(field as usize).filter_map(Value::as_str)
}
