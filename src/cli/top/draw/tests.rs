use super::*;
use crate::meter::budget::Standing;
use crate::meter::ledger::fixture::{at, row};
use crate::meter::ledger::{Coverage, Grouping};
use crate::meter::row::{Completeness, PublicRow};

fn now() -> ZonedDateTime {
    "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap()
}

fn frame() -> Frame {
    let mut running = row(1, "2026-11-25T11:59:58Z");
    running.completeness = Completeness::Open;
    running.project = Some("evil\x1b[2J".to_owned());
    let last = (2..60).map(|n| {
        let mut row = row(n, "2026-11-25T11:50:00Z");
        row.ended_at = Some(at("2026-11-25T11:50:01Z"));
        PublicRow::new(row, false)
    });
    let totals = Totals { requests: 7, cost_nanousd: Some(12_300_000), ..Totals::default() };
    let group = |key: &str| Group {
        key: Some(key.to_owned()),
        totals: Totals { unpriced: 1, requests: 1, ..Totals::default() },
        previous: None,
    };
    Frame {
        at: at("2026-11-25T12:00:00Z"),
        state: State::Metering,
        reasons: Vec::new(),
        open_connections: Some(3),
        metered_connections: Some(2),
        today: totals,
        last_minute: Default::default(),
        running: vec![PublicRow::new(running, false)],
        last: last.collect(),
        groupings: vec![Grouping {
            by: GroupBy::Project,
            groups: (0..9).map(|n| group(&format!("project-{n}"))).collect(),
        }],
        coverage: Coverage::default(),
        quotas: Vec::new(),
        budgets: Vec::<Standing>::new(),
    }
}

#[test]
fn a_frame_says_what_runs_and_what_it_came_to() {
    let text = lines(&frame(), &now(), Style::default(), None).join("\n");
    for said in [
        "Halton Meter · METERING · 3 connections open (2 metered) · 12:00:00",
        "today        $0.0123 · 7 requests · – in, – out · all metered",
        "last minute  0 requests · 0 out, 0 tokens/s · –",
        "claude-sonnet-5  evil\u{fffd}[2J  claude  2.0 s",
        "project-4",
        "1 unpriced",
        "11:50:01  my-app · claude-sonnet-5 · 100 in · 50 out · $0.0123",
    ] {
        assert!(text.contains(said), "{said}:\n{text}");
    }
    assert!(!text.contains("project-5") && !text.contains('\x1b'), "{text}");
}

#[test]
fn a_frame_fits_any_screen() {
    let mut frame = frame();
    frame.coverage.passed_connections = 1;
    frame.coverage.passed_by_reason.insert("deadline".into(), 1);
    for height in [4, 10, 24, 80] {
        for width in [20, 40, 80, 200] {
            let style = Style { width: Some(width), color: false };
            let lines = lines(&frame, &now(), style, Some(height));
            assert!(lines.len() <= height, "{width}x{height}: {lines:#?}");
            assert_eq!(lines.last().map(String::as_str), Some("q ends"));
            let widest = lines.iter().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= usize::from(width), "{width}x{height}: {lines:#?}");
        }
    }
}

#[test]
fn without_a_daemon_the_figures_are_the_ledgers() {
    let down = Frame { state: State::Down, open_connections: None, ..frame() };
    let text = lines(&down, &now(), Style::default(), None).join("\n");
    assert!(text.contains("Halton Meter · DOWN · 12:00:00"), "{text}");
    assert!(text.contains("these are the ledger's figures"), "{text}");
    assert!(text.contains("$0.0123"), "{text}");
}

#[test]
fn a_line_is_as_wide_as_what_is_seen_of_it() {
    let fit = |line| fit(line, Style { width: Some(8), color: false });
    assert_eq!(fit("12345678"), "12345678");
    assert_eq!(fit("123456789"), "1234567…");
    // Two columns each.
    assert_eq!(fit("日本語日"), "日本語日");
    assert_eq!(fit("日本語日本"), "日本語…");
    assert_eq!(fit("1日本語日"), "1日本語…");
    // A letter and its accent are one.
    assert_eq!(fit("e\u{301}2345678"), "e\u{301}2345678");
}
