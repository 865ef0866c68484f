//! Calls over gRPC. The messages were written by the providers' own Python packages.

use super::shapes::case;
use super::*;
use crate::meter::connect_rpc::tests::envelope;
use crate::meter::usage::Cached;

const OF_VERTEX: &str = "us-central1-aiplatform.googleapis.com";
const OF_GEMINI: &str = "generativelanguage.googleapis.com";
const VERTEX: &str = "/google.cloud.aiplatform.v1.PredictionService/GenerateContent";
const PREDICT: &str = "/google.cloud.aiplatform.v1.PredictionService/Predict";
const GEMINI: &str = "/google.ai.generativelanguage.v1beta.GenerativeService/StreamGenerateContent";

const VERTEX_ASKED: &str = "120c0a047573657212040a0268692a4a70726f6a656374732f702f6c6f636174696f6e732f75732d63656e7472616c312f7075626c6973686572732f676f6f676c652f6d6f64656c732f67656d696e692d322e352d666c617368";
const VERTEX_TOLD: &str = "1222120d0a056d6f64656c12040a02686918013a060a01610a016249000000000000e0bf223508e807101418a10828900340034a0508011084074a04080410645205080110e8025204080410285a0408011014620408011007701e5a1067656d696e692d322e352d666c6173686a027231";
const GEMINI_ASKED: &str = "0a156d6f64656c732f67656d696e692d322e352d70726f12060a0412026869";
const GEMINI_TOLD: [&str; 2] = [
    "0a0e0a0c0a0312017812056d6f64656c1a060864186e500a220e67656d696e692d322e352d70726f2a027231",
    "0a100a0c0a0312017912056d6f64656c10011a0d08641014189d0120284007501e220e67656d696e692d322e352d70726f2a027231",
];
const PREDICT_ASKED: &str = "0a4c70726f6a656374732f702f6c6f636174696f6e732f75732d63656e7472616c312f7075626c6973686572732f676f6f676c652f6d6f64656c732f746578742d656d62656464696e672d303035";
/// Two texts, of 5 and 7 tokens.
const PREDICT_TOLD: &str = "0a752a730a710a0a656d62656464696e677312632a610a3b0a0a73746174697374696373122d2a2b0a180a0b746f6b656e5f636f756e7412091100000000000014400a0f0a097472756e6361746564120220000a220a0676616c756573121832160a0911000000000000e03f0a0911000000000000d0bf0a752a730a710a0a656d62656464696e677312632a610a3b0a0a73746174697374696373122d2a2b0a180a0b746f6b656e5f636f756e741209110000000000001c400a0f0a097472756e6361746564120220000a220a0676616c756573121832160a0911000000000000e03f0a0911000000000000d0bf120164";
const XAI_ASKED: &str = "0a021001120867726f6b2d342e37750000003f";
const XAI_TOLD: [&str; 2] = [
    "0a016312050a030a0161220867726f6b2d342e373204101e181e",
    "0a016312021803220867726f6b2d342e3732110809101e188b01201e3064380a4a0201016001",
];
/// That it is deferred, and what is to be fetched, are the same bytes.
const DEFERRED: &str = "0a0434616431";
const PENDING: &str = "1003";
const FETCHED: &str =
    "0a290a016312020803320867726f6b2d342e374a160809101e188b01201e3064380a4a02010158a0bec3021001";

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn call(host: &'static str, target: &'static str, asked: &str, told: &[&str]) -> Case {
    Case {
        host,
        target,
        request: envelope(0, &bytes(asked)),
        media: "application/grpc",
        body: told.iter().flat_map(|message| envelope(0, &bytes(message))).collect(),
        ..Case::default()
    }
}

fn vertex() -> Case {
    call(OF_VERTEX, VERTEX, VERTEX_ASKED, &[VERTEX_TOLD])
}

/// But for where it went, one is as the other.
fn alike(grpc: &Row, rest: &Row) {
    assert_eq!((grpc.usage, grpc.tokens, &grpc.detail), (rest.usage, rest.tokens, &rest.detail));
    assert_eq!((&grpc.surface, &grpc.model, &grpc.tier), (&rest.surface, &rest.model, &rest.tier));
    let money = |row: &Row| (row.cost_nanousd, row.provider_cost_nanousd, row.cost_estimated);
    assert_eq!((money(grpc), grpc.web_searches), (money(rest), rest.web_searches));
    assert_eq!((&grpc.model_requested, grpc.stream), (&rest.model_requested, rest.stream));
    assert_eq!((grpc.billable, grpc.completeness), (true, Completeness::Complete));
    assert!(grpc.cost_nanousd.is_some(), "{grpc:#?}");
}

#[test]
fn vertex_tells_what_its_json_tells() {
    let row = vertex().row();
    let rest = case(
        OF_VERTEX,
        "/v1/projects/p/locations/us-central1/publishers/google/models/gemini-2.5-flash:generateContent",
        r#"{"candidates":[{"finishReason":"STOP","groundingMetadata":{"webSearchQueries":["a","b"]}}],"usageMetadata":{"promptTokenCount":1000,"cachedContentTokenCount":400,"candidatesTokenCount":20,"thoughtsTokenCount":30,"toolUsePromptTokenCount":7,"totalTokenCount":1057,"trafficType":"ON_DEMAND_PRIORITY","promptTokensDetails":[{"modality":"TEXT","tokenCount":900},{"modality":"AUDIO","tokenCount":100}],"cacheTokensDetails":[{"modality":"TEXT","tokenCount":360},{"modality":"AUDIO","tokenCount":40}],"toolUsePromptTokensDetails":[{"modality":"TEXT","tokenCount":7}]},"modelVersion":"gemini-2.5-flash","responseId":"r1"}"#,
    );
    alike(&row, &rest.row());
    assert_eq!(
        (row.provider.as_str(), row.model_requested.as_deref()),
        ("vertex", Some("gemini-2.5-flash"))
    );
    // The files name no number of the tokens that tools took: they are told by kind.
    let expected = Tokens {
        input: Some(607),
        cache_read: Some(400),
        output: Some(50),
        reasoning: Some(30),
        audio_input: Some(60),
        ..Tokens::default()
    };
    assert_eq!((row.tokens, row.web_searches), (expected, Some(1)));
    assert_eq!(row.detail.cached, Cached { audio: Some(40), image: None });
    assert_eq!((row.response_id.as_deref(), row.stream), (Some("r1"), Some(false)));
    let case = vertex();
    for cut in 0..=case.body.len() {
        let (a, b) = case.body.split_at(cut);
        assert_eq!(case.row_of(&[a, b]), row, "{cut}");
    }
}

#[test]
fn a_stream_of_gemini_is_its_last_message() {
    let case = call(OF_GEMINI, GEMINI, GEMINI_ASKED, &GEMINI_TOLD);
    let row = case.row();
    alike(&row, &gemini_stream().row());
    assert_eq!((row.tokens, row.stream), (gemini_tokens(), Some(true)));
    let first = envelope(0, &bytes(GEMINI_TOLD[0])).len();
    for cut in 0..case.body.len() {
        let usage = if cut < first { UsageState::Absent } else { UsageState::Partial };
        let row = case.cut(cut, Side::Client);
        assert_eq!((row.usage, row.completeness), (usage, Completeness::Interrupted), "{cut}");
    }
}

#[test]
fn messages_may_be_compressed() {
    let plain = call(OF_GEMINI, GEMINI, GEMINI_ASKED, &GEMINI_TOLD);
    let body = || GEMINI_TOLD.iter().flat_map(|message| envelope(1, &bytes(message))).collect();
    for coding in [Some("gzip"), None] {
        let header: Vec<_> = coding.map(|coding| ("grpc-encoding", coding)).into_iter().collect();
        let case = Case {
            request: envelope(1, &bytes(GEMINI_ASKED)),
            request_headers: header.clone(),
            response_headers: header,
            body: body(),
            ..plain.clone()
        };
        let row = Row { response_bytes: None, request_bytes: None, ..case.row() };
        let expected = Row { response_bytes: None, request_bytes: None, ..plain.row() };
        assert_eq!(row, expected);
    }
    let unknown =
        Case { response_headers: vec![("grpc-encoding", "snappy")], body: body(), ..plain };
    let row = unknown.row();
    assert_eq!((row.usage, row.completeness), (UsageState::Absent, Completeness::Lossy));
    assert_eq!(row.completeness_reason.as_deref(), Some("a message could not be read"));
}

#[test]
fn what_is_too_long_or_no_message_is_lossy() {
    let long = [&[0][..], &0x7fff_ffff_u32.to_be_bytes(), b"x"].concat();
    for body in [long, envelope(0, b"\x0a\xff"), b"<html>".to_vec()] {
        let row = Case { body, ..vertex() }.row();
        assert_eq!((row.billable, row.usage), (true, UsageState::Absent));
        assert_eq!(row.completeness, Completeness::Lossy);
    }
    // A proxy's own answer is none of the call's.
    let other = Case { media: "text/html", status: 502, body: b"<html>".to_vec(), ..vertex() };
    assert_eq!(other.row().completeness, Completeness::Complete);
}

#[test]
fn the_tokens_of_predicted_embeddings_are_counted() {
    let row = call(OF_VERTEX, PREDICT, PREDICT_ASKED, &[PREDICT_TOLD]).row();
    let rest = case(
        OF_VERTEX,
        "/v1/projects/p/locations/us-central1/publishers/google/models/text-embedding-005:predict",
        r#"{"predictions":[{"embeddings":{"statistics":{"token_count":5}}},{"embeddings":{"statistics":{"token_count":7}}}]}"#,
    );
    alike(&row, &rest.row());
    assert_eq!((row.tokens.input, row.usage), (Some(12), UsageState::Reported));
}

#[test]
fn xai_tells_what_its_json_tells() {
    let target = "/xai_api.Chat/GetCompletionChunk";
    let row = call("api.x.ai", target, XAI_ASKED, &XAI_TOLD).row();
    let rest = Case {
        request: br#"{"model":"grok-4.7","stream":true}"#.to_vec(),
        media: "text/event-stream",
        body: sse(&[
            r#"{"id":"c","object":"chat.completion.chunk","model":"grok-4.7","service_tier":"default","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":30,"completion_tokens":9,"total_tokens":139,"prompt_tokens_details":{"cached_tokens":10},"completion_tokens_details":{"reasoning_tokens":100}}}"#,
            "[DONE]",
        ]),
        ..case("api.x.ai", "/v1/chat/completions", "")
    };
    alike(&row, &rest.row());
    assert_eq!((row.tokens.output, row.tier.as_deref()), (Some(109), Some("default")));
}

#[test]
fn what_xai_defers_is_told_once_when_it_is_fetched() {
    let start =
        call("api.x.ai", "/xai_api.Chat/StartDeferredCompletion", XAI_ASKED, &[DEFERRED]).row();
    assert_eq!((start.response_id.as_deref(), start.usage), (Some("4ad1"), UsageState::Absent));
    assert!(start.billable);
    let fetch = |told| call("api.x.ai", surface::grpc::FETCHES, DEFERRED, &[told]).row();
    let row = fetch(FETCHED);
    // As the request is called: the ledger counts the two as one.
    assert_eq!((row.billable, row.response_id), (true, start.response_id));
    assert_eq!((row.tokens.input, row.cost_nanousd), (Some(20), Some(530_000)));
    assert!(!fetch(PENDING).billable);
}

#[test]
fn a_call_that_fails_at_once_says_why_in_its_head() {
    let failed = |target, status| {
        let case = Case { target, response_headers: vec![("grpc-status", status)], ..vertex() };
        let row = Case { body: Vec::new(), ..case }.row();
        (row.error_class, row.usage, row.billable)
    };
    let raw = "/google.cloud.aiplatform.v1.PredictionService/RawPredict";
    for target in [VERTEX, PREDICT, raw] {
        for (status, class) in [("8", "rate_limit"), ("16", "auth"), ("2", "in_stream")] {
            let expected = (Some(class.to_owned()), UsageState::Absent, true);
            assert_eq!(failed(target, status), expected, "{target}");
        }
        assert_eq!(failed(target, "0").0, None);
    }
}

#[test]
fn a_call_that_fails_behind_its_messages_says_why_in_its_trailers() {
    let failed = |case: &Case, name, status| {
        let mut exchange = case.feed(&[&case.body]);
        exchange.trailers(&headers(&[(name, status)]));
        exchange.response_end(at(100));
        let row = exchange.row(&Book::builtin());
        (row.error_class, row.usage, row.tokens)
    };
    let tokens = gemini_tokens();
    let gemini = call(OF_GEMINI, GEMINI, GEMINI_ASKED, &GEMINI_TOLD);
    for (status, class) in [("8", "rate_limit"), ("14", "overloaded"), ("2", "in_stream")] {
        let expected = (Some(class.to_owned()), UsageState::Partial, tokens);
        assert_eq!(failed(&gemini, "grpc-status", status), expected, "{status}");
    }
    let fine = (None, UsageState::Reported, tokens);
    assert_eq!(failed(&gemini, "grpc-status", "0"), fine);
    assert_eq!(failed(&gemini, "x-status", "8"), fine);
    // Over HTTP that is no field of anybody's.
    assert_eq!(failed(&gemini_stream(), "grpc-status", "8"), fine);
}

#[test]
fn a_call_of_a_browsers_says_it_in_its_last_message() {
    let failed = |said: &[u8]| {
        let plain = call(OF_GEMINI, GEMINI, GEMINI_ASKED, &GEMINI_TOLD);
        let body = [&plain.body[..], &envelope(0x80, said)].concat();
        let row = Case { media: "application/grpc-web+proto", body, ..plain }.row();
        (row.error_class, row.usage, row.completeness)
    };
    let failure = (Some("rate_limit".to_owned()), UsageState::Partial, Completeness::Complete);
    assert_eq!(failed(b"grpc-message:no\r\nGrpc-Status: 8\r\n"), failure);
    let fine = (None, UsageState::Reported, Completeness::Complete);
    for said in [&b"grpc-status:0\r\n"[..], b"", b"\xff"] {
        assert_eq!(failed(said), fine, "{said:?}");
    }
}

#[test]
fn what_is_not_read_is_a_request_all_the_same() {
    let target = "/google.cloud.aiplatform.v1.PredictionService/StreamRawPredict";
    let row = call(OF_VERTEX, target, PREDICT_ASKED, &[PREDICT_TOLD]).row();
    assert_eq!((row.billable, row.usage), (true, UsageState::Absent));
    assert_eq!((row.surface.as_deref(), row.completeness), (Some("grpc"), Completeness::Complete));
    assert_eq!(
        (row.model_requested.as_deref(), row.stream),
        (Some("text-embedding-005"), Some(true))
    );
    let count = "/google.cloud.aiplatform.v1.LlmUtilityService/CountTokens";
    assert!(!call(OF_VERTEX, count, "", &["0807"]).row().billable);
}
