//! Bytes that nobody would send.

use proptest::prelude::*;

use super::*;

/// JSON with the field names that the readers look at, in the wrong places and types.
fn odd_json() -> impl Strategy<Value = serde_json::Value> {
    let names = vec![
        "type",
        "usage",
        "message",
        "model",
        "id",
        "error",
        "delta",
        "response",
        "input_tokens",
        "output_tokens",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "iterations",
        "content",
        "content_block",
        "stop_reason",
        "code",
        "cache_creation",
        "prompt_tokens_details",
        "cached_tokens",
        "usageMetadata",
        "candidates",
        "promptTokenCount",
        "totalTokenCount",
        "cost",
        "output",
        "choices",
        "x_groq",
        "service_tier",
    ];
    let words = vec![
        "message",
        "message_start",
        "message_delta",
        "error",
        "response.completed",
        "refusal",
        "fallback_message",
        "",
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        proptest::sample::select(words).prop_map(Into::into),
        ".{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        let name = proptest::sample::select(names.clone()).prop_map(str::to_owned);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map(name, inner, 0..8)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_splits_give_the_same_row(index in 0usize..5, cuts in proptest::collection::vec(0usize..4000, 0..12)) {
        let case = &streams()[index];
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c % (case.body.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&case.body[from..cut]);
            from = cut;
        }
        pieces.push(&case.body[from..]);
        prop_assert_eq!(case.row_of(&pieces), case.row());
    }

    #[test]
    fn odd_json_never_panics(values in proptest::collection::vec(odd_json(), 1..4), index in 0usize..5, events in any::<bool>()) {
        let mut case = streams()[index].clone();
        let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        case.media = if events { "text/event-stream" } else { "application/json" };
        case.body = if events { sse(&texts) } else { texts.join("\n").into_bytes() };
        case.request = texts.concat().into_bytes();
        let row = case.row();
        prop_assert!(row.cost_nanousd.is_none_or(|cost| cost >= 0 || row.provider_cost_nanousd == Some(cost)));
    }

    #[test]
    fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..300), target in ".{0,40}", index in 0usize..5) {
        let mut case = streams()[index].clone();
        case.body = body.clone();
        case.request = body;
        case.row();
        let start = ExchangeStart { id: Uuid::nil(), at: at(0), host: target.clone(), port: 1, local: false, protocol: Protocol::H2 };
        let head = RequestHead { method: target.clone(), target, ..RequestHead::default() };
        let _ = Exchange::new(start, &head).row(&Book::builtin());
    }
}
