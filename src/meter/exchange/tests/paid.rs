//! Calls that cost money and are no chat: videos, trainings, speech, searches, caches, moderations.

use super::shapes::case;
use super::*;

fn counts(row: &Row) -> Vec<(&str, u64)> {
    row.detail.counts.iter().map(|(name, count)| (name.as_str(), *count)).collect()
}

fn asked(host: &'static str, target: &'static str, request: &str, answer: &str) -> Row {
    Case { request: request.as_bytes().to_vec(), ..case(host, target, answer) }.row()
}

fn read_back(host: &'static str, target: &'static str, answer: &str) -> Row {
    Case { method: "GET", request: Vec::new(), ..case(host, target, answer) }.row()
}

#[test]
fn a_video_counts_where_it_is_read_back_finished() {
    let video = |status: &str, model: &str, size: &str| {
        format!(
            r#"{{"id":"video_1","object":"video","model":"{model}","status":"{status}","progress":0,"seconds":"8","size":"{size}","error":null}}"#
        )
    };
    for (host, target) in [
        ("api.openai.com", "/v1/videos"),
        ("api.openai.com", "/v1/videos/video_0/remix"),
        ("corp.openai.azure.com", "/openai/v1/videos"),
    ] {
        let row =
            asked(host, target, r#"{"model":"sora-2"}"#, &video("queued", "sora-2", "1280x720"));
        assert_eq!(row.surface.as_deref(), Some("openai.videos"), "{target}");
        assert_eq!((row.billable, row.usage), (true, UsageState::Absent), "{target}");
        assert_eq!((row.response_id.as_deref(), row.cost_nanousd), (Some("video_1"), None));
    }
    let read = |answer: &str| read_back("api.openai.com", "/v1/videos/video_1", answer);
    // Ten cents a second; thirty, and fifty where it is larger.
    for (model, size, cost) in [
        ("sora-2", "1280x720", Some(800_000_000)),
        ("sora-2-pro", "720x1280", Some(2_400_000_000)),
        ("sora-2-pro", "1024x1792", Some(4_000_000_000)),
        // Of this size no source says it.
        ("sora-2-pro", "1080x1920", None),
    ] {
        let row = read(&video("completed", model, size));
        assert_eq!((row.billable, row.usage), (true, UsageState::Reported), "{row:?}");
        assert_eq!(row.response_id.as_deref(), Some("video_1"), "as the request for it");
        assert_eq!(counts(&row), [(&*format!("video_seconds_{size}"), 8)]);
        assert_eq!((row.cost_nanousd, row.cost_estimated), (cost, false), "{row:?}");
        assert_eq!(row.cost_reason.is_some(), cost.is_none());
    }
    for status in ["queued", "in_progress", "failed"] {
        assert!(!read(&video(status, "sora-2", "1280x720")).billable, "{status}");
    }
    assert!(!read_back("api.openai.com", "/v1/videos/video_1/content", "x").billable);
    assert!(counts(&read(&video("completed", "sora-2", "../x"))).is_empty());
}

#[test]
fn a_training_counts_where_it_is_read_back_and_has_no_price() {
    let job = |status: &str, trained: &str| {
        format!(
            r#"{{"object":"fine_tuning.job","id":"ftjob-1","model":"gpt-4o-mini-2024-07-18","status":"{status}","trained_tokens":{trained},"error":{{}}}}"#
        )
    };
    let request = r#"{"model":"gpt-4o-mini-2024-07-18","training_file":"file-1"}"#;
    let row =
        asked("api.openai.com", "/v1/fine_tuning/jobs", request, &job("validating_files", "null"));
    assert_eq!((row.billable, row.usage), (true, UsageState::Absent));
    assert_eq!((row.response_id.as_deref(), row.error_class), (Some("ftjob-1"), None));
    let nulls = job("queued", "null").replace(r#""error":{}"#, r#""error":{"code":null}"#);
    assert_eq!(asked("api.openai.com", "/v1/fine_tuning/jobs", request, &nulls).error_class, None);
    let read = |answer: &str| read_back("api.openai.com", "/v1/fine_tuning/jobs/ftjob-1", answer);
    let row = read(&job("succeeded", "5768"));
    assert_eq!((row.billable, row.usage), (true, UsageState::Reported), "{row:?}");
    assert_eq!(counts(&row), [("trained_tokens", 5768)]);
    assert_eq!(row.cost_nanousd, None, "what answers cost is no price of a training");
    assert_eq!(row.cost_reason.as_deref(), Some("no price for trained tokens"));
    assert!(!read(&job("running", "null")).billable);
    for target in ["/v1/fine_tuning/jobs", "/v1/fine_tuning/jobs/ftjob-1/events"] {
        assert!(!read_back("api.openai.com", target, &job("succeeded", "5768")).billable);
    }
}

#[test]
fn speech_at_minimax_tells_its_characters() {
    let answer = r#"{"data":{"audio":"00ff","status":2},"extra_info":{"audio_length":3541,"usage_characters":150},"trace_id":"t","base_resp":{"status_code":0,"status_msg":"success"}}"#;
    let request = r#"{"model":"speech-2.6-hd","text":"x","stream":false}"#;
    let row = asked("api.minimax.io", "/v1/t2a_v2", request, answer);
    assert_eq!(row.surface.as_deref(), Some("minimax.speech"));
    assert_eq!((row.usage, counts(&row)), (UsageState::Reported, vec![("characters", 150)]));
    // 100 dollars for a million.
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(15_000_000), false), "{row:?}");
    let task = r#"{"task_id":1,"usage_characters":150,"base_resp":{"status_code":0}}"#;
    let row = asked("api.minimax.io", "/v1/t2a_async_v2", request, task);
    assert_eq!(row.cost_nanousd, Some(15_000_000), "{row:?}");
    let refused = r#"{"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}"#;
    let row = asked("api.minimax.io", "/v1/t2a_v2", request, refused);
    assert_eq!((row.error_class.as_deref(), row.cost_nanousd), (Some("billing"), None));
}

#[test]
fn a_search_at_perplexity_has_a_price_of_its_own() {
    let answer = r#"{"results":[{"title":"t","url":"https://a.example","snippet":"s"}],"id":"e3"}"#;
    let query = r#"{"query":"x","max_results":5}"#;
    let row = asked("api.perplexity.ai", "/search", query, answer);
    assert_eq!(row.surface.as_deref(), Some("perplexity.search"));
    assert_eq!((row.usage, counts(&row)), (UsageState::Reported, vec![("searches", 1)]));
    // 5 dollars for a thousand.
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(5_000_000), false), "{row:?}");
    let failed = Case { status: 401, ..case("api.perplexity.ai", "/search", r#"{"error":{}}"#) };
    assert_eq!((failed.row().cost_nanousd, failed.row().detail.counts.len()), (None, 0));
    assert!(!case("gateway.example", "/search", answer).row().billable, "anybody's");
}

#[test]
fn a_request_to_sonar_has_a_fee_by_how_much_was_searched() {
    let told = |model: &str, more: &str| {
        let answer = format!(
            r#"{{"id":"p","model":"{model}","object":"chat.completion","choices":[{{"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1000,"completion_tokens":100{more}}}}}"#
        );
        case("api.perplexity.ai", "/chat/completions", &answer).row()
    };
    let size = |size: &str| format!(r#","search_context_size":"{size}""#);
    // 1 dollar per million tokens, and 5, 8 or 12 for a thousand requests.
    for (of, fee) in [("low", 5_000_000), ("medium", 8_000_000), ("high", 12_000_000)] {
        let row = told("sonar", &size(of));
        assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(1_100_000 + fee), false), "{of}");
    }
    let untold = told("sonar", "");
    assert_eq!((untold.cost_nanousd, untold.cost_estimated), (Some(6_100_000), true));
    assert!(untold.cost_reason.unwrap().contains("how much it searched is not told"));
    // The sources differ.
    let row = told("sonar-reasoning", &size("high"));
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(1_500_000), true), "{row:?}");
    // What Perplexity says itself wins, and the list agrees with it.
    let cost = r#","search_context_size":"medium","cost":{"input_tokens_cost":0.003,"output_tokens_cost":0.0015,"request_cost":0.01,"total_cost":0.0145}"#;
    let row = told("sonar-pro", cost);
    assert_eq!((row.cost_nanousd, row.list_nanousd), (Some(14_500_000), Some(14_500_000)));
    assert_eq!(row.price_rule.as_deref(), Some("provider-reported"));
}

#[test]
fn what_is_kept_in_a_cache_is_counted_and_has_no_price() {
    let gemini = r#"{"name":"cachedContents/c1","model":"models/gemini-2.5-flash","createTime":"2026-11-24T12:00:00Z","expireTime":"2026-11-24T13:00:00Z","usageMetadata":{"totalTokenCount":323383}}"#;
    let vertex = gemini.replace("models/", "projects/p/locations/l/publishers/google/models/");
    for (host, target, answer) in [
        ("generativelanguage.googleapis.com", "/v1beta/cachedContents", gemini),
        ("aiplatform.googleapis.com", "/v1/projects/p/locations/l/cachedContents", &*vertex),
    ] {
        let row = asked(host, target, r#"{"model":"models/gemini-2.5-flash"}"#, answer);
        assert_eq!((row.billable, row.surface.as_deref()), (true, Some("gemini.cache")));
        assert_eq!(row.model.as_deref(), Some("gemini-2.5-flash"));
        assert_eq!(
            (row.usage, counts(&row)),
            (UsageState::Reported, vec![("stored_tokens", 323_383)])
        );
        assert_eq!(row.cost_nanousd, None, "{row:?}");
        assert!(row.cost_reason.unwrap().contains("no price for stored tokens"));
    }
    assert!(
        !read_back("generativelanguage.googleapis.com", "/v1beta/cachedContents/c1", gemini)
            .billable
    );
}

#[test]
fn what_mistral_moderates_is_a_request() {
    let answer = r#"{"id":"m","model":"mistral-moderation-2411","results":[{"categories":{}}],"usage":{"prompt_tokens":9,"total_tokens":9,"completion_tokens":0}}"#;
    for target in [
        "/v1/moderations",
        "/v1/chat/moderations",
        "/v1/classifications",
        "/v1/chat/classifications",
    ] {
        let row =
            asked("api.mistral.ai", target, r#"{"model":"mistral-moderation-latest"}"#, answer);
        assert_eq!((row.billable, row.tokens.input), (true, Some(9)), "{target}");
        assert_eq!(row.surface.as_deref(), Some("mistral.moderations"));
        assert_eq!(row.cost_nanousd, None, "{row:?}");
        assert!(row.cost_reason.is_some());
    }
    // OpenAI's are free.
    assert!(!case("api.openai.com", "/v1/moderations", answer).row().billable);
}

#[test]
fn pages_that_are_annotated_have_a_price_of_their_own() {
    let read = |model: &str, pages: u64, annotated: u64| {
        let answer = format!(
            r#"{{"pages":[],"model":"{model}","usage_info":{{"pages_processed":{pages},"pages_processed_annotation":{annotated},"doc_size_bytes":9}}}}"#
        );
        let row = case("api.mistral.ai", "/v1/ocr", &answer).row();
        (row.cost_nanousd, row.cost_estimated)
    };
    assert_eq!(read("mistral-ocr-latest", 3, 0), (Some(12_000_000), false));
    assert_eq!(read("mistral-ocr-latest", 0, 3), (Some(15_000_000), false));
    // Whether both are billed nobody says: the sources differ.
    assert_eq!(read("mistral-ocr-latest", 3, 2), (Some(22_000_000), true));
    assert_eq!(read("mistral-ocr-2512-completion", 3, 0), (Some(6_000_000), false));
}
