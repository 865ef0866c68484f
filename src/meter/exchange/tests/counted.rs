//! What is not told and counted by the request; what is billed and is no token.

use super::shapes::{Shape, case, streamed, tokens};
use super::*;
use crate::meter::usage::Caveat;

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

#[test]
fn what_is_billed_by_count_is_counted() {
    let rerank = case(
        "api.cohere.com",
        "/v2/rerank",
        r#"{"id":"r","results":[],"meta":{"billed_units":{"search_units":2.0}}}"#,
    );
    let rerank = Case { request: br#"{"model":"rerank-v3.5"}"#.to_vec(), ..rerank };
    let embedded = |billed: &str| Case {
        request: br#"{"model":"embed-v4.0"}"#.to_vec(),
        ..case(
            "api.cohere.com",
            "/v2/embed",
            &format!(r#"{{"id":"e","embeddings":{{}},"meta":{{"billed_units":{{{billed}}}}}}}"#),
        )
    };
    let seen = embedded(r#""input_tokens":100,"image_tokens":1000"#).row();
    assert_eq!((seen.tokens.input, seen.tokens.image_input), (Some(1100), Some(1000)));
    // 0.12 and 0.47 dollars per million.
    assert_eq!((seen.cost_nanousd, seen.cost_estimated), (Some(482_000), false), "{seen:?}");
    let counted = embedded(r#""input_tokens":null,"images":1"#).row();
    assert_eq!(counted.detail.counts.get("images"), Some(&1));
    assert_eq!(counted.cost_nanousd, None, "what an image costs no source says");
    let ocr = case(
        "api.mistral.ai",
        "/v1/ocr",
        r#"{"pages":[],"model":"mistral-ocr-latest","usage_info":{"pages_processed":7}}"#,
    );
    let whisper = case(
        "api.openai.com",
        "/v1/audio/transcriptions",
        r#"{"text":"x","usage":{"type":"duration","seconds":13}}"#,
    );
    let tools = case(
        "api.openai.com",
        "/v1/responses",
        r#"{"object":"response","status":"completed","model":"gpt-4o-mini","output":[{"type":"file_search_call"},{"type":"file_search_call"},{"type":"code_interpreter_call"},{"type":"image_generation_call","result":"iVBO"},{"type":"message"}],"usage":{"input_tokens":1,"output_tokens":1}}"#,
    );
    let whisper = Case {
        request: form(&[("model", "whisper-1"), ("response_format", "json")]),
        request_headers: vec![("content-type", FORM)],
        ..whisper
    };
    let usage = r#""usage":{"prompt_audio_seconds":203,"prompt_tokens":4,"completion_tokens":635,"total_tokens":3264}"#;
    let voxtral = case(
        "api.mistral.ai",
        "/v1/audio/transcriptions",
        &format!(r#"{{"model":"voxtral-mini-latest","text":"x","segments":[],{usage}}}"#),
    );
    assert_eq!(
        voxtral.row().tokens,
        Tokens { input: Some(4), output: Some(635), ..Tokens::default() }
    );
    // Asked about by a chat, it costs something else.
    let spoken = case(
        "api.mistral.ai",
        "/v1/chat/completions",
        &format!(
            r#"{{"model":"voxtral-mini-latest","choices":[{{"finish_reason":"stop"}}],{usage}}}"#
        ),
    )
    .row();
    assert_eq!((spoken.tokens.output, spoken.cost_nanousd), (Some(635), None), "{spoken:?}");
    assert_eq!(spoken.detail.counts.get("prompt_audio_seconds"), Some(&203));
    for (case, expected, cost, estimated) in [
        (rerank, vec![("search_units", 2)], 4_000_000, false),
        (ocr, vec![("pages", 7)], 28_000_000, false),
        (whisper, vec![("audio_seconds", 13)], 1_300_000, false),
        (voxtral, vec![("audio_seconds", 203)], 10_150_000, false),
        // What has no price (the run, the image) is said, and the rest is priced: 0.15 + 0.60 dollars
        // per million, and 2.50 dollars per thousand searches.
        (tools, vec![("code_runs", 1), ("file_searches", 2), ("images", 1)], 5_000_750, true),
    ] {
        let row = case.row();
        let found: Vec<_> = row.detail.counts.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(found, expected);
        assert_eq!(row.usage, UsageState::Reported);
        assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(cost), estimated), "{row:?}");
    }
}

#[test]
fn whisper_tells_how_long_it_listened_where_it_tells_no_usage() {
    let heard = |host, target, model: &str, body: &str| {
        let row = Case {
            request: form(&[("model", model), ("response_format", "verbose_json")]),
            request_headers: vec![("content-type", FORM)],
            ..case(host, target, body)
        }
        .row();
        (row.detail.counts.get("audio_seconds").copied(), row.usage, row.cost_nanousd)
    };
    let whole = |duration: &str, more: &str| {
        format!(
            r#"{{"task":"transcribe","language":"english","duration":{duration},"text":"x","segments":[{{"id":0}}]{more}}}"#
        )
    };
    let groq = |body: &str| {
        heard("api.groq.com", "/openai/v1/audio/transcriptions", "whisper-large-v3", body)
    };
    let told = (Some(60), UsageState::Reported, Some(60 * 30_830));
    assert_eq!(groq(&whole("60.2", "")), told);
    assert_eq!(groq(&whole(r#""60.20000076""#, "")), told);
    assert_eq!(groq(&whole(r#""60.0""#, "")), told);
    assert_eq!(groq(&whole("null", "")), (None, UsageState::Absent, None));
    let azure = "/openai/deployments/whisper/audio/transcriptions";
    let row = heard("corp.openai.azure.com", azure, "", &whole("61.0", ""));
    assert_eq!(row, (Some(61), UsageState::Reported, Some(6_100_000)));
    // What is billed is the usage.
    let usage = r#","usage":{"type":"duration","seconds":61}"#;
    let openai = "/v1/audio/transcriptions";
    let row = heard("api.openai.com", openai, "whisper-1", &whole("60.2", usage));
    assert_eq!(row, (Some(61), UsageState::Reported, Some(6_100_000)));
}

pub(super) fn shapes() -> Vec<Shape> {
    vec![
        Shape {
            name: "searches, and no tokens",
            case: case(
                "api.cohere.com",
                "/v2/rerank",
                r#"{"id":"r","results":[],"meta":{"billed_units":{"search_units":2.0}}}"#,
            ),
            tokens: Tokens::default(),
            surface: "cohere.chat",
        },
        Shape {
            name: "classifications, and no tokens",
            case: case(
                "api.cohere.com",
                "/v1/classify",
                r#"{"id":"c","classifications":[],"meta":{"billed_units":{"classifications":7}}}"#,
            ),
            tokens: Tokens::default(),
            surface: "cohere.chat",
        },
        Shape {
            name: "a conversation that goes on",
            case: case(
                "api.mistral.ai",
                "/v1/conversations/conv_1",
                r#"{"object":"conversation.response","conversation_id":"conv_1","outputs":[],"usage":{"prompt_tokens":188,"completion_tokens":55,"total_tokens":7355,"connector_tokens":7112,"connectors":{"web_search":2}}}"#,
            ),
            tokens: tokens(7300, 55),
            surface: "openai.chat",
        },
    ]
}

const FORM: &str = "multipart/form-data; boundary=xYz";

/// A file, and then the fields.
fn form(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut body =
        b"--xYz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
        Content-Type: audio/wav\r\n\r\nRIFF\r\n--xY{\"model\":\"no\"}\0\xff\r\n"
            .to_vec();
    for (name, value) in fields {
        let field =
            format!("--xYz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(field.as_bytes());
    }
    body.extend_from_slice(b"--xYz--\r\n");
    body
}

#[test]
fn what_is_asked_with_a_file_is_read_too() {
    let asked = |target, fields: &[(&str, &str)], answer: Case| {
        let request = form(fields);
        let headers = vec![("content-type", FORM)];
        Case { target, request, request_headers: headers, ..answer }.row()
    };
    let (host, path) = ("api.openai.com", "/v1/audio/transcriptions");
    let usage = r#""usage":{"type":"tokens","input_tokens":1000,"input_token_details":{"text_tokens":0,"audio_tokens":1000},"output_tokens":100,"total_tokens":1100}"#;
    let done = format!(r#"{{"type":"transcript.text.done","text":"x",{usage}}}"#);
    let model = ("model", "gpt-4o-transcribe");
    let whole = asked(path, &[model], case(host, path, &format!(r#"{{"text":"x",{usage}}}"#)));
    let stream = asked(path, &[model, ("stream", "true")], streamed(host, path, &[&done]));
    for (row, streams) in [(whole, false), (stream, true)] {
        assert_eq!(row.model_requested.as_deref(), Some("gpt-4o-transcribe"));
        assert_eq!(row.stream, Some(streams));
        // 6 and 10 dollars a million.
        assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(7_000_000), false), "{row:?}");
    }

    let path = "/v1/images/edits";
    let none = case(host, path, r#"{"created":1,"data":[{"url":"u"},{"url":"u"}]}"#);
    let fields =
        [("model", "dall-e-2"), ("n", "2"), ("size", "1024x1024"), ("quality", "standard")];
    let row = asked(path, &fields, none);
    assert_eq!(row.model_requested.as_deref(), Some("dall-e-2"));
    assert_eq!(row.detail.counts.get("images_standard_1024x1024"), Some(&2), "{:?}", row.detail);
    let told = r#"{"data":[],"usage":{"input_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40},"output_tokens":30,"total_tokens":80}}"#;
    let row = asked(path, &[("model", "gpt-image-1")], case(host, path, told));
    // 5 for text, 10 for images, 40 for what comes out.
    assert_eq!(row.cost_nanousd, Some(50_000 + 400_000 + 1_200_000), "{row:?}");
}

#[test]
fn what_the_connectors_of_a_conversation_read_is_input() {
    let usage = r#""usage":{"prompt_tokens":188,"completion_tokens":55,"total_tokens":7355,"connector_tokens":7112,"connectors":{"web_search":2,"code_interpreter":1}}"#;
    let whole = case(
        "api.mistral.ai",
        "/v1/conversations/conv_1",
        &format!(
            r#"{{"object":"conversation.response","conversation_id":"conv_1","outputs":[],{usage}}}"#
        ),
    );
    let events = format!(
        "event: conversation.response.started\ndata: {{\"type\":\"conversation.response.started\",\"conversation_id\":\"conv_1\"}}\n\n\
         event: message.output.delta\ndata: {{\"type\":\"message.output.delta\",\"model\":\"mistral-medium-latest\",\"content\":\"x\"}}\n\n\
         event: conversation.response.done\ndata: {{\"type\":\"conversation.response.done\",{usage}}}\n\n"
    );
    let stream =
        Case { media: "text/event-stream", ..case("api.mistral.ai", "/v1/conversations", &events) };
    for case in [whole, stream] {
        let case = Case { request: br#"{"model":"mistral-medium-latest"}"#.to_vec(), ..case };
        let row = case.row();
        assert_eq!((row.tokens.input, row.tokens.output), (Some(7300), Some(55)));
        assert_eq!((row.usage, row.web_searches), (UsageState::Reported, Some(2)), "{row:?}");
        assert_eq!(row.detail.counts.get("code_runs"), Some(&1));
        assert!(
            row.billable && row.cost_estimated,
            "what no source has a price of is said: {row:?}"
        );
    }
}

#[test]
fn a_page_that_is_opened_is_no_search() {
    let told = |output: &str| {
        let response = format!(
            r#"{{"id":"r","object":"response","status":"completed","model":"gpt-5","output":[{output}],"usage":{{"input_tokens":1000,"output_tokens":100}}}}"#
        );
        let whole = case("api.openai.com", "/v1/responses", &response);
        let last = format!(r#"{{"type":"response.completed","response":{response}}}"#);
        let stream = streamed("api.openai.com", "/v1/responses", &[&last]);
        let (whole, stream) = (whole.row(), stream.row());
        assert_eq!(
            (whole.web_searches, whole.cost_nanousd),
            (stream.web_searches, stream.cost_nanousd)
        );
        (whole.web_searches, whole.cost_nanousd)
    };
    let action =
        |kind: &str| format!(r#"{{"type":"web_search_call","action":{{"type":"{kind}"}}}}"#);
    let pages = [action("open_page"), action("find_in_page")].join(",");
    // 1.25 and 10 dollars per million.
    assert_eq!(told(&pages), (None, Some(2_250_000)));
    let others = r#"{"action":{"type":"search","query":"q"},"type":"web_search_call"},{"type":"web_search_call"},{"type":"computer_call","action":{"type":"click"}}"#;
    // … and two cents.
    assert_eq!(told(&format!("{pages},{others}")), (Some(2), Some(22_250_000)));
}

#[test]
fn models_that_always_search_are_billed_for_it() {
    for (model, searches, cost) in [
        ("gpt-4o-search-preview-2025-03-11", Some(1), 3_500_000 + 25_000_000),
        ("gpt-4o-mini-search-preview-2025-03-11", Some(1), 210_000 + 25_000_000),
        ("gpt-5-search-api-2025-10-14", Some(1), 2_250_000 + 10_000_000),
        ("gpt-4o-mini-2024-07-18", None, 210_000),
    ] {
        let answer = format!(
            r#"{{"object":"chat.completion","model":"{model}","choices":[{{"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}}}}"#
        );
        let row = case("api.openai.com", "/v1/chat/completions", &answer).row();
        assert_eq!(
            (row.web_searches, row.cost_nanousd, row.cost_estimated),
            (searches, Some(cost), false),
            "{model}"
        );
    }
}

#[test]
fn an_interaction_in_the_background_counts_where_it_is_told() {
    const USAGE: &str = r#""usage":{"total_input_tokens":1000,"total_output_tokens":100,"total_thought_tokens":20}"#;
    let host = "generativelanguage.googleapis.com";
    let read = |interaction: &str| {
        let target = "/v1beta/interactions/v1_a";
        Case { method: "GET", request: Vec::new(), ..case(host, target, interaction) }
    };
    let research = r#""id":"v1_a","agent":"deep-research-pro-preview-12-2025""#;
    let row = read(&format!(r#"{{{research},"status":"completed",{USAGE}}}"#)).row();
    assert!(row.billable);
    assert_eq!(row.response_id.as_deref(), Some("v1_a"));
    assert_eq!((row.tokens.input, row.tokens.output), (Some(1000), Some(120)));
    // 2 and 12 dollars per million.
    assert_eq!(row.cost_nanousd, Some(3_440_000), "{row:?}");
    let resumed = format!(
        r#"{{"event_type":"interaction.completed","interaction":{{{research},"status":"completed",{USAGE}}}}}"#
    );
    let stream = Case { media: "text/event-stream", body: sse(&[&resumed]), ..read("") }.row();
    assert_eq!((stream.billable, stream.cost_nanousd), (true, Some(3_440_000)));
    // What is not over tells no last word, neither to who asks nor to who polls.
    for status in ["queued", "in_progress"] {
        let pending = read(&format!(r#"{{{research},"status":"{status}",{USAGE}}}"#));
        assert!(!pending.row().billable, "{status}");
        let asked = Case { method: "POST", target: "/v1beta/interactions", ..pending }.row();
        assert_eq!((asked.billable, asked.usage), (true, UsageState::Absent), "{status}");
    }
    // Nothing would tell it from the next poll.
    assert!(!read(&format!(r#"{{"status":"completed",{USAGE}}}"#)).row().billable);
}

#[test]
fn what_cohere_classified_is_counted() {
    let answer = r#"{"id":"c","classifications":[],"meta":{"billed_units":{"classifications":7}}}"#;
    let row = case("api.cohere.com", "/v1/classify", answer).row();
    assert_eq!((row.billable, row.usage), (true, UsageState::Reported));
    assert_eq!(row.detail.counts.get("classifications"), Some(&7), "{row:?}");
}
