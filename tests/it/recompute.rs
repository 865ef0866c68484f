//! `recompute-costs` by hand, over a ledger of many providers' rows whose hours are rolled up.

use halton_meter::meter::ledger::roll_up;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::harness::Stand;

/// Prices of one's own, back-dated, for models of four providers.
const OWN: [(&str, &str, &str); 4] = [
    ("bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0", "1", "2"),
    ("vertex/claude-sonnet-4-5@20250929", "3", "4"),
    ("azure/gpt-4o-2024-08-06", "5", "6"),
    ("cohere/command-r-08-2024", "7", "8"),
];

/// `stand` has rows of them, of this hour.
pub fn follows_prices_set_for_the_past(stand: &Stand) {
    stand.must(&["pricing", "reset", "--all"]);
    stand.must(&["recompute-costs"]);
    age_and_roll_up(stand);
    let before = report(stand);
    for (model, input, output) in OWN {
        let from = ["--from", "2020-01-01", "--input", input, "--output", output];
        stand.must(&[&["pricing", "set", model], &from[..]].concat());
    }
    assert_eq!(report(stand), before, "prices alone change no row");

    let rows = stand.rows();
    let dry = stand.json(&["recompute-costs", "--dry-run"]);
    assert_eq!((stand.rows(), report(stand)), (rows, before.clone()), "a dry run changes nothing");
    let done = stand.json(&["recompute-costs"]);
    assert_eq!(dry["dry_run"], true);
    assert_eq!(Value::Object(without("dry_run", &dry)), Value::Object(without("dry_run", &done)));
    assert_eq!(done["changed"], OWN.len(), "{done:#}");

    // What the report adds up is what the rows say, and moved by what was told.
    let after = report(stand);
    assert_eq!(after, by_rows(stand));
    let told: i64 = done["models"]
        .as_object()
        .expect("models")
        .values()
        .map(|change| {
            let nano = |field: &str| change[field].as_i64().expect("nano-dollars");
            nano("after_nanousd") - nano("before_nanousd")
        })
        .sum();
    let cost = |report: &Value| report["cost"].as_i64().expect("a cost");
    assert_ne!(told, 0);
    assert_eq!(cost(&after) - cost(&before), told);
    // From new roll-ups too.
    assert!(roll_up(&stand.home.ledger_file(), Timestamp::now()).expect("roll-ups") > 0);
    assert_eq!(report(stand), after);
    assert_eq!(stand.json(&["recompute-costs"])["changed"], 0);

    stand.must(&["pricing", "reset", "--all"]);
    stand.must(&["recompute-costs"]);
    assert_eq!(report(stand), before, "and back");
}

/// Some weeks old, as if the hours had been rolled up long ago.
fn age_and_roll_up(stand: &Stand) {
    let ledger = stand.home.ledger_file();
    let conn = rusqlite::Connection::open(&ledger).expect("the ledger");
    conn.busy_timeout(std::time::Duration::from_secs(30)).expect("a timeout");
    let weeks = 3 * 7 * 24 * 3_600_000_000_i64;
    conn.execute("UPDATE requests SET started_at = started_at - ?", [weeks]).expect("an update");
    assert!(roll_up(&ledger, Timestamp::now()).expect("roll-ups") > 0);
}

fn report(stand: &Stand) -> Value {
    let summary = stand.json(&["report", "--since", "60d"])["summary"].clone();
    json!({
        "requests": summary["requests"],
        "cost": summary["cost_nanousd"],
        "covered": summary["subscription_nanousd"],
        "unpriced": summary["unpriced"],
    })
}

fn by_rows(stand: &Stand) -> Value {
    let rows = stand.finished_rows();
    let sum = |billing: &str| {
        let of = rows.iter().filter(|row| row["billing"] == billing);
        of.filter_map(|row| row["cost_nanousd"].as_i64()).reduce(|sum, one| sum + one)
    };
    let no_price = |row: &&Value| row["cost_nanousd"].is_null() && row["usage"] != "absent";
    json!({
        "requests": rows.len(),
        "cost": sum("metered"),
        "covered": sum("subscription"),
        "unpriced": rows.iter().filter(no_price).count(),
    })
}

fn without(field: &str, document: &Value) -> serde_json::Map<String, Value> {
    let mut fields = document.as_object().expect("an object").clone();
    fields.remove(field);
    fields
}
