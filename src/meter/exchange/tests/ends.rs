//! Splits, cuts, errors, codings: how an exchange may go and end.

use super::framings::{cursor_run, invoke};
use super::shapes::shapes;
use super::*;

#[test]
fn every_split_point_gives_the_same_row() {
    for case in streams() {
        let whole = case.row();
        for at in 0..case.body.len() {
            let (a, b) = case.body.split_at(at);
            assert_eq!(case.row_of(&[a, b]), whole, "{} split at {at}", case.target);
        }
        let bytes: Vec<&[u8]> = case.body.chunks(1).collect();
        assert_eq!(case.row_of(&bytes), whole);
    }
}

#[test]
fn a_cut_keeps_what_is_known_and_says_so() {
    let shapes = shapes().into_iter().map(|shape| shape.case).chain([invoke(), cursor_run()]);
    for case in streams().into_iter().chain(shapes).chain(batches::downloads()) {
        let whole = case.row();
        for len in 0..case.body.len() {
            let row = case.cut(len, Side::Server);
            match row.completeness {
                // Everything had been said.
                Completeness::Complete => {
                    assert_eq!((row.tokens, row.usage), (whole.tokens, whole.usage));
                    assert_eq!(row.error_class, None);
                }
                Completeness::Interrupted => {
                    assert_eq!(row.error_class.as_deref(), Some("upstream_cut"));
                    let sure = row.cost_nanousd.is_some() && !row.cost_estimated;
                    let told = |row: &Row| (row.tokens, row.cost_nanousd);
                    assert!(!sure || told(&row) == told(&whole), "{len}: {row:?}");
                }
                Completeness::Open | Completeness::Lossy => panic!("{row:?}"),
            }
        }
    }
}

#[test]
fn anthropic_cut_at_every_event() {
    let case = anthropic_stream();
    let text = String::from_utf8(case.body.clone()).unwrap();
    let ends: Vec<usize> = text.match_indices("\n\n").map(|(at, _)| at + 2).collect();
    // Events: start, block start, ping, block delta, block stop, delta, future, delta, stop.
    for (event, (output, state)) in [
        (None, UsageState::Partial),
        (None, UsageState::Partial),
        (None, UsageState::Partial),
        (None, UsageState::Partial),
        (None, UsageState::Partial),
        (Some(100), UsageState::Partial),
        (Some(100), UsageState::Partial),
        (Some(500), UsageState::Reported),
        (Some(500), UsageState::Reported),
    ]
    .into_iter()
    .enumerate()
    {
        let row = case.cut(ends[event], Side::Client);
        assert_eq!((row.tokens.output, row.usage), (output, state), "after event {event}");
        assert_eq!(row.tokens.input, Some(1000));
        assert_eq!(row.cost_estimated, state == UsageState::Partial);
        let complete = event == 8;
        assert_eq!(row.completeness == Completeness::Complete, complete);
        assert_eq!(row.error_class.is_none(), complete);
    }
    assert_eq!(case.cut(0, Side::Client).usage, UsageState::Absent);
}

#[test]
fn a_client_may_hang_up_behind_the_last_event_of_images_and_audio() {
    for (target, begin, last) in [
        ("/v1/images/generations", "image_generation.partial_image", "image_generation.completed"),
        ("/v1/images/edits", "image_edit.partial_image", "image_edit.completed"),
        ("/v1/audio/transcriptions", "transcript.text.delta", "transcript.text.done"),
        ("/v1/audio/speech", "speech.audio.delta", "speech.audio.done"),
    ] {
        let usage = r#""usage":{"input_tokens":10,"output_tokens":100,"total_tokens":110}"#;
        let begin = sse(&[&format!(r#"{{"type":"{begin}"}}"#)]);
        let last = |usage: &str| sse(&[&format!(r#"{{"type":"{last}"{usage}}}"#)]);
        let case = |last: Vec<u8>| Case {
            host: "api.openai.com",
            target,
            request: br#"{"model":"m","stream":true}"#.to_vec(),
            media: "text/event-stream",
            body: [begin.clone(), last].concat(),
            ..Case::default()
        };
        let told = case(last(&format!(",{usage}")));
        let row = told.cut(told.body.len(), Side::Client);
        assert_eq!((row.completeness, row.error_class.as_deref()), (Completeness::Complete, None));
        assert_eq!((row.usage, row.tokens.output), (UsageState::Reported, Some(100)), "{target}");
        // Before it, or where it tells nothing, more may have been to come.
        for (case, length) in [(&told, begin.len()), (&case(last("")), told.body.len())] {
            let row = case.cut(length.min(case.body.len()), Side::Client);
            assert_eq!(row.error_class.as_deref(), Some("client_abort"), "{target}");
        }
    }
}

#[test]
fn errors_have_classes_and_no_cost() {
    let anthropic = |kind: &str| {
        format!(
            r#"{{"type":"error","error":{{"type":"{kind}","message":"m"}},"request_id":"req_9"}}"#
        )
    };
    let openai = |kind: &str, code: &str| {
        format!(r#"{{"error":{{"message":"m","type":"{kind}","param":null,"code":"{code}"}}}}"#)
    };
    for (status, body, expected) in [
        (429, anthropic("rate_limit_error"), "rate_limit"),
        (529, anthropic("overloaded_error"), "overloaded"),
        (500, anthropic("api_error"), "server_error"),
        (401, anthropic("authentication_error"), "auth"),
        (402, anthropic("billing_error"), "billing"),
        (404, anthropic("not_found_error"), "not_found"),
        (413, anthropic("request_too_large"), "too_large"),
        (504, anthropic("timeout_error"), "timeout"),
        // The body knows better than the status.
        (401, anthropic("invalid_request_error"), "bad_request"),
        (418, anthropic("brand_new_error"), "bad_request"),
        (503, "<html>".to_owned(), "overloaded"),
        (502, String::new(), "server_error"),
        (429, openai("insufficient_quota", "insufficient_quota"), "billing"),
        (429, openai("requests", "rate_limit_exceeded"), "rate_limit"),
        (400, openai("invalid_request_error", "context_length_exceeded"), "too_large"),
    ] {
        let case = Case { status, body: body.clone().into_bytes(), ..Case::default() };
        let row = case.row();
        assert_eq!(row.error_class.as_deref(), Some(expected), "{status} {body}");
        assert_eq!((row.cost_nanousd, row.usage), (None, UsageState::Absent));
        assert_eq!(row.completeness, Completeness::Complete);
    }
    let gemini = Case {
        status: 429,
        body: br#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}]"#.to_vec(),
        ..gemini_array()
    };
    assert_eq!(gemini.row().error_class.as_deref(), Some("rate_limit"));
}

#[test]
fn an_error_inside_a_stream_keeps_the_usage_before_it() {
    let mut case = anthropic_stream();
    let text = String::from_utf8(case.body).unwrap();
    let start = text.split_inclusive("\n\n").next().unwrap();
    let error = r#"event: error
data: {"type":"error","error":{"type":"overloaded_error","message":"m"}}

"#;
    case.body = format!("{start}{error}").into_bytes();
    let row = case.row();
    assert_eq!(row.error_class.as_deref(), Some("overloaded"));
    assert_eq!(row.usage, UsageState::Partial);
    assert_eq!((row.tokens.input, row.tokens.output), (Some(1000), None));
    assert!(row.cost_estimated);

    let mut case = responses_stream();
    case.body = sse(&[
        r#"{"type":"response.failed","response":{"id":"r","model":"gpt-6-astra","error":{"code":"server_error"},"usage":null}}"#,
    ]);
    let row = case.row();
    assert_eq!(row.error_class.as_deref(), Some("server_error"));
    assert_eq!((row.usage, row.cost_nanousd), (UsageState::Absent, None));
}

#[test]
fn the_row_is_open_until_the_end() {
    let case = anthropic_stream();
    let mut exchange = case.start();
    let open = exchange.row(&Book::builtin());
    assert_eq!(open.completeness, Completeness::Open);
    assert_eq!((open.ended_at, open.cost_nanousd, open.response_bytes), (None, None, None));
    assert!(open.billable && !exchange.is_finished());
    exchange.cut(Cut::Eof(Side::Server), at(9));
    let row = exchange.row(&Book::builtin());
    assert_eq!((row.id, row.error_class.as_deref()), (open.id, Some("network")));
    // The first end stands.
    exchange.response_end(at(99));
    exchange.lossy(GaveUp::Overrun, at(99));
    assert_eq!(exchange.row(&Book::builtin()), row);
}

#[test]
fn an_early_answer_ends_the_exchange_before_the_upload() {
    let case = Case { status: 413, ..Case::default() };
    let mut exchange = case.start();
    exchange.request_body(br#"{"model":"claude-opus-5-5","messages":[{"model":"a"#);
    exchange.response(&ResponseHead { status: 413, ..ResponseHead::default() }, at(5));
    exchange.response_end(at(6));
    exchange.request_body(br#"b"},{"model":"x"}"#);
    exchange.request_end();
    let row = exchange.row(&Book::builtin());
    assert_eq!(row.model_requested.as_deref(), Some("claude-opus-5-5"));
    assert_eq!(row.error_class.as_deref(), Some("too_large"));
    assert_eq!(row.request_bytes, Some(67));
}

#[test]
fn lossy_says_why_and_keeps_what_was_read() {
    let case = anthropic_stream();
    let mut exchange = case.feed(&[&case.body[..600]]);
    exchange.lossy(GaveUp::Overrun, at(70));
    let row = exchange.row(&Book::builtin());
    assert_eq!(row.completeness, Completeness::Lossy);
    assert_eq!(row.completeness_reason.as_deref(), Some("the observer fell behind the bytes"));
    assert_eq!(row.tokens.input, Some(1000));
}

#[test]
fn a_clock_that_goes_backwards_gives_no_negative_duration() {
    let mut exchange = anthropic_stream().start();
    exchange.response_end(at(-5000));
    assert_eq!(exchange.row(&Book::builtin()).duration_ms, Some(0));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn content_codings_of_request_and_response() {
    for case in streams() {
        let plain = case.row();
        for (coding, body) in [
            ("gzip", gzip(&case.body)),
            ("zstd", zstd::encode_all(case.body.as_slice(), 3).unwrap()),
        ] {
            let coded =
                Case { response_headers: vec![("content-encoding", coding)], body, ..case.clone() };
            let expected = Row { response_bytes: Some(coded.body.len() as u64), ..plain.clone() };
            assert_eq!(coded.row(), expected, "{coding}");
            let bytes: Vec<&[u8]> = coded.body.chunks(1).collect();
            assert_eq!(coded.row_of(&bytes), expected, "{coding}");
        }
    }
    // Codex compresses its requests.
    let mut codex = responses_stream();
    codex.request = zstd::encode_all(codex.request.as_slice(), 3).unwrap();
    codex.request_headers = vec![("content-encoding", "zstd")];
    let row = codex.row();
    assert_eq!(row.model_requested.as_deref(), Some("gpt-6-astra"));
    assert_eq!(row.stream, Some(true));
}

#[test]
fn a_body_that_cannot_be_decoded_is_lossy() {
    let mut case = anthropic_stream();
    case.response_headers = vec![("content-encoding", "gzip")];
    let corrupt = case.row();
    assert_eq!(corrupt.completeness, Completeness::Lossy);
    assert_eq!(corrupt.usage, UsageState::Absent);
    case.response_headers = vec![("content-encoding", "snappy")];
    let unknown = case.row();
    assert_eq!(unknown.completeness, Completeness::Lossy);
    assert!(unknown.completeness_reason.unwrap().contains("not supported"));
    // A request that can't be decoded costs the requested model's name only.
    let mut request = anthropic_stream();
    request.request_headers = vec![("content-encoding", "zstd")];
    let row = request.row();
    assert_eq!((row.completeness, row.model_requested), (Completeness::Complete, None));
    assert_eq!(row.cost_nanousd, Some(12_150_000));
}
