//! Prices that hold at some hours, and others that not every price of a model has.

use super::*;
use crate::meter::charge::charge;
use crate::meter::ledger::fixture::row;
use crate::meter::row::Row;

fn deepseek(began: &str, ended: &str) -> Quote {
    let usage = usage(tokens(1_000_000, 0));
    let (at, ended) = (at(began), at(ended));
    let query = Query { provider: "deepseek", model: "deepseek-flash", at, ended, usage: &usage };
    Book::builtin().quote(&query)
}

const BASE: Option<i64> = Some(150_000_000);
const PEAK: Option<i64> = Some(300_000_000);

#[test]
fn the_hour_of_the_answer_counts() {
    for (began, ended, cost) in [
        ("00:59:58", "00:59:59", BASE),
        ("00:59:00", "01:00:00", PEAK),
        ("03:59:00", "03:59:59", PEAK),
        ("03:59:00", "04:00:00", BASE),
        ("05:59:00", "06:01:00", PEAK),
        ("09:59:00", "10:01:00", BASE),
    ] {
        let moment = |time: &str| format!("2026-11-24T{time}Z");
        let quote = deepseek(&moment(began), &moment(ended));
        assert_eq!((quote.cost_nanousd, quote.estimated), (cost, false), "{began} {quote:?}");
        // A row, when it is written and when it is priced again.
        let mut row = Row {
            provider: "deepseek".to_owned(),
            model: Some("deepseek-flash".to_owned()),
            tokens: tokens(1_000_000, 0),
            ended_at: Some(at(&moment(ended))),
            ..row(1, &moment(began))
        };
        charge(&mut row, &Book::builtin());
        assert_eq!(row.cost_nanousd, cost, "{began} {row:?}");
    }
    // A price of a day is that of the day on which it was asked.
    let usage = usage(tokens(300_000, 0));
    let [at, ended] = ["2026-11-30T23:59:59Z", "2026-12-01T00:00:09Z"].map(at);
    let query = Query { provider: "google", model: "gemini-4-argon", at, ended, usage: &usage };
    assert_eq!(Book::builtin().quote(&query).cost_nanousd, Some(600_000_000));
}

#[test]
fn peak_prices_do_not_hold_on_public_holidays() {
    for (moment, cost, estimated) in [
        // A Thursday, the first of the holidays; the last; the Thursday after.
        ("2026-10-01T02:00:00Z", BASE, false),
        ("2026-10-07T07:00:00Z", BASE, false),
        ("2026-10-08T02:00:00Z", PEAK, false),
        ("2026-12-31T02:00:00Z", PEAK, false),
        // Behind the calendar's end: a holiday or not, nobody has told.
        ("2027-01-01T02:00:00Z", PEAK, true),
        ("2027-01-01T12:00:00Z", BASE, false),
        ("2027-01-02T02:00:00Z", BASE, false),
    ] {
        let quote = deepseek(moment, moment);
        assert_eq!((quote.cost_nanousd, quote.estimated), (cost, estimated), "{moment} {quote:?}");
        let told = quote.reason.is_some_and(|why| why.contains("holidays"));
        assert_eq!(told, estimated, "{moment}");
    }
    assert_eq!(Book::builtin().holidays_until(), "2026-12-31".parse().ok());
    let unknown = r#"{"schema":1,"book":"t","models":[
        {"p":"x","m":"m","prices":[{"in":1},{"hours":"0100-0400","not_on":"cn","in":2}]}]}"#;
    assert!(matches!(Book::parse(unknown), Err(BookError::Holidays { .. })));
}

#[test]
fn names_that_have_moved_cost_what_answers_to_them_now() {
    let cached = Tokens { cache_read: Some(3000), ..tokens(1000, 500) };
    for (name, of) in [
        ("mistral-large-latest", "mistral-large-2512"),
        ("mistral-medium", "mistral-medium-2604"),
        ("mistral-medium-latest", "mistral-medium-2604"),
        ("magistral-medium-latest", "mistral-medium-2604"),
        ("magistral-small-latest", "mistral-small-2603"),
    ] {
        for tier in [None, Some("batch")] {
            let usage = Usage { tier: tier.map(str::to_owned), ..usage(cached) };
            let [alias, model] = [name, of].map(|model| quote("mistral", model, &usage));
            assert!(alias.cost_nanousd.is_some() && !alias.estimated, "{alias:?}");
            assert_eq!(alias.cost_nanousd, model.cost_nanousd, "{name} {tier:?}");
        }
    }
    let cost = |when| {
        let (usage, at) = (usage(tokens(1_000_000, 0)), at(when));
        let query = Query {
            provider: "mistral",
            model: "mistral-large-latest",
            at,
            ended: at,
            usage: &usage,
        };
        Book::builtin().quote(&query).cost_nanousd
    };
    assert_eq!(cost("2025-12-07T12:00:00Z"), Some(2_000_000_000));
    assert_eq!(cost("2025-12-08T12:00:00Z"), Some(500_000_000));
}

#[test]
fn images_cost_what_text_does_above_a_step_too() {
    let images = Tokens { image_input: Some(100_000), ..tokens(300_000, 1000) };
    for tier in [None, Some("batch")] {
        let with = |tokens| Usage { tier: tier.map(str::to_owned), ..usage(tokens) };
        let [image, text] =
            [images, tokens(300_000, 1000)].map(|tokens| quote("xai", "grok-4.5", &with(tokens)));
        assert_eq!((image.cost_nanousd, image.estimated), (text.cost_nanousd, false), "{image:?}");
        let read = Tokens { cache_read: Some(2000), ..tokens(1000, 0) };
        let cached = Cached { image: Some(1000), audio: None };
        let quote = quote("xai", "grok-4.5", &Usage { cached, ..with(read) });
        assert!(!quote.estimated, "{quote:?}");
    }
    assert_eq!(
        cost("xai", "grok-4.5", &usage(Tokens { output: Some(0), ..images })),
        Some(1_200_000_000)
    );
}

#[test]
fn an_advisor_is_not_asked_for_the_speed_of_the_message() {
    let part = |model: Option<&str>, input| UsagePart {
        model: model.map(str::to_owned),
        tokens: tokens(input, 0),
        ..UsagePart::default()
    };
    let advised = Usage {
        speed: Some("fast".to_owned()),
        parts: vec![part(None, 500), part(None, 1000), part(Some("claude-sonnet-5-5"), 200)],
        ..usage(tokens(1700, 0))
    };
    let quoted = quote("anthropic", "claude-opus-5-5", &advised);
    let plain = cost("anthropic", "claude-sonnet-5-5", &usage(tokens(200, 0))).unwrap();
    assert_eq!(quoted.cost_nanousd, Some(1500 * 8000 + plain), "{quoted:?}");
    assert!(quoted.estimated && quoted.reason.unwrap().contains("tier fast of claude-sonnet-5-5"));
    // A tier is of all of it, and the model that was asked has its speed or no price.
    let batch = Usage { speed: None, tier: Some("sideways".to_owned()), ..advised.clone() };
    assert_eq!(cost("anthropic", "claude-opus-5-5", &batch), None);
    assert_eq!(cost("anthropic", "claude-sonnet-5-5", &advised), None);
}

#[test]
fn speech_costs_what_audio_does() {
    let spoken = Tokens { audio_output: Some(1000), ..tokens(10, 1000) };
    for model in ["gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-12-15"] {
        let quote = quote("openai", model, &usage(spoken));
        assert_eq!((quote.cost_nanousd, quote.estimated), (Some(12_006_000), false), "{quote:?}");
    }
}
