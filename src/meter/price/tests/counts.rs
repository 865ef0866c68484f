//! What is billed by count alone.

use super::*;

#[test]
fn what_is_billed_by_a_count_that_nobody_told_is_not_free() {
    let told = |count: Option<u64>| Usage {
        counts: count.map(|n| ("search_units".to_owned(), n)).into_iter().collect(),
        ..usage(Tokens { input: Some(30), ..Tokens::default() })
    };
    for model in ["amazon.rerank-v1:0", "cohere.rerank-v3-5:0"] {
        let untold = quote("bedrock", model, &told(None));
        assert_eq!(untold.cost_nanousd, None, "{untold:?}");
        assert_eq!(untold.reason.as_deref(), Some("no count of search units"));
        assert_eq!(cost("bedrock", model, &told(Some(0))), Some(0));
    }
    assert_eq!(cost("bedrock", "cohere.rerank-v3-5:0", &told(Some(3))), Some(6_000_000));
    // What was counted and has no price is the better reason.
    let images =
        Usage { counts: [("images_auto_auto".to_owned(), 1)].into(), ..usage(Tokens::default()) };
    let reason = quote("azure", "dall-e-3", &images).reason;
    assert_eq!(reason.as_deref(), Some("no price for images auto auto"));
    // The user's word is one.
    let mut own = OwnPrice {
        provider: "bedrock".to_owned(),
        model: "amazon.rerank-v1:0".to_owned(),
        ..OwnPrice::default()
    };
    own.rates.input = "0".parse().ok();
    let book = Book::builtin().with_own(&[own]);
    let (now, usage) = (at(NOW), told(None));
    let (provider, model) = ("bedrock", "amazon.rerank-v1:0");
    let free = book.quote(&Query { provider, model, at: now, ended: now, usage: &usage });
    assert_eq!(free.cost_nanousd, Some(0), "{free:?}");
}

#[test]
fn maps_and_embedded_video_have_their_price() {
    let with = |name: &str, count, tokens| Usage {
        counts: [(name.to_owned(), count)].into(),
        ..usage(tokens)
    };
    let mapped = quote("google", "gemini-2.5-flash", &with("maps_queries", 1, tokens(1000, 0)));
    assert_eq!(mapped.cost_nanousd, Some(25_300_000));
    assert_eq!(mapped.reason.as_deref(), Some("a free allowance of searches is not deducted"));
    let video = Tokens { image_input: Some(1000), ..tokens(1000, 0) };
    for provider in ["google", "vertex"] {
        let video = quote(provider, "gemini-embedding-2", &with("video_tokens", 1000, video));
        assert_eq!((video.cost_nanousd, video.estimated), (Some(12_000_000), false));
    }
    let made = Tokens { image_output: Some(1000), ..tokens(0, 1000) };
    let made = quote("google", "gemini-omni-1.1-flash", &usage(made));
    assert_eq!((made.cost_nanousd, made.estimated), (Some(17_500_000), false));
}

#[test]
fn claudes_searches_have_no_free_allowance_at_google() {
    let searched = Usage { web_searches: Some(1), ..usage(tokens(1000, 0)) };
    let quote = quote("vertex", "claude-sonnet-4-5@20250929", &searched);
    let reason = quote.reason.unwrap_or_default();
    assert!(!reason.contains("allowance"), "{reason}");
}

#[test]
fn a_price_of_one_s_own_is_what_one_pays_wherever_that_is() {
    let mut own = OwnPrice {
        provider: "mistral".to_owned(),
        model: "mistral-large-latest".to_owned(),
        ..OwnPrice::default()
    };
    own.rates.input = "1".parse().ok();
    let book = Book::builtin().with_own(&[own]);
    let usage = Usage { geo: Some("eu".to_owned()), ..usage(tokens(1_000_000, 0)) };
    let (provider, model) = ("mistral", "mistral-large-latest");
    let quote = book.quote(&Query { provider, model, at: at(NOW), ended: at(NOW), usage: &usage });
    assert_eq!((quote.cost_nanousd, quote.estimated), (Some(1_000_000_000), false), "{quote:?}");
}

#[test]
fn a_tier_of_before_the_day_of_its_price_is_an_estimate() {
    let flex = Usage { tier: Some("flex".to_owned()), ..usage(tokens(1_000_000, 0)) };
    let (provider, model) = ("openai", "gpt-5");
    let on = |day: &str| {
        let at = at(&format!("{day}T12:00:00Z"));
        Book::builtin().quote(&Query { provider, model, at, ended: at, usage: &flex })
    };
    let (before, since) = (on("2026-10-01"), on("2026-11-24"));
    assert!(since.cost_nanousd.is_some() && !since.estimated, "{since:?}");
    assert_eq!((before.cost_nanousd, before.estimated), (since.cost_nanousd, true));
    assert_eq!(before.reason.as_deref(), Some("the tier's price of a later day"));
}
