//! Gemini Live: turns without names on one WebSocket.

use serde_json::{Value, json};

use super::sockets::{CLIENT, SERVER, Socket};
use super::*;
use crate::meter::websocket::tests::{Deflater, frame};

const MODEL: &str = "gemini-2.5-flash-native-audio-preview-09-2025";
const TARGET: &str =
    "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent?key=AIzaSecret";
const HOST: &str = "generativelanguage.googleapis.com";

fn live() -> Socket {
    let mut socket = Socket::open(HOST, TARGET, "");
    socket.ask(&json!({"setup": {"model": format!("models/{MODEL}"), "tools": []}}));
    socket.say(&json!({"setupComplete": {}}));
    socket
}

fn ask(text: &str) -> Value {
    let turns = [json!({"role": "user", "parts": [{"text": text}]})];
    json!({"client_content": {"turns": turns, "turn_complete": true}})
}

fn audio() -> Value {
    json!({"serverContent": {"modelTurn": {"parts": [
        {"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": "AAAA"}}]}}})
}

fn usage(prompt: u64, response: u64) -> Value {
    json!({"promptTokenCount": prompt, "responseTokenCount": response,
        "totalTokenCount": prompt + response,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt - 60},
            {"modality": "AUDIO", "tokenCount": 50}, {"modality": "VIDEO", "tokenCount": 10}],
        "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": response}]})
}

fn complete(usage: &Value) -> Value {
    json!({"serverContent": {"turnComplete": true}, "usageMetadata": usage})
}

fn figures(rows: &[Row]) -> Vec<(Completeness, UsageState, Option<u64>, Option<u64>)> {
    rows.iter().map(|r| (r.completeness, r.usage, r.tokens.input, r.tokens.output)).collect()
}

const DONE: (Completeness, UsageState) = (Completeness::Complete, UsageState::Reported);

#[test]
fn every_turn_is_a_row_with_its_own_usage() {
    let mut socket = live();
    socket.ask(&ask("one")).say(&audio()).say(&complete(&usage(143, 19)));
    let mut more = usage(181, 24);
    more["thoughtsTokenCount"] = json!(100);
    more["cachedContentTokenCount"] = json!(40);
    more["toolUsePromptTokenCount"] = json!(7);
    more["trafficType"] = json!("ON_DEMAND");
    socket
        .ask(&ask("two"))
        .say(&audio())
        .say(&json!({"serverContent": {"generationComplete": true}}));
    socket.say(&complete(&more));
    let rows = socket.end(Some(CLIENT));

    assert_eq!(
        figures(&rows),
        [(DONE.0, DONE.1, Some(143), Some(19)), (DONE.0, DONE.1, Some(148), Some(124))]
    );
    let row = &rows[1];
    assert_eq!((row.surface.as_deref(), row.protocol), (Some("gemini.live"), Protocol::Ws));
    assert_eq!(row.model_requested.as_deref(), Some(MODEL));
    assert_eq!((row.tokens.cache_read, row.tokens.reasoning), (Some(40), Some(100)));
    assert_eq!((row.tokens.audio_input, row.tokens.image_input), (Some(50), Some(10)));
    assert_eq!((row.tokens.audio_output, row.tier.as_deref()), (Some(24), Some("standard")));
    assert_eq!((row.ttfb_ms, row.duration_ms), (Some(10), Some(30)));
    assert!(!row.path.contains("AIza") && row.billable);
    // $0.50 and $3 (audio and video) in, $2 and $12 (audio) out; cached as fresh.
    let expected = (148 - 60 + 40) * 500 + 60 * 3_000 + 100 * 2_000 + 24 * 12_000;
    assert_eq!(row.cost_nanousd, Some(expected), "{row:?}");
}

#[test]
fn up_to_gemini_2_a_grounded_turn_is_billed_and_from_3_on_each_query() {
    for (model, searches) in
        [(MODEL, 1), ("gemini-live-2.5-flash-preview", 1), ("gemini-3.1-flash-live-preview", 3)]
    {
        let mut socket = Socket::open(HOST, TARGET, "");
        socket.ask(&json!({"setup": {"model": format!("models/{model}")}}));
        socket.say(&json!({"setupComplete": {}}));
        let queries = json!({"webSearchQueries": ["a", "b", "c"]});
        socket.ask(&ask("one")).say(&audio());
        socket.say(&json!({"serverContent": {"groundingMetadata": queries}}));
        socket.say(&complete(&usage(143, 19)));
        let rows = socket.end(Some(CLIENT));
        assert_eq!(rows[0].web_searches, Some(searches), "{model}");
    }
}

#[test]
fn vertex_names_its_model_by_a_path() {
    let target = "/ws/google.cloud.aiplatform.v1.LlmBidiService/BidiGenerateContent";
    let mut socket = Socket::open("us-central1-aiplatform.googleapis.com", target, "");
    let name = "gemini-live-2.5-flash-preview-native-audio-09-2025";
    let model = format!("projects/p/locations/l/publishers/google/models/{name}");
    socket.ask(&json!({"setup": {"model": model}})).say(&json!({"setupComplete": {}}));
    socket.ask(&json!({"clientContent": {"turnComplete": true}}));
    socket.say(&audio()).say(&complete(&usage(100, 10)));
    let rows = socket.end(None);
    assert_eq!(rows[0].provider, "vertex");
    assert_eq!(rows[0].model_requested.as_deref(), Some(name));
    assert!(rows[0].cost_nanousd.is_some_and(|cost| cost > 0), "{:?}", rows[0]);
}

#[test]
fn the_last_usage_of_a_turn_counts_and_a_stray_one_does_not() {
    let mut socket = live();
    // Spoken to: no message asks. A tool is called on the way.
    socket.ask(&json!({"realtimeInput": {"audio": {"data": "AAAA", "mimeType": "audio/pcm"}}}));
    socket.say(&json!({"toolCall": {"functionCalls": [{"id": "f", "name": "f", "args": {}}]},
        "usageMetadata": usage(100, 5)}));
    socket.ask(&json!({"toolResponse": {"functionResponses": []}}));
    socket
        .say(&audio())
        .say(&json!({"usageMetadata": usage(120, 9)}))
        .say(&complete(&usage(120, 12)));
    socket.say(&json!({"usageMetadata": usage(120, 12)}));
    socket.say(
        &json!({"sessionResumptionUpdate": {"newHandle": "h"}, "usageMetadata": usage(999, 9)}),
    );
    // The usage may come behind the end; nobody waits for it once the next turn begins.
    socket.say(&audio()).say(&json!({"serverContent": {"turnComplete": true}}));
    socket.say(&json!({"goAway": {"timeLeft": "50s"}, "usageMetadata": usage(150, 7)}));
    socket.say(&audio()).say(&json!({"serverContent": {"interrupted": true}}));
    socket.say(&json!({"serverContent": {"turnComplete": true}}));
    socket.say(&audio()).say(&complete(&usage(170, 8)));
    let rows = socket.end(Some(SERVER));
    assert_eq!(
        figures(&rows),
        [
            (DONE.0, DONE.1, Some(120), Some(12)),
            (DONE.0, DONE.1, Some(150), Some(7)),
            (DONE.0, UsageState::Absent, None, None),
            (DONE.0, DONE.1, Some(170), Some(8)),
        ]
    );
}

#[test]
fn what_is_asked_before_the_model_speaks_is_one_turn() {
    let mut socket = live();
    socket.ask(&json!({"clientContent": {"turns": [], "turnComplete": false}}));
    socket.ask(&ask("one")).ask(&ask("and")).say(&json!({"sessionResumptionUpdate": {}}));
    socket.ask(&ask("more")).say(&audio());
    // Interrupts: the answer to it is the next turn.
    socket.ask(&ask("stop")).say(&json!({"serverContent": {"interrupted": true}}));
    socket.say(&complete(&usage(100, 3))).say(&audio());
    let rows = socket.end(Some(CLIENT));
    assert_eq!(
        figures(&rows),
        [
            (DONE.0, DONE.1, Some(100), Some(3)),
            (Completeness::Interrupted, UsageState::Absent, None, None),
        ]
    );
    assert_eq!(rows[1].error_class.as_deref(), Some("client_abort"));
}

#[test]
fn a_turn_cut_short_keeps_what_was_told() {
    let mut socket = live();
    socket.ask(&ask("one")).say(&audio()).say(&json!({"usageMetadata": usage(100, 3)}));
    let rows = socket.end(Some(SERVER));
    assert_eq!(
        figures(&rows),
        [(Completeness::Interrupted, UsageState::Partial, Some(100), Some(3))]
    );
    assert!(rows[0].cost_estimated);
}

#[test]
fn binary_and_compressed_frames_cut_anywhere() {
    let (mut to, mut from) = (Deflater::new(true), Deflater::new(true));
    let mut client = Vec::new();
    let mut server = Vec::new();
    let setup = json!({"setup": {"model": format!("models/{MODEL}")}});
    for message in [setup, ask("one"), ask("two")] {
        client.push(to.frames(CLIENT, &message.to_string(), 2));
    }
    server.push(from.frames(SERVER, &json!({"setupComplete": {}}).to_string(), 1));
    for turn in [1, 2] {
        let mut wire = frame(SERVER, 0x82, audio().to_string().as_bytes());
        wire.extend(from.frames(SERVER, &complete(&usage(100 * turn, turn)).to_string(), 3));
        server.push(wire);
    }
    let rows = |cut: usize, bytewise: bool| {
        let mut socket = Socket::open(HOST, TARGET, "permessage-deflate");
        for (asked, said) in client.iter().zip(&server) {
            socket.feed(CLIENT, asked);
            let (a, b) = said.split_at(cut.min(said.len()));
            if bytewise {
                for byte in said.chunks(1) {
                    socket.feed(SERVER, byte);
                }
            } else {
                socket.feed(SERVER, a).feed(SERVER, b);
            }
        }
        figures(&socket.end(None))
    };
    let whole = [(DONE.0, DONE.1, Some(100), Some(1)), (DONE.0, DONE.1, Some(200), Some(2))];
    assert_eq!(rows(0, true), whole);
    for cut in 0..server.iter().map(Vec::len).max().unwrap_or_default() {
        assert_eq!(rows(cut, false), whole, "cut at {cut}");
    }
}
