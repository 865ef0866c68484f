use rusqlite::Connection;

use super::*;
use crate::home::Home;
use crate::meter::ledger::fixture::{at, home, row, store};
use crate::meter::ledger::schema::open_writer;
use crate::meter::row::Row;

const T: &str = "2026-11-24T11:00:00Z";

fn covered(home: &Home) -> Coverage {
    let window = Window { from: at("2026-11-24T00:00:00Z"), to: at("2026-11-25T00:00:00Z") };
    Ledger::open(home).unwrap().coverage(window).unwrap()
}

fn on(connection: u128, n: u128) -> Row {
    Row { connection: Some(Uuid::from_u128(connection)), ..row(n, T) }
}

/// A register that a dead daemon left.
fn leave_register(home: &Home, connections: &[(u128, u64)]) {
    let lines: String = connections
        .iter()
        .map(|(id, requests)| {
            let id = Uuid::from_u128(*id);
            format!(r#"{{"id":"{id}","at":"{T}","host":"api.openai.com","requests":{requests}}}"#)
                + "\n"
        })
        .collect();
    std::fs::write(home.spool_dir().join("connections.1.jsonl"), lines).unwrap();
}

fn spool(home: &Home, id: u128) {
    let id = Uuid::from_u128(id);
    let line = format!(
        r#"{{"id":"{id}","at":"{T}","host":"api.openai.com","port":443,"reason":"channel_lost"}}"#
    );
    std::fs::write(home.passthrough_spool(), line + "\n").unwrap();
}

fn take_in(home: &Home) -> Connection {
    let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
    unfinished::take_in(&mut conn, &home.spool_dir()).unwrap();
    // One round renames the spool, the next takes it in.
    passed::ingest(&mut conn, &home.passthrough_spool()).unwrap();
    passed::ingest(&mut conn, &home.passthrough_spool()).unwrap();
    conn
}

#[test]
fn each_connection_is_metered_passed_or_lost_before_and_after_the_ingest() {
    let (_dir, home) = home();
    // 1 is whole; 2 was cut with both of its requests kept, 3 with one of three; 4 left nothing;
    // 5 had been asked for, but the edge went on by itself.
    store(&home, &[on(1, 1), on(2, 2), on(2, 3), on(3, 4), row(9, T)]);
    leave_register(&home, &[(2, 2), (3, 3), (4, 1), (5, 0)]);
    spool(&home, 5);
    let check = |when: &str| {
        let c = covered(&home);
        assert_eq!(c.metered_connections, 3, "{when}");
        assert_eq!((c.passed_connections, c.lost_connections), (1, 1), "{when}");
        assert_eq!((c.cut_connections, c.lost_rows), (2, 3), "{when}");
        let gaps: Vec<_> = c.gaps.iter().map(|g| (g.kind, &*g.reason, g.connections)).collect();
        assert_eq!(
            gaps,
            [
                (GapKind::Passed, "channel_lost", 1),
                (GapKind::Cut, "daemon_died", 2),
                (GapKind::Lost, "daemon_died", 1)
            ]
        );
        assert!(c.gaps.iter().all(|g| g.provider == "openai"));
        c
    };
    let before = check("in files");
    take_in(&home);
    assert_eq!(std::fs::read_dir(home.spool_dir()).unwrap().count(), 0);
    assert_eq!(check("taken in"), before);
    // A crash before the file was deleted.
    leave_register(&home, &[(2, 2), (3, 3), (4, 1), (5, 0)]);
    assert_eq!(check("in both"), before);
    take_in(&home);
    assert_eq!(check("twice"), before);
}

#[test]
fn rows_that_come_late_are_believed() {
    let (_dir, home) = home();
    leave_register(&home, &[(1, 1)]);
    drop(take_in(&home));
    assert_eq!((covered(&home).lost_connections, covered(&home).lost_rows), (1, 1));
    store(&home, &[on(1, 1)]);
    let c = covered(&home);
    assert_eq!((c.lost_connections, c.lost_rows, c.cut_connections), (0, 0, 1));
}

#[test]
fn gaps_say_from_when_to_when() {
    let (_dir, home) = home();
    let (conn, _) = open_writer(&home.ledger_file()).unwrap();
    for (n, time) in ["2026-11-24T10:00:00Z", "2026-11-24T09:00:00Z", "2026-11-24T12:00:00Z"]
        .into_iter()
        .enumerate()
    {
        conn.execute(
            "INSERT INTO passed VALUES (?, ?, 'llm.corp.example', 443, 'r', 1, 2, 3, 0)",
            params![[u8::try_from(n).unwrap(); 16].as_slice(), at(time).as_microsecond()],
        )
        .unwrap();
    }
    let [gap] = &covered(&home).gaps[..] else { panic!() };
    assert_eq!(
        (gap.first_at, gap.last_at),
        (at("2026-11-24T09:00:00Z"), at("2026-11-24T12:00:00Z"))
    );
    assert_eq!((gap.connections, gap.bytes, &*gap.provider), (3, 15, "llm.corp.example"));
}

#[test]
fn what_the_first_schema_knew_of_passed_connections_is_kept() {
    let (_dir, home) = home();
    let conn = Connection::open(home.ledger_file()).unwrap();
    conn.execute_batch(include_str!("001_init.sql")).unwrap();
    conn.pragma_update(None, "user_version", 1).unwrap();
    conn.execute(
        "INSERT INTO passthrough VALUES (?, 'api.openai.com', 443, 5, 1, 2, 'deadline')",
        [at(T).as_microsecond()],
    )
    .unwrap();
    drop(conn);
    assert!(matches!(Ledger::open(&home), Err(LedgerError::Older { .. })));
    drop(open_writer(&home.ledger_file()).unwrap());
    let c = covered(&home);
    assert_eq!((c.passed_connections, c.passed_bytes), (1, 3));
}
