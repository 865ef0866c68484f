use clap::Parser;

use super::*;
use crate::meter::ledger::fixture::{home, row, store};
use crate::meter::row::Billing;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: ExportArgs,
}

fn args(words: &[&str]) -> ExportArgs {
    Cli::try_parse_from([&["export"], words].concat()).unwrap().args
}

fn exported(home: &Home, words: &[&str]) -> String {
    let mut out = Vec::new();
    let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
    export(&args(words), home, &now, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn every_row_of_many_pages_goes_out_once() {
    let (_dir, home) = home();
    let rows: Vec<Row> = (1..=2500).map(|n| row(n, "2026-11-24T00:00:00Z")).collect();
    store(&home, &rows);
    let csv = exported(&home, &["csv"]);
    let mut ids: Vec<&str> =
        csv.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 2500);
    let json: serde_json::Value = serde_json::from_str(&exported(&home, &["json"])).unwrap();
    assert_eq!(json["requests"].as_array().unwrap().len(), 2500);
    assert_eq!(json["requests"][0]["cost_usd"], "0.0123");
    assert_eq!(exported(&home, &["csv", "--from", "2026-11-25"]).lines().count(), 1);
    assert_eq!(exported(&home, &["csv", "--project", "another"]).lines().count(), 1);
    let none = exported(&home, &["json", "--from", "2026-11-25"]);
    assert!(serde_json::from_str::<serde_json::Value>(&none).is_ok(), "{none}");
}

#[test]
fn no_text_is_a_formula_or_breaks_a_line() {
    let (_dir, home) = home();
    let nasty = Row {
        project: Some("=HYPERLINK(\"http://x\")".to_owned()),
        client: Some("-1+1".to_owned()),
        branch: Some("a,\"b\"\nc".to_owned()),
        ..row(1, "2026-11-24T00:00:00Z")
    };
    store(&home, &[nasty]);
    for format in ["csv", "focus"] {
        let csv = exported(&home, &[format]);
        assert!(csv.contains("\"'=HYPERLINK(\"\"http://x\"\")\""), "{csv}");
    }
    let csv = exported(&home, &["csv"]);
    assert!(csv.contains(",'-1+1,") && csv.contains("\"a,\"\"b\"\"\nc\""), "{csv}");
}

#[test]
fn focus_adds_up_by_day_and_bills_nothing_that_a_plan_covers_or_nobody_prices() {
    let (_dir, home) = home();
    let covered = |n| Row { billing: Billing::Subscription, ..row(n, "2026-11-23T23:59:59Z") };
    let unpriced = Row {
        cost_nanousd: None,
        model: Some("gpt-99".to_owned()),
        ..row(4, "2026-11-24T01:00:00Z")
    };
    store(
        &home,
        &[row(1, "2026-11-24T00:00:00Z"), row(2, "2026-11-24T23:00:00Z"), covered(3), unpriced],
    );
    let csv = exported(&home, &["focus"]);
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 4, "{csv}");
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{csv}");
    let value = |line: &[&str], column: &str| {
        let at = lines[0].iter().position(|name| *name == column).unwrap();
        line[at].to_owned()
    };
    let find = |column, is| lines[1..].iter().find(|line| value(line, column) == is).unwrap();
    let two = find("x_Requests", "2");
    assert_eq!(
        (value(two, "BilledCost"), value(two, "ListCost")),
        ("0.0246".into(), "0.0246".into())
    );
    assert_eq!(value(two, "ConsumedQuantity"), "300");
    assert_eq!(value(two, "ChargePeriodStart"), "2026-11-24T00:00:00Z");
    assert_eq!(value(two, "BillingPeriodEnd"), "2026-12-01T00:00:00Z");
    let unpriced = find("x_Model", "gpt-99");
    assert_eq!(
        (value(unpriced, "BilledCost"), value(unpriced, "PricingQuantity")),
        (String::new(), String::new())
    );
    assert_eq!(value(unpriced, "x_Unpriced"), "1");
    let covered = find("x_Billing", "subscription");
    assert_eq!(
        (value(covered, "BilledCost").as_str(), value(covered, "ListCost").as_str()),
        ("0.00", "0.0123")
    );
    assert_eq!(value(covered, "ChargePeriodEnd"), "2026-11-24T00:00:00Z");
}

#[test]
fn the_file_is_the_users_alone_even_if_it_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.csv");
    std::fs::write(&path, "old and longer than what comes").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    private(&path).unwrap().write_all(b"new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}
