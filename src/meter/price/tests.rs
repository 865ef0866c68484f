mod counts;
mod hours;

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::*;
use crate::meter::usage::{Cached, STEPS, Tokens, Usage, UsagePart, UsageState};

const NOW: &str = "2026-11-24T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn usage(tokens: Tokens) -> Usage {
    Usage { state: UsageState::Reported, tokens, ..Usage::default() }
}

fn tokens(input: u64, output: u64) -> Tokens {
    Tokens { input: Some(input), output: Some(output), ..Tokens::default() }
}

fn quote(provider: &str, model: &str, usage: &Usage) -> Quote {
    Book::builtin().quote(&Query { provider, model, at: at(NOW), ended: at(NOW), usage })
}

fn cost(provider: &str, model: &str, usage: &Usage) -> Option<i64> {
    quote(provider, model, usage).cost_nanousd
}

#[test]
fn the_book_that_is_shipped_parses() {
    let book = Book::parse(include_str!("../../../config/prices.json")).unwrap();
    assert!(book.models.len() > 500);
    for provider in ["anthropic", "openai", "google", "xai", "groq", "mistral", "deepseek"] {
        assert!(book.knows_provider(provider), "{provider}");
    }
}

#[test]
fn the_steps_of_the_list_are_those_that_lines_of_a_batch_are_told_apart_by() {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../../config/prices.json")).unwrap();
    // A rate with steps: `[rate, threshold, rate, …]`.
    fn steps(value: &serde_json::Value, found: &mut BTreeSet<u64>) {
        match value.as_array() {
            Some(list) if list.first().is_some_and(serde_json::Value::is_u64) => {
                found.extend(list.iter().skip(1).step_by(2).filter_map(serde_json::Value::as_u64));
            }
            Some(list) => list.iter().for_each(|value| steps(value, found)),
            None => {
                let members = value.as_object().into_iter().flatten();
                members.for_each(|(_, value)| steps(value, found));
            }
        }
    }
    let mut found = BTreeSet::new();
    steps(&file, &mut found);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), STEPS);
}

#[test]
fn golden_costs() {
    let cached = Tokens { cache_read: Some(3000), cache_write_5m: Some(200), ..tokens(1000, 500) };
    let hour = Tokens { cache_write_1h: Some(200), cache_write_5m: None, ..cached };
    let opus = Tokens {
        input: Some(2000),
        cache_read: Some(7000),
        cache_write_5m: Some(1000),
        cache_write_1h: Some(3000),
        output: Some(1650),
        ..Tokens::default()
    };
    for (provider, model, tokens, expected) in [
        // 1000×3 + 500×15 + 3000×0.30 + 200×3.75 dollars per million.
        ("anthropic", "claude-sonnet-4-5", cached, 12_150_000),
        ("anthropic", "claude-sonnet-4-5-20250929", cached, 12_150_000),
        ("anthropic", "claude-sonnet-4-5", hour, 12_600_000),
        ("anthropic", "claude-opus-5-5", opus, 71_400_000),
        ("anthropic", "claude-sonnet-4-20250514", tokens(1000, 0), 3_000_000),
        ("openai", "gpt-4o-mini", tokens(5, 70), 42_750),
        ("openai", "gpt-4o-2024-05-13", tokens(1000, 0), 5_000_000),
        ("google", "gemini-2.5-pro", tokens(250_000, 1000), 640_000_000),
        ("google", "models/gemini-2.5-pro", tokens(250_000, 1000), 640_000_000),
        ("google", "gemini-2.5-pro", tokens(200_000, 1000), 260_000_000),
        // A profile of a region costs a tenth more than the global one.
        ("bedrock", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", cached, 12_150_000),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", cached, 13_365_000),
        ("vertex", "claude-sonnet-4-5@20250929", cached, 12_150_000),
        ("vertex", "claude-sonnet-4-5-20250929", cached, 12_150_000),
        // Its second endpoint leaves the version out.
        ("bedrock", "openai.gpt-oss-120b", tokens(1000, 100), 210_000),
        ("cohere", "embed-multilingual-light-v3.0", tokens(1000, 0), 100_000),
        ("azure", "gpt-4o-2024-08-06", tokens(1000, 100), 3_500_000),
        ("copilot", "claude-sonnet-4.6", tokens(1000, 500), 10_500_000),
        ("google", "gemini-2.5-pro", tokens(200_001, 1000), 515_002_500),
        ("openai", "gpt-6-astra", tokens(272_000, 0), 2_720_000_000),
        ("openai", "gpt-6-astra", tokens(272_001, 0), 5_440_020_000),
        ("xai", "grok-4.7", tokens(199_999, 0), 399_998_000),
        ("xai", "grok-4.7", tokens(200_000, 0), 800_000_000),
        // Not what these names stood for in 2025, with its discount at night.
        ("deepseek", "deepseek-chat", tokens(1000, 1000), 700_000),
        ("deepseek", "deepseek-reasoner", tokens(1000, 1000), 700_000),
    ] {
        let quote = quote(provider, model, &usage(tokens));
        assert_eq!(quote.cost_nanousd, Some(expected), "{model} {tokens:?} {quote:?}");
        assert!(!quote.estimated, "{quote:?}");
    }
}

#[test]
fn the_long_context_step_counts_cached_input_too() {
    let split = Tokens { cache_read: Some(150_000), ..tokens(60_000, 0) };
    // 60 000 × 2.50 + 150 000 × 0.25
    assert_eq!(cost("google", "gemini-2.5-pro", &usage(split)), Some(187_500_000));
    assert!(quote("google", "gemini-2.5-pro", &usage(split)).rule.unwrap().ends_with(">200000"));
}

#[test]
fn tiers_and_speeds_come_from_the_response_or_not_at_all() {
    let with = |tier: Option<&str>, speed: Option<&str>| Usage {
        tier: tier.map(str::to_owned),
        speed: speed.map(str::to_owned),
        ..usage(tokens(1000, 0))
    };
    for (provider, model, tier, speed, expected) in [
        ("openai", "gpt-6-astra", Some("default"), None, Some(10_000_000)),
        ("openai", "gpt-6-astra", Some("flex"), None, Some(5_000_000)),
        ("openai", "gpt-6-astra", Some("priority"), None, Some(20_000_000)),
        ("openai", "gpt-6-astra", Some("ultrafast"), None, Some(60_000_000)),
        ("openai", "gpt-6-astra", Some("sideways"), None, None),
        ("openai", "gpt-4o-mini", Some("flex"), None, None),
        ("anthropic", "claude-opus-5-5", Some("standard"), Some("standard"), Some(4_000_000)),
        ("anthropic", "claude-opus-5-5", None, Some("fast"), Some(8_000_000)),
        ("anthropic", "claude-opus-5-5", Some("batch"), None, Some(2_000_000)),
        ("anthropic", "claude-opus-5-5", Some("batch"), Some("fast"), None),
        ("anthropic", "claude-opus-5-5", Some("priority"), None, None),
        ("anthropic", "claude-sonnet-5-5", None, Some("fast"), None),
        ("google", "gemini-2.5-pro", Some("FLEX"), None, Some(625_000)),
    ] {
        let quote = quote(provider, model, &with(tier, speed));
        assert_eq!(quote.cost_nanousd, expected, "{model} {tier:?} {speed:?} {quote:?}");
        assert_eq!(quote.cost_nanousd.is_none(), quote.reason.is_some());
    }
}

#[test]
fn a_step_that_nobody_prices_is_unpriced() {
    let flex = Usage { tier: Some("flex".to_owned()), ..usage(tokens(200_001, 0)) };
    let quote = quote("google", "gemini-2.5-pro", &flex);
    assert_eq!(quote.cost_nanousd, None);
    assert!(quote.reason.unwrap().contains("above 200000"));
}

#[test]
fn names_match_exactly_or_as_dated_snapshots() {
    let one = usage(tokens(1000, 0));
    for (provider, model, priced, estimated) in [
        ("anthropic", "claude-sonnet-4-5-20991231", true, false),
        ("anthropic", "claude-opus-5-5@20261001", true, false),
        ("openai", "gpt-6-astra-2027-01-01", true, false),
        // Snapshots of gpt-4o had prices of their own.
        ("openai", "gpt-4o-2031-01-01", true, true),
        ("openai", "gpt-4o-mini-next", false, false),
        ("openai", "gpt-6-astra-mini", false, false),
        ("anthropic", "claude-opus-5-6", false, false),
        ("anthropic", "claude-sonnet-4-5x", false, false),
        ("google", "gemini-2.5-pro-nova", false, false),
        ("google", "gemini-2.5-pro-002", true, false),
        ("openai", "gpt-4o-2024-11-20", true, false),
        ("openai", "ft:gpt-4o-2024-08-06:acme::abc123", true, false),
        ("openai", "ft:gpt-9:acme::abc123", false, false),
        ("anthropic", "claude-opus-4-0", true, false),
        ("google", "gemini-2.5-flash-preview-09-2025", true, false),
        ("nobody", "gpt-4o", false, false),
        ("openai", "", false, false),
        ("openai", "-2024-01-01", false, false),
    ] {
        let quote = quote(provider, model, &one);
        assert_eq!(quote.cost_nanousd.is_some(), priced, "{provider}/{model} {quote:?}");
        assert_eq!(quote.estimated, estimated, "{provider}/{model} {quote:?}");
    }
}

#[test]
fn the_price_is_the_one_in_force_then() {
    let book = Book::builtin();
    let one = usage(tokens(300_000, 0));
    let cost = |model: &str, provider: &str, when: &str| {
        book.quote(&Query { provider, model, at: at(when), ended: at(when), usage: &one })
            .cost_nanousd
    };
    // The long-context step of Opus 4.6 went on 2026-03-13.
    assert_eq!(cost("claude-opus-4-6", "anthropic", "2026-03-12T23:59:59Z"), Some(3_000_000_000));
    assert_eq!(cost("claude-opus-4-6", "anthropic", "2026-03-13T00:00:00Z"), Some(1_500_000_000));
    // Gemini 4 Argon doubles on 2026-12-01.
    assert_eq!(cost("gemini-4-argon", "google", "2026-11-30T23:59:59Z"), Some(600_000_000));
    assert_eq!(cost("gemini-4-argon", "google", "2026-12-01T00:00:00Z"), Some(1_200_000_000));
    // DeepSeek: peak hours on weekdays (2026-11-24 is a Tuesday).
    assert_eq!(cost("deepseek-flash", "deepseek", "2026-11-24T02:00:00Z"), Some(90_000_000));
    assert_eq!(cost("deepseek-flash", "deepseek", "2026-11-24T05:00:00Z"), Some(45_000_000));
    assert_eq!(cost("deepseek-flash", "deepseek", "2026-11-28T02:00:00Z"), Some(45_000_000));
}

#[test]
fn cache_writes_of_unknown_lifetime() {
    let write = Tokens { cache_write_other: Some(1000), ..tokens(0, 0) };
    let anthropic = quote("anthropic", "claude-sonnet-4-5", &usage(write));
    assert_eq!(anthropic.cost_nanousd, Some(3_750_000));
    assert!(anthropic.estimated);
    assert!(anthropic.reason.unwrap().contains("unknown lifetime"));
    let openai = quote("openai", "gpt-6-astra", &usage(write));
    assert_eq!((openai.cost_nanousd, openai.estimated), (Some(12_500_000), false));
    let half_a_day = Usage { cache_ttl: Some("12h".to_owned()), ..usage(write) };
    assert_eq!(cost("openai", "gpt-6-astra", &half_a_day), Some(25_000_000));
    // The response tells.
    let split = |n| Usage { written_12h: Some(n), ..half_a_day.clone() };
    for (n, dollars) in [(0, 12_500_000), (400, 17_500_000), (2000, 25_000_000)] {
        let quote = quote("openai", "gpt-6-astra", &split(n));
        assert_eq!((quote.cost_nanousd, quote.estimated), (Some(dollars), false), "{n}");
    }
    let unpriced = quote("anthropic", "claude-sonnet-4-5", &split(400));
    assert_eq!((unpriced.cost_nanousd, unpriced.estimated), (Some(3_750_000), true));
    assert!(unpriced.reason.unwrap().contains("12-hour"));
}

#[test]
fn regions_have_factors() {
    let us = Usage { geo: Some("us".to_owned()), ..usage(tokens(1000, 0)) };
    assert_eq!(cost("anthropic", "claude-opus-5-5", &us), Some(4_400_000));
    assert_eq!(cost("anthropic", "claude-fable-5-2", &us), Some(8_800_000));
    assert_eq!(cost("anthropic", "claude-mythos-5-2", &us), Some(8_800_000));
    let regional = Usage { geo: Some("regional".to_owned()), ..us.clone() };
    let vertex = quote("vertex", "claude-fable-5-2", &regional);
    assert_eq!((vertex.cost_nanousd, vertex.estimated), (Some(8_800_000), false));
    let old = quote("anthropic", "claude-sonnet-4-5", &us);
    assert_eq!((old.cost_nanousd, old.estimated), (Some(3_000_000), true));
    for (model, dollars) in [("gemini-3.8-flash", 825_000), ("gemini-2.5-flash", 300_000)] {
        let gemini = quote("vertex", model, &regional);
        assert_eq!((gemini.cost_nanousd, gemini.estimated), (Some(dollars), false), "{model}");
    }
}

#[test]
fn parts_run_on_models_of_their_own() {
    let part = |model: Option<&str>, input| UsagePart {
        model: model.map(str::to_owned),
        tokens: tokens(input, 0),
        ..UsagePart::default()
    };
    let two = Usage {
        parts: vec![part(None, 1000), part(Some("claude-haiku-4-5"), 500)],
        ..usage(tokens(1500, 0))
    };
    assert_eq!(cost("anthropic", "claude-opus-5-5", &two), Some(4_500_000));
    let unknown = Usage { parts: vec![part(Some("claude-new"), 1)], ..two };
    assert_eq!(cost("anthropic", "claude-opus-5-5", &unknown), None);
}

#[test]
fn web_searches_are_fees_by_count() {
    let searched = Usage { web_searches: Some(3), ..usage(tokens(1000, 0)) };
    assert_eq!(cost("anthropic", "claude-sonnet-4-5", &searched), Some(33_000_000));
}

#[test]
fn partial_is_an_estimate_and_absent_has_no_cost() {
    let partial = Usage { state: UsageState::Partial, ..usage(tokens(1000, 0)) };
    let quoted = quote("anthropic", "claude-sonnet-4-5", &partial);
    assert_eq!((quoted.cost_nanousd, quoted.estimated), (Some(3_000_000), true));
    assert_eq!(cost("anthropic", "claude-sonnet-4-5", &Usage::default()), None);
    assert_eq!(cost("anthropic", "claude-sonnet-4-5", &usage(Tokens::default())), None);
    assert_eq!(cost("anthropic", "claude-sonnet-4-5", &usage(tokens(0, 0))), Some(0));
}

#[test]
fn a_tier_without_a_rate_for_audio_or_images_makes_an_estimate() {
    let book = Book::parse(
        r#"{"schema":1,"book":"t","models":[{"p":"x","m":"m","prices":[
            {"in":1000000000,"cr":100000000,"out":2000000000,"ia":3000000000,"ii":1000000000,"oi":9000000000}],
            "variants":{"batch":[{"in":500000000,"out":1000000000}]}}]}"#,
    )
    .unwrap();
    let quote = |tokens| {
        let usage = Usage { tier: Some("batch".to_owned()), ..usage(tokens) };
        book.quote(&Query { provider: "x", model: "m", at: at(NOW), ended: at(NOW), usage: &usage })
    };
    let plain = tokens(1000, 0);
    for (tokens, cost, reason) in [
        (Tokens { image_input: Some(1000), ..plain }, 500_000, None),
        (Tokens { cache_read: Some(1000), ..plain }, 600_000, None),
        (Tokens { audio_input: Some(1000), ..plain }, 3_000_000, Some("audio input")),
        (Tokens { image_output: Some(1000), ..tokens(0, 1000) }, 9_000_000, Some("image output")),
    ] {
        let quote = quote(tokens);
        assert_eq!(quote.cost_nanousd, Some(cost), "{quote:?}");
        let said = quote.reason.as_deref();
        assert_eq!(said.is_some_and(|r| reason.is_some_and(|w| r.contains(w))), reason.is_some());
        assert_eq!(quote.estimated, reason.is_some(), "{quote:?}");
    }
}

#[test]
fn audio_out_of_a_cache_has_a_rate_of_its_own() {
    let read = Tokens { cache_read: Some(3000), ..tokens(0, 0) };
    let with = |audio, image| Usage { cached: Cached { audio, image }, ..usage(read) };
    let mini = |usage: &Usage| cost("openai", "gpt-realtime-mini", usage);
    // 0.06, of audio 0.30, of images 0.08.
    assert_eq!(mini(&with(None, None)), Some(180_000));
    assert_eq!(mini(&with(Some(1000), None)), Some(420_000));
    assert_eq!(mini(&with(Some(1000), Some(1000))), Some(440_000));
    assert_eq!(cost("google", "gemini-2.5-flash", &with(Some(3000), None)), Some(300_000));
    assert!(!quote("google", "gemini-2.5-flash", &with(Some(3000), None)).estimated);
    // Where audio costs what text does, so does what is read of it; else it is said.
    let plain = quote("google", "gemini-2.5-pro", &with(Some(3000), None));
    assert_eq!((plain.cost_nanousd, plain.estimated), (Some(375_000), false), "{plain:?}");
    let book = Book::parse(
        r#"{"schema":1,"book":"t","models":[{"p":"x","m":"m","prices":[
            {"in":1000000000,"cr":100000000,"out":1,"ia":3000000000}]}]}"#,
    )
    .unwrap();
    let usage = with(Some(1000), None);
    let unknown = book.quote(&Query {
        provider: "x",
        model: "m",
        at: at(NOW),
        ended: at(NOW),
        usage: &usage,
    });
    assert_eq!((unknown.cost_nanousd, unknown.estimated), (Some(300_000), true), "{unknown:?}");
    assert!(unknown.reason.unwrap().contains("cached audio"));
}

#[test]
fn an_image_whose_answer_tells_no_tokens_costs_what_its_size_does() {
    let images = |name: &str| Usage {
        caveat: Some(crate::meter::usage::Caveat::FromRequest),
        counts: [(name.to_owned(), 2)].into(),
        ..Usage::default()
    };
    assert_eq!(cost("azure", "dall-e-3", &images("images_hd_1024x1792")), Some(264_000_000));
    assert_eq!(
        cost("openai", "gpt-image-1.5", &images("images_high_1024x1024")),
        Some(266_000_000)
    );
    let unknown = quote("openai", "gpt-image-1.5", &images("images_auto_auto"));
    assert_eq!(unknown.reason.as_deref(), Some("no price for images auto auto"));
    assert_eq!(unknown.cost_nanousd, None);
}

#[test]
fn what_each_provider_charges_beside_the_plain_rates() {
    let with = |tier: &str, tokens| Usage { tier: Some(tier.to_owned()), ..usage(tokens) };
    let write = |n| Tokens { cache_write_other: Some(n), ..tokens(0, 0) };
    for (provider, model, usage, expected) in [
        // Claude: over 100,000 tokens Haiku 5.5 costs five times as much, fast mode twice.
        ("anthropic", "claude-haiku-5-5", usage(tokens(100_001, 0)), 50_000_500),
        ("anthropic", "claude-haiku-5-5", usage(tokens(100_000, 0)), 10_000_000),
        ("anthropic", "claude-opus-4-1", with("batch", tokens(1000, 1000)), 45_000_000),
        // OpenAI: priority is 2.5 times of 5.5, twice of others; `fast` is its other name.
        ("openai", "gpt-5.5", with("priority", tokens(1000, 0)), 12_500_000),
        ("openai", "gpt-6-astra", with("fast", tokens(1000, 0)), 20_000_000),
        ("openai", "gpt-5.5-pro", with("batch", tokens(272_001, 0)), 8_160_030_000),
        ("openai", "text-embedding-3-small", with("batch", tokens(1000, 0)), 10_000),
        ("openai", "gpt-5.3-codex-spark", usage(tokens(1000, 0)), 1_750_000),
        // xAI: a batch costs 0.8 of the plain rate.
        ("xai", "grok-4.6", with("batch", tokens(1000, 0)), 1_600_000),
        ("google", "gemini-2.5-flash", with("priority", tokens(1000, 0)), 540_000),
        ("bedrock", "au.anthropic.claude-opus-5-5", usage(tokens(1000, 0)), 4_400_000),
        ("bedrock", "us-gov.anthropic.claude-opus-5-5", usage(tokens(1000, 0)), 4_800_000),
        ("bedrock", "us.anthropic.claude-fable-5-2", usage(tokens(1000, 0)), 8_800_000),
        ("bedrock", "global.anthropic.claude-fable-5-2", usage(tokens(1000, 0)), 8_000_000),
        // Sonnet 4.5 has no step any more.
        ("anthropic", "claude-sonnet-4-5", usage(tokens(300_000, 0)), 900_000_000),
        ("anthropic", "claude-sonnet-4-5", with("batch", tokens(300_000, 0)), 450_000_000),
    ] {
        let quote = quote(provider, model, &usage);
        assert_eq!(quote.cost_nanousd, Some(expected), "{model} {usage:?} {quote:?}");
        assert!(!quote.estimated, "{model} {quote:?}");
    }
    let half_a_day = |tier| Usage { cache_ttl: Some("12h".to_owned()), ..with(tier, write(1000)) };
    let quoted = quote("openai", "gpt-6-astra", &half_a_day("fast"));
    assert_eq!((quoted.cost_nanousd, quoted.estimated), (Some(50_000_000), false));
}

#[test]
fn a_rate_of_today_is_not_taken_for_an_earlier_price() {
    // Sonnet 4.5 was dearer above 200,000 tokens while it read as many.
    let long = usage(tokens(300_000, 0));
    let spring = at("2026-04-29T12:00:00Z");
    let (provider, model) = ("anthropic", "claude-sonnet-4-5-20250929");
    let query = Query { provider, model, at: spring, ended: spring, usage: &long };
    assert_eq!(Book::builtin().quote(&query).cost_nanousd, Some(1_800_000_000));
    // GPT-5.6 luna cost five times as much until July; what a 12-hour write cost then, nobody says.
    let write = Tokens { cache_write_other: Some(1000), ..tokens(0, 0) };
    let usage = Usage { cache_ttl: Some("12h".to_owned()), ..usage(write) };
    let query = |when| Query {
        provider: "openai",
        model: "gpt-5.6-luna",
        at: at(when),
        ended: at(when),
        usage: &usage,
    };
    let then = Book::builtin().quote(&query("2026-07-01T00:00:00Z"));
    assert!(then.cost_nanousd >= Some(1_250_000), "{then:?}");
    let now = Book::builtin().quote(&query(NOW));
    assert_eq!((now.cost_nanousd, now.estimated), (Some(500_000), false));
}

#[test]
fn file_searches_are_fees_and_code_runs_have_no_price() {
    let counts =
        |name: &str| Usage { counts: [(name.to_owned(), 4)].into(), ..usage(tokens(1000, 0)) };
    let searched = quote("openai", "gpt-6-astra", &counts("file_searches"));
    assert_eq!((searched.cost_nanousd, searched.estimated), (Some(20_000_000), false));
    let ran = quote("openai", "gpt-6-astra", &counts("code_runs"));
    assert_eq!((ran.cost_nanousd, ran.estimated), (Some(10_000_000), true));
}

#[test]
fn rounding_is_half_up_and_once() {
    // 0.075 dollars per million = 75 nano per token; three halves of a nano make no three roundings.
    let book = Book::parse(
        r#"{"schema":1,"book":"t","models":[{"p":"x","m":"m","prices":[{"in":500000,"out":500000}]}]}"#,
    )
    .unwrap();
    let cost = |input, output| {
        let usage = usage(tokens(input, output));
        book.quote(&Query { provider: "x", model: "m", at: at(NOW), ended: at(NOW), usage: &usage })
            .cost_nanousd
    };
    assert_eq!(cost(1, 0), Some(1));
    assert_eq!(cost(1, 1), Some(1));
    assert_eq!(cost(1, 2), Some(2));
    assert_eq!(cost(0, 0), Some(0));
}

#[test]
fn absurd_counts_are_out_of_range_not_a_panic() {
    let absurd = usage(tokens(u64::MAX, u64::MAX));
    let quote = quote("anthropic", "claude-opus-4-1", &absurd);
    assert_eq!(quote.cost_nanousd, None);
    assert_eq!(quote.reason.as_deref(), Some("the cost is out of range"));
}

#[test]
fn broken_books_are_refused() {
    for text in [
        "",
        r#"{"schema":2,"book":"t","models":[]}"#,
        r#"{"schema":1,"book":"t","models":[{"p":"x","m":"m","prices":[]}]}"#,
        r#"{"schema":1,"book":"t","models":[{"p":"x","m":"m","prices":[{"in":[1,2]}]}]}"#,
        r#"{"schema":1,"book":"t","models":[{"p":"x","m":"m","prices":[{"in":[1,5,2,5,3]}]}]}"#,
        r#"{"schema":1,"book":"t","models":[{"p":"x","m":"m","prices":[{"input":1}]}]}"#,
        r#"{"schema":1,"book":"t","models":[{"p":"x","m":"m","prices":[{"hours":"9-5","in":1}]}]}"#,
        r#"{"schema":1,"book":"t","models":[{"p":"x","m":"m","prices":[{"in":1}]},
            {"p":"x","m":"n","names":["m*"],"prices":[{"in":1}]}]}"#,
    ] {
        assert!(Book::parse(text).is_err(), "{text}");
    }
}

#[test]
fn decimals_become_nano_dollars_without_floats() {
    for (text, expected) in [
        ("0.0714", Some(71_400_000)),
        ("1", Some(1_000_000_000)),
        ("1e-9", Some(1)),
        ("4e-10", Some(0)),
        ("5e-10", Some(1)),
        ("1.5E2", Some(150_000_000_000)),
        ("-0.000000001", Some(-1)),
        ("0.1234567894999", Some(123_456_789)),
        ("1e99", None),
        ("0.123456789e-2147483648", Some(0)),
        ("1e-2147483649", None),
        ("", None),
        ("NaN", None),
        ("0x1", None),
        ("1.2.3", None),
    ] {
        assert_eq!(nano_from_decimal(text), expected, "{text}");
    }
    assert_eq!(usd(1_234_500_000), "1.2345");
    assert_eq!(usd(0), "0");
    assert_eq!(usd(-71_400_000), "-0.0714");
}
