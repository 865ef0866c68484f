//! Which tokens of a request are charged at which rate.

use super::book::{Entry, Rate};
use super::quote::Rates;
use crate::meter::usage::{Usage, UsagePart};

/// Tokens that have a rate of their own, or must do with another's.
pub(super) struct Charge<'a> {
    pub(super) kind: &'static str,
    pub(super) tokens: u64,
    pub(super) rate: Option<&'a Rate>,
    /// Set when the rate is not the kind's own.
    pub(super) assumed: Option<&'static str>,
}

/// Splits the tokens into what has a rate of its own.
pub(super) fn charges<'a>(rates: &Rates<'a>, part: &UsagePart, usage: &Usage) -> [Charge<'a>; 14] {
    let tokens = &part.tokens;
    let count = |n: Option<u64>| n.unwrap_or(0);
    let (audio_in, image_in) = (count(tokens.audio_input), count(tokens.image_input));
    let (audio_out, image_out) = (count(tokens.audio_output), count(tokens.image_output));
    let (audio_cached, image_cached) = (count(part.cached.audio), count(part.cached.image));
    let (input, plain_input) = rates.get(|e| e.input.as_ref());
    let (output, plain_output) = rates.get(|e| e.output.as_ref());
    let (write_5m, plain_5m) = rates.of_cache(|e| e.write_5m.as_ref());
    let (write_1h, plain_1h) = rates.of_cache(|e| e.write_1h.as_ref());
    let (write_12h, plain_12h) = rates.of_cache(|e| e.write_12h.as_ref());
    let (cache_read, plain_read) = rates.of_cache(|e| e.cache_read.as_ref());
    // Without a rate of its own, reasoning is output like any other.
    let (reasoning, _) = rates.get(|e| e.reasoning.as_ref());
    let said = count(tokens.output).saturating_sub(audio_out).saturating_sub(image_out);
    let thought = if reasoning.is_some() { count(tokens.reasoning).min(said) } else { 0 };
    let text = |kind, tokens, rate, plain: bool, tier| Charge {
        kind,
        tokens,
        rate,
        assumed: plain.then_some(tier),
    };
    let or_else = |kind, tokens, (rate, plain): (Option<&'a Rate>, bool), other, note, tier| {
        let assumed = if rate.is_none() { Some(note) } else { plain.then_some(tier) };
        Charge { kind, tokens, rate: rate.or(other), assumed }
    };
    let written = count(tokens.cache_write_other);
    // What the response says of them beats what was asked for.
    let half_day = part.written_12h.map(|n| n.min(written));
    let other = match (usage.cache_ttl.as_deref(), write_12h, write_1h) {
        _ if half_day.is_some() => (write_5m, plain_5m.then_some(TIER_WRITE)),
        (Some("12h"), Some(rate), _) => (Some(rate), plain_12h.then_some(TIER_WRITE)),
        // One kind of write only, or the default of two was asked for: no doubt about the rate.
        (None | Some("30m"), Some(_), None) | (_, None, None) => {
            (write_5m, plain_5m.then_some(TIER_WRITE))
        }
        _ => (write_5m, Some("cache writes of unknown lifetime priced as 5-minute ones")),
    };
    [
        text(
            "input",
            count(tokens.input).saturating_sub(audio_in).saturating_sub(image_in),
            input,
            plain_input,
            "this tier names no rate for input",
        ),
        or_else(
            "audio_input",
            audio_in,
            rates.beside_text(|e| e.audio_input.as_ref(), false),
            input,
            "audio input priced as text",
            "this tier names no rate for audio input",
        ),
        or_else(
            "image_input",
            image_in,
            rates.beside_text(|e| e.image_input.as_ref(), true),
            None,
            "image input priced as text",
            "this tier names no rate for image input",
        ),
        or_else(
            "cache_read",
            count(tokens.cache_read).saturating_sub(audio_cached).saturating_sub(image_cached),
            (cache_read, plain_read),
            input,
            "no rate for cache reads: priced as input",
            "this tier names no rate for cache reads",
        ),
        rates.cached(
            "cache_read_audio",
            audio_cached,
            |e| e.cache_read_audio.as_ref(),
            |e| e.audio_input.as_ref(),
        ),
        rates.cached(
            "cache_read_image",
            image_cached,
            |e| e.cache_read_image.as_ref(),
            |e| e.image_input.as_ref(),
        ),
        or_else(
            "cache_write_5m",
            count(tokens.cache_write_5m),
            (write_5m, plain_5m),
            input,
            "no rate for cache writes: priced as input",
            TIER_WRITE,
        ),
        or_else(
            "cache_write_1h",
            count(tokens.cache_write_1h),
            (write_1h, plain_1h),
            write_5m.or(input),
            "no rate for 1-hour cache writes",
            TIER_WRITE,
        ),
        or_else(
            "cache_write_12h",
            count(half_day),
            (write_12h, plain_12h),
            write_5m.or(input),
            "no rate for 12-hour cache writes",
            TIER_WRITE,
        ),
        Charge {
            kind: "cache_write_other",
            tokens: written - count(half_day),
            rate: other.0.or(input),
            assumed: if other.0.is_none() {
                Some("no rate for cache writes: priced as input")
            } else {
                other.1
            },
        },
        text("output", said - thought, output, plain_output, "this tier names no rate for output"),
        Charge { kind: "reasoning", tokens: thought, rate: reasoning, assumed: None },
        or_else(
            "audio_output",
            audio_out,
            rates.get(|e| e.audio_output.as_ref()),
            output,
            "audio output priced as text",
            "this tier names no rate for audio output",
        ),
        or_else(
            "image_output",
            image_out,
            rates.get(|e| e.image_output.as_ref()),
            output,
            "image output priced as text",
            "this tier names no rate for image output",
        ),
    ]
}

impl<'a> Rates<'a> {
    /// What is read from a cache and is no text. Where such input costs what text does, so do its reads.
    fn cached(
        &self,
        kind: &'static str,
        tokens: u64,
        own: fn(&Entry) -> Option<&Rate>,
        uncached: fn(&Entry) -> Option<&Rate>,
    ) -> Charge<'a> {
        let (rate, plain) = self.of_cache(own);
        if rate.is_some() {
            let assumed = plain.then_some("this tier names no rate for cached audio or images");
            return Charge { kind, tokens, rate, assumed };
        }
        let (as_text, _) = self.of_cache(|e| e.cache_read.as_ref());
        let ((input, _), (of_kind, _)) =
            (self.get(|e| e.input.as_ref()), self.beside_text(uncached, false));
        let differs = of_kind.is_some_and(|rate| Some(rate) != input);
        let assumed = match as_text {
            Some(_) => differs.then_some("cached audio or images priced as cached text"),
            None => Some("no rate for cache reads: priced as input"),
        };
        Charge { kind, tokens, rate: as_text.or(of_kind).or(input), assumed }
    }
}

const TIER_WRITE: &str = "this tier names no rate for these cache writes";
