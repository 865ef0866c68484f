//! What is told later, or not at all and counted by the request.

use super::shapes::{case, streamed};
use super::*;
use crate::meter::usage::Caveat;

#[test]
fn a_batch_of_geminis_counts_where_its_answers_are() {
    let answers = r#"{"inlinedResponses":{"inlinedResponses":[
        {"response":{"candidates":[],"usageMetadata":{"promptTokenCount":1000,"candidatesTokenCount":100,"totalTokenCount":1130,"thoughtsTokenCount":30},"modelVersion":"gemini-2.5-flash"},"metadata":{"key":"a"}},
        {"error":{"code":400,"message":"m"}},
        {"response":{"usageMetadata":{"promptTokenCount":500,"candidatesTokenCount":50,"totalTokenCount":550}}}]}}"#;
    let poll = |output: &str, response: &str| {
        let body = format!(
            r#"{{"name":"batches/b1","metadata":{{"model":"models/gemini-2.5-flash","state":"x"{output}}}{response}}}"#
        );
        let host = "generativelanguage.googleapis.com";
        Case { method: "GET", request: Vec::new(), ..case(host, "/v1beta/batches/b1", &body) }
    };
    assert!(!poll("", "").row().billable, "not there yet");
    let (output, response) = (format!(",\"output\":{answers}"), format!(",\"response\":{answers}"));
    for told in [poll(&output, &response), poll(&output, ""), poll("", &response)] {
        let row = told.row();
        assert!(row.billable);
        assert_eq!((row.tokens.input, row.tokens.output), (Some(1500), Some(180)));
        assert_eq!((row.response_id.as_deref(), row.tier.as_deref()), (Some("b1"), Some("batch")));
        // Half of $0.30 and $2.50.
        assert_eq!(row.cost_nanousd, Some(450_000), "{row:?}");
    }
    let other = Case { host: "api.openai.com", ..poll(&output, "") };
    assert!(!other.row().billable);
}

#[test]
fn what_no_answer_tells_is_counted_by_the_request_and_says_so() {
    let speech = |request: &str, status: u16| Case {
        request: request.as_bytes().to_vec(),
        status,
        media: "audio/mpeg",
        ..case("api.openai.com", "/v1/audio/speech", "\u{1}not text")
    };
    let row =
        speech(r#"{"model":"tts-1","input":"gr\u00fc\u00df \"dich\"","voice":"x"}"#, 200).row();
    assert_eq!(row.detail.counts.get("characters"), Some(&11), "{:?}", row.detail);
    assert_eq!((row.usage, row.detail.caveat), (UsageState::Absent, Some(Caveat::FromRequest)));
    assert!(row.cost_reason.is_some_and(|why| why.contains("not told by the provider")));
    // $15 for a million characters.
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(11 * 15_000), true));
    let refused = speech(r#"{"model":"tts-1","input":"hi"}"#, 400).row();
    assert_eq!((refused.detail.counts.len(), refused.detail.caveat), (0, None));
    // What is told is what counts.
    let told = Case {
        request: br#"{"model":"gpt-4o-mini-tts","input":"hi","stream_format":"sse"}"#.to_vec(),
        ..streamed(
            "api.openai.com",
            "/v1/audio/speech",
            &[
                r#"{"type":"speech.audio.done","usage":{"input_tokens":7,"output_tokens":90,"total_tokens":97}}"#,
            ],
        )
    };
    let row = told.row();
    assert_eq!((row.tokens.input, row.tokens.output), (Some(7), Some(90)));
    assert_eq!((row.detail.counts.len(), row.detail.caveat), (0, None));

    let images = |request: &str, answer: &str| Case {
        request: request.as_bytes().to_vec(),
        ..case("api.openai.com", "/v1/images/generations", answer)
    };
    let none = r#"{"created":1,"data":[{"url":"u"},{"url":"u"}]}"#;
    let asked = r#"{"model":"dall-e-3","n":2,"size":"1024x1792","quality":"hd"}"#;
    let row = images(asked, none).row();
    assert_eq!(row.detail.counts.get("images_hd_1024x1792"), Some(&2), "{:?}", row.detail);
    let row = images(r#"{"model":"gpt-image-1"}"#, none).row();
    assert_eq!(row.detail.counts.get("images_auto_auto"), Some(&1), "{:?}", row.detail);
    let odd = r#"{"model":"m","n":"x","size":"<script>"}"#;
    assert!(images(odd, none).row().detail.counts.is_empty());
}
