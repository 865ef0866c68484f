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
