use std::io::Write;

use super::*;
use crate::home::open_append;
use crate::meter::ledger::fixture::{at, home};
use crate::meter::ledger::schema::open_writer;
use crate::meter::ledger::{Coverage, Ledger, Window};

fn append(spool: &Path, text: &str) {
    open_append(spool).unwrap().write_all(text.as_bytes()).unwrap();
}

fn begun(id: u128, reason: &str) -> String {
    let id = Uuid::from_u128(id);
    format!(
        r#"{{"id":"{id}","at":"2026-11-24T11:00:00Z","host":"api.openai.com","port":443,"reason":"{reason}"}}"#
    ) + "\n"
}

fn ended(id: u128, reason: &str) -> String {
    let end = r#","end":{"duration_ms":1500,"bytes_up":10,"bytes_down":20,"aborted":false}}"#;
    begun(id, reason).replace("}\n", end) + "\n"
}

fn seen(home: &crate::home::Home) -> Coverage {
    let window = Window { from: at("2026-11-24T00:00:00Z"), to: at("2026-11-25T00:00:00Z") };
    Ledger::open(home).unwrap().coverage(window).unwrap()
}

#[test]
fn lines_are_counted_once_wherever_they_are() {
    let (_dir, home) = home();
    let spool = home.passthrough_spool();
    append(&spool, &(ended(1, "daemon_down") + &ended(2, "deadline")));
    assert_eq!(seen(&home).passed_connections, 2, "no database yet");
    let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
    assert_eq!(seen(&home).passed_connections, 2, "in the spool");
    assert_eq!(ingest(&mut conn, &spool).unwrap(), 0);
    assert!(!spool.exists());
    assert_eq!(seen(&home).passed_connections, 2, "renamed");
    append(&spool, &ended(3, "deadline"));
    assert_eq!(ingest(&mut conn, &spool).unwrap(), 2);
    assert_eq!(seen(&home).passed_connections, 3, "stored, and a new spool");
    assert_eq!(ingest(&mut conn, &spool).unwrap(), 1);
    let all = seen(&home);
    assert_eq!((all.passed_connections, all.passed_bytes), (3, 90));
    assert_eq!(all.passed_by_reason["deadline"], 2);
    assert_eq!(fs::read_dir(home.spool_dir()).unwrap().count(), 0);
}

#[test]
fn beginning_and_end_are_one_connection_in_any_order_and_place() {
    // Which of the two lines comes first, and how often the writer goes round after each.
    for (first, second) in [(begun(1, "x"), ended(1, "x")), (ended(1, "x"), begun(1, "x"))] {
        for rounds in [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (2, 2)] {
            let (_dir, home) = home();
            let spool = home.passthrough_spool();
            let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
            append(&spool, &first);
            (0..rounds.0).for_each(|_| assert!(ingest(&mut conn, &spool).is_ok()));
            assert_eq!(seen(&home).passed_connections, 1);
            append(&spool, &second);
            (0..rounds.1).for_each(|_| assert!(ingest(&mut conn, &spool).is_ok()));
            let all = seen(&home);
            assert_eq!((all.passed_connections, all.passed_bytes), (1, 30), "{rounds:?}");
        }
    }
}

#[test]
fn a_tunnel_whose_edge_was_killed_is_counted() {
    let (_dir, home) = home();
    append(&home.passthrough_spool(), &begun(1, "daemon_down"));
    let all = seen(&home);
    assert_eq!((all.passed_connections, all.passed_bytes), (1, 0));
}

#[test]
fn a_crash_between_commit_and_delete_does_not_count_twice() {
    let (_dir, home) = home();
    let spool = home.passthrough_spool();
    append(&spool, &ended(1, "daemon_down"));
    let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
    ingest(&mut conn, &spool).unwrap();
    let waiting = renamed(&spool).pop().unwrap();
    let content = fs::read(&waiting).unwrap();
    ingest(&mut conn, &spool).unwrap();
    // As if the process had died before the delete.
    fs::write(&waiting, content).unwrap();
    assert_eq!(seen(&home).passed_connections, 1);
    ingest(&mut conn, &spool).unwrap();
    assert!(!waiting.exists());
    assert_eq!(seen(&home).passed_connections, 1);
}

#[test]
fn a_failed_transaction_leaves_the_file_for_the_next_round() {
    let (_dir, home) = home();
    let spool = home.passthrough_spool();
    append(&spool, &ended(1, "daemon_down"));
    let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
    ingest(&mut conn, &spool).unwrap();
    let other = Connection::open(home.ledger_file()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert!(ingest(&mut conn, &spool).is_err());
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(ingest(&mut conn, &spool).unwrap(), 1);
    assert_eq!(seen(&home).passed_connections, 1);
}

#[test]
fn torn_foreign_and_endless_lines_are_skipped() {
    let (_dir, home) = home();
    let spool = home.passthrough_spool();
    let torn = ended(3, "deadline");
    append(&spool, &ended(1, "daemon_down"));
    append(&spool, "not json\n\n{}\n");
    append(&spool, &("x".repeat(100_000) + "\n"));
    append(&spool, &ended(2, "daemon_down"));
    append(&spool, &torn[..torn.len() / 2]);
    let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
    assert_eq!(seen(&home).passed_connections, 2);
    ingest(&mut conn, &spool).unwrap();
    assert_eq!(ingest(&mut conn, &spool).unwrap(), 2);
}

#[test]
fn what_a_full_spool_dropped_is_counted_once_wherever_it_is_told() {
    let (_dir, home) = home();
    let spool = home.passthrough_spool();
    append(&spool, &ended(1, "daemon_down"));
    append(&spool, "{\"dropped\":5,\"at\":\"2026-11-24T10:00:00.123456789Z\"}\n");
    append(&spool, "{\"dropped\":2,\"at\":\"2026-11-24T10:00:01.5Z\"}\n");
    let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
    let told = || (seen(&home).passed_connections, seen(&home).passed_lines_lost);
    assert_eq!(told(), (1, 7));
    ingest(&mut conn, &spool).unwrap();
    assert_eq!(told(), (1, 7), "waiting");
    let waiting = renamed(&spool).remove(0);
    let content = fs::read(&waiting).unwrap();
    ingest(&mut conn, &spool).unwrap();
    assert_eq!(told(), (1, 7), "in the database");
    fs::write(&waiting, content).unwrap();
    assert_eq!(told(), (1, 7), "in both");
    ingest(&mut conn, &spool).unwrap();
    assert_eq!(told(), (1, 7));
    assert_eq!(seen(&home).lost_rows, 0);
}
