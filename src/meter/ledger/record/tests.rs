use super::*;
use crate::meter::ledger::fixture;
use crate::meter::ledger::schema::MIGRATIONS;
use crate::meter::usage::{Cached, Caveat, UsagePart};

fn database() -> Connection {
    let mut conn = Connection::open_in_memory().unwrap();
    MIGRATIONS.to_latest(&mut conn).unwrap();
    conn
}

fn back(conn: &Connection) -> Row {
    conn.query_row(&format!("SELECT {COLUMNS} FROM requests"), [], read).unwrap()
}

/// Every field holds a value of its own, so that no two columns can be mixed up.
fn full() -> Row {
    let some = |s: &str| Some(s.to_owned());
    Row {
        id: Uuid::now_v7(),
        started_at: fixture::at("2026-11-24T01:02:03.456789Z"),
        ended_at: Some(fixture::at("2026-11-24T01:02:04.5Z")),
        host: "host".into(),
        path: "path".into(),
        method: "method".into(),
        protocol: Protocol::Ws,
        provider: "provider".into(),
        surface: some("surface"),
        billable: true,
        model_requested: some("model requested"),
        model: some("model"),
        provider_request_id: some("request id"),
        response_id: some("response id"),
        stream: Some(false),
        status: Some(529),
        error_class: some("overloaded"),
        usage: UsageState::Partial,
        tokens: Tokens {
            input: Some(1),
            cache_read: Some(2),
            cache_write_5m: Some(3),
            cache_write_1h: Some(4),
            cache_write_other: Some(5),
            output: Some(6),
            reasoning: Some(7),
            audio_input: Some(8),
            audio_output: Some(9),
            image_input: Some(10),
            image_output: Some(11),
        },
        web_searches: Some(12),
        tier: some("tier"),
        speed: some("speed"),
        geo: some("geo"),
        cost_nanousd: Some(13),
        price_rule: some("rule"),
        cost_estimated: true,
        cost_reason: some("cost reason"),
        provider_cost_nanousd: Some(14),
        list_nanousd: Some(20),
        detail: Detail {
            parts: vec![UsagePart {
                model: some("part"),
                longest: Some(7),
                geo: some("us"),
                cached: Cached { audio: None, image: Some(2) },
                written_12h: Some(1),
                ..UsagePart::default()
            }],
            cache_ttl: some("12h"),
            cached: Cached { audio: Some(1), image: None },
            written_12h: Some(3),
            counts: [("pages".to_owned(), 21)].into(),
            refused: true,
            caveat: Some(Caveat::FromRequest),
        },
        quota: Vec::new(),
        billing: Billing::Subscription,
        completeness: Completeness::Lossy,
        completeness_reason: some("why"),
        ttfb_ms: Some(15),
        duration_ms: Some(16),
        request_bytes: Some(17),
        response_bytes: Some(18),
        project: some("project"),
        project_source: some("git"),
        client: some("client"),
        client_pid: Some(19),
        run: some("run"),
        session: some("session"),
        agent: some("agent"),
        agent_parent: some("agent's parent"),
        agent_kind: some("kind of agent"),
        branch: some("branch"),
        cwd: some("cwd"),
        connection: Some(Uuid::now_v7()),
    }
}

#[test]
fn every_field_comes_back_as_it_went_in() {
    let conn = database();
    let row = full();
    write(&conn, &row).unwrap();
    assert_eq!(back(&conn), row);
}

#[test]
fn absent_comes_back_absent() {
    let conn = database();
    let mut row = fixture::row(1, "2026-11-24T00:00:00Z");
    row.tokens = Tokens::default();
    row.model = None;
    row.status = None;
    row.cost_nanousd = None;
    write(&conn, &row).unwrap();
    assert_eq!(back(&conn), row);
}

#[test]
fn nonsense_from_the_network_does_not_fail_the_row() {
    let conn = database();
    let mut row = fixture::row(1, "2026-11-24T00:00:00Z");
    row.tokens.input = Some(u64::MAX);
    row.model = Some("é".repeat(1 << 20));
    row.path = "a\0b".to_owned();
    write(&conn, &row).unwrap();
    let back = back(&conn);
    assert_eq!(back.tokens.input, Some(i64::MAX as u64));
    assert_eq!(back.model.unwrap().len(), TEXT_CAP);
    assert_eq!(back.path, "a\0b");
}

/// Each column is set by one of the two statements that may complete a row.
#[test]
fn every_field_can_change() {
    let conn = database();
    for connection in [None, full().connection] {
        let row = full();
        let mut open = fixture::row(1, "2026-11-24T01:02:03.456789Z");
        open.id = row.id;
        open.completeness = Completeness::Open;
        open.project.clone_from(&row.project);
        open.run.clone_from(&row.run);
        open.connection = connection.and(row.connection);
        write(&conn, &open).unwrap();
        write(&conn, &row).unwrap();
        assert_eq!(back(&conn), row);
        conn.execute("DELETE FROM requests", []).unwrap();
    }
}

#[test]
fn the_same_id_replaces() {
    let conn = database();
    let mut row = fixture::row(1, "2026-11-24T00:00:00Z");
    row.completeness = Completeness::Open;
    write(&conn, &row).unwrap();
    row.completeness = Completeness::Complete;
    write(&conn, &row).unwrap();
    assert_eq!(back(&conn).completeness, Completeness::Complete);
}
