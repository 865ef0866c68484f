//! The same answer is counted once, however often it is read back.

use std::borrow::Cow;

use rusqlite::{Connection, params};

use super::record::{self, COLUMNS};
use crate::meter::row::{Completeness, Row};
use crate::meter::usage::UsageState;

const REPEAT: &str = "the same answer is counted in another row";

/// The row as it is to be written. One that reads an answer back (a poll, a download) counts if it is
/// the first that tells it whole; one that told it only in part gives way.
pub(super) fn settled<'a>(conn: &Connection, row: &'a Row) -> rusqlite::Result<Cow<'a, Row>> {
    let Some(answer) = row.response_id.as_deref() else { return Ok(Cow::Borrowed(row)) };
    if !row.method.eq_ignore_ascii_case("GET") || !counts(row) {
        return Ok(Cow::Borrowed(row));
    }
    let others = conn
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM requests WHERE response_id = ? AND provider = ? AND id <> ?"
        ))?
        .query_map(params![answer, row.provider, row.id.as_bytes().as_slice()], record::read)?
        .collect::<rusqlite::Result<Vec<Row>>>()?;
    let others: Vec<Row> = others.into_iter().filter(counts).collect();
    let whole = |row: &Row| row.completeness == Completeness::Complete;
    if !others.is_empty() && (!whole(row) || others.iter().any(whole)) {
        return Ok(Cow::Owned(uncounted(row)));
    }
    for other in &others {
        record::write(conn, &uncounted(other))?;
    }
    Ok(Cow::Borrowed(row))
}

fn counts(row: &Row) -> bool {
    row.billable && row.usage != UsageState::Absent
}

fn uncounted(row: &Row) -> Row {
    Row {
        billable: false,
        cost_nanousd: None,
        list_nanousd: None,
        price_rule: None,
        cost_estimated: false,
        cost_reason: Some(REPEAT.to_owned()),
        ..row.clone()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::meter::ledger::fixture;
    use crate::meter::ledger::schema::MIGRATIONS;

    fn poll(n: u128, completeness: Completeness) -> Row {
        Row {
            method: "GET".to_owned(),
            response_id: Some("resp_1".to_owned()),
            completeness,
            ..fixture::row(n, "2026-11-25T00:00:00Z")
        }
    }

    /// Writes the rows in this order; which of them count?
    fn counted(rows: &[Row]) -> Vec<u128> {
        let mut conn = Connection::open_in_memory().unwrap();
        MIGRATIONS.to_latest(&mut conn).unwrap();
        for row in rows {
            record::write(&conn, row).unwrap();
        }
        let mut stmt = conn.prepare("SELECT id FROM requests WHERE billable ORDER BY id").unwrap();
        let ids = stmt.query_map([], |r| r.get::<_, Vec<u8>>(0)).unwrap();
        ids.map(|id| Uuid::from_slice(&id.unwrap()).unwrap().as_u128()).collect()
    }

    #[test]
    fn polls_and_downloads_count_once() {
        use Completeness::{Complete, Interrupted};
        assert_eq!(counted(&[poll(1, Complete), poll(2, Complete), poll(3, Complete)]), [1]);
        // The first one written again, with its attribution.
        assert_eq!(counted(&[poll(1, Complete), poll(2, Complete), poll(1, Complete)]), [1]);
        // What was cut gives way to what is whole, whatever comes first.
        assert_eq!(counted(&[poll(1, Interrupted), poll(2, Complete)]), [2]);
        assert_eq!(counted(&[poll(1, Complete), poll(2, Interrupted)]), [1]);
        assert_eq!(counted(&[poll(1, Interrupted), poll(2, Interrupted), poll(3, Complete)]), [3]);
    }

    #[test]
    fn what_was_told_when_it_was_asked_is_not_counted_again() {
        let told = Row { method: "POST".to_owned(), ..poll(1, Completeness::Complete) };
        assert_eq!(counted(&[told, poll(2, Completeness::Complete)]), [1]);
        let queued = Row {
            method: "POST".to_owned(),
            usage: UsageState::Absent,
            ..poll(1, Completeness::Complete)
        };
        assert_eq!(counted(&[queued, poll(2, Completeness::Complete)]), [1, 2]);
        let elsewhere = Row { provider: "other".to_owned(), ..poll(1, Completeness::Complete) };
        assert_eq!(counted(&[elsewhere, poll(2, Completeness::Complete)]), [1, 2]);
    }
}
