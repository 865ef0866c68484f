//! Anthropic Messages, as JSON and as server-sent events.

use serde_json::Value;

use super::count::{count, plus, text};
use super::error::in_stream;
use super::iterations::{Billed, Iterations, said_nothing};
use super::openai_chat::{copilot_cost, cost};
use super::scan::Found;
use super::{Field, Reader, Reading, keep, state};
use crate::meter::usage::{Tokens, Usage};

/// Why a model that declines stops.
const REFUSAL: &str = "refusal";
/// A block of the content that says nothing but that another model goes on.
const FALLBACK: &str = "fallback";

/// Reads `usage` from the message or from `message_start` and the cumulative `message_delta`s.
#[derive(Debug, Default)]
pub(super) struct Messages {
    model: Option<String>,
    id: Option<String>,
    counts: Counts,
    tier: Option<String>,
    speed: Option<String>,
    geo: Option<String>,
    iterations: Iterations,
    /// Where a fallback in the middle of a stream went, whose start names the model that declined.
    fallback: Option<String>,
    /// The last model declined.
    declined: bool,
    /// There was something of an answer.
    content: bool,
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
pub(super) struct Counts {
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
            "content_block_start" => {
                keep(&mut self.fallback, found.text(Field::BlockTo));
                self.content |= found.text(Field::BlockType) != Some(FALLBACK);
            }
            "message_delta" => {
                self.declined |= found.text(Field::DeltaStopReason) == Some(REFUSAL);
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
                self.end(found, Field::StopReason, Field::ContentType);
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
        let mut parts = Vec::new();
        let mut refused = self.declined && !self.content && said_nothing(tokens.output);
        match self.iterations.billed(&tokens, self.model.as_deref(), self.declined) {
            Billed::Top => {}
            Billed::Nothing => refused = true,
            Billed::Parts(told) => {
                refused = false;
                let thought = tokens.reasoning;
                tokens = told.iter().fold(Tokens::default(), |sum, part| sum.plus(&part.tokens));
                // The entries tell none.
                tokens.reasoning = tokens.reasoning.or(thought);
                parts = told;
            }
        }
        Reading {
            model: self
                .iterations
                .server()
                .or(self.fallback.as_ref())
                .or(self.model.as_ref())
                .cloned(),
            id: self.id.clone(),
            usage: Usage {
                state: state(self.seen, self.settled),
                tokens,
                parts,
                tier: self.tier.clone(),
                speed: self.speed.clone(),
                geo: self.geo.clone(),
                web_searches: self.counts.searches,
                refused: refused && self.settled,
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
    pub(super) fn of_line(found: &Found, usage: &Value) -> Self {
        let mut line = Self { settled: true, ..Self::default() };
        keep(&mut line.model, found.text(Field::ResultModel));
        line.end(found, Field::ResultStop, Field::ResultContent);
        line.usage(usage, true);
        line
    }

    /// How a message that comes whole ended, and whether it says anything.
    fn end(&mut self, found: &Found, stop: Field, content: Field) {
        self.declined = found.text(stop) == Some(REFUSAL);
        self.content |= found.all(content as usize).any(|kind| kind.as_str() != Some(FALLBACK));
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
            self.iterations = Iterations::read(iterations, counts.tokens());
        }
    }
}

impl Counts {
    pub(super) fn read(usage: &Value) -> Self {
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

    pub(super) fn tokens(&self) -> Tokens {
        let (write_5m, write_1h, write_other) = self.writes();
        Tokens {
            input: self.input,
            cache_read: self.cache_read,
            cache_write_5m: write_5m,
            cache_write_1h: write_1h,
            cache_write_other: write_other,
            output: self.output,
            reasoning: self.thinking,
            ..Tokens::default()
        }
    }

    /// Cache writes of 5 minutes, of an hour, and of a lifetime that we don't know.
    fn writes(&self) -> (Option<u64>, Option<u64>, Option<u64>) {
        let split = plus(self.write_5m, self.write_1h);
        let Some(all) = self.cache_write else { return (self.write_5m, self.write_1h, None) };
        // The split comes with the start only; writes beyond it have no lifetime that we know.
        if split.unwrap_or(0) <= all {
            let rest = all - split.unwrap_or(0);
            let other = Some(rest).filter(|rest| *rest > 0 || split.is_none());
            return (self.write_5m, self.write_1h, other);
        }
        // More than all: it is of what was written before (a compaction), and tells the kinds at most.
        match (self.write_5m.unwrap_or(0), self.write_1h.unwrap_or(0)) {
            (_, 0) => (Some(all), self.write_1h, None),
            (0, _) => (self.write_5m, Some(all), None),
            (_, _) => (None, None, Some(all)),
        }
    }
}
