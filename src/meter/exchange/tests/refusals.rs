//! What Claude declines, and the models that it falls back to.

use super::shapes::{Shape, tokens};
use super::*;
use crate::meter::charge::{REFUSED_RULE, charge};

fn json(body: &str) -> Case {
    Case { body: body.as_bytes().to_vec(), ..Case::default() }
}

fn stream(events: &[&str]) -> Case {
    Case { media: "text/event-stream", body: sse(events), ..Case::default() }
}

fn message(model: &str, content: &str, stop: &str, usage: &str) -> String {
    format!(
        r#"{{"id":"msg_1","type":"message","role":"assistant","model":"{model}","content":[{content}],"stop_reason":"{stop}","usage":{{{usage}}}}}"#
    )
}

const TEXT: &str = r#"{"type":"text","text":"I"}"#;
const WARM: &str = r#""input_tokens":106,"cache_creation_input_tokens":0,"cache_read_input_tokens":150000,"output_tokens":1"#;

#[test]
fn a_refusal_before_any_output_costs_nothing_and_keeps_its_tokens() {
    let refused = message("claude-fable-5", "", "refusal", WARM);
    let start = r#"{"type":"message_start","message":{"id":"msg_1","model":"claude-fable-5","usage":{"input_tokens":106,"cache_read_input_tokens":150000,"output_tokens":1}}}"#;
    let end =
        r#"{"type":"message_delta","delta":{"stop_reason":"refusal"},"usage":{"output_tokens":0}}"#;
    let stop = r#"{"type":"message_stop"}"#;
    for case in [json(&refused), stream(&[start, end, stop])] {
        let mut row = case.row();
        let costs = |row: &Row| (row.cost_nanousd, row.cost_estimated, row.price_rule.clone());
        let free = (Some(0), false, Some(REFUSED_RULE.to_owned()));
        assert_eq!(costs(&row), free, "{row:?}");
        assert_eq!((row.usage, row.tokens.cache_read), (UsageState::Reported, Some(150_000)));
        // What the row keeps says so again.
        row.cost_nanousd = None;
        charge(&mut row, &Book::builtin());
        assert_eq!(costs(&row), free);
    }
    // 106×10 + 150 000×1 and what was said, at 50 a million.
    let block =
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
    for (case, output) in [
        (json(&message("claude-fable-5", TEXT, "refusal", WARM)), 1),
        (json(&message("claude-fable-5", "", "end_turn", WARM)), 1),
        (json(&refused.replace(r#""output_tokens":1"#, r#""output_tokens":9"#)), 9),
        (stream(&[start, block, end, stop]), 0),
    ] {
        let row = case.row();
        assert_eq!(row.cost_nanousd, Some(151_060_000 + output * 50_000), "{row:?}");
        assert!(!row.cost_estimated && !row.detail.refused, "{row:?}");
    }
}

#[test]
fn who_does_not_say_that_refusals_are_free_may_charge_them() {
    let refused = message("claude-fable-5", "", "refusal", WARM).into_bytes();
    let vertex = Case {
        host: "aiplatform.googleapis.com",
        target: "/v1/projects/p/locations/global/publishers/anthropic/models/claude-fable-5:rawPredict",
        body: refused.clone(),
        ..Case::default()
    }
    .row();
    assert_eq!((vertex.cost_nanousd, vertex.cost_estimated), (Some(151_110_000), true));
    let reason = vertex.cost_reason.clone().unwrap_or_default();
    assert!(reason.contains("refused before any output"), "{vertex:?}");
    let bedrock = Case {
        host: "bedrock-runtime.us-east-1.amazonaws.com",
        target: "/model/us.anthropic.claude-fable-5/invoke",
        body: refused,
        ..Case::default()
    }
    .row();
    assert_eq!((bedrock.cost_nanousd, bedrock.cost_estimated), (Some(0), false), "{bedrock:?}");
}

fn entry(kind: &str, model: &str, input: u64, output: u64) -> String {
    format!(
        r#"{{"type":"{kind}","model":"{model}","input_tokens":{input},"output_tokens":{output},"cache_read_input_tokens":0,"cache_creation_input_tokens":0}}"#
    )
}

const FABLE: &str = "claude-fable-5";
const OPUS: &str = "claude-opus-4-8";

pub(super) fn shapes() -> Vec<Shape> {
    let attempts = [entry("message", FABLE, 1000, 50), entry("fallback_message", OPUS, 1000, 200)];
    let warm = Tokens { cache_read: Some(150_000), cache_write_other: Some(0), ..tokens(106, 1) };
    let both = Tokens { cache_read: Some(0), cache_write_other: Some(0), ..tokens(2000, 250) };
    let start = r#"{"type":"message_start","message":{"id":"m","model":"claude-fable-5","usage":{"input_tokens":1000,"output_tokens":1}}}"#;
    let block = r#"{"type":"content_block_start","index":0,"content_block":{"type":"fallback","from":{"model":"claude-fable-5"},"to":{"model":"claude-opus-4-8"}}}"#;
    let end = format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":"end_turn"}},"usage":{{"input_tokens":1000,"output_tokens":200,"iterations":[{}]}}}}"#,
        attempts.join(",")
    );
    let stop = r#"{"type":"message_stop"}"#;
    let shape = |name, case, tokens| Shape { name, case, tokens, surface: "anthropic.messages" };
    vec![
        shape("a refusal", json(&message(FABLE, "", "refusal", WARM)), warm),
        shape("a fallback", fallback("end_turn", (1000, 200), &attempts), both),
        shape("a fallback, streamed", stream(&[start, block, &end, stop]), both),
    ]
}

/// The whole answer of Opus, to which Fable fell back.
fn fallback(stop: &str, (input, output): (u64, u64), entries: &[String]) -> Case {
    let block =
        r#"{"type":"fallback","from":{"model":"claude-fable-5"},"to":{"model":"claude-opus-4-8"}}"#;
    let entries = entries.join(",");
    let usage =
        format!(r#""input_tokens":{input},"output_tokens":{output},"iterations":[{entries}]"#);
    json(&message(OPUS, block, stop, &usage))
}

fn fallen(stop: &str, told: (u64, u64), entries: &[String]) -> Row {
    fallback(stop, told, entries).row()
}

#[test]
fn each_attempt_of_a_fallback_has_its_own_price() {
    let served = entry("fallback_message", OPUS, 1000, 200);
    let told = |row: &Row| (row.cost_nanousd, row.cost_estimated, row.tokens.input);
    // Declined midway: 1000×10 + 50×50, and 1000×5 + 200×25.
    let midway =
        fallen("end_turn", (1000, 200), &[entry("message", FABLE, 1000, 50), served.clone()]);
    assert_eq!(told(&midway), (Some(12_500_000 + 10_000_000), false, Some(2000)), "{midway:?}");
    assert_eq!((midway.model.as_deref(), midway.detail.parts.len()), (Some(OPUS), 2));
    // Declined before any output: free, however much it read. So may the only one that ran be.
    for output in [0, 1] {
        let attempt = entry("message", FABLE, 9000, output);
        let row = fallen("end_turn", (1000, 200), &[attempt, served.clone()]);
        assert_eq!(told(&row), (Some(10_000_000), false, Some(1000)), "{row:?}");
        assert_eq!(row.detail.parts.len(), 0, "{row:?}");
    }
    let sticky = fallen("end_turn", (1000, 200), std::slice::from_ref(&served));
    assert_eq!(told(&sticky), (Some(10_000_000), false, Some(1000)), "{sticky:?}");
    // A turn of the serving model that says nothing is its own, a turn of the other's is not free
    // when it had said something before.
    let turns = [
        entry("message", FABLE, 1000, 50),
        entry("message", FABLE, 2000, 0),
        entry("message", OPUS, 300, 0),
        entry("fallback_message", OPUS, 700, 200),
        entry("advisor_message", "claude-haiku-4-5", 200, 20),
    ];
    let row = fallen("end_turn", (1000, 200), &turns);
    let advisor = 200 * 1_000 + 20 * 5_000;
    assert_eq!(told(&row), (Some(32_500_000 + 10_000_000 + advisor), false, Some(4200)), "{row:?}");
}

#[test]
fn a_fallback_that_declines_too_is_a_refusal() {
    let tried = |first: u64, second: u64| {
        let entries =
            [entry("message", FABLE, 800, first), entry("fallback_message", OPUS, 900, second)];
        let row = fallen("refusal", (900, second), &entries);
        (row.cost_nanousd, row.detail.refused, row.tokens.input)
    };
    assert_eq!(tried(0, 0), (Some(0), true, Some(900)));
    assert_eq!(tried(1, 1), (Some(0), true, Some(900)));
    // Only one of them had said something: 800×10 + 9×50, 900×5 + 9×25.
    assert_eq!(tried(9, 0), (Some(8_450_000), false, Some(800)));
    assert_eq!(tried(0, 9), (Some(4_725_000), false, Some(900)));
}

#[test]
fn a_stream_that_falls_back_is_the_serving_models() {
    let start = r#"{"type":"message_start","message":{"id":"msg_1","model":"claude-fable-5","usage":{"input_tokens":1000,"cache_creation_input_tokens":70,"cache_creation":{"ephemeral_5m_input_tokens":70},"output_tokens":1}}}"#;
    let text =
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
    let block = r#"{"type":"content_block_start","index":1,"content_block":{"type":"fallback","from":{"model":"claude-fable-5"},"to":{"model":"claude-opus-4-8"}}}"#;
    let end = |iterations: &str| {
        format!(
            r#"{{"type":"message_delta","delta":{{"stop_reason":"end_turn"}},"usage":{{"input_tokens":1000,"output_tokens":200{iterations}}}}}"#
        )
    };
    let entries = [entry("message", FABLE, 1000, 50), entry("fallback_message", OPUS, 1000, 200)];
    let told = end(&format!(r#","iterations":[{}]"#, entries.join(",")));
    let row = stream(&[start, text, block, &told]).row();
    assert_eq!((row.model.as_deref(), row.cost_nanousd), (Some(OPUS), Some(22_500_000)), "{row:?}");
    // The block alone says it too.
    let row = stream(&[start, text, block, &end("")]).row();
    assert_eq!(row.model.as_deref(), Some(OPUS), "{row:?}");
    let row = stream(&[start, text, &end("")]).row();
    assert_eq!(row.model.as_deref(), Some(FABLE), "{row:?}");
}

#[test]
fn a_batchs_refused_lines_cost_nothing() {
    let line = |content: &str, stop: &str| {
        let usage = r#""input_tokens":1000,"output_tokens":0,"service_tier":"batch""#;
        let message = message("claude-opus-5-5", content, stop, usage);
        format!(r#"{{"custom_id":"1","result":{{"type":"succeeded","message":{message}}}}}"#)
    };
    let row = |lines: &[String]| {
        Case {
            method: "GET",
            target: "/v1/messages/batches/msgbatch_1/results",
            media: "application/x-jsonl",
            body: lines.join("\n").into_bytes(),
            ..Case::default()
        }
        .row()
    };
    let told = |row: &Row| (row.cost_nanousd, row.cost_estimated, row.tokens.input);
    // Half of 4 a million.
    let mixed = row(&[line(TEXT, "end_turn"), line("", "refusal"), line(TEXT, "refusal")]);
    assert_eq!(told(&mixed), (Some(4_000_000), false, Some(2000)), "{mixed:?}");
    let none = row(&[line("", "refusal"), line("", "refusal")]);
    assert!(none.billable && none.detail.refused, "{none:?}");
    assert_eq!(told(&none), (Some(0), false, Some(2000)), "{none:?}");
}

#[test]
fn a_redeemed_fallback_credit_is_in_the_figures_already() {
    let usage = r#""input_tokens":10,"cache_creation_input_tokens":500,"cache_read_input_tokens":150000,"output_tokens":100,"fallback_credit":{"status":{"type":"redeemed"}}"#;
    let row = json(&message(OPUS, TEXT, "end_turn", usage)).row();
    // 10×5 + 500×6.25 + 150 000×0.5 + 100×25
    let cost = 50_000 + 3_125_000 + 75_000_000 + 2_500_000;
    assert_eq!(row.cost_nanousd, Some(cost), "{row:?}");
}
