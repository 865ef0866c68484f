//! Anthropic Messages, as JSON and as server-sent events.

use serde_json::Value;

use super::count::{count, plus, text};
use super::error::in_stream;
use super::openai_chat::{copilot_cost, cost};
use super::scan::Found;
use super::{Field, Reader, Reading, keep, state};
use crate::meter::usage::{Tokens, Usage, UsagePart};

/// Reads `usage` from the message or from `message_start` and the cumulative `message_delta`s.
#[derive(Debug, Default)]
pub(super) struct Messages {
    model: Option<String>,
    id: Option<String>,
    counts: Counts,
    tier: Option<String>,
    speed: Option<String>,
    geo: Option<String>,
    iterations: Option<Value>,
    /// What a gateway says that it charged.
    cost: Option<i64>,
    seen: bool,
    /// The last figures of the response have come.
    settled: bool,
    error: Option<&'static str>,
    over: bool,
}

/// As the provider counts; every field is the last one that came.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Counts {
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    write_5m: Option<u64>,
    write_1h: Option<u64>,
    output: Option<u64>,
    thinking: Option<u64>,
    searches: Option<u64>,
}

impl Reader for Messages {
    fn unit(&mut self, event: Option<&str>, found: &Found) {
        self.cost = copilot_cost(found).or(self.cost);
        // The name of the event says the same, and is there when the data is cut short.
        match found.text(Field::Type).or(event).unwrap_or_default() {
            "message_start" => {
                keep(&mut self.model, found.text(Field::MessageModel));
                keep(&mut self.id, found.text(Field::MessageId));
                if let Some(usage) = found.field(Field::MessageUsage) {
                    self.usage(usage, false);
                }
            }
            "message_delta" => {
                if let Some(usage) = found.field(Field::Usage) {
                    self.usage(usage, true);
                    self.settled |= self.counts.output.is_some()
                        && found.field(Field::DeltaStopReason).is_some();
                }
            }
            "message_stop" => {
                self.over = true;
                self.settled |= self.counts.output.is_some();
            }
            "error" => {
                let error = found.field(Field::Error).cloned().unwrap_or_default();
                self.error = Some(in_stream(&error));
                keep(&mut self.id, found.text(Field::RequestId));
            }
            "message" => {
                keep(&mut self.model, found.text(Field::Model));
                keep(&mut self.id, found.text(Field::Id));
                if let Some(usage) = found.field(Field::Usage) {
                    self.usage(usage, true);
                    self.settled = true;
                }
                self.over = true;
            }
            // Of the text completions before Messages, which count nothing.
            "completion" => keep(&mut self.model, found.text(Field::Model)),
            // `ping`, content blocks, and whatever comes next. Gateways write errors of their own.
            _ => {
                if let Some(error) = found.field(Field::Error) {
                    self.error = Some(in_stream(error));
                }
            }
        }
    }

    fn reading(&self) -> Reading {
        let mut tokens = self.counts.tokens();
        let parts = self.parts(&tokens);
        if !parts.is_empty() {
            let thought = tokens.reasoning;
            tokens = parts.iter().fold(Tokens::default(), |sum, part| sum.plus(&part.tokens));
            // The entries tell none.
            tokens.reasoning = tokens.reasoning.or(thought);
        }
        Reading {
            model: self.model.clone(),
            id: self.id.clone(),
            usage: Usage {
                state: state(self.seen, self.settled),
                tokens,
                parts,
                tier: self.tier.clone(),
                speed: self.speed.clone(),
                geo: self.geo.clone(),
                web_searches: self.counts.searches,
                provider_cost_nanousd: self.cost,
                ..Usage::default()
            },
            error: self.error,
            over: self.over,
            ..Reading::default()
        }
    }
}

impl Messages {
    /// The message of a batch's line.
    pub(super) fn of_line(model: Option<&str>, usage: &Value) -> Self {
        let mut line = Self { model: model.map(str::to_owned), ..Self::default() };
        line.usage(usage, true);
        line
    }

    /// Takes over what `usage` says. The output of `message_start` is a placeholder, a lower bound of
    /// no use: until a delta comes, the output is unknown.
    fn usage(&mut self, usage: &Value, output: bool) {
        if !usage.is_object() {
            return;
        }
        self.seen = true;
        let mut counts = Counts::read(usage);
        if output {
            self.cost = cost(usage).or(self.cost);
        } else {
            counts.output = None;
        }
        self.counts.update(counts);
        keep(&mut self.tier, text(usage, &["service_tier"]));
        keep(&mut self.speed, text(usage, &["speed"]));
        let geo = text(usage, &["inference_geo"]);
        keep(&mut self.geo, geo.filter(|geo| !matches!(*geo, "global" | "not_available")));
        if let Some(iterations) = usage.get("iterations").filter(|value| value.is_array()) {
            self.iterations = Some(iterations.clone());
        }
    }

    /// The parts of a request that ran on several models, outside the top-level figures, or one after
    /// the other below a price step that their sum is above.
    ///
    /// Compaction is outside of them, an advisor and a fallback run on another model. The entries
    /// are only trusted with the whole when those of type `message` add up to the top level; if not,
    /// the top level stands and what is surely outside is added.
    fn parts(&self, top: &Tokens) -> Vec<UsagePart> {
        let Some(entries) = self.iterations.as_ref().and_then(Value::as_array) else {
            return Vec::new();
        };
        let part = |entry: &Value| UsagePart {
            model: text(entry, &["model"]).map(str::to_owned),
            tokens: Counts::read(entry).tokens(),
            ..UsagePart::default()
        };
        let kind = |entry: &Value| text(entry, &["type"]).unwrap_or("message").to_owned();
        let sum = |wanted: &[&str]| {
            entries
                .iter()
                .filter(|entry| wanted.contains(&kind(entry).as_str()))
                .fold(Tokens::default(), |sum, entry| sum.plus(&part(entry).tokens))
        };
        let plain = entries.iter().all(|entry| {
            kind(entry) == "message"
                && text(entry, &["model"]).is_none_or(|m| Some(m) == self.model.as_deref())
        });
        let whole = UsagePart { tokens: *top, ..UsagePart::default() };
        let adds_up = |sum: Tokens| {
            sum.total_input() == top.total_input()
                && sum.output.unwrap_or(0) == top.output.unwrap_or(0)
        };
        if adds_up(sum(&["message"])) || adds_up(sum(&["message", "fallback_message"])) {
            let mut parts = Vec::new();
            entries.iter().for_each(|entry| part(entry).add_to(&mut parts));
            // Priced alike, the top level says it better: it splits cache writes in any case.
            let alike = plain && parts.iter().all(|part| part.steps() == whole.steps());
            return if alike { Vec::new() } else { parts };
        }
        if plain {
            return Vec::new();
        }
        let outside = entries
            .iter()
            .filter(|entry| matches!(kind(entry).as_str(), "compaction" | "advisor_message"));
        std::iter::once(whole).chain(outside.map(part)).collect()
    }
}

impl Counts {
    fn read(usage: &Value) -> Self {
        Self {
            input: count(usage, &["input_tokens"]),
            cache_read: count(usage, &["cache_read_input_tokens"]),
            cache_write: count(usage, &["cache_creation_input_tokens"]),
            write_5m: count(usage, &["cache_creation", "ephemeral_5m_input_tokens"]),
            write_1h: count(usage, &["cache_creation", "ephemeral_1h_input_tokens"]),
            output: count(usage, &["output_tokens"]),
            thinking: count(usage, &["output_tokens_details", "thinking_tokens"]),
            searches: count(usage, &["server_tool_use", "web_search_requests"]),
        }
    }

    /// Cumulative: what is there replaces, what is absent stays.
    fn update(&mut self, new: Self) {
        for (old, new) in [
            (&mut self.input, new.input),
            (&mut self.cache_read, new.cache_read),
            (&mut self.cache_write, new.cache_write),
            (&mut self.write_5m, new.write_5m),
            (&mut self.write_1h, new.write_1h),
            (&mut self.output, new.output),
            (&mut self.thinking, new.thinking),
            (&mut self.searches, new.searches),
        ] {
            *old = new.or(*old);
        }
    }

    fn tokens(&self) -> Tokens {
        let split = plus(self.write_5m, self.write_1h);
        // The split comes with the start only; writes beyond it have no lifetime that we know.
        let other = self
            .cache_write
            .map(|all| all.saturating_sub(split.unwrap_or(0)))
            .filter(|rest| *rest > 0 || split.is_none());
        Tokens {
            input: self.input,
            cache_read: self.cache_read,
            cache_write_5m: self.write_5m,
            cache_write_1h: self.write_1h,
            cache_write_other: other,
            output: self.output,
            reasoning: self.thinking,
            ..Tokens::default()
        }
    }
}
