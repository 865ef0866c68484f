//! From what was said to the ledger's rows: what a row says is the same however the bytes came.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use uuid::Uuid;

use super::{pieces, same, text};
use crate::meter::bodies::{Capture, Room};
use crate::meter::coding;
use crate::meter::exchange::{Exchange, ExchangeStart};
use crate::meter::feed::{Closing, Seen};
use crate::meter::http::{Cut, Headers, RequestHead, ResponseHead, Side};
use crate::meter::observer::{self, RowSink, Subject};
use crate::meter::price::Book;
use crate::meter::row::{Completeness, Protocol, Row};
use crate::meter::websocket::Extensions;

/// Where requests go: one place for each reader of answers.
const PLACES: [(&str, &str); EARLY + 13] = [
    ("api.anthropic.com", "/v1/messages"),
    ("api.openai.com", "/v1/chat/completions"),
    ("api.openai.com", "/v1/responses"),
    ("api.openai.com", "/v1/embeddings"),
    ("api.openai.com", "/v1/images/generations"),
    ("api.openai.com", "/v1/audio/transcriptions"),
    ("generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-pro:streamGenerateContent"),
    ("generativelanguage.googleapis.com", "/v1beta/models/gemini-embedding-001:batchEmbedContents"),
    ("generativelanguage.googleapis.com", "/v1beta/models/imagen-4.0-generate-001:predict"),
    ("generativelanguage.googleapis.com", "/v1beta/interactions"),
    ("cloudcode-pa.googleapis.com", "/v1internal:streamGenerateContent"),
    ("cloudcode-pa.googleapis.com", "/v1internal:retrieveUserQuota"),
    ("bedrock-runtime.us-east-1.amazonaws.com", "/model/amazon.nova-lite-v1%3A0/converse-stream"),
    ("bedrock-runtime.us-east-1.amazonaws.com", "/model/x/invoke-with-response-stream"),
    (
        "us-east5-aiplatform.googleapis.com",
        "/v1/projects/p/locations/l/publishers/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict",
    ),
    ("api.cohere.com", "/v2/chat"),
    ("api.mistral.ai", "/v1/ocr"),
    ("ollama.com", "/api/chat"),
    ("api.githubcopilot.com", "/chat/completions"),
    ("chatgpt.com", "/backend-api/codex/responses"),
    ("openrouter.ai", "/api/v1/chat/completions"),
    ("llm.corp.example", "/ask"),
    ("agent.api5.cursor.sh", "/agent.v1.AgentService/RunSSE"),
    ("api.openai.com", "/v1/completions"),
    // Chosen from `LATE` on.
    ("api.anthropic.com", "/v1/messages/batches/b/results"),
    ("api.openai.com", "/v1/files/f/content"),
    ("generativelanguage.googleapis.com", "/v1beta/batches/b"),
    ("api.cohere.com", "/v2/rerank"),
    ("api.cohere.com", "/v1/classify"),
    ("api.openai.com", "/v1/audio/speech"),
    ("api.anthropic.com", "/v1/complete"),
    ("api.mistral.ai", "/v1/conversations/c"),
    ("corp.openai.azure.com", "/openai/deployments/d/chat/completions?api-version=2026-01-01"),
    ("agent.api5.cursor.sh", "/agent.v1.AgentService/Run"),
    (
        "us-central1-aiplatform.googleapis.com",
        "/google.cloud.aiplatform.v1.PredictionService/GenerateContent",
    ),
    (
        "us-central1-aiplatform.googleapis.com",
        "/google.cloud.aiplatform.v1.PredictionService/Predict",
    ),
    ("api.x.ai", "/xai_api.Chat/GetCompletionChunk"),
];
/// What seeds of long ago choose among, by the rest of a division.
const EARLY: usize = 24;
const LATE: usize = 4 * EARLY;
const MEDIA: [&str; 5] = [
    "application/json",
    "text/event-stream",
    "application/vnd.amazon.eventstream",
    "application/x-ndjson",
    "application/connect+proto",
];
/// Chosen by the last number there is, as the others were chosen before it came.
const LAST_MEDIA: &str = "application/grpc";
const CODINGS: [&str; 5] = ["", "gzip", "zstd", "br", "deflate"];
/// What a row may hold of any text that somebody else wrote.
const MAX_TEXT: usize = 4096;

/// The first bytes choose where it goes and how the answer comes; then a script: the client's
/// records are the request's body, the server's the response's, maybe as messages with checksums.
pub fn exchange(data: &[u8]) {
    let Some((&[place, media, coding, status], script)) = data.split_first_chunk() else { return };
    let (host, target) = place_of(place);
    let book = Book::builtin();
    let codings = [of(&CODINGS, coding >> 4), of(&CODINGS, coding & 15)];
    let whole = !readable(codings, media, script);
    rows_alike(|size| {
        let size = if whole { usize::MAX } else { size };
        let method = if place & 0x80 == 0 { "POST" } else { "GET" };
        let head = RequestHead {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: headers_from([
                ("content-encoding", codings[0]),
                ("content-type", asked(target)),
            ]),
            ..RequestHead::default()
        };
        let mut exchange = Exchange::new(start(host), &head);
        exchange.capture(Some(Capture::new(256, Room::new(1 << 20))));
        let mut answered = false;
        // A record is a message of an event stream, if so chosen: not to be cut before it is one.
        let cut = if media & 0x80 == 0 { size } else { usize::MAX };
        pieces(script, cut, |side, piece| match (side, piece) {
            (Side::Client, Some(piece)) => exchange.request_body(piece),
            (Side::Client, None) => exchange.request_end(),
            (Side::Server, piece) => {
                if !std::mem::replace(&mut answered, true) {
                    exchange.response(&answer(media, coding, status), at(40));
                }
                match piece {
                    Some(piece) if media & 0x80 != 0 => {
                        for piece in text::message(piece).chunks(size) {
                            exchange.response_body(piece, at(50));
                        }
                    }
                    Some(piece) => exchange.response_body(piece, at(50)),
                    None => exchange.response_end(at(60)),
                }
            }
        });
        exchange.cut(Cut::Eof(Side::Server), at(70));
        assert!(exchange.is_finished());
        let _ = exchange.captured();
        vec![exchange.row(&book)]
    });
}

/// How a request is written: to some places with a file.
fn asked(target: &str) -> &'static str {
    if target.ends_with("/transcriptions") { "multipart/form-data; boundary=b" } else { "" }
}

/// Whether the bodies of both sides are what their codings say. How much of a corrupt one comes out
/// before the error depends on the pieces.
fn readable([asked, answered]: [&str; 2], media: u8, script: &[u8]) -> bool {
    let (mut request, mut response) = (Vec::new(), Vec::new());
    pieces(script, usize::MAX, |side, piece| match (side, piece) {
        (Side::Client, Some(piece)) => request.extend_from_slice(piece),
        (Side::Server, Some(piece)) if media & 0x80 != 0 => response.extend(text::message(piece)),
        (Side::Server, Some(piece)) => response.extend_from_slice(piece),
        (Side::Client | Side::Server, None) => {}
    });
    [(asked, request), (answered, response)].iter().all(|(name, body)| {
        let mut decoder = coding::Decoder::new(name, 1 << 30).expect("a known coding");
        decoder.feed(body, &mut |_| {}).is_ok()
    })
}

/// The heads of a request and of its answer: a line for the request, its fields, an empty line, the
/// answer's fields.
fn headers_of<'a>(text: &'a str) -> (RequestHead, Headers) {
    let mut lines = text.split('\n');
    let first = lines.next().unwrap_or_default();
    let mut words = first.splitn(3, ' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let field = |line: &'a str| line.split_once(':').map(|(name, value)| (name, value.trim()));
    let asked = lines.by_ref().take_while(|line| !line.is_empty()).filter_map(field).collect();
    let answered = lines.filter_map(field).collect();
    let protocol = words.next();
    (RequestHead { method, target, headers: asked, protocol, ..RequestHead::default() }, answered)
}

/// The first byte chooses where it goes; see [`headers_of`] for the rest.
pub fn headers(data: &[u8]) {
    let Some((&place, text)) = data.split_first() else { return };
    let (head, answered) = headers_of(&String::from_utf8_lossy(text));
    let mut exchange = Exchange::new(start(place_of(place).0), &head);
    exchange.request_end();
    let _ = Extensions::agreed(&answered);
    exchange.response(&ResponseHead { status: 200, headers: answered }, at(40));
    exchange.response_end(at(50));
    assert_fit(&exchange.row(&Book::builtin()));
}

/// The first byte chooses the protocol; then a script of what came on the connection.
pub fn connection(data: &[u8]) {
    let Some((&choice, script)) = data.split_first() else { return };
    let alpn = [None, Some(&b"http/1.1"[..]), Some(b"h2")][usize::from(choice % 3)];
    rows_alike(|size| {
        let rows = Arc::new(Rows::default());
        let now = Instant::now();
        let subject = Subject {
            host: place_of(choice >> 2).0.to_owned(),
            ..observer::foreign::subject(alpn, (at(0), now))
        };
        observer::foreign::observe(subject, Arc::clone(&rows) as Arc<dyn RowSink>, |see| {
            pieces(script, size, |side, piece| {
                see(match piece {
                    Some(bytes) => Seen::Bytes { side, at: now, bytes },
                    None => Seen::End { side, clean: choice & 0x40 == 0, at: now },
                });
            });
            see(Seen::Closed { how: Closing::Orderly, at: now });
        });
        rows.last_of_each()
    });
}

/// The last writing of each row; their ids are made up each time.
#[derive(Default)]
struct Rows(Mutex<Vec<Row>>);

impl RowSink for Rows {
    fn record(&self, row: Row) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match rows.iter_mut().find(|old| old.id == row.id) {
            Some(old) => *old = row,
            None => rows.push(row),
        }
    }

    fn begin_bodies(&self) -> Option<Capture> {
        Some(Capture::new(256, Room::new(1 << 20)))
    }
}

impl Rows {
    fn last_of_each(&self) -> Vec<Row> {
        let mut rows = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for row in &mut rows {
            assert!(row.completeness != Completeness::Open, "left open: {row:?}");
            row.id = Uuid::nil();
        }
        rows
    }
}

/// The same rows in any pieces. Of one that is lossy only that it is: how far it was read before it
/// broke is by chance.
fn rows_alike(run: impl Fn(usize) -> Vec<Row>) {
    same(|size| {
        let rows = run(size).into_iter().map(|row| {
            assert_fit(&row);
            if row.completeness == Completeness::Lossy {
                Row { completeness: row.completeness, ..nothing_of(&row.host) }
            } else {
                row
            }
        });
        rows.map(|row| format!("{row:?}")).collect::<Vec<_>>()
    });
}

fn nothing_of(host: &str) -> Row {
    let exchange = Exchange::new(start(host), &RequestHead::default());
    exchange.row(&Book::default())
}

/// No text of others without end, no sum below nothing.
fn assert_fit(row: &Row) {
    let long = |text: &Option<String>| text.as_ref().is_some_and(|text| text.len() > MAX_TEXT);
    let texts = [
        &row.model,
        &row.model_requested,
        &row.provider_request_id,
        &row.response_id,
        &row.tier,
        &row.speed,
        &row.geo,
        &row.client,
        &row.session,
        &row.agent,
        &row.agent_kind,
        &row.completeness_reason,
        &row.cost_reason,
        &row.price_rule,
    ];
    assert!(!texts.iter().any(|text| long(text)), "a long text in {row:?}");
    assert!(row.cost_nanousd.is_none_or(|cost| cost >= 0), "{row:?}");
    assert!(row.quota.len() <= 64, "{} windows", row.quota.len());
    assert!(row.quota.iter().all(|window| window.name.len() <= 64), "{:?}", row.quota);
    assert!(row.detail.parts.len() <= 4096 && row.detail.counts.len() <= 4096);
}

fn answer(media: u8, coding: u8, status: u8) -> ResponseHead {
    let status = match status {
        0x80.. => 400 + u16::from(status & 0x7f),
        _ => 200 + u16::from(status & 7),
    };
    let media = if media & 0x7f == 0x7f { LAST_MEDIA } else { of(&MEDIA, media) };
    let named = [("content-type", media), ("content-encoding", of(&CODINGS, coding & 15))];
    ResponseHead { status, headers: headers_from(named) }
}

fn of<T: Copy>(list: &[T], choice: u8) -> T {
    list[usize::from(choice & 0x7f) % list.len()]
}

fn place_of(choice: u8) -> (&'static str, &'static str) {
    let choice = usize::from(choice & 0x7f);
    let late = choice.checked_sub(LATE).and_then(|late| PLACES.get(EARLY + late));
    *late.unwrap_or(&PLACES[choice % EARLY])
}

fn start(host: &str) -> ExchangeStart {
    ExchangeStart {
        id: Uuid::nil(),
        at: at(0),
        host: host.to_owned(),
        port: 443,
        local: false,
        protocol: Protocol::H1,
    }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_795_521_600_000 + ms).expect("a moment")
}

fn headers_from<const N: usize>(pairs: [(&str, &str); N]) -> Headers {
    pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::tests::{script, seed};
    use crate::meter::exchange::tests::Case;
    use crate::meter::exchange::tests::framings::cursor_run;
    use crate::meter::exchange::tests::shapes::shapes;

    /// Seeds go on to choose what they did, and nothing is out of reach.
    #[test]
    fn every_place_is_chosen() {
        for choice in 0..=u8::MAX {
            let n = usize::from(choice & 0x7f);
            let late = (LATE..LATE + PLACES.len() - EARLY).contains(&n);
            let expected = if late { EARLY + n - LATE } else { n % EARLY };
            assert_eq!(place_of(choice), PLACES[expected], "{choice}");
        }
        // A GET reads back what a POST has asked for.
        let kind = |place: (&str, &str), method: &str| {
            let head = RequestHead {
                method: method.to_owned(),
                target: place.1.to_owned(),
                ..RequestHead::default()
            };
            Exchange::new(start(place.0), &head).row(&Book::default()).surface
        };
        for place in &PLACES[EARLY..] {
            assert!(["GET", "POST"].iter().any(|m| kind(*place, m).is_some()), "{place:?}");
        }
    }

    #[test]
    fn seeds_are_current() {
        let shapes: Vec<Case> = shapes().into_iter().map(|shape| shape.case).collect();
        for (late, name, path) in [
            (0, "batch-results", "/results"),
            (1, "batch-file", "/content"),
            (2, "batch-inline", "/batches/b1"),
            (3, "rerank", "/rerank"),
            (4, "classify", "/classify"),
            (5, "speech", "/audio/speech"),
            (7, "conversation", "/conversations/conv_1"),
            (8, "deployment", "?api-version=2026-01-01"),
        ] {
            let case = shapes.iter().find(|case| case.target.ends_with(path));
            written(late, name, case.expect("a shape"));
        }
        written(9, "cursor-asked", &cursor_run());
    }

    fn written(late: usize, name: &str, case: &Case) {
        let media = MEDIA.iter().position(|media| *media == case.media).unwrap_or_default();
        let get = if case.method == "GET" { 0x80 } else { 0 };
        let acts = [
            (Side::Client, case.request.clone()),
            (Side::Client, Vec::new()),
            (Side::Server, case.body.clone()),
            (Side::Server, Vec::new()),
        ];
        // A GET asks with nothing.
        let acts = acts.into_iter().skip(usize::from(case.request.is_empty()));
        let script = script(&acts.collect::<Vec<_>>());
        let place = get | u8::try_from(LATE + late).expect("a byte");
        let media = u8::try_from(media).expect("a byte");
        seed("exchange", name, &[&[place, media, 0, 0], script.as_slice()].concat());
    }
}
