use clap::Parser;

use super::*;
use crate::meter::ledger::fixture::{home, row, store};
use crate::meter::usage::{Caveat, Tokens};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: RequestsArgs,
}

fn args(words: &[&str]) -> RequestsArgs {
    Cli::try_parse_from([&["requests"], words].concat()).unwrap().args
}

fn now() -> ZonedDateTime {
    "2026-11-24T12:00:00+01:00[Europe/Berlin]".parse().unwrap()
}

fn shown(home: &Home, words: &[&str], style: Style) -> String {
    let mut out = Vec::new();
    list(&args(words), home, style, &now(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = (1..=6).map(|n| row(n, &format!("2026-11-24T0{n}:00:00Z"))).collect();
    rows[0].started_at = "2026-11-20T01:00:00Z".parse().unwrap();
    rows[0].tokens.cache_read = Some(800);
    rows[1].cost_nanousd = None;
    rows[2].cost_estimated = true;
    rows[2].billing = Billing::Subscription;
    rows[3].status = Some(529);
    rows[3].error_class = Some("overloaded".into());
    rows[3].usage = UsageState::Absent;
    rows[3].tokens = Tokens::default();
    rows[3].cost_nanousd = None;
    rows[4].completeness = Completeness::Lossy;
    rows[4].completeness_reason = Some("the observer fell behind the bytes".into());
    rows[5].billable = false;
    rows[5].path = "/v1/messages/count_tokens".into();
    rows[5].usage = UsageState::Absent;
    rows[5].tokens = Tokens::default();
    rows[5].cost_nanousd = None;
    rows[5].model = None;
    rows[5].model_requested = None;
    rows
}

#[test]
fn what_a_plan_covers_does_not_look_paid_on_any_terminal() {
    let (_dir, home) = home();
    let mut rows = vec![row(1, "2026-11-24T01:00:00Z"), row(2, "2026-11-24T02:00:00Z")];
    rows[1].billing = Billing::Subscription;
    store(&home, &rows);
    let text = shown(&home, &[], Style { width: Some(40), color: false });
    assert_eq!(text.matches("≈$0.0123").count(), 1, "{text}");
    assert_eq!(text.matches("$0.0123").count(), 2, "{text}");
}

#[test]
fn what_is_not_the_providers_word_has_a_note() {
    let (_dir, home) = home();
    let mut rows = vec![row(1, "2026-11-24T01:00:00Z"), row(2, "2026-11-24T02:00:00Z")];
    rows[0].detail.caveat = Some(Caveat::Unverified);
    rows[1].detail.caveat = Some(Caveat::FromRequest);
    rows[1].detail.refused = true;
    store(&home, &rows);
    let text = shown(&home, &[], Style::default());
    assert!(text.contains("unverified"), "{text}");
    assert!(text.contains("refused, counted by the request"), "{text}");
}

#[test]
fn the_human_list() {
    let (_dir, home) = home();
    store(&home, &rows());
    insta::assert_snapshot!("all", shown(&home, &["--all"], Style::default()));
    let narrow = Style { width: Some(60), color: false };
    insta::assert_snapshot!("narrow", shown(&home, &["--limit", "2"], narrow));
}

#[test]
fn json_names_the_fields_as_the_contract_does() {
    let (_dir, home) = home();
    store(&home, &rows());
    let json = shown(&home, &["--json", "--limit", "2"], Style::default());
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    insta::assert_json_snapshot!("json", value);
    let next = value["next"].as_str().unwrap();
    let rest = shown(&home, &["--json", "--before", next], Style::default());
    let rest: serde_json::Value = serde_json::from_str(&rest).unwrap();
    assert_eq!(rest["requests"].as_array().unwrap().len(), 3);
    assert!(rest["next"].is_null());
}

#[test]
fn a_row_as_it_happens() {
    let lines: Vec<String> = rows().iter().map(line).collect();
    insta::assert_snapshot!("lines", lines.join("\n"));
}

#[test]
fn nothing_to_show_is_said_plainly() {
    let (_dir, home) = home();
    assert_eq!(shown(&home, &[], Style::default()), "No requests yet.\n");
    assert_eq!(shown(&home, &["--since", "5m"], Style::default()), "No requests match.\n");
}

#[test]
fn one_request_says_why_its_cost_is_what_it_is() {
    let (_dir, home) = home();
    let mut one = row(1, "2026-11-24T01:00:00Z");
    one.cost_estimated = true;
    one.cost_reason = Some("no price for web\x1b searches".into());
    store(&home, &[one]);
    let said = |keeps| {
        let args = args(&["show", "last", "--bodies"]);
        let Some(RequestsCommand::Show(show)) = &args.command else { panic!("{args:?}") };
        let mut out = Vec::new();
        show::show(show, &home, keeps, &now(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let text = said(false);
    assert!(text.contains("  cost       ~$0.0123\n  why        no price for web"), "{text}");
    assert!(!text.contains('\x1b') && text.contains("config set bodies.enabled true"), "{text}");
    let text = said(true);
    assert!(!text.contains("config set") && text.contains("is of before"), "{text}");
}

#[test]
fn a_foreign_cursor_is_a_usage_error() {
    let (_dir, home) = home();
    for words in [["--before", "x"], ["--since", "soon"]] {
        let error =
            list(&args(&words), &home, Style::default(), &now(), &mut Vec::new()).unwrap_err();
        assert!(error.downcast_ref::<UsageError>().is_some(), "{error}");
    }
}
