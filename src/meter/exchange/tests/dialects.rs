//! What only some of those say who speak OpenAI's chat.

use super::shapes::{case, streamed};
use super::*;

const GOOGLE: &str = "generativelanguage.googleapis.com";
const CHAT: &str = "/v1beta/openai/chat/completions";

/// Input, output, reasoning.
fn counted(row: &Row) -> [Option<u64>; 3] {
    [row.tokens.input, row.tokens.output, row.tokens.reasoning]
}

#[test]
fn googles_thoughts_are_in_its_total_only() {
    let answer = |model: &str, usage: &str| {
        format!(
            r#"{{"id":"g","object":"chat.completion","model":"{model}","choices":[{{"finish_reason":"stop","index":0}}],"usage":{{{usage}}}}}"#
        )
    };
    let thought = r#""completion_tokens":3,"prompt_tokens":9,"total_tokens":105"#;
    let row = case(GOOGLE, CHAT, &answer("gemini-3-flash-preview", thought)).row();
    assert_eq!(counted(&row), [Some(9), Some(96), Some(93)]);
    // 0.50 and 3 dollars per million.
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(4_500 + 288_000), false), "{row:?}");
    let chunk = |completion: u64, total: u64, end: &str| {
        format!(
            r#"{{"choices":[{{"delta":{{"content":"x"}},"index":0{end}}}],"id":"g","model":"gemini-3-flash-preview","object":"chat.completion.chunk","usage":{{"completion_tokens":{completion},"prompt_tokens":9,"total_tokens":{total}}}}}"#
        )
    };
    let chunks = [chunk(1, 103, ""), chunk(3, 105, r#","finish_reason":"length""#)];
    let stream = streamed(GOOGLE, CHAT, &[&chunks[0], &chunks[1], "[DONE]"]).row();
    assert_eq!(counted(&stream), [Some(9), Some(96), Some(93)]);

    for (model, usage, expected) in [
        ("google/gemini-3-flash-preview", thought, [Some(9), Some(96), Some(93)]),
        // Nothing but thoughts.
        (
            "gemini-3-flash-preview",
            r#""prompt_tokens":9,"total_tokens":105"#,
            [Some(9), Some(96), Some(96)],
        ),
        // Who tells them is believed, inside the completion or beside it.
        (
            "google/gemini-2.5-pro",
            r#""prompt_tokens":9,"completion_tokens":96,"total_tokens":105,"completion_tokens_details":{"reasoning_tokens":93}"#,
            [Some(9), Some(96), Some(93)],
        ),
        (
            "google/gemini-2.5-pro",
            r#""prompt_tokens":9,"completion_tokens":3,"total_tokens":105,"completion_tokens_details":{"reasoning_tokens":93}"#,
            [Some(9), Some(96), Some(93)],
        ),
        (
            "gemini-2.5-flash-lite",
            r#""prompt_tokens":9,"completion_tokens":3,"total_tokens":12"#,
            [Some(9), Some(3), None],
        ),
        // Whatever else somebody counts in a total.
        ("not-gemini", thought, [Some(9), Some(3), None]),
    ] {
        let row = case("llm.corp.example", "/v1/chat/completions", &answer(model, usage)).row();
        assert_eq!(counted(&row), expected, "{model} {usage}");
    }

    let line = format!(
        r#"{{"id":"b","custom_id":"1","response":{{"status_code":200,"body":{}}}}}"#,
        answer("gemini-3-flash-preview", thought)
    );
    let batch = Case {
        method: "GET",
        media: "application/octet-stream",
        request: Vec::new(),
        ..case(GOOGLE, "/v1beta/openai/files/file-1/content", &line)
    };
    assert_eq!(counted(&batch.row()), [Some(9), Some(96), Some(93)]);
}
