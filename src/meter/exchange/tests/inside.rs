//! Tokens that are parts of others: each is charged once.

use proptest::prelude::*;

use super::shapes::case;
use super::*;
use crate::meter::price::Query;
use crate::meter::usage::{Cached, UsagePart};

#[test]
fn images_out_of_a_cache_are_charged_once() {
    let usage = |details: &str| {
        format!(
            r#"{{"object":"chat.completion","model":"grok-4.5","choices":[{{"finish_reason":"stop"}}],"usage":{{"prompt_tokens":2000,"completion_tokens":10,"total_tokens":2010,"prompt_tokens_details":{{{details}}}}}}}"#
        )
    };
    let grok = usage(r#""text_tokens":1500,"image_tokens":500,"cached_tokens":1800"#);
    let row = case("api.x.ai", "/v1/chat/completions", &grok).row();
    // 200 at 2 dollars, 1800 at 0.30, 10 at 6.
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(1_000_000), false), "{row:?}");

    let gemini = |told: &str| {
        let body = format!(
            r#"{{"candidates":[{{"finishReason":"STOP"}}],"modelVersion":"gemini-2.5-flash","usageMetadata":{{"promptTokenCount":2000,"candidatesTokenCount":10,"totalTokenCount":2010,"promptTokensDetails":[{{"modality":"IMAGE","tokenCount":1800}},{{"modality":"TEXT","tokenCount":200}}],{told}}}}}"#
        );
        let target = "/v1beta/models/gemini-2.5-flash:generateContent";
        case("generativelanguage.googleapis.com", target, &body).row()
    };
    // 100 at 0.30 dollars, 1900 at 0.03, 10 at 2.50.
    let row = gemini(r#""cachedContentTokenCount":1900"#);
    assert_eq!(row.cost_nanousd, Some(112_000), "{row:?}");
    assert_eq!(row.tokens.image_input, Some(100));
    // The other way round: 500 at 0.30, 1500 at 0.03.
    let row = gemini(r#""cacheTokensDetails":[{"modality":"IMAGE","tokenCount":1500}]"#);
    assert_eq!((row.tokens.input, row.tokens.cache_read), (Some(500), Some(1500)), "{row:?}");
    assert_eq!(row.cost_nanousd, Some(150_000 + 45_000 + 25_000), "{row:?}");
}

#[test]
fn audio_that_must_have_been_cached_is_charged_as_that() {
    let gemini = |told: &str| {
        let body = format!(
            r#"{{"candidates":[{{"finishReason":"STOP"}}],"modelVersion":"gemini-2.5-flash","usageMetadata":{{"promptTokenCount":1000,"cachedContentTokenCount":900,"candidatesTokenCount":0,"totalTokenCount":1000,"promptTokensDetails":[{{"modality":"AUDIO","tokenCount":800}},{{"modality":"TEXT","tokenCount":200}}]{told}}}}}"#
        );
        let target = "/v1beta/models/gemini-2.5-flash:generateContent";
        case("generativelanguage.googleapis.com", target, &body).row()
    };
    let row = gemini("");
    assert_eq!((row.tokens.input, row.tokens.audio_input), (Some(100), Some(100)));
    assert_eq!(row.detail.cached, Cached { audio: Some(700), image: None });
    // 100 at 1 dollar; 700 at 0.10, 200 at 0.03 out of the cache.
    assert_eq!(row.cost_nanousd, Some(100_000 + 70_000 + 6_000), "{row:?}");
    // What is told goes before what must be.
    let row = gemini(
        r#","cacheTokensDetails":[{"modality":"TEXT","tokenCount":200},{"modality":"AUDIO","tokenCount":700}]"#,
    );
    assert_eq!(row.cost_nanousd, Some(176_000), "{row:?}");
}

#[test]
fn what_was_written_to_a_cache_did_not_come_out_of_it() {
    let usage = |cache_read, written| {
        let tokens = Tokens {
            input: Some(100),
            cache_read,
            cache_write_other: Some(written),
            audio_input: Some(800),
            ..Tokens::default()
        };
        Usage { tokens, ..Usage::default() }.within()
    };
    assert_eq!(usage(Some(900), 0).cached.audio, Some(700));
    assert_eq!(usage(Some(900), 300).cached.audio, Some(400));
    assert_eq!(usage(Some(500), 0).cached.audio, Some(500), "no more than was read");
    assert_eq!(usage(Some(900), 700).cached, Cached::default());
    let none = usage(None, 0);
    assert_eq!((none.cached, none.tokens.cache_read), (Cached::default(), None));
}

fn some() -> impl Strategy<Value = Option<u64>> {
    proptest::option::of(0..3000u64)
}

fn tokens() -> impl Strategy<Value = Tokens> {
    let cache = (some(), some(), some(), some());
    let kinds = (some(), some(), some(), some(), some());
    (some(), some(), cache, kinds).prop_map(|(input, output, cache, kinds)| {
        let (cache_read, cache_write_5m, cache_write_1h, cache_write_other) = cache;
        let (reasoning, audio_input, audio_output, image_input, image_output) = kinds;
        Tokens {
            input,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            cache_write_other,
            output,
            reasoning,
            audio_input,
            audio_output,
            image_input,
            image_output,
        }
    })
}

proptest! {
    #[test]
    fn no_token_is_charged_twice(
        tokens in tokens(),
        cached in (some(), some()),
        part in proptest::option::of(tokens()),
        model in prop::sample::select(vec![
            ("openai", "gpt-realtime-mini"), ("google", "gemini-2.5-flash"), ("xai", "grok-4.5"),
            ("perplexity", "sonar-deep-research"),
        ]),
    ) {
        let usage = Usage {
            state: UsageState::Reported,
            tokens,
            cached: Cached { audio: cached.0, image: cached.1 },
            parts: part
                .map(|tokens| UsagePart { tokens, ..UsagePart::default() })
                .into_iter()
                .collect(),
            ..Usage::default()
        }
        .within();
        let ((provider, model), ended) = (model, at(0));
        let query = Query { provider, model, at: ended, ended, usage: &usage };
        let (_, items) = Book::builtin().itemised(&query);
        let charged: u64 =
            items.iter().filter(|item| item.kind != "request").map(|item| item.quantity).sum();
        let told = usage.parts.first().map_or(usage.tokens, |part| part.tokens);
        prop_assert!(charged <= told.total_input() + told.output.unwrap_or(0), "{usage:?} {items:?}");
        prop_assert_eq!(usage.clone().within(), usage);
    }
}
