//! Framings other than those of OpenAI and Anthropic themselves.

use super::*;
use crate::meter::charge::charge;
use crate::meter::coding::tests as codings;
use crate::meter::connect_rpc::tests::envelope;
use crate::meter::eventstream::tests::wrapped;
use crate::meter::price::OwnPrice;
use crate::meter::surface::protobuf::tests::{nested, number};
use crate::meter::usage::Caveat;

const MODEL: &str = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0";

fn bedrock(target: &'static str, body: Vec<u8>) -> Case {
    Case {
        host: "bedrock-runtime.us-east-1.amazonaws.com",
        target,
        request: b"{}".to_vec(),
        media: "application/vnd.amazon.eventstream",
        body,
        ..Case::default()
    }
}

pub(crate) fn invoke() -> Case {
    let events = String::from_utf8(anthropic_stream().body).unwrap();
    let data = events.lines().filter_map(|line| line.strip_prefix("data: "));
    let target =
        "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke-with-response-stream";
    assert!(target.starts_with(MODEL));
    bedrock(target, data.flat_map(wrapped).collect())
}

#[test]
fn events_of_a_model_inside_amazons() {
    let case = invoke();
    let (row, plain) = (case.row(), anthropic_stream().row());
    assert_eq!((row.completeness, row.usage), (Completeness::Complete, UsageState::Reported));
    assert_eq!(row.tokens, plain.tokens);
    for size in [1, 7, 100] {
        let pieces: Vec<&[u8]> = case.body.chunks(size).collect();
        assert_eq!(case.row_of(&pieces), row, "{size}");
    }
    for cut in 0..case.body.len() {
        let row = case.cut(cut, Side::Client);
        assert!(row.completeness != Completeness::Lossy, "{cut}");
    }
}

#[test]
fn bedrocks_tier_is_in_a_header_and_is_no_model_makers() {
    const TIER: &str = "x-amzn-bedrock-service-tier";
    let told = |case: Case, asked: Option<&'static str>, answered: Option<&'static str>| {
        let header = |tier: Option<&'static str>| tier.map(|tier| (TIER, tier));
        let row = Case {
            request_headers: header(asked).into_iter().collect(),
            response_headers: header(answered).into_iter().collect(),
            ..case
        }
        .row();
        (row.tier, row.cost_nanousd, row.cost_estimated)
    };
    let nova = |action: &'static str| Case {
        media: "application/json",
        ..bedrock(
            action,
            br#"{"output":{},"usage":{"inputTokens":1000,"outputTokens":100}}"#.to_vec(),
        )
    };
    let nova = || nova("/model/amazon.nova-pro-v1%3A0/invoke");
    // 0.80 and 3.20 dollars per million, half of it, and 1.75 times as much.
    assert_eq!(told(nova(), None, None), (None, Some(1_120_000), false));
    for (tier, cost) in [("flex", 560_000), ("priority", 1_960_000)] {
        let expected = (Some(tier.to_owned()), Some(cost), false);
        assert_eq!(told(nova(), Some("default"), Some(tier)), expected);
        assert_eq!(told(nova(), Some(tier), None), expected);
    }
    // Claude says `standard`, which is Anthropic's; the list has no other tier of it on Bedrock.
    let plain = told(invoke(), None, None);
    assert!(plain.1.is_some() && !plain.2, "{plain:?}");
    assert_eq!(told(invoke(), Some("priority"), Some("default")).1, plain.1);
    for (asked, answered) in [(None, Some("priority")), (Some("priority"), None)] {
        let expected = (Some("priority".to_owned()), None, false);
        assert_eq!(told(invoke(), asked, answered), expected);
    }
}

#[test]
fn usage_behind_images_of_many_megabytes_is_read() {
    let image = "A".repeat(16 * 1024 * 1024 + 1);
    let mut case = responses_stream();
    let whole = case.row();
    let text = String::from_utf8(case.body).unwrap();
    let output = r#"[{"type":"web_search_call"},{"type":"image_generation_call","result":""#;
    case.body = text
        .replace(r#"[{"type":"web_search_call"},{""#, &format!("{output}{image}\"}},{{\""))
        .into_bytes();
    let pieces: Vec<&[u8]> = case.body.chunks(100_000).collect();
    for row in [case.row(), case.row_of(&pieces)] {
        assert_eq!((row.completeness, row.usage), (Completeness::Complete, UsageState::Reported));
        assert_eq!((row.tokens, row.tier), (whole.tokens, whole.tier.clone()));
        assert_eq!(row.detail.counts.get("images"), Some(&1), "{:?}", row.detail);
    }
    // Half an event is none, however long.
    let cut = case.cut(case.body.len() - 200, Side::Server);
    assert_eq!((cut.completeness, cut.usage), (Completeness::Interrupted, UsageState::Absent));

    let mut case = gemini_stream();
    let text = String::from_utf8(case.body).unwrap();
    case.body = text
        .replace(r#"[{"text":"x"}]"#, &format!(r#"[{{"inlineData":{{"data":"{image}"}}}}]"#))
        .into_bytes();
    let row = case.row();
    assert_eq!((row.completeness, row.usage), (Completeness::Complete, UsageState::Reported));
    assert_eq!(row.tokens, gemini_tokens());
}

#[test]
fn a_stream_that_is_called_text_is_known_by_its_beginning() {
    let plain = chat_stream();
    let tokens = plain.row().tokens;
    for begin in ["", "retry: 10\n\n", "\u{feff}", "\u{feff}: hi\n\n", "id: 1\n", "\r\nevent: x\n"]
    {
        for media in ["", "text/plain; charset=utf-8"] {
            let body = [begin.as_bytes(), &plain.body].concat();
            let row = Case { media, body, ..plain.clone() }.row();
            assert_eq!((row.usage, row.tokens), (UsageState::Reported, tokens), "{begin:?}");
        }
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_an_answer() {
    let plain = gemini_array();
    let lines = Case { media: "application/x-ndjson", ..gemini_array() };
    let whole = Case { media: "text/plain", ..gemini_array() };
    for case in [plain, lines, whole, chat_stream(), Case { media: "", ..chat_stream() }] {
        let marked = Case { body: [b"\xef\xbb\xbf", &case.body[..]].concat(), ..case.clone() };
        let expected = Row { response_bytes: None, ..case.row() };
        assert_eq!(expected.usage, UsageState::Reported);
        for cut in 0..8 {
            let (a, b) = marked.body.split_at(cut);
            let row = Row { response_bytes: None, ..marked.row_of(&[a, b]) };
            assert_eq!(row, expected, "{} {cut}", case.media);
        }
    }
    let asked = br#"{"model":"gpt-4o-mini","stream":true}"#;
    let asked = Case { request: [b"\xef\xbb\xbf", &asked[..]].concat(), ..chat_stream() };
    assert_eq!(asked.row().model_requested.as_deref(), Some("gpt-4o-mini"));
}

#[test]
fn an_answer_is_what_it_begins_with_whatever_it_is_called() {
    let stream = chat_stream();
    let usage = r#""usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}"#;
    let whole = Case {
        body: format!(
            r#"{{"object":"chat.completion","model":"gpt-4o-mini","choices":[],{usage}}}"#
        )
        .into_bytes(),
        ..stream.clone()
    };
    let others = ["application/octet-stream", "binary/octet-stream", "text/html; charset=utf-8"];
    for media in others.into_iter().chain(["text/event-stream"]) {
        for case in [&stream, &whole] {
            let case = Case { media, ..case.clone() };
            let row = case.row();
            assert_eq!(
                (row.usage, row.tokens.output),
                (UsageState::Reported, Some(100)),
                "{media}"
            );
            assert!(row.cost_nanousd.is_some_and(|cost| cost > 0), "{media}");
            for size in [1, 7] {
                let pieces: Vec<&[u8]> = case.body.chunks(size).collect();
                assert_eq!(case.row_of(&pieces), row, "{media} {size}");
            }
        }
    }
    let late = Case { body: [&b"\r\n\n"[..], &whole.body].concat(), ..whole.clone() };
    assert_eq!(Case { media: "text/event-stream", ..late }.row().usage, UsageState::Reported);
    // A stream that broke off before its first byte was one that broke off.
    let none = Case { media: "text/event-stream", body: Vec::new(), ..stream };
    let mut exchange = none.feed(&[]);
    exchange.response_broken_off(at(100));
    assert_eq!(exchange.row(&Book::builtin()).completeness, Completeness::Interrupted);
    for (media, body) in [("audio/mpeg", &whole.body[..]), ("text/html", b"<html>{}")] {
        let row = Case { media, body: body.to_vec(), ..whole.clone() }.row();
        assert_eq!((row.usage, row.completeness), (UsageState::Absent, Completeness::Complete));
    }
}

#[test]
fn codings_of_several_lines_and_of_the_way_are_undone() {
    let plain = chat_stream();
    let told = plain.row().tokens;
    let encode = |names: &[&str], body: &[u8]| {
        names.iter().fold(body.to_vec(), |body, name| {
            let (_, encode) = codings::ALL.iter().find(|(known, _)| known == name).unwrap();
            encode(&body)
        })
    };
    for (headers, names) in [
        (vec![("content-encoding", "gzip"), ("content-encoding", "br")], &["gzip", "br"][..]),
        (vec![("content-encoding", "UTF-8")], &[]),
        (vec![("transfer-encoding", "gzip, chunked")], &["gzip"]),
        (vec![("transfer-encoding", "gzip"), ("content-encoding", "br")], &["br", "gzip"]),
        (vec![("transfer-encoding", "Chunked")], &[]),
    ] {
        let case = Case {
            request: encode(names, &plain.request),
            request_headers: headers.clone(),
            response_headers: headers.clone(),
            body: encode(names, &plain.body),
            ..plain.clone()
        };
        let row = case.row();
        assert_eq!((row.completeness, row.tokens), (Completeness::Complete, told), "{headers:?}");
        assert_eq!(row.model_requested.as_deref(), Some("gpt-4o-mini"), "{headers:?}");
    }
    let case = Case {
        response_headers: vec![("transfer-encoding", "compress, chunked")],
        body: b"\x1f\x9dxx".to_vec(),
        ..plain
    };
    let row = case.row();
    assert_eq!((row.usage, row.completeness), (UsageState::Absent, Completeness::Lossy));
    assert!(row.completeness_reason.is_some_and(|why| why.contains("coding")));
}

#[test]
fn a_stream_that_makes_no_sense_is_lossy() {
    let mut case = invoke();
    let middle = case.body.len() / 2;
    case.body[middle] ^= 1;
    let row = case.row();
    assert_eq!(row.completeness, Completeness::Lossy);
    assert_eq!(row.completeness_reason.as_deref(), Some("the event stream is corrupt"));
    assert_eq!((row.usage, row.tokens.input), (UsageState::Partial, Some(1000)));
}

fn cursor(messages: &[Vec<u8>]) -> Case {
    let asked = nested(1, &nested(9, &nested(1, b"gpt-5")));
    Case {
        host: "agentn.us.api5.cursor.sh",
        target: "/agent.v1.AgentService/Run",
        request: envelope(1, &asked),
        media: "application/connect+proto",
        body: messages.concat(),
        ..Case::default()
    }
}

fn turn_ended() -> Vec<u8> {
    let counts = [number(1, 1000), number(2, 100), number(3, 400), number(5, 30)].concat();
    nested(1, &nested(14, &counts))
}

pub(crate) fn cursor_run() -> Case {
    let text = |text: &[u8]| nested(1, &nested(1, &nested(1, text)));
    cursor(&[
        envelope(0, &text(b"hello")),
        envelope(1, &text(&[b'x'; 900])),
        envelope(0, &nested(3, &nested(5, b"a checkpoint"))),
        envelope(1, &turn_ended()),
        envelope(2, b"{}"),
    ])
}

#[test]
fn cursors_turns_are_counted_and_marked() {
    let case = cursor_run();
    let row = case.row();
    let expected = Tokens {
        input: Some(600),
        cache_read: Some(400),
        output: Some(100),
        reasoning: Some(30),
        ..Tokens::default()
    };
    assert_eq!((row.usage, row.tokens), (UsageState::Reported, expected));
    assert_eq!(row.model_requested.as_deref(), Some("gpt-5"));
    assert_eq!(row.detail.caveat, Some(Caveat::Unverified));
    assert_eq!((row.billing, row.stream), (Billing::Subscription, Some(true)));
    // GPT-5's list price: $1.25, $0.125 cached, $10.
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(1_800_000), true));
    let reason = row.cost_reason.as_deref().unwrap_or_default();
    assert!(reason.contains("unverified") && reason.contains("list price of openai"), "{reason}");
    for cut in 0..=case.body.len() {
        let (a, b) = case.body.split_at(cut);
        assert_eq!(case.row_of(&[a, b]), row, "{cut}");
        let short = case.cut(cut, Side::Client);
        assert!(short.usage == UsageState::Absent || short.tokens == expected, "{cut}");
    }
}

#[test]
fn what_cursor_says_otherwise_is_not_guessed_at() {
    let absent = |case: Case| {
        let row = case.row();
        assert_eq!(
            (row.usage, row.tokens, row.cost_nanousd),
            (UsageState::Absent, Tokens::default(), None)
        );
        row
    };
    let row = absent(cursor(&[envelope(0, &nested(1, &nested(14, b"")))]));
    assert!(row.cost_reason.is_some_and(|why| why.contains("Cursor")));
    // The older service has other messages under the same numbers.
    absent(Case { target: "/aiserver.v1.ChatService/StreamUnifiedChatWithTools", ..cursor_run() });
    absent(cursor(&[b"data: {\"usage\":{\"input_tokens\":1}}\n\n".to_vec()]));
    let trailer = br#"{"error":{"code":"resource_exhausted","message":"m"}}"#;
    let row = absent(cursor(&[envelope(2, trailer)]));
    assert_eq!(row.error_class.as_deref(), Some("rate_limit"));
    let error = Case {
        status: 401,
        media: "application/json",
        body: br#"{"code":"unauthenticated"}"#.to_vec(),
        ..cursor(&[])
    };
    assert_eq!(absent(error).error_class.as_deref(), Some("auth"));
    // A model of its own has no price, though its tokens are known.
    let own = Case {
        request: envelope(0, &nested(1, &nested(3, &nested(1, b"composer-2")))),
        ..cursor_run()
    };
    let row = own.row();
    assert_eq!((row.usage, row.cost_nanousd), (UsageState::Reported, None));
    assert!(
        row.cost_reason.is_some_and(|why| why.contains("unverified")),
        "{:?}",
        row.model_requested
    );
}

#[test]
fn bedrocks_optimized_latency_is_a_tier_of_its_own() {
    const LATENCY: &str = "x-amzn-bedrock-performanceconfig-latency";
    let converse = |more: &str| {
        let usage = r#""usage":{"inputTokens":1000,"outputTokens":100,"totalTokens":1100}"#;
        Case {
            media: "application/json",
            ..bedrock(
                "/model/amazon.nova-pro-v1%3A0/converse",
                format!(r#"{{"output":{{}},{usage}{more}}}"#).into_bytes(),
            )
        }
    };
    let told = |row: &Row| (row.tier.clone(), row.cost_nanousd);
    let some = |tier: &str| Some(tier.to_owned());
    let optimized = r#","performanceConfig":{"latency":"optimized"}"#;
    let mut row = converse(optimized).row();
    assert_eq!(told(&row), (some("optimized"), None), "{row:?}");
    let reason = row.cost_reason.clone().unwrap_or_default();
    assert!(reason.contains("no price for tier optimized"), "{reason}");
    let mut own = OwnPrice {
        provider: "bedrock".to_owned(),
        model: "amazon.nova-pro-v1:0".to_owned(),
        tier: some("optimized"),
        ..OwnPrice::default()
    };
    own.rates.input = "1".parse().ok();
    own.rates.output = "4".parse().ok();
    charge(&mut row, &Book::builtin().with_own(&[own]));
    assert_eq!(row.cost_nanousd, Some(1_400_000), "{row:?}");
    // 0.80 and 3.20 dollars per million, half of it on flex.
    let plain = Some(1_120_000);
    for (more, expected) in [
        (r#","performanceConfig":{"latency":"standard"}"#.to_owned(), (None, plain)),
        (format!(r#","serviceTier":{{"type":"default"}}{optimized}"#), (some("optimized"), None)),
        (format!(r#","serviceTier":{{"type":"flex"}}{optimized}"#), (some("flex"), Some(560_000))),
    ] {
        assert_eq!(told(&converse(&more).row()), expected, "{more}");
    }
    let invoked = |asked: Option<&'static str>, answered: Option<&'static str>| {
        let header = |word: Option<&'static str>| word.map(|word| (LATENCY, word));
        let mut case = converse("");
        case.target = "/model/amazon.nova-pro-v1%3A0/invoke";
        case.request_headers = header(asked).into_iter().collect();
        case.response_headers = header(answered).into_iter().collect();
        told(&case.row())
    };
    assert_eq!(invoked(Some("optimized"), Some("standard")), (None, plain));
    for (asked, answered) in [(Some("optimized"), None), (None, Some("optimized"))] {
        assert_eq!(invoked(asked, answered), (some("optimized"), None));
    }
}
