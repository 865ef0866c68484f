use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::meter::exchange::turns::{News, Turns};
use crate::meter::websocket::tests::{Deflater, close, frame, text};

pub(super) const CLIENT: Side = Side::Client;
pub(super) const SERVER: Side = Side::Server;

fn fresh() -> Uuid {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Uuid::from_u128(NEXT.fetch_add(1, Ordering::Relaxed).into())
}

/// A WebSocket under way, and the rows that came of it.
pub(super) struct Socket {
    pub(super) opened: Exchange,
    turns: Turns,
    pub(super) rows: Vec<Row>,
    now: i64,
}

impl Socket {
    pub(super) fn open(host: &'static str, target: &'static str, extensions: &str) -> Self {
        let named = [("x-request-id", "req_handshake"), ("sec-websocket-extensions", extensions)];
        Self::answered(host, target, &named)
    }

    /// With these header fields in the answer to the handshake.
    pub(super) fn answered(
        host: &'static str,
        target: &'static str,
        named: &[(&str, &str)],
    ) -> Self {
        let case = Case {
            host,
            target,
            method: "GET",
            request_headers: vec![("upgrade", "websocket"), ("session-id", "s-1")],
            ..Case::default()
        };
        let mut opened = case.start();
        opened.request_end();
        opened.response(&ResponseHead { status: 101, headers: headers(named) }, at(5));
        let turns = opened.upgraded(at(5), fresh).expect("a model's");
        Self { opened, turns, rows: Vec::new(), now: 10 }
    }

    pub(super) fn responses() -> Self {
        Self::open("api.openai.com", "/v1/responses", "")
    }

    pub(super) fn realtime() -> Self {
        Self::open("api.openai.com", "/v1/realtime?model=gpt-realtime&api_key=secret", "")
    }

    pub(super) fn feed(&mut self, side: Side, bytes: &[u8]) -> &mut Self {
        self.now += 10;
        let rows = &mut self.rows;
        self.turns.feed(&self.opened, side, bytes, at(self.now), &mut |exchange, news| {
            note(rows, exchange, news);
        });
        self.opened.tunnelled(side, bytes);
        self.opened.after(&mut self.turns);
        self
    }

    pub(super) fn ask(&mut self, message: &Value) -> &mut Self {
        self.feed(CLIENT, &text(CLIENT, &message.to_string()))
    }

    pub(super) fn say(&mut self, message: &Value) -> &mut Self {
        self.feed(SERVER, &text(SERVER, &message.to_string()))
    }

    pub(super) fn end(mut self, by: Option<Side>) -> Vec<Row> {
        self.close(by);
        self.rows
    }

    /// The rows of its responses, and its own.
    pub(super) fn closed(mut self, by: Option<Side>) -> (Vec<Row>, Row) {
        self.close(by);
        self.opened.response_end(at(9_000));
        (self.rows, self.opened.row(&Book::builtin()))
    }

    fn close(&mut self, by: Option<Side>) {
        let rows = &mut self.rows;
        self.turns.end(by, at(9_000), &mut |exchange, news| note(rows, exchange, news));
        self.opened.after(&mut self.turns);
    }
}

fn note(rows: &mut Vec<Row>, exchange: &Exchange, news: News) {
    let row = exchange.row(&Book::builtin());
    match (news, rows.iter_mut().find(|known| known.id == row.id)) {
        (News::Opened, None) => {
            assert_eq!(row.completeness, Completeness::Open);
            rows.push(row);
        }
        (News::Ended, Some(known)) => {
            assert_eq!(known.completeness, Completeness::Open, "ended twice");
            assert_ne!(row.completeness, Completeness::Open);
            *known = row;
        }
        (News::Opened, Some(_)) | (News::Ended, None) => panic!("{news:?} {row:?}"),
    }
}

pub(super) fn create(model: &str) -> Value {
    json!({"type": "response.create", "model": model, "input": [], "store": false})
}

pub(super) fn created(id: &str) -> Value {
    json!({"type": "response.created", "response": {"id": id, "model": "gpt-5", "usage": null}})
}

fn delta() -> Value {
    json!({"type": "response.output_text.delta", "item_id": "i", "delta": "hello"})
}

pub(super) fn completed(id: &str, input: u64, output: u64) -> Value {
    json!({"type": "response.completed", "response": {
        "id": id, "model": "gpt-5-2025-08-07", "service_tier": "default", "status": "completed",
        "error": null, "output": [{"type": "message"}],
        "usage": {"input_tokens": input, "input_tokens_details": {"cached_tokens": 10},
            "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 3},
            "total_tokens": input + output},
    }})
}

fn figures(row: &Row) -> (Option<&str>, Completeness, Option<u64>, Option<u64>) {
    let id = row.provider_request_id.as_deref();
    (id, row.completeness, row.tokens.input, row.tokens.output)
}

#[test]
fn every_response_on_a_socket_is_a_row_and_a_warm_up_costs_nothing() {
    let mut socket = Socket::responses();
    let mut warm_up = create("gpt-5");
    warm_up["generate"] = json!(false);
    socket.ask(&warm_up).say(&created("r0")).say(&completed("r0", 900, 0));
    let mut next = create("gpt-5");
    next["previous_response_id"] = json!("r0");
    socket.ask(&next).say(&created("r1")).say(&delta()).say(&completed("r1", 1000, 50));
    // Said twice: counted once.
    socket.say(&completed("r1", 1000, 50));
    next["previous_response_id"] = json!("r1");
    socket.ask(&next).say(&created("r2")).say(&completed("r2", 1100, 60));
    assert_eq!(socket.opened.row(&Book::builtin()).completeness, Completeness::Open);
    let rows = socket.end(Some(CLIENT));

    let got: Vec<_> = rows.iter().map(figures).collect();
    let complete = Completeness::Complete;
    let expected = [
        (Some("r0"), complete, None, None),
        (Some("r1"), complete, Some(990), Some(50)),
        (Some("r2"), complete, Some(1090), Some(60)),
    ];
    assert_eq!(got, expected);
    assert_eq!(rows.iter().map(|r| r.billable).collect::<Vec<_>>(), [false, true, true]);
    let row = &rows[1];
    assert_eq!((row.protocol, row.status, row.stream), (Protocol::Ws, Some(101), Some(true)));
    assert_eq!(
        (row.surface.as_deref(), row.path.as_str()),
        (Some("openai.responses"), "/v1/responses")
    );
    assert_eq!(row.model_requested.as_deref(), Some("gpt-5"));
    assert_eq!(row.model.as_deref(), Some("gpt-5-2025-08-07"));
    assert_eq!((row.usage, row.session.as_deref()), (UsageState::Reported, Some("s-1")));
    assert_eq!((row.tokens.cache_read, row.tokens.reasoning), (Some(10), Some(3)));
    assert!(row.cost_nanousd.is_some_and(|cost| cost > 0), "{row:?}");
    assert_eq!((row.ttfb_ms, row.duration_ms), (Some(10), Some(30)));
    assert_eq!(row.request_bytes, Some(next.to_string().len() as u64));
    let said = [created("r1"), delta(), completed("r1", 1000, 50)];
    let bytes: usize = said.iter().map(|message| message.to_string().len()).sum();
    assert_eq!(row.response_bytes, Some(bytes as u64));
}

#[test]
fn the_socket_itself_is_no_request_to_a_model() {
    let mut socket = Socket::responses();
    socket.ask(&create("gpt-5"));
    socket.opened.response_end(at(100));
    let row = socket.opened.row(&Book::builtin());
    assert_eq!(
        (row.protocol, row.completeness, row.billable),
        (Protocol::Ws, Completeness::Complete, false)
    );
    assert!(row.request_bytes > Some(50));
}

#[test]
fn a_socket_is_between_two_responses_when_nobody_speaks_or_waits() {
    let mut socket = Socket::responses();
    assert!(socket.turns.is_between());
    let asked = text(CLIENT, &create("gpt-5").to_string());
    let (begun, rest) = asked.split_at(asked.len() - 1);
    assert!(!socket.feed(CLIENT, begun).turns.is_between());
    assert!(!socket.feed(CLIENT, rest).turns.is_between());
    assert!(!socket.say(&created("r1")).turns.is_between());
    assert!(socket.say(&completed("r1", 1000, 50)).turns.is_between());
    assert!(!Socket::realtime().turns.is_between(), "its state ends with it");
    assert!(Socket::realtime().turns.is_silent());
    assert!(!Socket::realtime().say(&created("r1")).turns.is_silent());
}

#[test]
fn a_socket_that_breaks_off_leaves_what_was_known() {
    let closing = |first: Option<Side>, by| {
        let mut socket = Socket::responses();
        socket.ask(&create("gpt-5")).say(&created("r1")).say(&delta());
        if let Some(side) = first {
            socket.feed(side, &close(side, 1001));
        }
        let row = socket.end(by).remove(0);
        assert_eq!(figures(&row), (Some("r1"), Completeness::Interrupted, None, None));
        assert_eq!((row.model.as_deref(), row.usage), (Some("gpt-5"), UsageState::Absent));
        row.error_class.unwrap_or_default()
    };
    assert_eq!(closing(None, Some(CLIENT)), "client_abort");
    assert_eq!(closing(None, None), "upstream_cut");
    assert_eq!(closing(Some(CLIENT), None), "client_abort");
    assert_eq!(closing(Some(SERVER), Some(CLIENT)), "upstream_cut");
}

#[test]
fn errors_before_in_and_after_a_response() {
    let error = |extra: Value| {
        let mut message = json!({"type": "error", "error": {"type": "usage_limit_reached",
            "code": "rate_limit_exceeded", "message": "m"}});
        message.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        message
    };
    let mut socket = Socket::responses();
    // Refused: the row is over at once, and has the status that HTTP would have had.
    socket.ask(&create("gpt-5")).say(&error(json!({"status": 429, "headers": {"x": "y"}})));
    assert_eq!(socket.rows[0].completeness, Completeness::Complete);
    assert_eq!(socket.rows[0].status, Some(429));
    assert_eq!(socket.rows[0].error_class.as_deref(), Some("rate_limit"));
    // In the middle, with a last word behind it.
    socket.ask(&create("gpt-5")).say(&created("r1")).say(&error(json!({})));
    let mut failed = completed("r1", 70, 5);
    failed["type"] = json!("response.failed");
    socket.say(&failed);
    assert_eq!(socket.rows[1].completeness, Completeness::Complete);
    assert_eq!(socket.rows[1].tokens.output, Some(5));
    assert_eq!(socket.rows[1].usage, UsageState::Partial);
    // … and without: the client goes on.
    socket.ask(&create("gpt-5")).say(&created("r2")).say(&error(json!({})));
    assert_eq!(socket.rows[2].completeness, Completeness::Open);
    socket.ask(&create("gpt-5"));
    assert_eq!(socket.rows[2].completeness, Completeness::Complete);
    assert_eq!(socket.rows[2].error_class.as_deref(), Some("rate_limit"));
    socket.say(&created("r3")).say(&completed("r3", 80, 6));
    // About nothing that is open.
    socket.say(&error(json!({"code": "websocket_connection_limit_reached"})));
    let rows = socket.end(None);
    assert_eq!(rows.len(), 4);
    assert_eq!(figures(&rows[3]), (Some("r3"), Completeness::Complete, Some(70), Some(6)));
}

#[test]
fn lanes_are_told_apart_and_each_is_first_come_first_served() {
    let mut socket = Socket::responses();
    let lane = |mut message: Value, lane: &str| {
        message["stream_id"] = json!(lane);
        message
    };
    socket.ask(&lane(create("gpt-5"), "a")).ask(&lane(create("gpt-5-mini"), "b"));
    socket.ask(&lane(create("gpt-5-nano"), "a"));
    socket.say(&lane(created("rb"), "b")).say(&lane(created("ra"), "a")).say(&lane(delta(), "b"));
    socket.say(&lane(completed("rb", 20, 2), "b")).say(&lane(completed("ra", 30, 3), "a"));
    // The id alone is enough.
    socket.say(&lane(created("ra2"), "a")).say(&completed("ra2", 40, 4));
    let rows = socket.end(None);
    let got: Vec<_> = rows
        .iter()
        .map(|r| (r.model_requested.as_deref(), r.provider_request_id.as_deref(), r.tokens.output))
        .collect();
    let expected = [
        (Some("gpt-5"), Some("ra"), Some(3)),
        (Some("gpt-5-mini"), Some("rb"), Some(2)),
        (Some("gpt-5-nano"), Some("ra2"), Some(4)),
    ];
    assert_eq!(got, expected);
}

fn done(id: &str, status: &str) -> Value {
    json!({"type": "response.done", "event_id": "e", "response": {
        "object": "realtime.response", "id": id, "status": status, "status_details": null,
        "output": [], "usage": {"total_tokens": 300, "input_tokens": 200, "output_tokens": 100,
            "input_token_details": {"text_tokens": 120, "audio_tokens": 80, "cached_tokens": 50,
                "cached_tokens_details": {"text_tokens": 20, "audio_tokens": 30}},
            "output_token_details": {"text_tokens": 30, "audio_tokens": 70}},
    }})
}

#[test]
fn realtime_answers_asked_and_unasked() {
    let mut socket = Socket::realtime();
    socket.say(&json!({"type": "session.created", "session": {"model": "gpt-realtime-2026"}}));
    socket.ask(&json!({"type": "session.update", "session": {"audio": {"input":
        {"transcription": {"model": "gpt-4o-transcribe"}}}}}));
    socket.ask(&json!({"type": "response.create", "event_id": "c1", "response": {}}));
    let begun =
        |id| json!({"type": "response.created", "response": {"id": id, "status": "in_progress"}});
    socket.say(&begun("resp_1"));
    // Many errors are not about a response.
    let about =
        |id| json!({"type": "error", "error": {"type": "invalid_request_error", "event_id": id}});
    socket.say(&about("c0")).say(&json!({"type": "error", "error": {"type": "server_error"}}));
    socket.say(&done("resp_1", "completed"));
    // By voice: what was said is billed apart, and nobody asks for the answer.
    let voice = json!({"type": "input_audio_buffer.append", "audio": "AAAA"});
    socket.ask(&voice);
    socket.say(&json!({"type": "conversation.item.input_audio_transcription.completed",
        "item_id": "i", "transcript": "hi", "usage": {"type": "tokens", "total_tokens": 22,
        "input_tokens": 13, "input_token_details": {"text_tokens": 0, "audio_tokens": 13},
        "output_tokens": 9}}));
    socket.say(&begun("resp_2")).say(&done("resp_2", "failed"));
    // Refused.
    socket.ask(&json!({"type": "response.create", "event_id": "c2"})).say(&about("c2"));
    let rows = socket.end(Some(CLIENT));
    assert_eq!(rows.len(), 4, "{rows:#?}");
    assert!(!format!("{rows:?}").contains("secret"));

    let row = &rows[0];
    assert_eq!(row.surface.as_deref(), Some("openai.realtime"));
    assert_eq!(row.model_requested.as_deref(), Some("gpt-realtime"));
    assert_eq!(row.model.as_deref(), Some("gpt-realtime-2026"));
    assert_eq!((row.error_class.as_deref(), row.usage), (None, UsageState::Reported));
    let tokens = Tokens {
        input: Some(150),
        cache_read: Some(50),
        output: Some(100),
        audio_input: Some(50),
        audio_output: Some(70),
        ..Tokens::default()
    };
    assert_eq!(row.tokens, tokens);
    assert_eq!(rows[1].surface.as_deref(), Some("openai.audio"));
    assert_eq!(rows[1].model_requested.as_deref(), Some("gpt-4o-transcribe"));
    assert_eq!((rows[1].tokens.input, rows[1].tokens.output), (Some(13), Some(9)));
    assert_eq!(figures(&rows[2]), (Some("resp_2"), Completeness::Complete, Some(150), Some(100)));
    assert_eq!(rows[2].error_class.as_deref(), Some("in_stream"));
    assert_eq!(rows[2].request_bytes, Some(voice.to_string().len() as u64));
    assert_eq!(rows[3].error_class.as_deref(), Some("bad_request"));
    assert_eq!(rows[3].completeness, Completeness::Complete);
}

#[test]
fn what_could_not_be_read_makes_only_that_lossy() {
    // A lost message that may have been the last word.
    let deflate = "permessage-deflate; server_no_context_takeover";
    let mut socket = Socket::open("api.openai.com", "/v1/responses", deflate);
    socket.ask(&create("gpt-5")).say(&created("r1"));
    socket.feed(SERVER, &frame(SERVER, 0xc1, &[0xff; 9]));
    socket.ask(&create("gpt-5")).say(&created("r2")).say(&completed("r2", 100, 5));
    // Broken framing: nothing is known of what comes.
    socket.ask(&create("gpt-5")).feed(SERVER, &[0xff; 20]);
    assert!(socket.turns.gave_up().is_some());
    socket.opened.response_end(at(200));
    let row = socket.opened.row(&Book::builtin());
    assert_eq!((row.completeness, row.billable), (Completeness::Lossy, true));
    let rows = socket.end(None);
    let got: Vec<_> = rows.iter().map(|row| row.completeness).collect();
    assert_eq!(got, [Completeness::Lossy, Completeness::Complete, Completeness::Lossy]);
    assert!(rows[0].completeness_reason.as_deref().unwrap().contains("compressed"));
}

#[test]
fn open_responses_are_bounded() {
    let mut socket = Socket::responses();
    for _ in 0..70 {
        socket.ask(&create("gpt-5"));
    }
    let rows = socket.end(None);
    let lossy = rows.iter().filter(|row| row.completeness == Completeness::Lossy).count();
    assert_eq!((rows.len(), lossy), (70, 6));
}

#[test]
fn websockets_that_lead_to_no_model_are_counted() {
    let open = |host, target, extensions: &[(&str, &str)]| {
        let case = Case {
            host,
            target,
            method: "GET",
            request_headers: vec![("upgrade", "WebSocket")],
            ..Case::default()
        };
        let mut exchange = case.start();
        exchange.request_end();
        exchange.response(&ResponseHead { status: 101, headers: headers(extensions) }, at(5));
        let followed = exchange.upgraded(at(5), fresh).is_some();
        exchange.tunnelled(SERVER, b"123");
        exchange.cut(Cut::Eof(CLIENT), at(60));
        let row = exchange.row(&Book::builtin());
        assert_eq!((row.protocol, row.response_bytes), (Protocol::Ws, Some(3)));
        (followed, row.completeness, row.billable)
    };
    let complete = Completeness::Complete;
    assert_eq!(open("api.openai.com", "/v1/threads", &[]), (false, complete, false));
    // What an unknown host says is looked at; nobody asked for a response here.
    assert_eq!(open("llm.corp.example", "/events", &[]), (true, complete, false));
    let odd = [("sec-websocket-extensions", "x-odd")];
    assert_eq!(open("api.openai.com", "/v1/responses", &odd), (false, Completeness::Lossy, true));
    let host = "api.openai.com";
    assert_eq!(open(host, "/v1/chat/completions", &[]), (false, Completeness::Lossy, true));
}

#[test]
fn a_refused_handshake_is_an_error_that_nobody_pays_for() {
    let refused = |status: Option<u16>| {
        let case = Case {
            host: "api.openai.com",
            target: "/v1/responses",
            method: "GET",
            request_headers: vec![("upgrade", "websocket")],
            ..Case::default()
        };
        let mut exchange = case.start();
        exchange.request_end();
        assert!(!exchange.row(&Book::builtin()).billable, "before it is answered");
        match status {
            Some(status) => {
                exchange.response(&ResponseHead { status, ..ResponseHead::default() }, at(5));
                exchange.response_end(at(6));
            }
            None => exchange.cut(Cut::Eof(SERVER), at(6)),
        }
        let row = exchange.row(&Book::builtin());
        assert!(row.cost_nanousd.is_none() && (row.billable || row.cost_reason.is_none()));
        assert_eq!(row.surface.as_deref(), Some("openai.responses"));
        (row.billable, row.error_class, row.completeness)
    };
    let error = |class: &str, how| (false, Some(class.to_owned()), how);
    let (complete, interrupted) = (Completeness::Complete, Completeness::Interrupted);
    assert_eq!(refused(Some(426)), error("bad_request", complete));
    assert_eq!(refused(Some(401)), error("auth", complete));
    assert_eq!(refused(Some(404)), error("not_found", complete));
    assert_eq!(refused(Some(503)), error("overloaded", complete));
    assert_eq!(refused(None), error("network", interrupted));
    // It does not know of WebSockets, and answers all the same.
    assert_eq!(refused(Some(200)), (true, None, complete));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the pieces and however messages are framed and compressed, the rows are the same.
    #[test]
    fn rows_do_not_depend_on_framing_and_pieces(
        piece in 1_usize..300,
        frames in 1_usize..4,
        compressed in any::<bool>(),
        responses in 1_u64..5,
    ) {
        let extensions = if compressed { "permessage-deflate" } else { "" };
        let mut socket = Socket::open("chatgpt.com", "/backend-api/codex/responses", extensions);
        let (mut client, mut server) = (Deflater::new(true), Deflater::new(true));
        let mut wire = |side: Side, message: &Value| match (compressed, side) {
            (false, _) => text(side, &message.to_string()),
            (true, Side::Client) => client.frames(side, &message.to_string(), frames),
            (true, Side::Server) => server.frames(side, &message.to_string(), frames),
        };
        for n in 0..responses {
            let id = format!("r{n}");
            let asked = wire(CLIENT, &create("gpt-5"));
            let mut said = wire(SERVER, &created(&id));
            said.extend(frame(SERVER, 0x89, b"ping"));
            said.extend(wire(SERVER, &delta()));
            said.extend(wire(SERVER, &completed(&id, 100 + n, n)));
            for bytes in asked.chunks(piece) {
                socket.feed(CLIENT, bytes);
            }
            for bytes in said.chunks(piece) {
                socket.feed(SERVER, bytes);
            }
        }
        let rows = socket.end(None);
        prop_assert_eq!(rows.len() as u64, responses);
        for (n, row) in rows.iter().enumerate() {
            let n = n as u64;
            prop_assert_eq!(row.completeness, Completeness::Complete);
            prop_assert_eq!(row.billing, Billing::Subscription);
            prop_assert_eq!((row.tokens.input, row.tokens.output), (Some(90 + n), Some(n)));
            prop_assert_eq!(row.request_bytes, Some(create("gpt-5").to_string().len() as u64));
        }
    }
}
