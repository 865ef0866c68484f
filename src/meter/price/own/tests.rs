use super::*;
use crate::meter::price::Query;
use crate::meter::price::book::in_force;
use crate::meter::usage::{Cached, Tokens, Usage, UsageState};

fn cost(book: &Book, provider: &str, model: &str, day: &str, tier: Option<&str>) -> Option<i64> {
    let usage = Usage {
        state: UsageState::Reported,
        tokens: Tokens { input: Some(1000), output: Some(100), ..Tokens::default() },
        tier: tier.map(str::to_owned),
        ..Usage::default()
    };
    let at = format!("{day}T00:00:00Z").parse().unwrap();
    book.quote(&Query { provider, model, at, ended: at, usage: &usage }).cost_nanousd
}

fn own(text: &str) -> Vec<OwnPrice> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prices.toml");
    std::fs::write(&path, text).unwrap();
    read_own(&path).unwrap()
}

#[test]
fn a_tier_that_is_plain_is_the_plain_price() {
    let mine = own(
        "[[price]]\nprovider='openai'\nmodel='gpt-4o-mini'\ntier='standard'\ninput=1\noutput=1\n",
    );
    let book = Book::builtin().with_own(&mine);
    for tier in [None, Some("default")] {
        let cost = cost(&book, "openai", "gpt-4o-mini", "2026-11-24", tier);
        assert_eq!(cost, Some(1_100_000), "{tier:?}");
    }
}

#[test]
fn own_prices_go_before_the_book_from_their_day_on() {
    let mine = own(
        "[[price]]\nprovider = 'openai'\nmodel = 'gpt-4o-mini'\nfrom = '2026-06-01'\ninput = 0.10\n\
         [[price]]\nprovider = 'openai'\nmodel = 'gpt-4o-mini'\nfrom = '2026-01-01'\ninput = '0.12'\noutput = 1\n\
         [[price]]\nprovider = 'openai'\nmodel = 'gpt-4o-mini'\ntier = 'priority'\ninput = 9\noutput = 9\n",
    );
    let book = Book::builtin().with_own(&mine);
    let price = |day, tier| cost(&book, "openai", "gpt-4o-mini", day, tier);
    // List: 0.15 and 0.60.
    assert_eq!(price("2025-12-31", None), Some(210_000));
    assert_eq!(price("2026-01-01", None), Some(220_000));
    // What is not named is what was in force, by the user's word too.
    assert_eq!(price("2026-06-01", None), Some(200_000));
    assert_eq!(cost(&book, "openai", "gpt-4o-mini-2024-07-18", "2026-06-01", None), Some(200_000));
    assert_eq!(price("2026-06-01", Some("priority")), Some(9_900_000));
    assert_eq!(cost(&book, "openai", "gpt-4o", "2026-06-01", None), Some(3_500_000));
}

#[test]
fn a_tier_that_names_some_rates_only_is_an_estimate() {
    let quote = |text: &str| {
        let book = Book::builtin().with_own(&own(text));
        let usage = Usage {
            state: UsageState::Reported,
            tokens: Tokens { input: Some(1000), output: Some(100), ..Tokens::default() },
            tier: Some("scale".to_owned()),
            ..Usage::default()
        };
        let at = "2026-11-25T00:00:00Z".parse().unwrap();
        book.quote(&Query { provider: "openai", model: "gpt-4o", at, ended: at, usage: &usage })
    };
    let price = "[[price]]\nprovider='openai'\nmodel='gpt-4o'\ntier='scale'\ninput=1\n";
    // The plain price of output is 10.
    let half = quote(price);
    assert_eq!((half.cost_nanousd, half.estimated), (Some(2_000_000), true), "{half:?}");
    assert_eq!(half.reason.as_deref(), Some("this tier names no rate for output"));
    let whole = quote(&format!("{price}output=3\n"));
    assert_eq!((whole.cost_nanousd, whole.estimated), (Some(1_300_000), false), "{whole:?}");
}

#[test]
fn what_is_not_named_follows_the_list() {
    // The list: 1.00 and 6.00; 0.20 and 1.20 from 2026-07-30 on.
    let luna = |from: &str, rate: &str| {
        format!("[[price]]\nprovider='openai'\nmodel='gpt-5.6-luna'\nfrom='{from}'\n{rate}\n")
    };
    let text = luna("2026-08-15", "output=2") + &luna("2026-07-01", "input=0.5");
    let book = Book::builtin().with_own(&own(&text));
    for (day, expected) in [
        ("2026-06-30", 1_600_000),
        ("2026-07-01", 1_100_000),
        ("2026-07-29", 1_100_000),
        ("2026-07-30", 620_000),
        ("2026-08-14", 620_000),
        ("2026-08-15", 700_000),
    ] {
        assert_eq!(cost(&book, "openai", "gpt-5.6-luna", day, None), Some(expected), "{day}");
    }
    // A price without a day holds always, and leaves the others' days alone.
    let always = "[[price]]\nprovider='openai'\nmodel='gpt-5.6-luna'\noutput=0\n";
    let book = Book::builtin().with_own(&own(&(always.to_owned() + &text)));
    let price = |day| cost(&book, "openai", "gpt-5.6-luna", day, None);
    assert_eq!(price("2026-06-30"), Some(1_000_000));
    assert_eq!((price("2026-07-01"), price("2026-08-15")), (Some(500_000), Some(700_000)));
}

#[test]
fn many_days_of_one_model_stay_few_prices() {
    let day = |n: i64| Date::constant(2026, 1, 1).saturating_add(jiff::Span::new().days(n));
    let rate = |n| OwnRates { input: Some(Dollars(n)), ..OwnRates::default() };
    let mine: Vec<OwnPrice> = (0..300_u64)
        .map(|n| OwnPrice {
            provider: "deepseek".to_owned(),
            model: "deepseek-flash".to_owned(),
            from: Some(day(n.cast_signed())),
            rates: rate(n),
            ..OwnPrice::default()
        })
        .collect();
    let book = Book::builtin().with_own(&mine);
    let model = book.find("deepseek", "deepseek-flash").unwrap().model;
    assert!(model.prices.len() < 300 * 10, "{}", model.prices.len());
    // Peak hours stay what they are for the rates that are not named (a Tuesday, 02:00).
    let at = |time: &str| format!("2026-11-24T{time}Z").parse().unwrap();
    let output =
        |time| in_force(&model.prices, at(time), at(time)).unwrap().output.clone().unwrap();
    assert_eq!(output("02:00:00").base(), 2 * output("05:00:00").base());
    let input = |time| in_force(&model.prices, at(time), at(time)).unwrap().input.clone().unwrap();
    assert_eq!((input("02:00:00").base(), input("05:00:00").base()), (299, 299));
}

#[test]
fn audio_and_images_out_of_a_cache_have_rates_of_their_own() {
    let rate = |words: &str| {
        own(&format!("[[price]]\nprovider='openai'\nmodel='gpt-realtime-mini'\n{words}\n"))
    };
    let usage = Usage {
        state: UsageState::Reported,
        tokens: Tokens { cache_read: Some(3000), ..Tokens::default() },
        cached: Cached { audio: Some(1000), image: Some(1000) },
        ..Usage::default()
    };
    let cost = |words: &str| {
        let (provider, model) = ("openai", "gpt-realtime-mini");
        let at = "2026-11-24T00:00:00Z".parse().unwrap();
        let book = Book::builtin().with_own(&rate(words));
        book.quote(&Query { provider, model, at, ended: at, usage: &usage }).cost_nanousd
    };
    // The list: 0.06, of audio 0.30, of images 0.08.
    assert_eq!(cost("output = 1"), Some(440_000));
    assert_eq!(cost("cache_read_audio = 1"), Some(1_140_000));
    assert_eq!(cost("cache_read_image = 2"), Some(2_360_000));
    assert_eq!(cost("cache_read_audio = 1\ncache_read_image = 2"), Some(3_060_000));
}

#[test]
fn a_model_that_nobody_lists_has_the_users_price_and_no_other() {
    let text = "[[price]]\nprovider = 'llm.corp.example'\nmodel = 'House-7b'\n\
         from = '2026-06-01'\ninput = 1\noutput = 2\n";
    let book = Book::builtin().with_own(&own(text));
    let price = |model, day| cost(&book, "llm.corp.example", model, day, None);
    assert_eq!(price("house-7b", "2026-06-01"), Some(1_200_000));
    assert_eq!(price("house-7b", "2026-05-31"), None);
    assert_eq!(price("house-8b", "2026-06-01"), None);
    assert!(!book.knows_provider("llm.corp.example"));
}

#[test]
fn what_is_written_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prices.toml");
    assert_eq!(read_own(&path).unwrap(), []);
    let price = OwnPrice {
        provider: "openai".to_owned(),
        model: "gpt-4o".to_owned(),
        from: Some("2026-06-01".parse().unwrap()),
        rates: OwnRates { input: Some("0.000000001".parse().unwrap()), ..OwnRates::default() },
        ..OwnPrice::default()
    };
    write_own(&path, std::slice::from_ref(&price)).unwrap();
    assert_eq!(read_own(&path).unwrap(), [price]);
    for bad in [
        "x",
        "[[price]]\nprovider = 'a'\n",
        "[[price]]\nprovider='a'\nmodel='b'\ninptu=1\n",
        "[[price]]\nprovider='a'\nmodel='b'\ninput=-1\n",
    ] {
        std::fs::write(&path, bad).unwrap();
        let error = read_own(&path).unwrap_err().to_string();
        assert!(error.contains("prices.toml"), "{error}");
    }
}
