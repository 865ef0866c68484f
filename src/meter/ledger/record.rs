//! A [`Row`] as a database record: the one place that knows the order of the columns.

use std::sync::LazyLock;

use jiff::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{CachedStatement, Connection, ToSql, params};
use uuid::Uuid;

use super::seen::Noted;
use super::{once, quotas};
use crate::meter::row::{Billing, Completeness, Detail, Protocol, Row};
use crate::meter::usage::{Tokens, UsageState};

/// Columns of `requests` in the order of [`rewrite()`] and [`read()`].
pub(super) const COLUMNS: &str = "id, started_at, ended_at, host, path, method, protocol, \
    provider, surface, billable, model_requested, model, provider_request_id, stream, status, \
    error_class, usage, input_tokens, cache_read_tokens, cache_write_5m_tokens, \
    cache_write_1h_tokens, cache_write_other_tokens, output_tokens, reasoning_tokens, \
    audio_input_tokens, audio_output_tokens, image_input_tokens, image_output_tokens, \
    web_searches, tier, speed, geo, cost_nanousd, price_rule, cost_estimated, cost_reason, \
    provider_cost_nanousd, billing, completeness, completeness_reason, ttfb_ms, duration_ms, \
    request_bytes, response_bytes, project, project_source, client, client_pid, run, session, \
    branch, cwd, connection, response_id, list_nanousd, detail, agent, agent_parent, agent_kind";

fn values() -> String {
    vec!["?"; COLUMNS.split(',').count()].join(", ")
}

/// For a row that is most likely not there yet. What can't abort (half way, because of the triggers)
/// needs no copy of each page that it changes; what is ignored is done by [`UPSERT`]. With what
/// [`Noted`] has done, so that the triggers need not.
static INSERT: LazyLock<String> = LazyLock::new(|| {
    format!("INSERT OR IGNORE INTO requests ({COLUMNS}, noted) VALUES ({}, ?)", values())
});

static UPSERT: LazyLock<String> = LazyLock::new(|| {
    let values = values();
    // A conflict clause, not OR REPLACE, which deletes without telling the triggers.
    let columns = COLUMNS.split(", ").filter(|column| *column != "id");
    let sets: Vec<String> = columns.map(|c| format!("{c} = excluded.{c}")).collect();
    format!(
        "INSERT INTO requests ({COLUMNS}) VALUES ({values}) ON CONFLICT (id) DO UPDATE SET {}",
        sets.join(", ")
    )
});

/// What the row that completes another has in common with it; to set these costs an index, or a trigger
/// that does much (`requests_moved`).
const SAME: [&str; 6] = ["id", "started_at", "project", "run", "session", "connection"];

static COMPLETE: LazyLock<String> = LazyLock::new(|| {
    let (same, sets): (Vec<_>, Vec<_>) =
        (1..).zip(COLUMNS.split(", ")).partition(|(_, column)| SAME.contains(column));
    let all = |columns: Vec<(i32, &str)>, is: &str, between: &str| {
        let each = columns.into_iter().map(|(n, column)| format!("{column} {is} ?{n}"));
        each.collect::<Vec<_>>().join(between)
    };
    format!(
        "UPDATE OR IGNORE requests SET {} WHERE {}",
        all(sets, "=", ", "),
        all(same, "IS", " AND ")
    )
});

/// Longest text that a column keeps; some of it comes from the network.
const TEXT_CAP: usize = 4096;
const DETAIL_CAP: usize = 64 * 1024;

/// Writes one row.
#[cfg(test)]
pub(super) fn write(conn: &Connection, row: &Row) -> rusqlite::Result<()> {
    Statements::new(conn)?.write(row, row.completeness == Completeness::Open)
}

/// Writes one that was read, with other contents: whether it counts is settled, what it told is known.
pub(super) fn rewrite(conn: &Connection, row: &Row) -> rusqlite::Result<()> {
    Statements::new(conn)?.put(row, false)
}

/// Prepared for many rows: to find them by their text takes as long as to bind a row.
pub(super) struct Statements<'a> {
    conn: &'a Connection,
    noted: Option<&'a mut Noted>,
    insert: CachedStatement<'a>,
    complete: CachedStatement<'a>,
    upsert: CachedStatement<'a>,
}

impl<'a> Statements<'a> {
    pub(super) fn new(conn: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            conn,
            noted: None,
            insert: conn.prepare_cached(&INSERT)?,
            complete: conn.prepare_cached(&COMPLETE)?,
            upsert: conn.prepare_cached(&UPSERT)?,
        })
    }

    /// For a writer that remembers what is in `seen`, in a transaction that was told to `noted`.
    pub(super) fn noting(conn: &'a Connection, noted: &'a mut Noted) -> rusqlite::Result<Self> {
        Ok(Self { noted: Some(noted), ..Self::new(conn)? })
    }

    /// Inserts the row, or replaces the one of the same id, with all that hangs on it. `fresh`: most
    /// likely there is none yet.
    pub(super) fn write(&mut self, row: &Row, fresh: bool) -> rusqlite::Result<()> {
        let row = &*once::settled(self.conn, row)?;
        quotas::write(self.conn, row, Timestamp::now())?;
        self.put(row, fresh)
    }

    fn put(&mut self, row: &Row, fresh: bool) -> rusqlite::Result<()> {
        let noted = match &mut self.noted {
            Some(noted) if fresh => noted.note(self.conn, row)?.then_some(1),
            Some(_) | None => None,
        };
        let t = &row.tokens;
        let values: &[&dyn ToSql] = params![
            row.id.as_bytes().as_slice(),
            row.started_at.as_microsecond(),
            row.ended_at.map(Timestamp::as_microsecond),
            cap(&row.host),
            cap(&row.path),
            cap(&row.method),
            row.protocol.as_str(),
            cap(&row.provider),
            text(&row.surface),
            row.billable,
            text(&row.model_requested),
            text(&row.model),
            text(&row.provider_request_id),
            row.stream,
            row.status,
            text(&row.error_class),
            row.usage.as_str(),
            int(t.input),
            int(t.cache_read),
            int(t.cache_write_5m),
            int(t.cache_write_1h),
            int(t.cache_write_other),
            int(t.output),
            int(t.reasoning),
            int(t.audio_input),
            int(t.audio_output),
            int(t.image_input),
            int(t.image_output),
            int(row.web_searches),
            text(&row.tier),
            text(&row.speed),
            text(&row.geo),
            row.cost_nanousd,
            text(&row.price_rule),
            row.cost_estimated,
            text(&row.cost_reason),
            row.provider_cost_nanousd,
            row.billing.as_str(),
            row.completeness.as_str(),
            text(&row.completeness_reason),
            int(row.ttfb_ms),
            int(row.duration_ms),
            int(row.request_bytes),
            int(row.response_bytes),
            text(&row.project),
            text(&row.project_source),
            text(&row.client),
            row.client_pid,
            text(&row.run),
            text(&row.session),
            text(&row.branch),
            text(&row.cwd),
            row.connection.as_ref().map(|id| id.as_bytes().as_slice()),
            text(&row.response_id),
            row.list_nanousd,
            detail(&row.detail),
            text(&row.agent),
            text(&row.agent_parent),
            text(&row.agent_kind),
            noted,
        ];
        let columns = &values[..values.len() - 1];
        let done = if fresh { self.insert.execute(values) } else { self.complete.execute(columns) };
        if done? == 0 {
            self.upsert.execute(columns)?;
        }
        Ok(())
    }
}

/// The row of a `SELECT` of [`COLUMNS`].
pub(super) fn read(record: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let mut c = Columns::new(record);
    let mut row = Row {
        id: c.next::<Id>()?.0,
        started_at: c.next::<Micros>()?.0,
        ended_at: c.next::<Option<Micros>>()?.map(|t| t.0),
        host: c.next()?,
        path: c.next()?,
        method: c.next()?,
        protocol: c.next::<Name<Protocol>>()?.0,
        provider: c.next()?,
        surface: c.next()?,
        billable: c.next()?,
        model_requested: c.next()?,
        model: c.next()?,
        provider_request_id: c.next()?,
        response_id: None,
        stream: c.next()?,
        status: c.next()?,
        error_class: c.next()?,
        usage: c.next::<Name<UsageState>>()?.0,
        tokens: tokens(&mut c)?,
        web_searches: c.count()?,
        tier: c.next()?,
        speed: c.next()?,
        geo: c.next()?,
        cost_nanousd: c.next()?,
        price_rule: c.next()?,
        cost_estimated: c.next()?,
        cost_reason: c.next()?,
        provider_cost_nanousd: c.next()?,
        list_nanousd: None,
        detail: Detail::default(),
        quota: Vec::new(),
        billing: c.next::<Name<Billing>>()?.0,
        completeness: c.next::<Name<Completeness>>()?.0,
        completeness_reason: c.next()?,
        ttfb_ms: c.count()?,
        duration_ms: c.count()?,
        request_bytes: c.count()?,
        response_bytes: c.count()?,
        project: c.next()?,
        project_source: c.next()?,
        client: c.next()?,
        client_pid: c.next()?,
        run: c.next()?,
        session: c.next()?,
        agent: None,
        agent_parent: None,
        agent_kind: None,
        branch: c.next()?,
        cwd: c.next()?,
        connection: c.next::<Option<Id>>()?.map(|id| id.0),
    };
    // Columns of later versions stand at the end.
    row.response_id = c.next()?;
    row.list_nanousd = c.next()?;
    let detail: Option<String> = c.next()?;
    row.detail = detail.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
    (row.agent, row.agent_parent, row.agent_kind) = (c.next()?, c.next()?, c.next()?);
    Ok(row)
}

/// The token columns, in the order that [`COLUMNS`] and the report's query share.
pub(super) fn tokens(c: &mut Columns<'_>) -> rusqlite::Result<Tokens> {
    Ok(Tokens {
        input: c.count()?,
        cache_read: c.count()?,
        cache_write_5m: c.count()?,
        cache_write_1h: c.count()?,
        cache_write_other: c.count()?,
        output: c.count()?,
        reasoning: c.count()?,
        audio_input: c.count()?,
        audio_output: c.count()?,
        image_input: c.count()?,
        image_output: c.count()?,
    })
}

/// Reads a record's columns one after the other.
#[derive(Debug)]
pub(super) struct Columns<'a> {
    record: &'a rusqlite::Row<'a>,
    next: usize,
}

impl<'a> Columns<'a> {
    pub(super) fn new(record: &'a rusqlite::Row<'a>) -> Self {
        Self { record, next: 0 }
    }

    pub(super) fn next<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        let at = self.next;
        self.next += 1;
        self.record.get(at)
    }

    /// An unsigned number; what a foreign hand made negative reads as absent.
    pub(super) fn count(&mut self) -> rusqlite::Result<Option<u64>> {
        Ok(self.next::<Option<i64>>()?.and_then(|n| u64::try_from(n).ok()))
    }
}

/// A timestamp stored as microseconds.
#[derive(Debug)]
pub(super) struct Micros(pub(super) Timestamp);

impl FromSql for Micros {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let micros = value.as_i64()?;
        Timestamp::from_microsecond(micros).map(Self).map_err(|_| FromSqlError::OutOfRange(micros))
    }
}

/// A text column that holds one of an enum's names.
#[derive(Debug)]
pub(super) struct Name<T>(pub(super) T);

impl<T: Named> FromSql for Name<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        T::ALL.iter().find(|v| v.name() == text).map(|v| Self(*v)).ok_or(FromSqlError::InvalidType)
    }
}

/// An enum that is stored by name.
pub(super) trait Named: Copy + 'static {
    const ALL: &'static [Self];
    fn name(self) -> &'static str;
}

impl Named for Protocol {
    const ALL: &'static [Self] = &[Self::H1, Self::H2, Self::Ws];
    fn name(self) -> &'static str {
        self.as_str()
    }
}

impl Named for Completeness {
    const ALL: &'static [Self] = &[Self::Open, Self::Complete, Self::Interrupted, Self::Lossy];
    fn name(self) -> &'static str {
        self.as_str()
    }
}

impl Named for Billing {
    const ALL: &'static [Self] = &[Self::Metered, Self::Subscription];
    fn name(self) -> &'static str {
        self.as_str()
    }
}

impl Named for UsageState {
    const ALL: &'static [Self] = &[Self::Reported, Self::Partial, Self::Absent];
    fn name(self) -> &'static str {
        self.as_str()
    }
}

/// A UUID stored as its bytes.
#[derive(Debug)]
pub(super) struct Id(pub(super) Uuid);

impl FromSql for Id {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bytes = value.as_blob()?;
        Uuid::from_slice(bytes).map(Self).map_err(|_| FromSqlError::InvalidBlobSize {
            expected_size: size_of::<Uuid>(),
            blob_size: bytes.len(),
        })
    }
}

/// SQLite's integers are signed; a count beyond them is nonsense, and must not fail the row.
fn int(n: Option<u64>) -> Option<i64> {
    n.map(|n| i64::try_from(n).unwrap_or(i64::MAX))
}

/// As much of it as is kept.
pub(super) fn text(s: &Option<String>) -> Option<&str> {
    s.as_deref().map(cap)
}

/// Most rows have nothing to say here. What is over the cap is left out whole: half of it is no JSON.
fn detail(detail: &Detail) -> Option<String> {
    if *detail == Detail::default() {
        return None;
    }
    serde_json::to_string(detail).ok().filter(|json| json.len() <= DETAIL_CAP)
}

fn cap(s: &str) -> &str {
    s.get(..s.floor_char_boundary(TEXT_CAP)).unwrap_or(s)
}

#[cfg(test)]
mod tests;
