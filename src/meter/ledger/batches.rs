//! Changes of many rows, a batch at a time, beside the daemon's writer.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::{LedgerError, existing};

/// Rows of one transaction: short enough for the daemon's writer to wait for.
pub(super) const BATCH: i64 = 250;
/// The lock is left alone so long at least: who waits for it looks every 25 ms or so.
const REST: Duration = Duration::from_millis(25);

/// Writes what `read` finds to write, each time in a transaction of its own, until it gives `None`; not
/// if `dry`. It may look for long: it has no lock, so what it finds may be out of date.
///
/// As long as a batch had the lock, others have it then: the daemon's writer waits for two seconds
/// only, and without a rest hardly finds a gap.
pub(super) fn each<T>(
    path: &Path,
    dry: bool,
    mut read: impl FnMut(&Connection) -> Result<Option<Vec<T>>, LedgerError>,
    write: impl Fn(&Connection, &T) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let conn = if dry { existing::to_read(path)? } else { existing::to_change(path)? };
    let Some(mut conn) = conn else { return Ok(()) };
    while let Some(batch) = read(&conn)? {
        if dry || batch.is_empty() {
            continue;
        }
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let locked = Instant::now();
        for one in &batch {
            write(&tx, one)?;
        }
        tx.commit()?;
        rest(locked.elapsed().max(REST));
    }
    Ok(())
}

fn rest(time: Duration) {
    #[cfg(test)]
    tests::resting(time);
    thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use jiff::Timestamp;

    use super::*;
    use crate::home::Home;
    use crate::meter::ledger::fixture::{home, row, store};
    use crate::meter::ledger::{Retag, Selection, Window, reprice, retag};
    use crate::meter::price::Book;
    use crate::meter::row::Row;

    type Happens = Box<dyn Fn(Duration)>;

    thread_local! {
        static RESTING: RefCell<Option<Happens>> = const { RefCell::new(None) };
    }

    pub(super) fn resting(time: Duration) {
        RESTING.with_borrow(|happens| happens.iter().for_each(|happens| happens(time)));
    }

    /// How often another program had its turn while `change` was at it: as the daemon's writer, but it
    /// does not wait at all.
    fn turns(home: &Home, change: impl FnOnce()) -> usize {
        let writer = Connection::open(home.ledger_file()).unwrap();
        writer.busy_timeout(Duration::ZERO).unwrap();
        let count = Rc::new(RefCell::new(0));
        let counted = Rc::clone(&count);
        RESTING.set(Some(Box::new(move |time| {
            assert!(time >= REST);
            writer.execute_batch("BEGIN IMMEDIATE; COMMIT").unwrap();
            *counted.borrow_mut() += 1;
        })));
        change();
        RESTING.set(None);
        count.take()
    }

    #[test]
    fn the_writer_has_its_turn_after_each_batch() {
        let (_dir, home) = home();
        let stored: Vec<Row> = (1..=2 * BATCH.unsigned_abs() + 1)
            .map(|n| row(n.into(), "2026-11-24T00:00:00Z"))
            .collect();
        store(&home, &stored);
        let all = Window { from: Timestamp::MIN, to: Timestamp::MAX };
        for (dry, want) in [(true, 0), (false, 3)] {
            let repriced = turns(&home, || {
                let done = reprice(&home, &Book::builtin(), all, dry, &mut |_| {}).unwrap();
                assert_eq!(done.changed, stored.len() as u64);
            });
            assert_eq!(repriced, want);
            let retagged = turns(&home, || {
                let to = Retag::To("other".to_owned());
                let done = retag(&home, &Selection::default(), &to, dry).unwrap();
                assert_eq!(done.changed, stored.len() as u64);
            });
            assert_eq!(retagged, want);
        }
    }

    #[test]
    fn as_long_as_the_lock_was_held() {
        let (_dir, home) = home();
        store(&home, &[row(1, "2026-11-24T00:00:00Z")]);
        let rested = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&rested);
        RESTING.set(Some(Box::new(move |time| seen.borrow_mut().push(time))));
        let mut batches = vec![Some(vec![REST]), Some(Vec::new()), Some(vec![REST; 3]), None];
        batches.reverse();
        let write = |conn: &Connection, time: &Duration| {
            assert!(!conn.is_autocommit());
            thread::sleep(*time);
            Ok(())
        };
        each(&home.ledger_file(), false, |_| Ok(batches.pop().flatten()), write).unwrap();
        RESTING.set(None);
        let rested = rested.take();
        assert_eq!(rested.len(), 2, "nothing to write, nothing to rest of");
        assert!(rested[0] >= REST && rested[1] >= REST * 3, "{rested:?}");
    }
}
