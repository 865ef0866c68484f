//! Which methods there are, and what their messages become.

use proptest::prelude::*;
use serde_json::json;

use super::super::protobuf::tests::{nested, number as varint};
use super::*;

const VERTEX: &str = "/google.cloud.aiplatform";
const GEMINI: &str = "/google.ai.generativelanguage";

#[test]
fn methods_are_known_in_every_version() {
    for (path, kind) in [
        (format!("{VERTEX}.v1.PredictionService/GenerateContent"), Some(Kind::Gemini)),
        (format!("{VERTEX}.v1beta1.PredictionService/StreamGenerateContent"), Some(Kind::Gemini)),
        (format!("{VERTEX}.v1.PredictionService/Predict"), Some(Kind::GeminiPredict)),
        (format!("{VERTEX}.v1.PredictionService/StreamRawPredict"), Some(Kind::Grpc)),
        (format!("{VERTEX}.v1.LlmUtilityService/CountTokens"), Some(Kind::GeminiCountTokens)),
        (format!("{GEMINI}.v1beta.GenerativeService/GenerateContent"), Some(Kind::Gemini)),
        (format!("{GEMINI}.v1.GenerativeService/BatchEmbedContents"), Some(Kind::GeminiEmbed)),
        ("/xai_api.Chat/GetCompletionChunk".to_owned(), Some(Kind::Chat)),
        (FETCHES.to_owned(), Some(Kind::Chat)),
        (format!("{VERTEX}.v1.EndpointService/GetEndpoint"), None),
        (format!("{VERTEX}.evil.PredictionService/Predict"), None),
        (format!("{VERTEX}.v1/x.PredictionService/Predict"), None),
        (format!("{GEMINI}.v1beta.GenerativeService.BidiGenerateContent"), None),
        ("/xai_api.Models/ListLanguageModels".to_owned(), None),
        ("/xai_api.Chat/GetCompletion/x".to_owned(), None),
        ("/v1/chat/completions".to_owned(), None),
        (String::new(), None),
    ] {
        assert_eq!(method(&path).map(|method| method.kind), kind, "{path}");
    }
    assert!(method(FETCHES).unwrap().fetches);
}

#[test]
fn a_message_becomes_the_json_of_its_api() {
    let of = |path: &str, message: &[u8]| method(path).unwrap().told(message);
    let chat = "/xai_api.Chat/GetCompletion";
    let message = [
        nested(1, b"c"),
        nested(2, &varint(1, 3)),
        nested(2, &varint(1, 9)),
        nested(9, &[varint(2, 30), varint(6, 0), varint(7, 10), varint(99, 1)].concat()),
        varint(15, 2),
        varint(77, 1),
    ]
    .concat();
    let expected = json!({
        "id": "c",
        "choices": [{"finish_reason": 3}, {"finish_reason": 9}],
        "usage": {
            "prompt_tokens": 30,
            "prompt_tokens_details": {"cached_tokens": 10},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        "service_tier": "priority",
    });
    assert_eq!(of(chat, &message), Some(expected));
    // What is below zero, not specified, no text or of another type is not told.
    let odd = [
        nested(1, &[0xff]),
        varint(15, 0),
        varint(9, 5),
        nested(9, &[varint(1, u64::MAX), nested(2, b"x")].concat()),
    ];
    assert_eq!(of(chat, &odd.concat()), Some(json!({"usage": {}})));
    assert_eq!(of(chat, b"\x0a\xff"), None, "no message");
    assert_eq!(of(chat, b""), Some(json!({})));
    let unread = format!("{VERTEX}.v1.PredictionService/RawPredict");
    assert!(!method(&unread).unwrap().is_read());
}

#[test]
fn statuses_have_their_names() {
    for (status, name) in [
        ("8", Some("resource_exhausted")),
        (" 16", Some("unauthenticated")),
        ("99", Some("unknown")),
        ("0", None),
        ("", None),
        ("OK", None),
    ] {
        assert_eq!(failure(status), name, "{status:?}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for method in SERVICES.iter().flat_map(|(_, methods)| methods.iter()) {
            let _ = (method.told(&bytes), method.model(&bytes), method.subject(&bytes));
        }
    }
}
