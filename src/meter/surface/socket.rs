//! What the messages of a model's WebSocket are: OpenAI's Responses and Realtime, and who speaks
//! like them; Gemini Live. What they say of model and usage is the reader's part.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use serde_json::Value;

use super::count::text;
use super::scan::{Found, Paths};
use super::{Field, Kind, RESPONSE_PATHS};
use crate::meter::http::Headers;
use crate::meter::quota::{CodexFrame, Window, from_codex_frame, from_headers};

/// Behind those of every response.
const EXTRA: &[&str] = &[
    "stream_id",
    "session.model",
    "serverContent.modelTurn.parts[].text",
    "serverContent.modelTurn.parts[].inlineData.mimeType",
    "toolCall.functionCalls[].name",
    "headers",
    "session.audio.input.transcription.model",
    "session.input_audio_transcription.model",
];
const LANE: usize = RESPONSE_PATHS.len();
const SESSION_MODEL: usize = LANE + 1;
const LIVE_CONTENT: std::ops::RangeInclusive<usize> = LANE + 2..=LANE + 4;
const HEADERS: usize = LANE + 5;
const SESSION_TRANSCRIBERS: std::ops::RangeInclusive<usize> = LANE + 6..=LANE + 7;

/// Behind those of every request.
pub(in crate::meter) const CLIENT_PATHS: &[&str] = &[
    "type",
    "stream_id",
    "event_id",
    "session.model",
    "session.audio.input.transcription.model",
    "session.input_audio_transcription.model",
    "setup.model",
    "clientContent.turnComplete",
    "client_content.turnComplete",
    "client_content.turn_complete",
];
const TYPE: usize = 0;
const CLIENT_LANE: usize = 1;
const EVENT_ID: usize = 2;
const CLIENT_MODEL: usize = 3;
const TRANSCRIBER: usize = 4;
const OLD_TRANSCRIBER: usize = 5;
const LIVE_MODEL: usize = 6;
/// In any of the ways that protocol buffers may be spelt in JSON.
const LIVE_ASKS: std::ops::RangeInclusive<usize> = 7..=9;

/// A message of the client's.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::meter) struct Asked<'a> {
    /// It asks for a response.
    pub(in crate::meter) response: bool,
    /// Responses of one lane come one after the other.
    pub(in crate::meter) lane: Option<&'a str>,
    /// What an error that it leads to will name.
    pub(in crate::meter) event_id: Option<&'a str>,
    /// The model of the session from here on.
    pub(in crate::meter) model: Option<&'a str>,
    /// The model that writes down what the user says.
    pub(in crate::meter) transcriber: Option<&'a str>,
}

/// What a message of the provider's means for the response that it is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::meter) enum Step {
    /// It has an id now.
    Begun,
    /// The last word of it.
    Over,
    /// Something went wrong, maybe with it.
    Failed,
    /// Not of a response: what the user said was written down, which is billed apart.
    Transcribed,
    /// Not of a response: how much of a plan is used up.
    Quota,
    /// A part of its output is whole.
    Item,
    Other,
}

/// A message of the provider's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::meter) struct Said<'a> {
    pub(in crate::meter) step: Step,
    pub(in crate::meter) response: Option<&'a str>,
    pub(in crate::meter) lane: Option<&'a str>,
    /// The HTTP status that a failure would have had.
    pub(in crate::meter) status: Option<u16>,
    /// The client's message that a failure is about.
    pub(in crate::meter) about: Option<&'a str>,
    pub(in crate::meter) model: Option<&'a str>,
    /// As [`Asked::transcriber`]: a client that was given a session does not say it.
    pub(in crate::meter) transcriber: Option<&'a str>,
}

/// The surface that the messages of a WebSocket to `kind` speak; `None`: none that is known.
pub(in crate::meter) fn spoken(kind: Kind) -> Option<Kind> {
    if kind == Kind::Unknown {
        // It is followed, and means something once a client asks as for a response.
        return Some(Kind::Responses);
    }
    matches!(kind, Kind::Responses | Kind::Realtime | Kind::Live).then_some(kind)
}

pub(in crate::meter) fn server_paths() -> Arc<Paths> {
    static PATHS: LazyLock<Arc<Paths>> =
        LazyLock::new(|| Paths::new(&[RESPONSE_PATHS, EXTRA].concat()));
    Arc::clone(&PATHS)
}

/// `first`: the index of the first of [`CLIENT_PATHS`].
pub(in crate::meter) fn asked(found: &Found, first: usize) -> Asked<'_> {
    let text = |path: usize| found.last(first + path).and_then(Value::as_str);
    Asked {
        response: text(TYPE) == Some("response.create")
            || LIVE_ASKS.into_iter().any(|path| flag(found, first + path)),
        lane: text(CLIENT_LANE),
        event_id: text(EVENT_ID),
        model: text(CLIENT_MODEL).or_else(|| text(LIVE_MODEL).map(bare)),
        transcriber: text(TRANSCRIBER).or_else(|| text(OLD_TRANSCRIBER)),
    }
}

pub(in crate::meter) fn said(found: &Found) -> Said<'_> {
    let step = match found.text(Field::Type).unwrap_or_default() {
        "response.created" | "response.queued" | "response.in_progress" => Step::Begun,
        "response.completed" | "response.incomplete" | "response.failed" | "response.done" => {
            Step::Over
        }
        "error" => Step::Failed,
        "conversation.item.input_audio_transcription.completed" => Step::Transcribed,
        "codex.rate_limits" => Step::Quota,
        "response.output_item.done" => Step::Item,
        _ => Step::Other,
    };
    let status = found.field(Field::Status).and_then(Value::as_u64);
    Said {
        step,
        response: found.text(Field::ResponseId),
        lane: found.last(LANE).and_then(Value::as_str),
        status: status.and_then(|status| u16::try_from(status).ok()).filter(|s| *s >= 400),
        about: found.field(Field::Error).and_then(|error| text(error, &["event_id"])),
        model: found.last(SESSION_MODEL).and_then(Value::as_str),
        transcriber: SESSION_TRANSCRIBERS.into_iter().find_map(|path| found.last(path)?.as_str()),
    }
}

/// A message of Gemini Live's, and what it means for the turn under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::meter) struct LiveSaid {
    /// The model says something.
    pub(in crate::meter) content: bool,
    pub(in crate::meter) usage: bool,
    /// The turn is over; its usage may have been told before, or come yet.
    pub(in crate::meter) over: bool,
}

pub(in crate::meter) fn live_said(found: &Found) -> LiveSaid {
    LiveSaid {
        content: LIVE_CONTENT.into_iter().any(|path| found.last(path).is_some()),
        usage: found.field(Field::UsageMetadata).is_some_and(Value::is_object),
        over: flag(found, Field::TurnComplete as usize),
    }
}

fn flag(found: &Found, path: usize) -> bool {
    found.last(path).and_then(Value::as_bool) == Some(true)
}

/// `models/MODEL`, or Vertex's `projects/…/models/MODEL`.
fn bare(model: &str) -> &str {
    model.rsplit('/').next().unwrap_or_default()
}

/// What `codex.rate_limits` tells of the plan's limits.
pub(in crate::meter) fn quota(found: &Found, at: Option<Timestamp>) -> Vec<Window> {
    let frame = CodexFrame {
        limits: found.field(Field::RateLimits),
        credits: found.field(Field::Credits),
        plan: found.text(Field::PlanType),
        bucket: found.text(Field::MeteredLimit).or_else(|| found.text(Field::LimitName)),
    };
    from_codex_frame(&frame, at)
}

/// What the header fields tell that a failure would have had over HTTP.
pub(in crate::meter) fn quota_of_failure(found: &Found, at: Timestamp) -> Vec<Window> {
    let fields = found.last(HEADERS).and_then(Value::as_object).into_iter().flatten();
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let headers: Headers =
        fields.filter_map(|(name, value)| Some((name.as_str(), text(value)?))).collect();
    from_headers(&headers, at)
}
