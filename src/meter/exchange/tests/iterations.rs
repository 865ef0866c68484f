//! Messages of several turns: whose figures are the bill, and whose cache writes live how long.

use super::shapes::{case, streamed, tokens};
use super::*;

const MESSAGES: &str = "/v1/messages";
/// A stream begins with the compaction's figures, and tells how long its cache writes live.
const COMPACTING: &str = r#"{"type":"message_start","message":{"id":"m","model":"claude-opus-5-5","usage":{"input_tokens":106576,"cache_creation_input_tokens":3146,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":3146,"ephemeral_1h_input_tokens":0},"output_tokens":5}}}"#;
const STOP: &str = r#"{"type":"message_stop"}"#;

fn message(model: &str, usage: &str) -> Case {
    let body = format!(r#"{{"type":"message","id":"m","model":"{model}","usage":{{{usage}}}}}"#);
    case("api.anthropic.com", MESSAGES, &body)
}

/// A stream with these figures at its end.
fn ended(start: &str, stop: &str, usage: &str) -> Row {
    let delta = format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":"{stop}"}},"usage":{{{usage}}}}}"#
    );
    streamed("api.anthropic.com", MESSAGES, &[start, &delta, STOP]).row()
}

fn costs(row: &Row) -> (Option<i64>, bool) {
    (row.cost_nanousd, row.cost_estimated)
}

#[test]
fn lifetimes_of_the_start_are_not_added_to_what_is_written_in_the_end() {
    let last = r#""input_tokens":2,"output_tokens":74,"cache_creation_input_tokens":445,"cache_read_input_tokens":3146"#;
    // 2×4 + 3146×0.20 + 445×5 + 74×20
    let row = ended(COMPACTING, "end_turn", last);
    assert_eq!(costs(&row), (Some(4_342_200), false), "{row:?}");
    let told = (row.tokens.cache_write_5m, row.tokens.cache_write_1h, row.tokens.cache_write_other);
    assert_eq!(told, (Some(445), Some(0), None));
    let hour = COMPACTING
        .replace(r#""ephemeral_5m_input_tokens":3146"#, r#""ephemeral_5m_input_tokens":0"#)
        .replace(r#""ephemeral_1h_input_tokens":0"#, r#""ephemeral_1h_input_tokens":3146"#);
    let row = ended(&hour, "end_turn", last);
    assert_eq!((row.tokens.cache_write_5m, row.tokens.cache_write_1h), (Some(0), Some(445)));
    // Of both: which of them it is, nobody says.
    let both = COMPACTING
        .replace(r#""ephemeral_5m_input_tokens":3146"#, r#""ephemeral_5m_input_tokens":1000"#)
        .replace(r#""ephemeral_1h_input_tokens":0"#, r#""ephemeral_1h_input_tokens":2146"#);
    let row = ended(&both, "end_turn", last);
    let told = (row.tokens.cache_write_5m, row.tokens.cache_write_1h, row.tokens.cache_write_other);
    assert_eq!((told, row.cost_estimated), ((None, None, Some(445)), true));
}

#[test]
fn a_compaction_that_a_stream_begins_with_counts_once() {
    let turns = r#""iterations":[{"type":"compaction","input_tokens":106576,"output_tokens":312,"cache_creation_input_tokens":3146,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":3146,"ephemeral_1h_input_tokens":0}},{"type":"message","input_tokens":2,"output_tokens":74,"cache_creation_input_tokens":445,"cache_read_input_tokens":3146,"cache_creation":{"ephemeral_5m_input_tokens":445,"ephemeral_1h_input_tokens":0}}]"#;
    let all = r#""input_tokens":2,"output_tokens":74,"cache_creation_input_tokens":445,"cache_read_input_tokens":3146"#;
    // What the end leaves out is the compaction's, and not told twice.
    for told in [all, r#""input_tokens":2,"output_tokens":74"#, r#""output_tokens":74"#] {
        let row = ended(COMPACTING, "end_turn", &format!("{told},{turns}"));
        // 106 578×4 + 3146×0.20 + 3591×5 + 386×20
        assert_eq!(costs(&row), (Some(452_616_200), false), "{row:?}");
        let expected = Tokens {
            cache_read: Some(3146),
            cache_write_5m: Some(3591),
            cache_write_1h: Some(0),
            ..tokens(106_578, 386)
        };
        assert_eq!(row.tokens, expected, "{told}");
    }
    // Figures that they don't agree with stand, and the compaction beside them.
    let row = ended(COMPACTING, "end_turn", &format!(r#""output_tokens":75,{turns}"#));
    assert_eq!(row.tokens.output, Some(75 + 312), "{row:?}");
}

#[test]
fn a_message_that_stops_behind_its_compaction_is_that() {
    let start = r#"{"type":"message_start","message":{"id":"m","model":"claude-opus-5-5","usage":{"input_tokens":54453,"cache_creation_input_tokens":0,"cache_read_input_tokens":7000,"output_tokens":1}}}"#;
    let turns = r#""iterations":[{"type":"compaction","input_tokens":54453,"output_tokens":883,"cache_read_input_tokens":7000}]"#;
    let zero = r#""input_tokens":0,"output_tokens":0"#;
    let caches = r#""cache_read_input_tokens":0,"cache_creation_input_tokens":0"#;
    for told in [zero.to_owned(), format!("{zero},{caches}")] {
        let row = ended(start, "compaction", &format!("{told},{turns}"));
        // 54 453×4 + 7000×0.20 + 883×20
        assert_eq!(costs(&row), (Some(236_872_000), false), "{row:?}");
        assert_eq!((row.tokens.cache_read, row.tokens.output), (Some(7000), Some(883)));
    }
}

#[test]
fn lifetimes_that_only_the_top_level_tells_are_those_of_its_turns() {
    let told = |split: &str, turns: &str| {
        let usage = format!(
            r#""input_tokens":100,"output_tokens":10,"cache_creation_input_tokens":100000,"cache_creation":{{{split}}},"iterations":[{turns}]"#
        );
        message("claude-opus-5", &usage).row()
    };
    let compaction = r#"{"type":"compaction","input_tokens":1000,"output_tokens":100,"cache_creation_input_tokens":0}"#;
    let turn = |input: u64, output: u64, written: u64| {
        format!(
            r#"{{"type":"message","input_tokens":{input},"output_tokens":{output},"cache_creation_input_tokens":{written}}}"#
        )
    };
    let hour = r#""ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":100000"#;
    let row = told(hour, &format!("{compaction},{}", turn(100, 10, 100_000)));
    // 1100×5 + 100 000×10 + 110×25
    assert_eq!(costs(&row), (Some(1_008_250_000), false), "{row:?}");
    assert_eq!(row.tokens.cache_write_1h, Some(100_000));

    // What some turns tell themselves is theirs; of what is left, the hour's first.
    let own = r#"{"type":"message","input_tokens":40,"output_tokens":4,"cache_creation_input_tokens":30000,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":30000}}"#;
    let mixed = r#""ephemeral_5m_input_tokens":60000,"ephemeral_1h_input_tokens":40000"#;
    let row = told(mixed, &format!("{compaction},{own},{}", turn(60, 6, 70_000)));
    let writes = (row.tokens.cache_write_5m, row.tokens.cache_write_1h);
    assert_eq!((writes, row.cost_estimated), ((Some(60_000), Some(40_000)), false), "{row:?}");

    // As many tokens in all, and not as many written: it may not be of these turns.
    let row = told(hour, &format!("{compaction},{}", turn(101, 10, 99_999)));
    assert_eq!(row.tokens.cache_write_other, Some(99_999), "{row:?}");
    assert!(row.cost_estimated);
}

#[test]
fn lifetimes_of_a_fallbacks_top_level_are_the_last_models() {
    let attempt = |kind: &str, model: &str| {
        format!(
            r#"{{"type":"{kind}","model":"{model}","input_tokens":600,"output_tokens":300,"cache_creation_input_tokens":100000}}"#
        )
    };
    let usage = format!(
        r#""input_tokens":600,"output_tokens":300,"cache_creation_input_tokens":100000,"cache_creation":{{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":100000}},"iterations":[{},{}]"#,
        attempt("message", "claude-fable-5-1"),
        attempt("fallback_message", "claude-opus-5"),
    );
    let row = message("claude-opus-5", &usage).row();
    let writes = (row.tokens.cache_write_1h, row.tokens.cache_write_other);
    assert_eq!(writes, (Some(100_000), Some(100_000)), "{row:?}");
    assert_eq!(row.detail.parts[1].tokens.cache_write_1h, Some(100_000));
}

#[test]
fn a_sum_above_a_price_step_is_an_estimate_where_its_turns_are_not_told() {
    let row = |input: u64, more: &str| {
        let usage = format!(r#""input_tokens":{input},"output_tokens":100{more}"#);
        message("claude-haiku-5-5", &usage).row()
    };
    let searched = r#","server_tool_use":{"web_search_requests":2}"#;
    let sum = row(120_000, searched);
    // 120 000×0.50 + 100×2.50, and two searches.
    assert_eq!(costs(&sum), (Some(60_000_000 + 250_000 + 20_000_000), true), "{sum:?}");
    assert!(sum.cost_reason.is_some_and(|why| why.contains("several turns")));
    assert!(!row(100_000, searched).cost_estimated);
    assert!(!row(120_000, "").cost_estimated);
    let turns = format!(
        r#"{searched},"iterations":[{{"type":"message","input_tokens":60000,"output_tokens":50}},{{"type":"message","input_tokens":60000,"output_tokens":50}}]"#
    );
    assert_eq!(costs(&row(120_000, &turns)), (Some(12_000_000 + 50_000 + 20_000_000), false));
}

#[test]
fn bedrocks_turns_cost_what_the_profile_does() {
    let row = |profile: &str, answered: &str, turns: &str| {
        let body = format!(
            r#"{{"type":"message","id":"m","model":"{answered}","usage":{{"input_tokens":100,"output_tokens":10,"iterations":[{{"type":"compaction","input_tokens":1000,"output_tokens":100}},{turns}]}}}}"#
        );
        let target = format!("/model/{profile}/invoke");
        Case {
            host: "bedrock-runtime.us-east-1.amazonaws.com",
            target: Box::leak(target.into_boxed_str()),
            body: body.into_bytes(),
            ..Case::default()
        }
        .row()
    };
    let turn = |kind: &str, model: &str| {
        format!(r#"{{"type":"{kind}","model":"{model}","input_tokens":100,"output_tokens":10}}"#)
    };
    let opus = "claude-opus-4-8";
    // 1100×5 + 110×25, and a tenth more in the United States.
    for (profile, cost) in [("us", 9_075_000), ("global", 8_250_000)] {
        let profile = format!("{profile}.anthropic.{opus}");
        let row = row(&profile, opus, &turn("message", opus));
        assert_eq!(costs(&row), (Some(cost), false), "{row:?}");
    }
    // With a version, as some have: 1100×3.30 + 110×16.50.
    let sonnet = "claude-sonnet-4-5-20250929";
    let dated =
        row("us.anthropic.claude-sonnet-4-5-20250929-v1%3A0", sonnet, &turn("message", sonnet));
    assert_eq!(costs(&dated), (Some(5_445_000), false), "{dated:?}");
    // Another model in the same profile: 100×4.40 + 10×22.
    let advised = [turn("message", opus), turn("advisor_message", "claude-opus-5-5")].join(",");
    let advised = row("us.anthropic.claude-opus-4-8", opus, &advised);
    assert_eq!(costs(&advised), (Some(9_075_000 + 660_000), false), "{advised:?}");
    // One that the list does not have there is not sold at what another costs.
    let unknown = [turn("message", opus), turn("advisor_message", "claude-new-9")].join(",");
    assert_eq!(row("us.anthropic.claude-opus-4-8", opus, &unknown).cost_nanousd, None);
}
