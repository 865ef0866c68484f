use std::collections::BTreeMap;

use clap::Parser;
use jiff::Timestamp;

use super::*;
use crate::meter::charge::charge;
use crate::meter::ledger::fixture::{home, row, store};
use crate::meter::ledger::{GroupBy, ReportQuery, Window};
use crate::meter::price::{Book, nano_from_decimal};
use crate::meter::row::Billing;
use crate::meter::usage::Tokens;

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
fn a_file_that_is_there_stays_until_all_of_the_new_one_is_written() {
    use std::os::unix::fs::PermissionsExt;

    let (dir, home) = home();
    let file = dir.path().join("old.csv");
    let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
    let write = |words: &[&str]| into_file(&args(words), &home, &now, &file);
    std::fs::write(&file, "old").unwrap();
    assert!(write(&["csv", "--since", "garbage"]).is_err());
    std::fs::write(home.ledger_file(), "no ledger, but long enough to be read as one").unwrap();
    assert!(write(&["csv"]).is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
    std::fs::remove_file(home.ledger_file()).unwrap();
    store(&home, &[row(1, "2026-11-24T00:00:00Z")]);
    write(&["csv"]).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 2);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let temporary = |e: std::io::Result<std::fs::DirEntry>| {
        e.unwrap().file_name().to_string_lossy().ends_with(".tmp")
    };
    assert!(!std::fs::read_dir(dir.path()).unwrap().any(temporary));
}

#[test]
fn a_link_to_nothing_yet_stays_and_its_target_is_made() {
    let (dir, home) = home();
    store(&home, &[row(1, "2026-11-24T00:00:00Z")]);
    let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
    let [link, next, target] = ["link", "next", "sub/target"].map(|name| dir.path().join(name));
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::os::unix::fs::symlink(&next, &link).unwrap();
    std::os::unix::fs::symlink("sub/target", &next).unwrap();
    into_file(&args(&["csv"]), &home, &now, &link).unwrap();
    assert!(link.is_symlink() && next.is_symlink());
    assert_eq!(std::fs::read_to_string(target).unwrap().lines().count(), 2);
    let circle = dir.path().join("circle");
    std::os::unix::fs::symlink("circle", &circle).unwrap();
    assert!(into_file(&args(&["csv"]), &home, &now, &circle).is_err());
    assert!(circle.is_symlink());
}

#[test]
fn a_file_whose_directory_takes_no_other_is_written_in_place() {
    let (dir, home) = home();
    let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
    // No name of a temporary file fits in, for root neither.
    let file = dir.path().join("x".repeat(255));
    let write = |words: &[&str]| into_file(&args(words), &home, &now, &file);
    std::fs::write(&file, "old and longer than what comes ".repeat(1000)).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    std::fs::write(home.ledger_file(), "no ledger, but long enough to be read as one").unwrap();
    assert!(write(&["csv"]).is_err() && write(&["csv", "--since", "garbage"]).is_err());
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("old"), "nothing is lost");
    std::fs::remove_file(home.ledger_file()).unwrap();
    store(&home, &[row(1, "2026-11-24T00:00:00Z")]);
    write(&["csv"]).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 2);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let missing = dir.path().join("missing/rows.csv");
    let failure = into_file(&args(&["csv"]), &home, &now, &missing).unwrap_err();
    assert!(failure.to_string().contains("missing/rows.csv"), "{failure}");
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
    assert!(csv.contains(",'-1+1,") && csv.contains("\"a,\"\"b\"\"\u{fffd}c\""), "{csv}");
}

#[test]
fn no_text_commands_a_terminal() {
    let (_dir, home) = home();
    let nasty = "a\u{1b}]52;c;cm0=\u{7}\u{9b}2J\u{202e}b";
    let row = Row {
        project: Some(nasty.to_owned()),
        cwd: Some(nasty.to_owned()),
        geo: Some(nasty.to_owned()),
        ..row(1, "2026-11-24T00:00:00Z")
    };
    store(&home, &[row]);
    for (format, times) in [("csv", 3), ("focus", 2)] {
        let csv = exported(&home, &[format]);
        assert!(!csv.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{csv:?}");
        let shown = "a\u{fffd}]52;c;cm0=\u{fffd}\u{fffd}2J\u{fffd}b";
        assert_eq!(csv.matches(shown).count(), times, "{csv}");
    }
}

/// The lines of FOCUS by the names of its columns.
fn focus(home: &Home) -> Vec<BTreeMap<String, String>> {
    let csv = exported(home, &["focus"]);
    let mut lines = csv.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let names = lines.next().unwrap();
    let line = |line: Vec<String>| {
        assert_eq!(line.len(), names.len(), "{csv}");
        names.iter().cloned().zip(line).collect()
    };
    lines.map(line).collect()
}

fn priced(n: u128, at: &str, provider: &str, model: &str, tokens: Tokens) -> Row {
    let (provider, model) = (provider.to_owned(), Some(model.to_owned()));
    let mut row = Row { provider, model, tokens, provider_cost_nanousd: None, ..row(n, at) };
    charge(&mut row, &Book::builtin());
    row
}

#[test]
fn focus_has_a_line_for_each_day_model_and_kind_of_token() {
    let (_dir, home) = home();
    let tokens = Tokens {
        input: Some(1000),
        cache_read: Some(5000),
        output: Some(100),
        ..Tokens::default()
    };
    let one = |n, at| priced(n, at, "openai", "gpt-4o-mini", tokens);
    let covered = Row { billing: Billing::Subscription, ..one(3, "2026-11-23T23:59:59Z") };
    let unpriced = priced(4, "2026-11-24T01:00:00Z", "openai", "gpt-99", tokens);
    assert_eq!(unpriced.cost_nanousd, None);
    store(
        &home,
        &[one(1, "2026-11-24T00:00:00Z"), one(2, "2026-11-24T23:00:00Z"), covered, unpriced],
    );
    let lines = focus(&home);
    let found = |day: &str, model: &str, kind: &str, columns: &[&str]| {
        let is = |line: &&BTreeMap<String, String>| {
            line["ChargePeriodStart"].starts_with(day)
                && line["x_Model"] == model
                && line["x_TokenType"] == kind
        };
        let line = lines.iter().find(is).unwrap();
        columns.iter().map(|column| line[*column].clone()).collect::<Vec<_>>()
    };
    assert_eq!(lines.len(), 9);
    let money = ["ConsumedQuantity", "ListUnitPrice", "BilledCost", "ListCost", "x_Requests"];
    let of = |kind| found("2026-11-24", "gpt-4o-mini", kind, &money);
    assert_eq!(of("input"), ["2000", "0.00000015", "0.0003", "0.0003", "2"]);
    assert_eq!(of("cache_read"), ["10000", "0.000000075", "0.00075", "0.00075", "2"]);
    assert_eq!(of("output"), ["200", "0.0000006", "0.00012", "0.00012", "2"]);
    let names = ["ConsumedUnit", "SkuId", "ChargeDescription", "BillingPeriodEnd"];
    assert_eq!(
        found("2026-11-24", "gpt-4o-mini", "cache_read", &names),
        [
            "Tokens",
            "openai/gpt-4o-mini/cache_read",
            "Requests to gpt-4o-mini cache read",
            "2026-12-01T00:00:00Z",
        ]
    );
    let unpriced =
        ["ConsumedQuantity", "PricingQuantity", "BilledCost", "ListUnitPrice", "x_Unpriced"];
    assert_eq!(found("2026-11-24", "gpt-99", "input", &unpriced), ["1000", "", "", "", "1"]);
    let plan = ["BilledCost", "ListCost", "x_Billing", "ChargePeriodEnd"];
    assert_eq!(
        found("2026-11-23", "gpt-4o-mini", "input", &plan),
        ["0.00", "0.00015", "subscription", "2026-11-24T00:00:00Z"]
    );
}

#[test]
fn focus_adds_up_to_what_the_report_says_whoever_named_the_cost() {
    let (_dir, home) = home();
    let models = [
        ("openai", "gpt-4o-mini"),
        ("anthropic", "claude-sonnet-4-5"),
        ("google", "gemini-2.5-flash"),
        ("openrouter", "somebody/unheard-of"),
        ("local", "llama3"),
        ("openai", "gpt-99"),
    ];
    let rows: Vec<Row> = (1..400_u32)
        .map(|n| {
            let (provider, model) = models[n as usize % models.len()];
            let some = |factor: u32| Some(u64::from(n * factor % 10_007));
            let tokens = Tokens {
                input: some(7919),
                cache_read: some(104_729),
                cache_write_5m: some(31).filter(|_| provider == "anthropic"),
                output: some(1_299_709),
                reasoning: some(3),
                ..Tokens::default()
            };
            let at = format!("2026-11-{:02}T{:02}:00:00Z", 1 + n % 20, n % 24);
            let mut row = priced(u128::from(n), &at, provider, model, tokens);
            if n % 5 == 0 || provider == "openrouter" {
                row.provider_cost_nanousd = Some(i64::from(n) * 12_345_677 % 100_003);
            }
            if n % 7 == 0 {
                row.billing = Billing::Subscription;
            }
            row.web_searches = (n % 11 == 0).then_some(u64::from(n % 3));
            charge(&mut row, &Book::builtin());
            if n % 13 == 0 {
                // Priced by an earlier list.
                row.cost_nanousd = row.cost_nanousd.map(|cost| cost / 3 + 1);
            }
            row
        })
        .collect();
    store(&home, &rows);
    let query = ReportQuery {
        window: Window { from: Timestamp::MIN, to: Timestamp::MAX },
        by: vec![GroupBy::Model],
        project: None,
        zone: jiff::tz::TimeZone::UTC,
        vs_previous: false,
    };
    let report = Ledger::open(&home).unwrap().report(&query).unwrap();
    let lines = focus(&home);
    for group in &report.groupings[0].groups {
        let of_model = || lines.iter().filter(|line| Some(&line["x_Model"]) == group.key.as_ref());
        let nano = |text: &str| nano_from_decimal(text).unwrap_or(0);
        let billed: i64 = of_model().map(|line| nano(&line["BilledCost"])).sum();
        assert_eq!(billed, group.totals.cost_nanousd.unwrap_or(0), "{:?}", group.key);
        let tokens: u64 = of_model()
            .filter(|line| line["ConsumedUnit"] == "Tokens")
            .map(|line| line["ConsumedQuantity"].parse::<u64>().unwrap())
            .sum();
        let told = group.totals.tokens;
        assert_eq!(tokens, told.total_input() + told.output.unwrap(), "{:?}", group.key);
    }
    assert_eq!(report.groupings[0].groups.len(), models.len());
}

#[test]
fn what_is_no_file_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;

    let (dir, home) = home();
    let path = dir.path().join("fifo");
    let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    // Without a reader opening would wait for one.
    let _reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    into_file(&args(&["csv"]), &home, &now, &path).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert!(!meta.is_file() && meta.permissions().mode() & 0o777 == 0o644);
}
