//! Whatever happens to the rows: a report with roll-ups is the report without.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use proptest::prelude::*;
use rusqlite::Connection;
use uuid::Uuid;

use super::*;
use crate::home::Home;
use crate::meter::ledger::fixture::{at, home, row, store};
use crate::meter::ledger::schema::open_writer;
use crate::meter::ledger::{GroupBy, Ledger, ReportQuery, record};
use crate::meter::row::{Billing, Completeness, Row};
use crate::meter::usage::UsageState;

const BY: [GroupBy; 7] = [
    GroupBy::Project,
    GroupBy::Model,
    GroupBy::Provider,
    GroupBy::Client,
    GroupBy::Session,
    GroupBy::Agent,
    GroupBy::Day,
];

/// Hours after this moment are never due in a test.
fn now() -> Timestamp {
    at("2026-11-24T20:10:00Z")
}

/// The first hour that rows of the tests are in.
fn start() -> Timestamp {
    at("2026-11-23T12:00:00Z")
}

fn report(home: &Home, from: i64, minutes: i64, zone: &str, project: bool) -> String {
    let from = start().checked_add(Span::new().minutes(from)).unwrap();
    let query = ReportQuery {
        window: Window { from, to: from.checked_add(Span::new().minutes(minutes)).unwrap() },
        by: BY.to_vec(),
        project: project.then(|| "p1".to_owned()),
        zone: TimeZone::get(zone).unwrap(),
        vs_previous: true,
    };
    serde_json::to_string_pretty(&Ledger::open(home).unwrap().report(&query).unwrap()).unwrap()
}

fn without_rollups(home: &Home) {
    Connection::open(home.ledger_file()).unwrap().execute("DELETE FROM rollups", []).unwrap();
}

/// What happens to a ledger.
#[derive(Clone, Debug)]
enum Deed {
    /// A row is written, or again.
    Write(Box<Row>),
    Delete(u128),
    /// Prices or projects are found anew.
    Recompute,
    Retag(u128),
    RollUp,
}

fn some_row() -> impl Strategy<Value = Row> {
    let what = (1..30u128, 0..40i64 * 60, 0..4u8, 0..4u8, 0..3u8, 0..6u8);
    let figures = (0..5u128, any::<bool>(), 0..8u8, 0..3000u64, prop::option::of(0..9u64));
    (what, figures).prop_map(|(what, figures)| {
        let (id, minute, project, model, client, session) = what;
        let (connection, billable, state, number, tokens) = figures;
        let name = |kind: &str, n: u8| (n > 0).then(|| format!("{kind}{n}"));
        let mut row = row(id, "2026-11-23T12:00:00Z");
        row.started_at = start().checked_add(Span::new().minutes(minute)).unwrap();
        row.project = name("p", project);
        row.model = name("m", model);
        row.model_requested = (number % 3 > 0).then(|| "wanted".to_owned());
        row.client = name("c", client);
        row.session = name("s", session);
        row.agent = name("a", session / 2);
        row.provider = if client > 1 { "openai" } else { "anthropic" }.to_owned();
        row.connection = (connection > 0).then(|| Uuid::from_u128(connection));
        row.billable = billable || number > 1000;
        row.tokens.input = tokens.map(|n| n * number);
        row.cost_nanousd = (state != 1).then(|| i64::try_from(number).unwrap() * 1000);
        row.cost_estimated = state == 2;
        row.usage =
            [UsageState::Reported, UsageState::Partial, UsageState::Absent][usize::from(state % 3)];
        row.billing = if state == 3 { Billing::Subscription } else { Billing::Metered };
        row.completeness = match state {
            4 => Completeness::Open,
            5 => Completeness::Lossy,
            _ => Completeness::Complete,
        };
        row.status = (state != 4).then_some(if state == 6 { 429 } else { 200 });
        row.duration_ms = (state != 4).then_some(number * number);
        row.ttfb_ms = tokens;
        row
    })
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        12 => some_row().prop_map(|row| Deed::Write(Box::new(row))),
        2 => (1..30u128).prop_map(Deed::Delete),
        1 => Just(Deed::Recompute),
        1 => (1..30u128).prop_map(Deed::Retag),
        3 => Just(Deed::RollUp),
    ]
}

fn happen(home: &Home, conn: &Connection, deed: &Deed) {
    let id = |n: u128| Uuid::from_u128(n).as_bytes().to_vec();
    match deed {
        Deed::Write(row) => record::write(conn, row).unwrap(),
        Deed::Delete(n) => {
            conn.execute("DELETE FROM requests WHERE id = ?", [id(*n)]).unwrap();
        }
        Deed::Recompute => {
            conn.execute("UPDATE requests SET cost_nanousd = cost_nanousd * 2", []).unwrap();
        }
        Deed::Retag(n) => {
            conn.execute("UPDATE requests SET project = 'p9' WHERE id = ?", [id(*n)]).unwrap();
        }
        Deed::RollUp => {
            roll_up(&home.ledger_file(), now()).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_report_with_rollups_is_the_report_without(
        deeds in prop::collection::vec(deed(), 1..80),
        windows in prop::collection::vec((-60..40i64 * 60, 1..50i64 * 60, any::<bool>()), 1..4),
        zone in prop::sample::select(&["UTC", "America/New_York", "Asia/Kathmandu"][..]),
    ) {
        let (_dir, home) = home();
        let (conn, _) = open_writer(&home.ledger_file()).unwrap();
        deeds.iter().for_each(|deed| happen(&home, &conn, deed));
        let reports = || -> Vec<String> {
            windows.iter().map(|(from, minutes, project)| {
                report(&home, *from, *minutes, zone, *project)
            }).collect()
        };
        let as_it_is = reports();
        roll_up(&home.ledger_file(), now()).unwrap();
        let rolled = reports();
        without_rollups(&home);
        let by_rows = reports();
        prop_assert_eq!(&as_it_is, &by_rows);
        prop_assert_eq!(&rolled, &by_rows);
    }
}

/// That the above compares two ways at all.
#[test]
fn a_report_believes_its_rollups() {
    let (_dir, home) = home();
    store(&home, &[row(1, "2026-11-24T01:10:00Z"), row(2, "2026-11-24T02:10:00Z")]);
    roll_up(&home.ledger_file(), now()).unwrap();
    let conn = Connection::open(home.ledger_file()).unwrap();
    conn.execute_batch("DROP TRIGGER rollups_delete; DELETE FROM requests").unwrap();
    let before = report(&home, 0, 24 * 60, "UTC", false);
    assert!(before.contains("\"requests\": 2"), "{before}");
    // What cannot be read is not believed.
    conn.execute("UPDATE rollups SET cells = x'ff' WHERE hour % 2 = 0", []).unwrap();
    let after = report(&home, 0, 24 * 60, "UTC", false);
    assert!(after.contains("\"requests\": 1"), "{after}");
}

#[test]
fn a_rolled_back_transaction_leaves_the_rollup() {
    let (_dir, home) = home();
    store(&home, &[row(1, "2026-11-24T01:10:00Z")]);
    roll_up(&home.ledger_file(), now()).unwrap();
    let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
    let count = |conn: &Connection| -> i64 {
        conn.query_row("SELECT count(*) FROM rollups", [], |row| row.get(0)).unwrap()
    };
    let tx = conn.transaction().unwrap();
    record::write(&tx, &row(2, "2026-11-24T01:20:00Z")).unwrap();
    assert_eq!(count(&tx), 0);
    drop(tx);
    assert_eq!(count(&conn), 1);
    record::write(&conn, &row(2, "2026-11-24T03:20:00Z")).unwrap();
    assert_eq!(count(&conn), 1, "a later hour's row changes nothing of it");
}
