//! Interactions and decisions, at both of Google's APIs, and Code Assist by its other names.

use serde_json::Value;

use super::shapes::{case, streamed};
use super::*;
use crate::meter::usage::Cached;

const GEMINI: &str = "generativelanguage.googleapis.com";
const VERTEX: &str = "us-central1-aiplatform.googleapis.com";
const OF_VERTEX: &str = "/v1beta1/projects/p/locations/us-central1/interactions";

/// 100 000 in, 20 000 of them cached, and 3 000 more by tools; 1 500 out, 500 of them thought.
const USAGE: &str = r#"{"total_input_tokens":100000,"total_cached_tokens":20000,"total_tool_use_tokens":3000,"total_output_tokens":1000,"total_thought_tokens":500,"total_tokens":104500,"input_tokens_by_modality":[{"modality":"audio","tokens":90000},{"modality":"text","tokens":10000}],"cached_tokens_by_modality":[{"modality":"audio","tokens":15000},{"modality":"text","tokens":5000}],"tool_use_tokens_by_modality":[{"modality":"image","tokens":1000},{"modality":"text","tokens":2000}],"output_tokens_by_modality":[{"modality":"text","tokens":1000}],"grounding_tool_count":[{"type":"google_search","count":3}]}"#;

/// As Google Cloud writes it.
fn of_cloud(text: &str) -> String {
    let name = |key: &str| {
        let mut parts = key.split('_');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |said, part| said + &part[..1].to_ascii_uppercase() + &part[1..])
    };
    fn renamed(value: Value, name: &impl Fn(&str) -> String) -> Value {
        match value {
            Value::Object(map) => {
                map.into_iter().map(|(key, of)| (name(&key), renamed(of, name))).collect()
            }
            Value::Array(all) => all.into_iter().map(|of| renamed(of, name)).collect(),
            plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
        }
    }
    renamed(serde_json::from_str(text).unwrap(), &name).to_string()
}

fn completed(usage: &str) -> String {
    format!(
        r#"{{"id":"v1_a","object":"interaction","status":"completed","model":"gemini-2.5-flash","service_tier":"priority","usage":{usage}}}"#
    )
}

#[test]
fn an_interaction_costs_what_the_same_content_costs() {
    let generated = r#"{"candidates":[{"finishReason":"STOP","groundingMetadata":{"webSearchQueries":["a","b","c"]}}],"modelVersion":"gemini-2.5-flash","usageMetadata":{"promptTokenCount":100000,"cachedContentTokenCount":20000,"toolUsePromptTokenCount":3000,"candidatesTokenCount":1000,"thoughtsTokenCount":500,"totalTokenCount":104500,"serviceTier":"priority","promptTokensDetails":[{"modality":"AUDIO","tokenCount":90000},{"modality":"TEXT","tokenCount":10000}],"cacheTokensDetails":[{"modality":"AUDIO","tokenCount":15000},{"modality":"TEXT","tokenCount":5000}],"toolUsePromptTokensDetails":[{"modality":"IMAGE","tokenCount":1000},{"modality":"TEXT","tokenCount":2000}],"candidatesTokensDetails":[{"modality":"TEXT","tokenCount":1000}]}}"#;
    let content = case(GEMINI, "/v1beta/models/gemini-2.5-flash:generateContent", generated).row();
    let whole = completed(USAGE);
    let events = [
        r#"{"event_type":"interaction.created","interaction":{"id":"v1_a","status":"in_progress"}}"#
            .to_owned(),
        format!(r#"{{"event_type":"interaction.completed","interaction":{whole}}}"#),
    ];
    let stream = streamed(GEMINI, "/v1beta/interactions", &[&events[0], &events[1]]).row();
    let last_of_cloud = of_cloud(&events[1]);
    for row in [content, case(GEMINI, "/v1beta/interactions", &whole).row(), stream] {
        assert_eq!((row.billable, row.usage), (true, UsageState::Reported));
        assert_eq!(row.tier.as_deref(), Some("priority"), "{row:?}");
        assert_eq!(row.tokens, tokens(), "{row:?}");
        assert_eq!(row.detail.cached, Cached { audio: Some(15_000), image: None });
        // Up to 2.5 it is the answer that is billed, not the query.
        assert_eq!(row.web_searches, Some(1));
        // 0.54 for text and images, 1.80 for audio, 0.054 and 0.18 out of the cache, 4.50 for output,
        // and 3.5 cents.
        let cost = 7_000 * 540 + 75_000 * 1_800 + 1_000 * 540 + 5_000 * 54 + 15_000 * 180;
        assert_eq!(row.cost_nanousd, Some(cost + 1_500 * 4_500 + 35_000_000), "{row:?}");
    }
    // At Vertex under both sets of names.
    for body in [whole.clone(), of_cloud(&whole)] {
        let row = case(VERTEX, OF_VERTEX, &body).row();
        assert_eq!((row.provider.as_str(), row.billable), ("vertex", true), "{body}");
        assert_eq!(row.surface.as_deref(), Some("gemini.interactions"));
        assert_eq!((row.tokens, row.tier.as_deref()), (tokens(), Some("priority")), "{body}");
        assert_eq!(row.web_searches, Some(1), "{body}");
    }
    let row = streamed(VERTEX, OF_VERTEX, &[&last_of_cloud]).row();
    assert_eq!((row.tokens, row.tier.as_deref()), (tokens(), Some("priority")));
    let read = Case {
        method: "GET",
        target: "/v1beta1/projects/p/locations/us-central1/interactions/v1_a",
        request: Vec::new(),
        ..case(VERTEX, "", &whole)
    };
    assert!(read.row().billable, "whether it was told before is the ledger's to know");
}

fn tokens() -> Tokens {
    Tokens {
        input: Some(83_000),
        cache_read: Some(20_000),
        output: Some(1_500),
        reasoning: Some(500),
        audio_input: Some(75_000),
        image_input: Some(1_000),
        ..Tokens::default()
    }
}

#[test]
fn images_that_an_interaction_makes_cost_what_images_do() {
    let answer = r#"{"id":"v1_a","status":"completed","model":"gemini-3-pro-image-preview","usage":{"total_input_tokens":1000,"total_output_tokens":1120,"output_tokens_by_modality":[{"modality":"image","tokens":1120}]}}"#;
    let row = case(GEMINI, "/v1beta/interactions", answer).row();
    assert_eq!(row.tokens.image_output, Some(1120));
    // 2 and 120 dollars per million.
    assert_eq!(row.cost_nanousd, Some(2_000_000 + 134_400_000), "{row:?}");
}

#[test]
fn what_grounds_an_interaction_is_counted() {
    let told = |model: &str, tools: &str| {
        let usage = r#""total_input_tokens":100,"total_output_tokens":10"#;
        let answer = format!(
            r#"{{"id":"v1_a","status":"completed","model":"{model}","usage":{{{usage},"grounding_tool_count":[{tools}]}}}}"#
        );
        case(GEMINI, "/v1beta/interactions", &answer).row()
    };
    let search = r#"{"type":"google_search","count":4}"#;
    let row = told("gemini-3.5-flash", search);
    // 1.50 and 9 dollars per million, 1.4 cents a search.
    assert_eq!(
        (row.web_searches, row.cost_nanousd),
        (Some(4), Some(150_000 + 90_000 + 56_000_000))
    );
    assert_eq!(told("models/gemini-2.5-flash", search).web_searches, Some(1));
    let others = r#"{"type":"google_maps","count":2},{"type":"retrieval","count":3},{"type":"new"},{"type":"google_search","count":0}"#;
    let row = told("gemini-3.5-flash", others);
    let counts: Vec<_> = row.detail.counts.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    assert_eq!(counts, [("map_searches", 2), ("retrievals", 3)]);
    assert_eq!((row.web_searches, row.cost_estimated), (None, true));
    assert!(row.cost_reason.is_some_and(|why| why.contains("no price for map searches")));
}

#[test]
fn decisions_are_told_like_interactions() {
    let answer = r#"{"answers":{},"usage":{"total_input_tokens":1000,"total_output_tokens":10,"total_tokens":1010}}"#;
    let decision = Case {
        request: br#"{"model":"models/gemini-3.5-flash","questions":{}}"#.to_vec(),
        ..case(GEMINI, "/v1beta/decisions", answer)
    };
    let row = decision.row();
    assert_eq!((row.billable, row.usage), (true, UsageState::Reported));
    assert_eq!((row.tokens.input, row.tokens.output), (Some(1000), Some(10)));
    assert_eq!(row.cost_nanousd, Some(1_500_000 + 90_000), "{row:?}");
}

#[test]
fn antigravitys_host_is_code_assists() {
    let last = r#"{"response":{"candidates":[{"finishReason":"STOP"}],"modelVersion":"gemini-2.5-pro","usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":3,"totalTokenCount":11}},"traceId":"t","consumedCredits":[{"creditType":"GOOGLE_ONE_AI","creditAmount":"7"}],"remainingCredits":[{"creditType":"GOOGLE_ONE_AI","creditAmount":"93"}]}"#;
    let target = "/v1internal:streamGenerateContent?alt=sse";
    let row = streamed("daily-cloudcode-pa.sandbox.googleapis.com", target, &[last]).row();
    assert_eq!((row.provider.as_str(), row.usage), ("google", UsageState::Reported));
    assert_eq!((row.tokens.input, row.tokens.output), (Some(8), Some(3)));
    let left: Vec<_> = row.quota.iter().map(|w| (w.name.as_str(), w.status.as_deref())).collect();
    assert_eq!(left, [("credits", Some("93"))]);
}

#[test]
fn what_took_credits_is_not_covered_by_the_plan() {
    let usage =
        r#""usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":3,"totalTokenCount":11}"#;
    let billing = |first: &str, last: &str| {
        let part = format!(r#"{{"response":{{"candidates":[]}}{first}}}"#);
        let end =
            format!(r#"{{"response":{{"candidates":[{{"finishReason":"STOP"}}],{usage}}}{last}}}"#);
        let target = "/v1internal:streamGenerateContent?alt=sse";
        streamed("cloudcode-pa.googleapis.com", target, &[&part, &end]).row().billing
    };
    let took = |kind: &str, amount: &str| {
        format!(r#","consumedCredits":[{{"creditType":"{kind}","creditAmount":"{amount}"}}]"#)
    };
    let bought = took("GOOGLE_ONE_AI", "7");
    assert_eq!(billing("", &bought), Billing::Metered);
    assert_eq!(billing(&bought, ""), Billing::Metered);
    for nothing in [took("GOOGLE_ONE_AI", "0"), took("OTHER", "7"), String::new()] {
        assert_eq!(billing("", &nothing), Billing::Subscription, "{nothing}");
    }
}

/// A thousand tokens in, a hundred out, and this beside them.
fn generated(host: &'static str, more: &str) -> Row {
    let body = format!(
        r#"{{"candidates":[{{"finishReason":"STOP"}}],"modelVersion":"gemini-2.5-flash","usageMetadata":{{"promptTokenCount":1000,"candidatesTokenCount":100,"totalTokenCount":1100{more}}}}}"#
    );
    case(host, "/v1beta/models/gemini-2.5-flash:generateContent", &body).row()
}

/// 0.30 and 2.50 dollars per million.
const PLAIN: Option<i64> = Some(300_000 + 250_000);
/// 0.54 and 4.50.
const PRIORITY: Option<i64> = Some(540_000 + 450_000);

#[test]
fn how_vertex_says_it_was_paid_is_the_tier() {
    for (told, tier, cost) in [
        (r#""ON_DEMAND""#, "standard", PLAIN),
        ("1", "standard", PLAIN),
        (r#""ON_DEMAND_PRIORITY""#, "priority", PRIORITY),
        (r#""ON_DEMAND_FLEX""#, "flex", Some(150_000 + 125_000)),
        // Nobody names a price for these.
        (r#""ON_DEMAND_OFFPEAK""#, "offpeak", None),
        (r#""PROVISIONED_THROUGHPUT""#, "provisioned_throughput", None),
        ("2", "provisioned_throughput", None),
        ("7", "7", None),
    ] {
        let row = generated(VERTEX, &format!(r#","trafficType":{told}"#));
        assert_eq!((row.tier.as_deref(), row.cost_nanousd), (Some(tier), cost), "{told}");
        // The same at its endpoint in OpenAI's shape.
        let body = format!(
            r#"{{"object":"chat.completion","model":"google/gemini-2.5-flash","choices":[{{"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100,"extra_properties":{{"google":{{"traffic_type":{told}}}}}}}}}"#
        );
        let target = "/v1/projects/p/locations/l/endpoints/openapi/chat/completions";
        let row = case(VERTEX, target, &body).row();
        assert_eq!((row.tier.as_deref(), row.cost_nanousd), (Some(tier), cost), "{told}");
    }
}

#[test]
fn a_tier_that_is_not_specified_is_the_plain_one() {
    for (told, cost) in [
        (r#","serviceTier":"unspecified""#, PLAIN),
        (r#","serviceTier":"SERVICE_TIER_UNSPECIFIED""#, PLAIN),
        (r#","serviceTier":0"#, PLAIN),
        (r#","serviceTier":"SERVICE_TIER_PRIORITY""#, PRIORITY),
        (r#","serviceTier":"unspecified","trafficType":"ON_DEMAND_PRIORITY""#, PRIORITY),
        (r#","serviceTier":9"#, None),
    ] {
        assert_eq!(generated(GEMINI, told).cost_nanousd, cost, "{told}");
    }
}

#[test]
fn kinds_of_tokens_have_numbers_too() {
    let details = |kind: &str| {
        let details = format!(
            r#"[{{"modality":{kind},"tokenCount":600}},{{"modality":1,"tokenCount":400}}]"#
        );
        generated(GEMINI, &format!(r#","promptTokensDetails":{details}"#)).tokens
    };
    for (number, name) in [("4", "AUDIO"), ("2", "IMAGE"), ("3", "VIDEO"), ("5", "DOCUMENT")] {
        assert_eq!(details(number), details(&format!(r#""{name}""#)), "{name}");
    }
    assert_eq!(details("4").audio_input, Some(600));
    assert_eq!((details("9").audio_input, details("9").image_input), (None, None));
}

#[test]
fn what_maps_grounded_and_video_that_is_embedded_are_counted() {
    let chunks = r#"[{"web":{"uri":"u"}},{"maps":{"uri":"u","title":"t","placeId":"places/1"}}]"#;
    let grounded = format!(
        r#"{{"candidates":[{{"finishReason":"STOP","groundingMetadata":{{"groundingChunks":{chunks}}}}}],"modelVersion":"gemini-2.5-flash","usageMetadata":{{"promptTokenCount":1000,"candidatesTokenCount":100,"totalTokenCount":1100}}}}"#
    );
    let row = case(GEMINI, "/v1beta/models/gemini-2.5-flash:generateContent", &grounded).row();
    assert_eq!(row.detail.counts, [("maps_queries".to_owned(), 1)].into());
    assert_eq!(row.cost_nanousd, Some(550_000 + 25_000_000), "{row:?}");
    let video = r#""promptTokenCount":1000,"promptTokensDetails":[{"modality":"VIDEO","tokenCount":900},{"modality":"TEXT","tokenCount":100}]"#;
    let embedded = format!(r#"{{"embedding":{{"values":[0.1]}},"usageMetadata":{{{video}}}}}"#);
    let row = case(GEMINI, "/v1beta/models/gemini-embedding-2:embedContent", &embedded).row();
    assert_eq!(row.detail.counts, [("video_tokens".to_owned(), 900)].into(), "{row:?}");
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(10_820_000), false), "{row:?}");
    // Watched, its frames are images.
    let watched = format!(
        r#"{{"candidates":[{{"finishReason":"STOP"}}],"modelVersion":"gemini-2.5-flash","usageMetadata":{{{video},"totalTokenCount":1000}}}}"#
    );
    let row = case(GEMINI, "/v1beta/models/gemini-2.5-flash:generateContent", &watched).row();
    assert_eq!((row.detail.counts.len(), row.cost_nanousd), (0, Some(300_000)), "{row:?}");
}

#[test]
fn a_last_chunk_without_counts_takes_none_back() {
    let counted = r#"{"candidates":[{"finishReason":"STOP"}],"modelVersion":"gemini-2.5-flash","usageMetadata":{"promptTokenCount":1000,"candidatesTokenCount":100,"totalTokenCount":1100}}"#;
    let last = r#"{"usageMetadata":{"trafficType":"ON_DEMAND_PRIORITY"}}"#;
    let row = streamed(
        VERTEX,
        "/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        &[counted, last],
    )
    .row();
    assert_eq!((row.usage, row.tier.as_deref()), (UsageState::Reported, Some("priority")));
    assert_eq!(row.cost_nanousd, PRIORITY, "{row:?}");
    // Alone it tells no usage.
    let alone = case(VERTEX, "/v1/models/gemini-2.5-flash:generateContent", last).row();
    assert_eq!((alone.usage, alone.cost_nanousd), (UsageState::Absent, None));
}

#[test]
fn embeddings_at_vertex_tell_the_tokens_of_each_text() {
    let target = "/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict";
    let told = |name: &str| {
        format!(
            r#"{{"predictions":[{{"embeddings":{{"statistics":{{"truncated":false,"{name}":600}},"values":[0.1]}}}},{{"embeddings":{{"values":[0.2],"statistics":{{"{name}":400.0}}}}}}],"metadata":{{"billableCharacterCount":4000}}}}"#
        )
    };
    for name in ["token_count", "tokenCount"] {
        let row = case(VERTEX, target, &told(name)).row();
        assert_eq!((row.usage, row.tokens.input), (UsageState::Reported, Some(1000)), "{name}");
        // By the character: 2.5 cents for a million.
        assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(100_000), false), "{row:?}");
        assert_eq!(row.detail.counts.get("characters"), Some(&4000));
    }
    let told = told("token_count");
    let less = told.replace(":4000", ":3000");
    assert_eq!(case(VERTEX, target, &less).row().cost_nanousd, Some(75_000));
    let untold = case(VERTEX, target, &told.replace("billable", "other")).row();
    assert_eq!((untold.cost_nanousd, untold.cost_estimated), (Some(100_000), true));
    // Gemini's own are billed by the token.
    let own = "/v1/projects/p/locations/l/publishers/google/models/gemini-embedding-001:predict";
    let row = case(VERTEX, own, &told).row();
    assert_eq!((row.detail.counts.len(), row.cost_estimated), (0, false), "{row:?}");
    // More than are looked at: what there is is a part.
    let many = vec![r#"{"embeddings":{"statistics":{"token_count":2}}}"#; 5000].join(",");
    let row = case(VERTEX, target, &format!(r#"{{"predictions":[{many}]}}"#)).row();
    assert_eq!((row.usage, row.cost_estimated), (UsageState::Partial, true), "{row:?}");
    // An image has none.
    let image = case(VERTEX, target, r#"{"predictions":[{"bytesBase64Encoded":"AA=="}]}"#).row();
    assert_eq!((image.billable, image.usage), (true, UsageState::Absent));
}

#[test]
fn a_batch_of_embeddings_is_counted() {
    let answers = r#"{"response":{"embedding":{"values":[0.1]},"tokenCount":"600"}},{"response":{"embedding":{"values":[0.2]},"tokenCount":400}}"#;
    for list in ["inlinedResponses", "inlinedEmbedContentResponses"] {
        let all = format!(r#"{{"{list}":{{"inlinedResponses":[{answers}]}}}}"#);
        let whole = format!(
            r#"{{"name":"batches/b1","metadata":{{"model":"models/gemini-embedding-001","output":{all}}},"done":true,"response":{all}}}"#
        );
        let read = case(GEMINI, "/v1beta/batches/b1", &whole);
        let row = Case { method: "GET", request: Vec::new(), ..read }.row();
        assert_eq!((row.billable, row.usage), (true, UsageState::Reported), "{list}");
        assert_eq!((row.tokens.input, row.tier.as_deref()), (Some(1000), Some("batch")), "{row:?}");
        // 7.5 cents per million.
        assert_eq!(row.cost_nanousd, Some(75_000), "{row:?}");
    }
}

#[test]
fn a_video_is_a_request_whose_use_is_not_told() {
    let target = "/v1beta/models/veo-3.1-generate-preview:predictLongRunning";
    let row =
        case(GEMINI, target, r#"{"name":"models/veo-3.1-generate-preview/operations/o"}"#).row();
    assert_eq!((row.billable, row.surface.as_deref()), (true, Some("gemini.video")));
    assert_eq!(row.model_requested.as_deref(), Some("veo-3.1-generate-preview"));
    assert_eq!((row.usage, row.cost_nanousd), (UsageState::Absent, None));
}
