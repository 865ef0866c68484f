//! Framings other than those of OpenAI and Anthropic themselves.

use super::*;
use crate::meter::eventstream::tests::wrapped;

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

fn invoke() -> Case {
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
fn a_stream_that_makes_no_sense_is_lossy() {
    let mut case = invoke();
    let middle = case.body.len() / 2;
    case.body[middle] ^= 1;
    let row = case.row();
    assert_eq!(row.completeness, Completeness::Lossy);
    assert_eq!(row.completeness_reason.as_deref(), Some("the event stream is corrupt"));
    assert_eq!((row.usage, row.tokens.input), (UsageState::Partial, Some(1000)));
}
