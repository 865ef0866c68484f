//! Prices what is in the ledger again, through the same door as every other row.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use uuid::Uuid;

use super::batches::{self, BATCH};
use super::query::Cursor;
use super::record::{self, COLUMNS};
use super::{LedgerError, Window};
use crate::home::Home;
use crate::meter::charge::charge;
use crate::meter::price::Book;
use crate::meter::row::Row;

/// A row whose money changes.
#[derive(Clone, Debug)]
pub struct Repriced {
    pub before: Row,
    pub after: Row,
}

/// What is told while it goes on.
#[derive(Debug)]
pub enum Progress<'a> {
    /// So many rows have been looked at.
    LookedAt(u64),
    Changes(&'a Repriced),
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Repricing {
    pub looked_at: u64,
    pub changed: u64,
    /// Rows of an earlier version that ran on several models, of which only the sum was kept.
    pub kept: u64,
}

/// Prices the rows of `window` by `book` and tells `sink` of each that changes, and how far it is; `dry` changes none.
/// A daemon may run meanwhile.
///
/// # Errors
/// When the ledger can't be read or written. What was done by then is done.
pub fn reprice(
    home: &Home,
    book: &Book,
    window: Window,
    dry: bool,
    sink: &mut dyn FnMut(Progress<'_>),
) -> Result<Repricing, LedgerError> {
    let mut done = Repricing::default();
    let mut after = None;
    let read = |conn: &Connection| {
        let rows = batch(conn, window, after)?;
        let Some(last) = rows.last() else { return Ok(None) };
        after = Some(Cursor::of(last));
        let mut changes = Vec::new();
        for row in rows {
            done.looked_at += 1;
            done.kept += u64::from(lacks_parts(&row));
            if let Some(change) = repriced(row, book) {
                done.changed += 1;
                sink(Progress::Changes(&change));
                changes.push(change);
            }
        }
        sink(Progress::LookedAt(done.looked_at));
        Ok(Some(changes))
    };
    batches::each(&home.ledger_file(), dry, read, |conn, change| {
        // What it says by now.
        Ok(one_again(conn, change.before.id, book)?)
    })?;
    Ok(done)
}

/// Prices one row by what it says now.
pub(super) fn one_again(conn: &Connection, id: Uuid, book: &Book) -> rusqlite::Result<()> {
    match one(conn, id)?.and_then(|row| repriced(row, book)) {
        Some(change) => record::rewrite(conn, &change.after),
        None => Ok(()),
    }
}

/// `None`: nothing changes.
fn repriced(before: Row, book: &Book) -> Option<Repriced> {
    if lacks_parts(&before) {
        return None;
    }
    let mut after = before.clone();
    charge(&mut after, book);
    (money(&after) != money(&before)).then_some(Repriced { before, after })
}

fn batch(
    conn: &Connection,
    window: Window,
    after: Option<Cursor>,
) -> Result<Vec<Row>, LedgerError> {
    let (sql, values) = page(window, after);
    let mut stmt = conn.prepare_cached(&sql)?;
    Ok(stmt.query_map(params_from_iter(values), record::read)?.collect::<rusqlite::Result<_>>()?)
}

/// The query of a batch.
fn page(window: Window, after: Option<Cursor>) -> (String, Vec<Value>) {
    let (at, id) = after.map_or((i64::MIN, Vec::new()), |cursor| {
        (cursor.started_at, cursor.id.as_bytes().to_vec())
    });
    // The range begins where the cursor is: SQLite takes its bound for the index, not the cursor.
    let sql = format!(
        "SELECT {COLUMNS} FROM requests WHERE started_at >= ? AND started_at < ? \
         AND (started_at, id) > (?, ?) AND billable AND completeness <> 'open' \
         ORDER BY started_at, id LIMIT ?"
    );
    let (from, to) = (window.from.as_microsecond(), window.to.as_microsecond());
    (sql, vec![from.max(at).into(), to.into(), at.into(), id.into(), BATCH.into()])
}

fn one(conn: &Connection, id: Uuid) -> rusqlite::Result<Option<Row>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM requests WHERE id = ? AND billable AND completeness <> 'open'"
    );
    conn.prepare_cached(&sql)?.query_row([id.as_bytes().as_slice()], record::read).optional()
}

fn lacks_parts(row: &Row) -> bool {
    let several = row.price_rule.as_deref().is_some_and(|rule| rule.contains(','));
    several && row.detail.parts.is_empty()
}

/// What a price decides. A rule's book is not compared: the same price out of a newer book is no news.
fn money(row: &Row) -> (Option<i64>, Option<i64>, bool, Option<&str>, Option<&str>) {
    let rule = row.price_rule.as_deref().map(|rule| rule.split_once(':').map_or(rule, |(_, r)| r));
    (row.cost_nanousd, row.list_nanousd, row.cost_estimated, rule, row.cost_reason.as_deref())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::meter::ledger::{Ledger, ReportQuery, RequestFilter, fixture};
    use crate::meter::price::{OwnPrice, OwnRates};

    fn all() -> Window {
        Window { from: Timestamp::MIN, to: Timestamp::MAX }
    }

    fn rows(home: &Home) -> Vec<Row> {
        let filter = RequestFilter { all: true, ..RequestFilter::default() };
        Ledger::open(home).unwrap().requests(&filter).unwrap().rows
    }

    fn run(home: &Home, book: &Book, dry: bool) -> Repricing {
        reprice(home, book, all(), dry, &mut |_| {}).unwrap()
    }

    #[test]
    fn a_price_set_for_the_past_reaches_what_was_written() {
        let (_dir, home) = fixture::home();
        let mut stored: Vec<Row> = (1..=1203)
            .map(|n| Row {
                model: Some("gpt-4o-mini".to_owned()),
                provider: "openai".to_owned(),
                ..fixture::row(n, "2026-11-24T00:00:00Z")
            })
            .collect();
        stored[0].started_at = fixture::at("2026-10-31T23:00:00Z");
        stored[1].billable = false;
        stored[1].cost_nanousd = None;
        stored[2].provider_cost_nanousd = Some(5);
        stored[3].price_rule = Some("b:openai/a,openai/b".to_owned());
        let list = Book::builtin();
        fixture::store(&home, &stored);
        let first = run(&home, &list, false);
        assert_eq!((first.looked_at, first.changed, first.kept), (1202, 1201, 1));
        assert_eq!(run(&home, &list, false).changed, 0, "the same again changes nothing");

        let own = OwnPrice {
            provider: "openai".to_owned(),
            model: "gpt-4o-mini".to_owned(),
            from: Some("2026-11-01".parse().unwrap()),
            rates: OwnRates { input: Some("1".parse().unwrap()), ..OwnRates::default() },
            ..OwnPrice::default()
        };
        let book = list.with_own(&[own]);
        let before = rows(&home);
        assert_eq!(run(&home, &book, true).changed, 1200);
        assert_eq!(rows(&home), before, "a dry run changes nothing");
        assert_eq!(run(&home, &book, false).changed, 1200);
        let by_id = |n: u128| rows(&home).into_iter().find(|row| row.id.as_u128() == n).unwrap();
        // 100 in, 50 out: list 0.15 and 0.60; then 1 and 0.60.
        assert_eq!(by_id(1).cost_nanousd, Some(45_000), "before the day");
        assert_eq!(by_id(1203).cost_nanousd, Some(130_000));
        assert_eq!(by_id(2).cost_nanousd, None, "side calls cost nothing");
        let reported = by_id(3);
        assert_eq!((reported.cost_nanousd, reported.list_nanousd), (Some(5), Some(130_000)));
        assert_eq!(by_id(4).cost_nanousd, Some(12_300_000), "kept: its parts are not known");
        // Reports add up what the rows say now.
        let query = ReportQuery {
            window: Window {
                from: fixture::at("2026-10-01T00:00:00Z"),
                to: fixture::at("2026-12-01T00:00:00Z"),
            },
            by: Vec::new(),
            project: None,
            zone: jiff::tz::TimeZone::UTC,
            vs_previous: false,
        };
        let total = Ledger::open(&home).unwrap().report(&query).unwrap().summary.cost_nanousd;
        let sum: i64 = rows(&home).iter().filter_map(|row| row.cost_nanousd).sum();
        assert_eq!(total, Some(sum));
    }

    #[test]
    fn it_tells_how_far_it_is() {
        let (_dir, home) = fixture::home();
        fixture::store(&home, &fixture::minutes(600));
        let mut told = Vec::new();
        reprice(&home, &Book::builtin(), all(), true, &mut |progress| match progress {
            Progress::LookedAt(rows) => told.push(rows),
            Progress::Changes(_) => {}
        })
        .unwrap();
        assert_eq!(told, [250, 500, 600]);
    }

    /// Between its look and its turn: the row as it is by then is priced, not the one that was seen.
    #[test]
    fn what_changes_before_the_turn_is_kept() {
        let (_dir, home) = fixture::home();
        let priced = Row {
            model: Some("gpt-4o-mini".to_owned()),
            provider: "openai".to_owned(),
            ..fixture::row(1, "2026-11-24T00:00:00Z")
        };
        let gone = Row { id: Uuid::from_u128(2), ..priced.clone() };
        fixture::store(&home, &[priced, gone]);
        let writer = Connection::open(home.ledger_file()).unwrap();
        let done = reprice(&home, &Book::builtin(), all(), false, &mut |progress| {
            if matches!(progress, Progress::LookedAt(_)) {
                return;
            }
            let change = "UPDATE requests SET output_tokens = 100, project = 'late'; \
                          DELETE FROM requests WHERE substr(hex(id), -1) = '2'";
            writer.execute_batch(change).unwrap();
        });
        assert_eq!(done.unwrap().changed, 2);
        let [row] = <[Row; 1]>::try_from(rows(&home)).unwrap();
        assert_eq!((row.project.as_deref(), row.tokens.output), (Some("late"), Some(100)));
        assert_eq!(row.cost_nanousd, Some(75_000), "100 in, 100 out");
    }

    #[test]
    fn the_last_batch_costs_no_more_than_the_first() {
        let (_dir, home) = fixture::home();
        fixture::store(&home, &fixture::minutes(2000));
        let conn = Connection::open(home.ledger_file()).unwrap();
        let steps = |after| {
            let (sql, values) = page(all(), after);
            fixture::steps(&conn, &sql, values)
        };
        let late = rows(&home).iter().map(Cursor::of).nth(usize::try_from(BATCH).unwrap()).unwrap();
        let (first, last) = (steps(None), steps(Some(late)));
        assert!(last <= first + 100, "{first}, {last}");
    }

    #[test]
    fn no_ledger_is_nothing_to_do() {
        let (_dir, home) = fixture::home();
        assert_eq!(run(&home, &Book::builtin(), false), Repricing::default());
    }
}
