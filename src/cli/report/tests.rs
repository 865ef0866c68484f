use clap::Parser;

use super::*;
use crate::cli::output::UsageError;
use crate::meter::ledger::fixture::{home, row, store};
use crate::meter::row::{Billing, Completeness, Row};
use crate::meter::usage::{Caveat, Tokens, UsageState};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: ReportArgs,
}

fn args(words: &[&str]) -> ReportArgs {
    Cli::try_parse_from([&["report"], words].concat()).unwrap().args
}

fn now() -> ZonedDateTime {
    "2026-11-24T12:00:00+01:00[Europe/Berlin]".parse().unwrap()
}

fn shown(home: &Home, words: &[&str], style: Style) -> String {
    let mut out = Vec::new();
    show(&args(words), home, style, &now(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// One of everything that a report has to tell.
fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = (1..=8).map(|n| row(n, &format!("2026-11-23T0{n}:00:00Z"))).collect();
    rows[0].tokens.cache_read = Some(800);
    rows[0].tokens.cache_write_5m = Some(30);
    rows[0].tokens.cache_write_1h = Some(4);
    rows[1].tokens.reasoning = Some(20);
    rows[1].cost_estimated = true;
    rows[2].model = Some("gpt-9, the \"big\" one".into());
    rows[2].cost_nanousd = None;
    rows[3].billing = Billing::Subscription;
    rows[3].project = Some("other".into());
    rows[4].status = Some(429);
    rows[4].error_class = Some("rate_limit".into());
    rows[4].usage = UsageState::Absent;
    rows[4].tokens = Tokens::default();
    rows[4].cost_nanousd = None;
    rows[5].completeness = Completeness::Interrupted;
    rows[5].usage = UsageState::Partial;
    rows[5].project = None;
    rows[6].usage = UsageState::Absent;
    rows[6].tokens = Tokens::default();
    rows[6].cost_nanousd = None;
    rows[7].cost_nanousd = Some(1_234_560_000_000);
    rows[7].project = Some("other".into());
    rows[7].duration_ms = Some(65_000);
    let mut before = row(9, "2026-10-01T00:00:00Z");
    before.cost_nanousd = Some(3_000_000_000);
    rows.push(before);
    rows
}

fn passed(home: &Home) {
    let line = |n: u8| {
        format!(
            r#"{{"id":"00000000-0000-0000-0000-00000000000{n}","at":"2026-11-24T10:00:0{n}Z","host":"api.openai.com","port":443,"reason":"daemon_down","end":{{"duration_ms":5,"bytes_up":1,"bytes_down":2,"aborted":false}}}}"#
        ) + "\n"
    };
    std::fs::write(home.passthrough_spool(), line(1) + &line(2)).unwrap();
}

#[test]
fn the_human_report() {
    let (_dir, home) = home();
    store(&home, &rows());
    passed(&home);
    insta::assert_snapshot!("wide", shown(&home, &[], Style::default()));
    let narrow = Style { width: Some(60), color: false };
    let text = shown(&home, &["--by", "project"], narrow);
    insta::assert_snapshot!("narrow", text);
    insta::assert_snapshot!(
        "versus",
        shown(
            &home,
            &["--vs-previous", "--by", "provider", "--project", "my-app"],
            Style::default()
        )
    );
    let colored = Style { width: Some(120), color: true };
    assert!(shown(&home, &[], colored).contains("\x1b["));
    assert!(!shown(&home, &[], Style::default()).contains('\x1b'));
}

#[test]
fn tokens_of_a_format_that_is_not_published_are_named() {
    let (_dir, home) = home();
    let mut rows: Vec<Row> = (1..=4).map(|n| row(n, &format!("2026-11-23T0{n}:00:00Z"))).collect();
    for told in &mut rows[..3] {
        told.provider = "cursor".into();
        told.billing = Billing::Subscription;
        told.cost_estimated = true;
        told.detail.caveat = Some(Caveat::Unverified);
    }
    // Without a price, and one that told nothing.
    rows[1].cost_nanousd = None;
    rows[2].detail.caveat = None;
    (rows[2].usage, rows[2].tokens, rows[2].cost_nanousd) =
        (UsageState::Absent, Tokens::default(), None);
    store(&home, &rows);
    let text = shown(&home, &[], Style::default());
    assert!(text.contains("Cursor    2 requests, unverified: the format"), "{text}");
    let json = shown(&home, &["--json"], Style::default());
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["unverified"], 2);
    assert_eq!(value["summary"]["cost_nanousd"], rows[3].cost_nanousd.unwrap(), "never paid");
}

#[test]
fn what_a_clock_that_was_ahead_dated_is_told() {
    let (_dir, home) = home();
    let ahead = row(9, "2031-01-01T00:00:00Z");
    store(&home, &[rows(), vec![ahead]].concat());
    let text = shown(&home, &[], Style::default());
    assert!(text.contains("1 request is dated ahead of the clock"), "{text}");
    let json = |args: &[&str]| {
        let text = shown(&home, args, Style::default());
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["dated_ahead"].clone()
    };
    assert_eq!(json(&["--json"]), 1);
    let to = ["--json", "--from", "2026-11-01", "--to", "2032-01-01"];
    assert_eq!(json(&to), 0, "it is in this range");
}

#[test]
fn json_and_csv() {
    let (_dir, home) = home();
    store(&home, &rows());
    passed(&home);
    let json = shown(&home, &["--json", "--by", "project", "--vs-previous"], Style::default());
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    insta::assert_json_snapshot!("json", value);
    insta::assert_snapshot!("csv", shown(&home, &["--csv", "--vs-previous"], Style::default()));
}

#[test]
fn what_was_used_only_before_is_part_of_the_comparison() {
    let (_dir, home) = home();
    let of = |n, at: &str, project: &str, cost| Row {
        project: Some(project.to_owned()),
        cost_nanousd: Some(cost),
        ..row(n, at)
    };
    let before = "2026-11-10T00:00:00Z";
    store(&home, &[of(1, before, "little", 1_000_000_000), of(2, before, "gone", 3_000_000_000)]);
    let words = ["--since", "7d", "--vs-previous", "--by"];
    let shown =
        |words: &[&str], more: &[&str]| shown(&home, &[words, more].concat(), Style::default());
    let told = |text: &str| {
        let line = text.lines().find(|line| line.contains(" gone ")).unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(
            words.starts_with(&["gone", "0"]) && words.ends_with(&["$3.00", "-100%"]),
            "{text}"
        );
    };
    // Nothing at all since.
    let wide = ["--since", "10d", "--vs-previous", "--by"];
    let text = shown(&wide, &["project"]);
    assert!(text.contains("$4.00 before, -100%"), "{text}");
    told(&text);

    store(&home, &[of(3, "2026-11-23T00:00:00Z", "new", 2_000_000_000)]);
    told(&shown(&wide, &["project"]));
    let json: serde_json::Value =
        serde_json::from_str(&shown(&wide, &["project,model,day", "--json"])).unwrap();
    let groups = |n: usize| {
        let groups = json["groupings"][n]["groups"].as_array().unwrap().iter();
        let requests = |g: &serde_json::Value| {
            let key = g["key"].as_str().unwrap().to_owned();
            (key, g["requests"].as_u64(), g["previous"]["requests"].as_u64())
        };
        groups.map(requests).collect::<Vec<_>>()
    };
    let group = |key: &str, now, before| (key.to_owned(), Some(now), Some(before));
    assert_eq!(groups(0), [group("new", 1, 0), group("gone", 0, 1), group("little", 0, 1)]);
    assert_eq!(groups(1), [group("claude-sonnet-5", 1, 2)]);
    assert_eq!(groups(2), [group("2026-11-23", 1, 0)], "a day of before is no day of this range");
    let csv = shown(&wide, &["project", "--csv"]);
    let gone = csv.lines().find(|line| line.starts_with("project,gone,0,")).unwrap();
    assert!(gone.ends_with(",1,3.00"), "{gone}");
    assert!(!shown(&words, &["project"]).contains("gone"), "of neither range");
}

#[test]
fn no_change_is_told_of_what_has_no_price() {
    let totals = |cost_nanousd, unpriced| Totals { cost_nanousd, unpriced, ..Totals::default() };
    let before = totals(Some(5_000_000_000), 0);
    for (now, expected) in [
        (totals(None, 1), "$5.00 before"),
        (totals(None, 0), "$5.00 before, -100%"),
        (totals(Some(10_000_000_000), 1), "$5.00 before, +100%"),
    ] {
        assert_eq!(versus(&now, &before), expected);
    }
    let untold = Totals { without_usage: 1, ..Totals::default() };
    assert_eq!(versus(&untold, &before), "$5.00 before");
}

#[test]
fn an_empty_range_says_so_and_still_tells_the_gaps() {
    let (_dir, home) = home();
    let text = shown(&home, &["--since", "today"], Style::default());
    assert!(text.contains("No requests to a model in this range."), "{text}");
    assert!(!text.contains("unmetered"));
    passed(&home);
    let text = shown(&home, &["--since", "today"], Style::default());
    assert!(text.contains("2 connections passed through unmetered (daemon_down 2)"), "{text}");
    let json = shown(&home, &["--since", "today", "--json"], Style::default());
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["summary"]["requests"], 0);
    assert!(value["summary"]["cost_nanousd"].is_null());
}

#[test]
fn a_project_that_does_not_exist_is_told_from_one_without_requests() {
    let (_dir, home) = home();
    store(&home, &[row(1, "2026-11-24T01:00:00Z")]);
    let hint = "There is no project nosuch; `halton-meter project list`";
    assert!(shown(&home, &["--project", "nosuch"], Style::default()).contains(hint));
    let text = shown(&home, &["--project", "my-app", "--since", "1m"], Style::default());
    assert!(!text.contains("There is no project"), "{text}");
}

#[test]
fn each_grouping_comes_once() {
    let (_dir, home) = home();
    store(&home, &[row(1, "2026-11-24T01:00:00Z")]);
    let json = shown(&home, &["--by", "day,project,day", "--json"], Style::default());
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let by: Vec<_> = value["groupings"].as_array().unwrap().iter().map(|g| &g["by"]).collect();
    assert_eq!(by, ["day", "project"]);
}

#[test]
fn a_range_that_ends_before_it_begins_is_a_usage_error() {
    let (_dir, home) = home();
    let args = args(&["--from", "2026-11-02", "--to", "2026-11-01"]);
    let error = show(&args, &home, Style::default(), &now(), &mut Vec::new()).unwrap_err();
    assert!(error.downcast_ref::<UsageError>().is_some(), "{error}");
    for words in [
        &["--since", "1d", "--from", "2026-11-01"][..],
        &["--csv", "--json"],
        &["--quota", "--by", "day"],
        &["--quota", "--since", "1d"],
        &["--by", "phase-of-the-moon"],
    ] {
        assert!(Cli::try_parse_from([&["report"], words].concat()).is_err(), "{words:?}");
    }
}

#[test]
fn text_from_the_network_cannot_drive_the_terminal() {
    let (_dir, home) = home();
    let mut evil = row(1, "2026-11-24T01:00:00Z");
    evil.model = Some("m\x1b]0;owned\x07".into());
    evil.project = Some("p\x1b[2J".into());
    evil.cost_nanousd = None;
    store(&home, &[evil]);
    let text = shown(&home, &[], Style::default());
    assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
}

#[test]
fn changes_are_told_without_dividing_by_nothing() {
    assert_eq!(change(150, 100).as_deref(), Some("+50%"));
    assert_eq!(change(50, 100).as_deref(), Some("-50%"));
    assert_eq!(change(100, 100).as_deref(), Some("+0%"));
    assert_eq!(change(5000, 100).as_deref(), Some("×50"));
    assert_eq!(change(100, 0), None);
    assert_eq!(change(i64::MAX, 1).as_deref(), Some("×9,223,372,036,854,775,807"));
}

#[test]
fn what_was_not_told_is_told_apart_by_who_did_not() {
    let kind = |provider: &str, surface: Option<&str>| {
        named(&Silent {
            provider: provider.to_owned(),
            surface: surface.map(str::to_owned),
            model: None,
            stream: true,
            requests: 1,
            remedy: "",
        })
    };
    assert_eq!(kind("openai", Some("openai.chat")), "openai.chat");
    assert_eq!(kind("groq", Some("openai.chat")), "openai.chat at groq");
    assert_eq!(kind("together", Some("openai.chat")), "openai.chat at together");
    assert_eq!(kind("gpu.lan", None), "gpu.lan");
}
