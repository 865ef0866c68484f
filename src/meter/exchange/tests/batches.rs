//! What was asked for earlier, many requests at once, and is told later.

use super::shapes::{Shape, case, tokens};
use super::*;

#[test]
fn batches_are_read_back_line_by_line() {
    let line = |model: &str| {
        let usage = r#""input_tokens":1000,"output_tokens":100,"service_tier":"batch""#;
        result(model, usage)
    };
    let failed = r#"{"custom_id":"3","result":{"type":"errored","error":{"type":"error","error":{"type":"x"}}}}"#;
    let (sonnet, haiku) = ("claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001");
    let lines = [line(sonnet), line(haiku), failed.to_owned(), line(sonnet)];
    let case = results(&lines);
    let row = case.row();
    assert!(row.billable);
    assert_eq!((row.tokens.input, row.tokens.output), (Some(3000), Some(300)));
    assert_eq!(row.response_id.as_deref(), Some("msgbatch_1"));
    assert_eq!((row.model.as_deref(), row.detail.parts.len()), (None, 2));
    // Half of (2000×3 + 200×15) + (1000×1 + 100×5).
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(5_250_000), false), "{row:?}");

    let file = Case {
        host: "api.openai.com",
        target: "/v1/files/file-1/content",
        media: "application/octet-stream",
        body: br#"{"id":"b1","custom_id":"1","response":{"status_code":200,"body":{"id":"c","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}}},"error":null}"#.to_vec(),
        ..case
    };
    let row = file.row();
    assert_eq!((row.tokens.input, row.tokens.output), (Some(1000), Some(100)));
    assert_eq!(row.response_id.as_deref(), Some("file-1"));
    // Half of 1000×0.15 + 100×0.60.
    assert_eq!(row.cost_nanousd, Some(105_000), "{row:?}");
    let other = Case { body: b"any other file\n{}".to_vec(), ..file };
    assert!(!other.row().billable);
}

/// A batch of each kind, as it is read back.
pub(super) fn downloads() -> Vec<Case> {
    let lines: Vec<String> = (0..10)
        .map(|_| result("claude-opus-5-5", r#""input_tokens":1000,"output_tokens":100"#))
        .collect();
    let line = r#"{"id":"b","custom_id":"1","response":{"body":{"model":"gpt-5.4","usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}}}}"#;
    let file = Case {
        host: "api.openai.com",
        target: "/v1/files/file-1/content",
        media: "application/octet-stream",
        ..results(&vec![line.to_owned(); 10])
    };
    let one = r#"{"response":{"usageMetadata":{"promptTokenCount":1000,"candidatesTokenCount":100,"totalTokenCount":1100}}}"#;
    let all = [one; 10].join(",");
    let inline = format!(
        r#"{{"name":"batches/b1","metadata":{{"model":"models/gemini-2.5-flash"}},"response":{{"inlinedResponses":{{"inlinedResponses":[{all}]}}}}}}"#
    );
    let host = "generativelanguage.googleapis.com";
    let gemini =
        Case { method: "GET", request: Vec::new(), ..case(host, "/v1beta/batches/b1", &inline) };
    vec![results(&lines), file, gemini]
}

#[test]
fn a_cut_download_is_partial() {
    for case in downloads() {
        let whole = case.row();
        assert_eq!((whole.usage, whole.cost_estimated), (UsageState::Reported, false), "{whole:?}");
        let row = case.cut(case.body.len() / 2, Side::Server);
        assert_eq!(row.completeness, Completeness::Interrupted);
        assert_eq!((row.usage, row.cost_estimated), (UsageState::Partial, true), "{row:?}");
        assert!(row.cost_reason.unwrap().contains("only a part of the usage is known"));
        assert!(row.tokens.input < whole.tokens.input);
    }
}

#[test]
fn the_rest_of_a_download_is_not_all_of_it() {
    for case in downloads() {
        let at = case.body.len() / 2;
        let rest = Case { status: 206, body: case.body[at..].to_vec(), ..case.clone() }.row();
        assert_ne!(rest.usage, UsageState::Reported, "{rest:?}");
        let all = Case { status: 206, ..case }.row();
        assert_eq!(all.usage, UsageState::Partial, "{all:?}");
    }
}

fn results(lines: &[String]) -> Case {
    Case {
        method: "GET",
        target: "/v1/messages/batches/msgbatch_1/results",
        media: "application/x-jsonl",
        request: Vec::new(),
        body: lines.join("\n").into_bytes(),
        ..Case::default()
    }
}

fn result(model: &str, usage: &str) -> String {
    format!(
        r#"{{"custom_id":"c","result":{{"type":"succeeded","message":{{"id":"m","type":"message","model":"{model}","usage":{{{usage}}}}}}}}}"#
    )
}

#[test]
fn each_line_of_a_batch_is_below_or_above_a_price_step_of_its_own() {
    let haiku = |input: u64| {
        result("claude-haiku-5-5", &format!(r#""input_tokens":{input},"output_tokens":0"#))
    };
    let mut lines: Vec<String> = (0..100).map(|_| haiku(5_000)).collect();
    // Half of 0.10 a million up to 100 000, half of 0.50 above.
    let row = results(&lines).row();
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(25_000_000), false), "{row:?}");
    assert_eq!((row.model.as_deref(), row.detail.parts.len()), (Some("claude-haiku-5-5"), 1));
    lines.extend([haiku(100_000), haiku(100_001)]);
    let row = results(&lines).row();
    assert_eq!(row.cost_nanousd, Some(25_000_000 + 5_000_000 + 25_000_250), "{row:?}");
    assert_eq!((row.model.as_deref(), row.detail.parts.len()), (Some("claude-haiku-5-5"), 2));
    assert_eq!(row.tokens.input, Some(700_001));

    let line = r#"{"id":"b","custom_id":"1","response":{"body":{"model":"gpt-5.4","usage":{"prompt_tokens":5000,"completion_tokens":0,"total_tokens":5000}}}}"#;
    let lines = vec![line.to_owned(); 100];
    let file =
        Case { host: "api.openai.com", target: "/v1/files/file-1/content", ..results(&lines) };
    // Half of 2.50 a million.
    assert_eq!(file.row().cost_nanousd, Some(625_000_000), "{:?}", file.row());
}

#[test]
fn a_line_of_a_batch_is_read_like_the_message_that_it_is() {
    let opus = |usage: &str| {
        result("claude-opus-5-5", &format!(r#""input_tokens":1000,"output_tokens":0{usage}"#))
    };
    let searched = r#","server_tool_use":{"web_search_requests":3}"#;
    let us = r#","inference_geo":"us""#;
    let compacted = r#","iterations":[{"type":"compaction","input_tokens":500,"output_tokens":0},{"type":"message","input_tokens":1000,"output_tokens":0}]"#;
    // Half of 4 a million; a search is a cent in a batch too.
    for (lines, cost, searches, geo, parts) in [
        (vec![opus(searched), opus(searched)], 4_000_000 + 60_000_000, Some(6), None, 1),
        (vec![opus(us), opus(us)], 4_400_000, None, Some("us"), 1),
        (vec![opus(us), opus("")], 4_200_000, None, None, 2),
        (vec![opus(compacted), opus("")], 5_000_000, None, None, 1),
        (
            vec![opus(searched), result("claude-haiku-4-5", r#""input_tokens":1000"#)],
            2_000_000 + 500_000 + 30_000_000,
            Some(3),
            None,
            2,
        ),
    ] {
        let row = results(&lines).row();
        assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(cost), false), "{row:?}");
        assert_eq!((row.web_searches, row.geo.as_deref()), (searches, geo), "{row:?}");
        assert_eq!(row.detail.parts.len(), parts, "{row:?}");
    }
}

#[test]
fn the_tools_that_a_batch_used_are_counted_as_everywhere() {
    let line = |output: &str| {
        format!(
            r#"{{"id":"b","custom_id":"1","response":{{"body":{{"object":"response","model":"gpt-5.4","output":[{output}],"usage":{{"input_tokens":1000,"output_tokens":0,"total_tokens":1000}}}}}}}}"#
        )
    };
    let search = r#"{"type":"web_search_call","action":{"type":"search"}},{"type":"web_search_call","action":{"type":"open_page"}}"#;
    let files = r#"{"type":"file_search_call"},{"type":"message"}"#;
    let lines = [line(search), line(files), line(&format!("{files},{search}")), line("")];
    let file =
        Case { host: "api.openai.com", target: "/v1/files/file-1/content", ..results(&lines) };
    let row = file.row();
    assert_eq!(row.web_searches, Some(2), "{row:?}");
    assert_eq!(row.detail.counts.get("file_searches"), Some(&2), "{row:?}");
    // Half of 2.50 a million; a search is a cent, one of files a quarter of it, in a batch too.
    let fees = 20_000_000 + 5_000_000;
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(5_000_000 + fees), false), "{row:?}");
}

#[test]
fn what_is_kept_of_a_batch_is_bounded_and_says_so() {
    let lines: Vec<String> = (0..300)
        .map(|n| result(&format!("claude-opus-5-5-{}", 20_260_000 + n), r#""input_tokens":1"#))
        .collect();
    let row = results(&lines).row();
    assert_eq!((row.detail.parts.len(), row.usage), (128, UsageState::Partial));
    assert!(row.cost_estimated, "{row:?}");
}

const ANSWERS: &str = r#"{"inlinedResponses":{"inlinedResponses":[
    {"response":{"candidates":[],"usageMetadata":{"promptTokenCount":1000,"candidatesTokenCount":100,"totalTokenCount":1130,"thoughtsTokenCount":30},"modelVersion":"gemini-2.5-flash"},"metadata":{"key":"a"}},
    {"error":{"code":400,"message":"m"}},
    {"response":{"usageMetadata":{"promptTokenCount":500,"candidatesTokenCount":50,"totalTokenCount":550}}}]}}"#;

fn poll(output: &str, response: &str) -> Case {
    let body = format!(
        r#"{{"name":"batches/b1","metadata":{{"model":"models/gemini-2.5-flash","state":"x"{output}}}{response}}}"#
    );
    let host = "generativelanguage.googleapis.com";
    Case { method: "GET", request: Vec::new(), ..case(host, "/v1beta/batches/b1", &body) }
}

pub(super) fn shapes() -> Vec<Shape> {
    let lines = [
        result("claude-opus-5-5", r#""input_tokens":1000,"output_tokens":7,"inference_geo":"us""#),
        result("claude-haiku-4-5", r#""input_tokens":200,"cache_read_input_tokens":50"#),
    ];
    let line = r#"{"id":"b","custom_id":"1","response":{"body":{"object":"response","model":"gpt-5.4","output":[{"type":"web_search_call"}],"usage":{"input_tokens":1000,"output_tokens":9,"total_tokens":1009}}}}"#;
    let file = vec![line.to_owned(); 2];
    vec![
        Shape {
            name: "the results of a batch",
            case: results(&lines),
            tokens: Tokens { cache_read: Some(50), ..tokens(1200, 7) },
            surface: "anthropic.batch",
        },
        Shape {
            name: "a file of a batch's answers",
            case: Case {
                host: "api.openai.com",
                target: "/v1/files/file-1/content",
                media: "application/octet-stream",
                ..results(&file)
            },
            tokens: tokens(2000, 18),
            surface: "openai.batch",
        },
        Shape {
            name: "a batch that holds its answers",
            case: poll(&format!(",\"output\":{ANSWERS}"), ""),
            tokens: Tokens { reasoning: Some(30), ..tokens(1500, 180) },
            surface: "gemini.batch",
        },
    ]
}

#[test]
fn a_batch_of_geminis_counts_where_its_answers_are() {
    assert!(!poll("", "").row().billable, "not there yet");
    let (output, response) = (format!(",\"output\":{ANSWERS}"), format!(",\"response\":{ANSWERS}"));
    for told in [poll(&output, &response), poll(&output, ""), poll("", &response)] {
        let row = told.row();
        assert!(row.billable);
        assert_eq!((row.tokens.input, row.tokens.output), (Some(1500), Some(180)));
        assert_eq!((row.response_id.as_deref(), row.tier.as_deref()), (Some("b1"), Some("batch")));
        // Half of $0.30 and $2.50.
        assert_eq!(row.cost_nanousd, Some(450_000), "{row:?}");
    }
    // Each answer is a request of its own: their sum is above 200 000, none of them is.
    let answers = r#"{"inlinedResponses":{"inlinedResponses":[
        {"response":{"usageMetadata":{"promptTokenCount":150000,"totalTokenCount":150000}}},
        {"response":{"usageMetadata":{"promptTokenCount":150000,"totalTokenCount":150000}}}]}}"#;
    let mut long = poll(&format!(",\"output\":{answers}"), "");
    let body = String::from_utf8(long.body).unwrap().replace("2.5-flash", "2.5-pro");
    long.body = body.into_bytes();
    // Half of $1.25.
    assert_eq!(long.row().cost_nanousd, Some(187_500_000), "{:?}", long.row());
    let other = Case { host: "api.openai.com", ..poll(&output, "") };
    assert!(!other.row().billable);
    // More than is kept of a document: what is known is not all.
    let one = r#"{"response":{"usageMetadata":{"promptTokenCount":1,"totalTokenCount":1}}}"#;
    let many = |count| {
        let all = vec![one; count].join(",");
        format!("{{\"inlinedResponses\":{{\"inlinedResponses\":[{all}]}}}}")
    };
    let usage = |count, both: bool| {
        let response = if both { format!(",\"response\":{}", many(count)) } else { String::new() };
        let row = poll(&format!(",\"output\":{}", many(count)), &response).row();
        (row.tokens.input, row.usage)
    };
    assert_eq!(usage(3000, true), (Some(3000), UsageState::Reported), "told twice, once wholly");
    assert_eq!(usage(3000, false), (Some(3000), UsageState::Reported));
    assert_eq!(usage(5000, false).1, UsageState::Partial);
}
