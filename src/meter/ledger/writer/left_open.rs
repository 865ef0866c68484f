//! Rows that a daemon which was killed left open: they end here, and are priced by what they know.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::meter::ledger::record::Id;
use crate::meter::ledger::{LedgerError, reprice};
use crate::meter::price::{Book, read_own};

/// Returns how many there were.
pub(super) fn close(conn: &mut Connection, prices: &Path) -> Result<usize, LedgerError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let closed: Vec<Id> = tx
        .prepare(
            "UPDATE requests SET completeness = 'interrupted', \
             completeness_reason = 'daemon ended' WHERE completeness = 'open' RETURNING id",
        )?
        .query_map([], |record| record.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    if !closed.is_empty() {
        // Prices of the user's own that can't be read are told by the actor that publishes them.
        let book = Book::builtin().with_own(&read_own(prices).unwrap_or_default());
        for Id(id) in &closed {
            reprice::one_again(&tx, *id, &book)?;
        }
    }
    tx.commit()?;
    Ok(closed.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;
    use crate::meter::ledger::{Ledger, RequestFilter, fixture};
    use crate::meter::price::{OwnPrice, OwnRates, write_own};
    use crate::meter::row::{Completeness, Row};
    use crate::meter::usage::{Tokens, UsageState};

    /// As a daemon leaves it that is killed in the middle of an answer.
    fn open(n: u128) -> Row {
        Row {
            completeness: Completeness::Open,
            usage: UsageState::Partial,
            cost_nanousd: None,
            ..fixture::row(n, "2026-11-24T00:00:00Z")
        }
    }

    fn closed(home: &Home) -> Vec<Row> {
        let mut conn = Connection::open(home.ledger_file()).unwrap();
        let open = close(&mut conn, &home.prices_file()).unwrap();
        assert_eq!(close(&mut conn, &home.prices_file()).unwrap(), 0);
        let filter = RequestFilter { all: true, ..RequestFilter::default() };
        let mut rows = Ledger::open(home).unwrap().requests(&filter).unwrap().rows;
        rows.sort_by_key(|row| row.id);
        assert_eq!(open, rows.len());
        rows
    }

    #[test]
    fn what_a_killed_daemon_left_open_is_priced_by_what_it_knows() {
        let (_dir, home) = fixture::home();
        let untold =
            Row { usage: UsageState::Absent, tokens: Tokens::default(), status: None, ..open(2) };
        let side_call = Row { billable: false, ..open(3) };
        let unknown = Row { model: Some("nobodys".to_owned()), ..open(4) };
        fixture::store(&home, &[open(1), untold, side_call, unknown]);
        let rows = closed(&home);
        for row in &rows {
            assert_eq!(row.completeness, Completeness::Interrupted);
            assert_eq!(row.completeness_reason.as_deref(), Some("daemon ended"));
        }
        let money = |row: &Row| (row.cost_nanousd.is_some(), row.cost_estimated);
        let why = |row: &Row| row.cost_reason.clone().unwrap_or_default();
        assert_eq!(money(&rows[0]), (true, true));
        assert_eq!(why(&rows[0]), "only a part of the usage is known");
        assert_eq!(money(&rows[1]), (false, false));
        assert!(why(&rows[1]).starts_with("cut before the provider told its usage"), "{rows:?}");
        assert_eq!((money(&rows[2]), why(&rows[2])), ((false, false), String::new()));
        assert!(why(&rows[3]).contains("not in the price book"), "{rows:?}");
    }

    #[test]
    fn the_users_own_prices_hold_there_too() {
        let (_dir, home) = fixture::home();
        let own = OwnPrice {
            provider: "anthropic".to_owned(),
            model: "claude-sonnet-5".to_owned(),
            rates: OwnRates {
                input: Some("9".parse().unwrap()),
                output: Some("0".parse().unwrap()),
                ..OwnRates::default()
            },
            ..OwnPrice::default()
        };
        write_own(&home.prices_file(), &[own]).unwrap();
        fixture::store(&home, &[open(1)]);
        assert_eq!(closed(&home)[0].cost_nanousd, Some(900_000));
        // A file that can't be read keeps nobody from the list's.
        let (_dir, home) = fixture::home();
        std::fs::write(home.prices_file(), "[[").unwrap();
        fixture::store(&home, &[open(1)]);
        let listed = closed(&home)[0].cost_nanousd;
        assert!(listed.is_some_and(|cost| cost != 900_000), "{listed:?}");
    }
}
