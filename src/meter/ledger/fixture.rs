//! Rows for tests.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, StatementStatus, params_from_iter};
use slog::Logger;
use uuid::Uuid;

use super::record;
use super::schema::open_writer;
use super::writer::WriterConfig;
use crate::home::Home;
use crate::meter::row::{Billing, Completeness, Detail, Protocol, Row};
use crate::meter::usage::{Tokens, UsageState};

/// A home directory that lives as long as the test.
pub(crate) fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("home"));
    home.create().unwrap();
    (dir, home)
}

pub(crate) fn config(home: &Home) -> WriterConfig {
    WriterConfig::new(home, Logger::root(slog::Discard, slog::o!()))
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Puts rows into a home's ledger without a writer thread.
pub(crate) fn store(home: &Home, rows: &[Row]) {
    let (conn, _) = open_writer(&home.ledger_file()).unwrap();
    for row in rows {
        record::write(&conn, row).unwrap();
    }
}

/// How many rows a database file holds.
pub(crate) fn stored(path: &Path) -> u64 {
    let conn = Connection::open(path).unwrap();
    let rows: i64 = conn.query_row("SELECT count(*) FROM requests", [], |r| r.get(0)).unwrap();
    rows.try_into().unwrap()
}

/// Rows, one a minute, of two projects.
pub(crate) fn minutes(count: u128) -> Vec<Row> {
    let mut at = at("2026-11-01T00:00:00Z");
    let rows = (1..=count).map(|n| {
        at += Duration::from_secs(60);
        let project = if n % 2 == 0 { "even" } else { "odd" };
        let plain = row(n, "2026-11-01T00:00:00Z");
        Row { started_at: at, project: Some(project.to_owned()), ..plain }
    });
    rows.collect()
}

/// How many steps SQLite makes for a query.
pub(crate) fn steps(conn: &Connection, sql: &str, values: Vec<Value>) -> i32 {
    let mut stmt = conn.prepare(sql).unwrap();
    let mut rows = stmt.query(params_from_iter(values)).unwrap();
    while rows.next().unwrap().is_some() {}
    drop(rows);
    stmt.get_status(StatementStatus::VmStep)
}

/// A plain row; `n` tells rows apart and fixes the order of their ids.
pub(crate) fn row(n: u128, started: &str) -> Row {
    let started_at = at(started);
    Row {
        id: Uuid::from_u128(n),
        started_at,
        ended_at: None,
        host: "api.anthropic.com".to_owned(),
        path: "/v1/messages".to_owned(),
        method: "POST".to_owned(),
        protocol: Protocol::H2,
        provider: "anthropic".to_owned(),
        surface: Some("anthropic.messages".to_owned()),
        billable: true,
        model_requested: Some("claude-sonnet-5".to_owned()),
        model: Some("claude-sonnet-5".to_owned()),
        provider_request_id: None,
        response_id: None,
        stream: Some(true),
        status: Some(200),
        error_class: None,
        usage: UsageState::Reported,
        tokens: Tokens { input: Some(100), output: Some(50), ..Tokens::default() },
        web_searches: None,
        tier: None,
        speed: None,
        geo: None,
        cost_nanousd: Some(12_300_000),
        price_rule: None,
        cost_estimated: false,
        cost_reason: None,
        provider_cost_nanousd: None,
        list_nanousd: None,
        detail: Detail::default(),
        quota: Vec::new(),
        billing: Billing::Metered,
        completeness: Completeness::Complete,
        completeness_reason: None,
        ttfb_ms: Some(400),
        duration_ms: Some(1200),
        request_bytes: None,
        response_bytes: None,
        project: Some("my-app".to_owned()),
        project_source: None,
        client: Some("claude".to_owned()),
        client_pid: None,
        run: None,
        session: None,
        agent: None,
        agent_parent: None,
        agent_kind: None,
        branch: None,
        cwd: None,
        connection: None,
    }
}
