use rusqlite::TransactionBehavior;
use uuid::Uuid;

use super::*;
use crate::home::Home;
use crate::meter::ledger::fixture::{home, row};
use crate::meter::ledger::record::{self, Statements};
use crate::meter::ledger::schema::{MIGRATIONS, VERSION, open_writer};
use crate::meter::ledger::{Ledger, RequestFilter, Retag, Selection, Window, retag, roll_up};
use crate::meter::row::Completeness;

mod scanned;

/// What `names` has and `seen` has not.
const MISSING: &str = "SELECT count(*) FROM (SELECT kind, name, minute FROM names WHERE name IS NOT NULL \
                       EXCEPT SELECT kind, name, minute FROM seen)";
const SUPERFLUOUS: &str = "SELECT count(*) FROM (SELECT kind, name, minute FROM seen \
                           EXCEPT SELECT kind, name, minute FROM names)";

fn count(conn: &Connection, sql: &str) -> i64 {
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn entries(conn: &Connection) -> i64 {
    count(conn, "SELECT count(*) FROM seen")
}

fn named(n: u128, at: &str) -> Row {
    Row {
        session: Some("s".to_owned()),
        run: Some("r".to_owned()),
        connection: Some(Uuid::from_u128(7)),
        ..row(n, at)
    }
}

/// As the writer does it. Returns whether it was committed.
fn batch(conn: &mut Connection, noted: &mut Noted, rows: &[Row], commit: bool) {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    noted.begun(&tx).unwrap();
    let mut statements = Statements::noting(&tx, noted).unwrap();
    rows.iter().for_each(|row| statements.write(row, true).unwrap());
    drop(statements);
    if commit {
        tx.commit().unwrap();
        noted.committed();
    }
}

#[test]
fn a_minute_has_one_entry_of_a_name_however_many_rows() {
    let (_dir, home) = home();
    let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
    let mut noted = Noted::default();
    let rows: Vec<Row> =
        (1..=40).map(|n| named(n, &format!("2026-11-24T01:0{}:{:02}Z", n % 2, n))).collect();
    batch(&mut conn, &mut noted, &rows, true);
    assert_eq!(entries(&conn), 2 * 5);
    assert_eq!((count(&conn, MISSING), count(&conn, SUPERFLUOUS)), (0, 0));
    let unnoted = count(&conn, "SELECT count(*) FROM requests WHERE noted IS NULL");
    assert_eq!(unnoted, 0, "the triggers had nothing to do");
}

#[test]
fn a_batch_that_is_rolled_back_leaves_no_gap() {
    let (_dir, home) = home();
    let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
    let mut noted = Noted::default();
    let rows = [named(1, "2026-11-24T01:00:00Z")];
    batch(&mut conn, &mut noted, &rows, false);
    assert_eq!(entries(&conn), 0);
    batch(&mut conn, &mut noted, &rows, true);
    assert_eq!((entries(&conn), count(&conn, MISSING)), (5, 0));
    batch(&mut conn, &mut noted, &[named(2, "2026-11-24T01:01:00Z")], false);
    batch(&mut conn, &mut noted, &[named(3, "2026-11-24T01:01:00Z")], true);
    assert_eq!((entries(&conn), count(&conn, MISSING)), (10, 0));
}

#[test]
fn what_somebody_else_takes_away_is_entered_again() {
    let (_dir, home) = home();
    let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
    let mut noted = Noted::default();
    batch(&mut conn, &mut noted, &[named(1, "2026-11-24T01:00:00Z")], true);
    let other = Connection::open(home.ledger_file()).unwrap();
    other.execute_batch("DELETE FROM requests; DELETE FROM seen").unwrap();
    batch(&mut conn, &mut noted, &[named(2, "2026-11-24T01:00:00Z")], true);
    assert_eq!((entries(&conn), count(&conn, MISSING)), (5, 0));
}

#[test]
fn a_row_of_an_hour_that_is_rolled_up_is_left_to_the_triggers() {
    let (_dir, home) = home();
    let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
    let mut noted = Noted::default();
    batch(&mut conn, &mut noted, &[named(1, "2026-11-24T01:00:00Z")], true);
    let now = "2026-11-24T03:00:00Z".parse().unwrap();
    assert_eq!(roll_up(&home.ledger_file(), now).unwrap(), 1);
    batch(&mut conn, &mut noted, &[named(2, "2026-11-24T02:00:00Z")], true);
    assert_eq!(count(&conn, "SELECT count(*) FROM rollups"), 1);
    batch(&mut conn, &mut noted, &[named(3, "2026-11-24T01:30:00Z")], true);
    assert_eq!(count(&conn, "SELECT count(*) FROM rollups"), 0);
    assert_eq!(count(&conn, MISSING), 0);
}

#[test]
fn more_names_than_are_remembered() {
    let mut conn = Connection::open_in_memory().unwrap();
    MIGRATIONS.to_latest(&mut conn).unwrap();
    let mut noted = Noted::default();
    let rows: Vec<Row> = (1..=3000)
        .map(|n| Row { session: Some(n.to_string()), ..row(n, "2026-11-24T01:00:00Z") })
        .collect();
    batch(&mut conn, &mut noted, &rows, true);
    assert_eq!(count(&conn, MISSING), 0);
    assert!(noted.minutes.iter().all(|known| known.len() <= 1024));
}

#[test]
fn names_that_no_row_has_any_more_are_not_looked_for_for_ever() {
    let (_dir, home) = home();
    let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
    let mut noted = Noted::default();
    let opened: Vec<Row> = (1..=40)
        .map(|n| Row {
            model: None,
            model_requested: Some("alias".to_owned()),
            project: None,
            completeness: Completeness::Open,
            ..row(n, &format!("2026-11-24T01:{n:02}:00Z"))
        })
        .collect();
    batch(&mut conn, &mut noted, &opened, true);
    for row in &opened {
        let (project, model) = (Some("p".to_owned()), Some("dated".to_owned()));
        let ended = Row { project, model, completeness: Completeness::Complete, ..row.clone() };
        record::write(&conn, &ended).unwrap();
    }
    assert_eq!((count(&conn, MISSING), count(&conn, SUPERFLUOUS)), (0, 80));
    let now = "2026-11-24T03:00:00Z".parse().unwrap();
    roll_up(&home.ledger_file(), now).unwrap();
    assert_eq!((count(&conn, MISSING), count(&conn, SUPERFLUOUS)), (0, 0));
    // Nor after a project was given away; of two in a minute one stays.
    record::write(&conn, &Row { project: Some("p".to_owned()), ..row(99, "2026-11-24T01:07:30Z") })
        .unwrap();
    let to = Window { from: "2026-11-24T01:07:30Z".parse().unwrap(), to: now };
    let selection = Selection { window: to, ..Selection::default() };
    retag(&home, &selection, &Retag::To("q".to_owned()), false).unwrap();
    assert_eq!((count(&conn, MISSING), count(&conn, SUPERFLUOUS)), (0, 0));
    let projects = Ledger::open(&home).unwrap().recorded_names().unwrap();
    assert_eq!(projects.into_iter().collect::<Vec<_>>(), ["p", "q"]);
    retag(&home, &Selection::default(), &Retag::To("q".to_owned()), false).unwrap();
    assert_eq!((count(&conn, MISSING), count(&conn, SUPERFLUOUS)), (0, 0));
    assert_eq!(count(&conn, "SELECT count(*) FROM seen WHERE kind = 1 AND name = 'p'"), 0);
}

/// Rows as an earlier version has them, among them one before 1970, and ones without names.
fn of_version_8(home: &Home) -> Connection {
    let mut conn = Connection::open(home.ledger_file()).unwrap();
    MIGRATIONS.to_version(&mut conn, 8).unwrap();
    let fill = "WITH RECURSIVE n (i) AS (SELECT -40 UNION ALL SELECT i + 1 FROM n WHERE i < 400) \
        INSERT INTO requests (id, started_at, host, path, method, protocol, provider, billable, usage, \
        cost_estimated, billing, completeness, project, model, model_requested, session, run, connection) \
        SELECT unhex(printf('%032x', i + 100)), i * 7000000, 'h', '/', 'POST', 'h2', 'openai', 1, \
        'reported', 0, 'metered', 'complete', iif(i % 5, 'p' || (i % 3), NULL), iif(i % 2, 'm', NULL), \
        iif(i % 3, 'wanted', NULL), iif(i % 4, 's' || (i / 100), NULL), iif(i % 7 = 0, 'r/1', NULL), \
        iif(i % 6, unhex(printf('%032x', i / 10 + 10)), NULL) FROM n";
    conn.execute(fill, []).unwrap();
    conn
}

#[test]
fn a_ledger_of_before_is_brought_up_to_date() {
    let (_dir, home) = home();
    let before = of_version_8(&home);
    let sum = "SELECT count(*) * 1000000 + sum(started_at / 1000000) FROM requests";
    let told = count(&before, sum);
    drop(before);
    let (conn, _) = open_writer(&home.ledger_file()).unwrap();
    assert_eq!(crate::meter::ledger::schema::version(&conn).unwrap(), VERSION);
    assert_eq!((count(&conn, MISSING), count(&conn, SUPERFLUOUS)), (0, 0));
    assert_eq!(count(&conn, "SELECT count(*) FROM seen WHERE minute < 0 AND kind = 1"), 20);
    assert_eq!(count(&conn, sum), told);
    let gone = "SELECT count(*) FROM sqlite_schema WHERE name IN ('requests_by_project', \
                'requests_by_model', 'requests_by_session', 'requests_by_connection', 'requests_by_run')";
    assert_eq!(count(&conn, gone), 0);
    let ledger = Ledger::open(&home).unwrap();
    for (project, rows) in [("p0", 118), ("nobody", 0)] {
        let project = Some(project.to_owned());
        let filter = RequestFilter { project, ..RequestFilter::default() };
        assert_eq!(ledger.requests(&filter).unwrap().rows.len(), rows);
    }
}

/// A daemon of before that is still there has statements that know nothing of `seen`.
#[test]
fn a_writer_of_before_leaves_no_gap() {
    let (_dir, home) = home();
    let old = of_version_8(&home);
    let mut insert = old
        .prepare(
            "INSERT OR IGNORE INTO requests (id, started_at, host, path, method, protocol, provider, \
             billable, usage, cost_estimated, billing, completeness, project, connection) \
             VALUES (?, ?, 'h', '/', 'POST', 'h2', 'p', 1, 'absent', 0, 'metered', 'open', ?, ?)",
        )
        .unwrap();
    insert.execute(params![[1_u8; 16], 1, "p", [2_u8; 16]]).unwrap();
    drop(open_writer(&home.ledger_file()).unwrap());
    insert.execute(params![[2_u8; 16], 86_400_000_000_i64, "late", [3_u8; 16]]).unwrap();
    let renamed =
        "UPDATE OR IGNORE requests SET model = 'late', completeness = 'complete' WHERE id = ?";
    assert_eq!(old.execute(renamed, [[1_u8; 16]]).unwrap(), 1);
    assert_eq!(count(&old, MISSING), 0);
    record::write(&old, &named(3, "2026-11-24T01:00:00Z")).unwrap();
    assert_eq!(count(&old, MISSING), 0);
}

#[test]
fn a_migration_that_ends_half_way_is_none() {
    let (_dir, home) = home();
    let conn = of_version_8(&home);
    let tx = conn.unchecked_transaction().unwrap();
    tx.execute_batch(include_str!("../009_seen.sql")).unwrap();
    assert!(entries(&tx) > 0);
    drop(tx);
    let there = "SELECT count(*) FROM sqlite_schema WHERE name IN ('seen', 'requests_by_project')";
    assert_eq!(count(&conn, there), 1);
    drop(conn);
    let (conn, _) = open_writer(&home.ledger_file()).unwrap();
    assert_eq!(count(&conn, MISSING), 0);
}
