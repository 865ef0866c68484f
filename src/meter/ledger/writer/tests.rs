use std::collections::HashMap;
use std::fs;
use std::sync::{LazyLock, Mutex};

use jiff::Timestamp;

use super::faults::set_aside;
use super::*;
use crate::meter::ledger::fixture::{at, config, home, row, stored};
use crate::meter::ledger::{Ledger, Window, schema};
use crate::meter::row::Completeness;

/// What the next commits to a database shall run into.
#[derive(Clone, Copy)]
enum Trouble {
    FullAt(u32),
    PanicOnce,
    /// Another database is put in its place, and the one that is open turns out to be corrupt.
    ReplacedAndCorrupt,
}

static TROUBLE: LazyLock<Mutex<HashMap<PathBuf, Trouble>>> = LazyLock::new(Mutex::default);

fn cause(path: &Path, trouble: Option<Trouble>) {
    let mut all = TROUBLE.lock().unwrap();
    match trouble {
        Some(trouble) => all.insert(path.to_path_buf(), trouble),
        None => all.remove(path),
    };
}

pub(super) fn before_commit(path: &Path, conn: &Connection) -> rusqlite::Result<()> {
    let trouble = TROUBLE.lock().unwrap().get(path).copied();
    let pages = match trouble {
        Some(Trouble::FullAt(pages)) => pages,
        Some(Trouble::PanicOnce) => {
            cause(path, None);
            panic!("as the test wants");
        }
        Some(Trouble::ReplacedAndCorrupt) => {
            cause(path, None);
            move_all(path, &path.with_extension("moved"));
            move_all(&path.with_extension("other"), path);
            let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(corrupt, None));
        }
        None => u32::MAX - 1,
    };
    conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
}

fn move_all(from: &Path, to: &Path) {
    for (from, to) in schema::siblings(from).iter().zip(schema::siblings(to)) {
        let _ = fs::rename(from, to);
    }
}

pub(super) const T: &str = "2026-11-24T00:00:00Z";

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_millis(150)
}

/// Long enough for any machine; a test that passes does not wait for it.
pub(super) fn late() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Waits, as a flush that need not succeed, until `is` holds of the statistics.
fn wait_for(intake: &Intake, is: impl Fn(&super::super::IntakeStats) -> bool) {
    let end = late();
    while !is(&intake.stats()) {
        assert!(Instant::now() < end, "{:?}", intake.stats());
        let _ = intake.flush(soon());
    }
}

#[test]
fn rows_are_committed_and_the_later_one_wins() {
    let (_dir, home) = home();
    let (intake, writer) = start_writer(config(&home)).unwrap();
    let mut first = row(1, T);
    first.completeness = Completeness::Open;
    intake.record(first);
    intake.record(row(1, T));
    (2..=1500).for_each(|n| intake.record(row(n, T)));
    assert!(intake.flush(late()));
    assert_eq!(stored(&home.ledger_file()), 1500);
    let stats = intake.stats();
    assert_eq!((stats.queued, stats.written, stats.lost), (0, 1501, 0));
    assert!(stats.ready && stats.degraded.is_none());
    assert!(writer.stop(late()));
    let open: i64 = Connection::open(home.ledger_file())
        .unwrap()
        .query_row("SELECT count(*) FROM requests WHERE completeness = 'open'", [], |r| r.get(0))
        .unwrap();
    assert_eq!(open, 0);
}

#[test]
fn a_lock_held_by_someone_else_delays_and_loses_nothing() {
    let (_dir, home) = home();
    let (intake, writer) = start_writer(config(&home)).unwrap();
    assert!(intake.flush(late()));
    let other = Connection::open(home.ledger_file()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    (0..100).for_each(|n| intake.record(row(n, T)));
    assert!(!intake.flush(soon()));
    assert_eq!(intake.stats().queued, 100);
    // It goes on for so long that it is worth telling.
    wait_for(&intake, |s| s.degraded.as_deref().is_some_and(|d| d.contains("locked")));
    other.execute_batch("COMMIT").unwrap();
    assert!(intake.flush(late()));
    assert_eq!(stored(&home.ledger_file()), 100);
    wait_for(&intake, |s| s.degraded.is_none());
    assert_eq!(intake.stats().lost, 0);
    assert!(writer.stop(late()));
}

#[test]
fn a_corrupt_file_is_kept_aside_and_a_new_one_begun() {
    let (_dir, home) = home();
    let garbage = b"this is no database, whatever its name says".repeat(100);
    fs::write(home.ledger_file(), &garbage).unwrap();
    let (intake, writer) = start_writer(config(&home)).unwrap();
    intake.record(row(1, T));
    assert!(intake.flush(late()));
    assert_eq!(stored(&home.ledger_file()), 1);
    let kept = intake.stats().set_aside.expect("said where it is");
    let name = kept.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(fs::read(kept).unwrap(), garbage);
    let all = Window { from: Timestamp::MIN, to: Timestamp::MAX };
    assert_eq!(Ledger::open(&home).unwrap().coverage(all).unwrap().set_aside, [name]);
    assert!(writer.stop(late()));
}

#[test]
fn a_file_that_turns_corrupt_while_in_use_is_kept_aside_too() {
    let (_dir, home) = home();
    let (intake, writer) = start_writer(config(&home)).unwrap();
    (0..2000).for_each(|n| intake.record(row(n, T)));
    assert!(intake.flush(late()));
    assert!(writer.stop(late()));
    // The first page stays whole: the file opens, and the damage shows at a write only.
    let mut bytes = fs::read(home.ledger_file()).unwrap();
    bytes[4096..].fill(0xa5);
    fs::write(home.ledger_file(), &bytes).unwrap();

    let (intake, writer) = start_writer(config(&home)).unwrap();
    intake.record(row(9999, T));
    assert!(intake.flush(late()));
    assert_eq!(stored(&home.ledger_file()), 1);
    assert_eq!(fs::read(intake.stats().set_aside.unwrap()).unwrap().len(), bytes.len());
    assert!(writer.stop(late()));
}

/// The writer's connection has all of it in memory: only a look at the file shows it.
#[test]
fn damage_that_only_others_would_see_is_found() {
    use std::os::unix::fs::FileExt;
    let (_dir, home) = home();
    let (intake, writer) = start_writer(config(&home)).unwrap();
    (0..100).for_each(|n| intake.record(row(n, T)));
    assert!(intake.flush(late()));
    for file in schema::siblings(&home.ledger_file()).iter().take(2) {
        let file = fs::File::options().write(true).open(file).unwrap();
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        file.write_all_at(&vec![0xa5; length], 0).unwrap();
    }
    wait_for(&intake, |s| {
        // Where the last look was late, there is nothing new to look at without.
        intake.record(row(1000, T));
        s.set_aside.is_some()
    });
    assert!(intake.flush(late()));
    assert_eq!(stored(&home.ledger_file()), 1);
    assert!(writer.stop(late()));
}

#[test]
fn a_full_disk_makes_rows_wait_and_says_so() {
    let (_dir, home) = home();
    let (intake, writer) = start_writer(config(&home)).unwrap();
    assert!(intake.flush(late()));
    cause(&home.ledger_file(), Some(Trouble::FullAt(20)));
    (0..2000).for_each(|n| intake.record(row(n, T)));
    wait_for(&intake, |s| s.degraded.as_deref() == Some("the disk is full"));
    cause(&home.ledger_file(), None);
    assert!(intake.flush(late()));
    assert_eq!(stored(&home.ledger_file()), 2000);
    assert!(writer.stop(late()));
}

/// What a batch that was rolled back entered is entered again.
#[test]
fn a_full_disk_leaves_no_gap_among_the_names() {
    let (_dir, home) = home();
    let path = home.ledger_file();
    let (intake, writer) = start_writer(config(&home)).unwrap();
    intake.record(row(1, T));
    assert!(intake.flush(late()));
    let count = |sql: &str| -> u32 {
        Connection::open(&path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    };
    cause(&path, Some(Trouble::FullAt(count("PRAGMA page_count") + 2)));
    (2..=300).for_each(|n| intake.record(row(n, "2026-11-24T00:09:00Z")));
    wait_for(&intake, |s| s.degraded.is_some());
    cause(&path, None);
    assert!(intake.flush(late()));
    assert!(writer.stop(late()));
    let missing = "SELECT count(*) FROM (SELECT kind, name, minute FROM names WHERE name IS NOT NULL \
                   EXCEPT SELECT kind, name, minute FROM seen)";
    assert_eq!((stored(&path), count(missing)), (300, 0));
}

#[test]
fn a_home_that_cannot_be_used_is_degraded_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("home"));
    let (intake, writer) = start_writer(config(&home)).unwrap();
    intake.record(row(1, T));
    wait_for(&intake, |s| s.degraded.is_some());
    assert!(!intake.stats().ready);
    home.create().unwrap();
    assert!(intake.flush(late()));
    assert_eq!(stored(&home.ledger_file()), 1);
    assert!(writer.stop(late()));
}

#[test]
fn what_does_not_fit_is_counted_and_the_database_knows() {
    let (_dir, home) = home();
    let mut config = config(&home);
    config.limits.rows = 10;
    let (intake, writer) = start_writer(config).unwrap();
    assert!(intake.flush(late()));
    let other = Connection::open(home.ledger_file()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    (0..15).for_each(|n| intake.record(row(n, T)));
    // The opening of a row whose end may still fit is no loss.
    let mut opening = row(99, T);
    opening.completeness = Completeness::Open;
    intake.record(opening);
    assert_eq!((intake.stats().lost, intake.stats().queued), (5, 10));
    other.execute_batch("COMMIT").unwrap();
    assert!(intake.flush(late()));
    let lost: i64 = other.query_row("SELECT sum(rows) FROM losses", [], |row| row.get(0)).unwrap();
    assert_eq!((stored(&home.ledger_file()), lost), (10, 5));
    // There is room again.
    intake.record(row(100, T));
    assert!(intake.flush(late()));
    assert_eq!(intake.stats().lost, 5);
    assert!(writer.stop(late()));
}

#[test]
fn a_connection_whose_rows_did_not_fit_is_lost_until_one_is_kept() {
    let (_dir, home) = home();
    let mut config = config(&home);
    config.limits.rows = 1;
    let (intake, writer) = start_writer(config).unwrap();
    assert!(intake.flush(late()));
    let other = Connection::open(home.ledger_file()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    // One row of connection 1 fits, one does not; of connection 2 none does.
    for (n, connection) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
        let connection = Some(uuid::Uuid::from_u128(connection));
        intake.record(crate::meter::row::Row { connection, ..row(n, T) });
    }
    other.execute_batch("COMMIT").unwrap();
    wait_for(&intake, |s| s.queued == 0);
    assert!(writer.stop(late()));
    let all = Window { from: Timestamp::MIN, to: Timestamp::MAX };
    let coverage = Ledger::open(&home).unwrap().coverage(all).unwrap();
    assert_eq!((coverage.metered_connections, coverage.lost_connections), (1, 1));
    assert_eq!((coverage.lost_rows, coverage.cut_connections), (3, 0));
}

#[test]
fn a_connection_that_is_not_followed_any_more_is_a_gap_of_its_own() {
    let (_dir, home) = home();
    let (intake, writer) = start_writer(config(&home)).unwrap();
    let connection = Some(uuid::Uuid::from_u128(1));
    intake.lost_sight(uuid::Uuid::from_u128(1), at(T), "api.anthropic.com");
    intake.record(crate::meter::row::Row { connection, ..row(1, T) });
    // Of this one not even a row could be kept.
    intake.lost_sight(uuid::Uuid::from_u128(2), at(T), "api.anthropic.com");
    assert!(writer.stop(late()));
    let all = Window { from: Timestamp::MIN, to: Timestamp::MAX };
    let coverage = Ledger::open(&home).unwrap().coverage(all).unwrap();
    assert_eq!((coverage.metered_connections, coverage.unfollowed_connections), (1, 1));
    assert_eq!((coverage.lost_connections, coverage.lost_rows), (1, 0));
    let kinds: Vec<_> = coverage.gaps.iter().map(|gap| (gap.kind.as_str(), &*gap.reason)).collect();
    assert_eq!(kinds, [("unfollowed", "lost_sight"), ("lost", "lost_sight")]);
}

#[test]
fn kept_is_told_after_the_commit_and_not_before() {
    let (_dir, home) = home();
    let (intake, writer) = start_writer(config(&home)).unwrap();
    assert!(intake.flush(late()));
    let other = Connection::open(home.ledger_file()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let path = home.ledger_file();
    let at_once = tell.clone();
    intake.when_kept(Box::new(move || at_once.send(0).unwrap()));
    assert_eq!(told.try_recv(), Ok(0), "there was nothing to keep");
    intake.record(row(1, T));
    intake.when_kept(Box::new(move || tell.send(stored(&path)).unwrap()));
    assert!(!intake.flush(soon()));
    assert!(told.try_recv().is_err());
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(1));
    assert!(writer.stop(late()));
}

#[test]
fn memory_is_a_limit_too() {
    let (_dir, home) = home();
    let mut config = config(&home);
    config.limits.bytes = 100_000;
    let (intake, writer) = start_writer(config).unwrap();
    let mut big = row(1, T);
    big.path = "x".repeat(200_000);
    intake.record(big);
    assert_eq!(intake.stats().lost, 1);
    assert!(writer.stop(late()));
}

#[test]
fn rows_that_an_earlier_daemon_left_open_are_interrupted() {
    let (_dir, home) = home();
    let mut open = row(1, T);
    open.completeness = Completeness::Open;
    super::super::fixture::store(&home, &[open, row(2, T)]);
    let (intake, writer) = start_writer(config(&home)).unwrap();
    assert!(intake.flush(late()));
    let rows: Vec<(String, Option<String>)> = Connection::open(home.ledger_file())
        .unwrap()
        .prepare("SELECT completeness, completeness_reason FROM requests ORDER BY id")
        .unwrap()
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        rows,
        [
            ("interrupted".to_owned(), Some("daemon ended".to_owned())),
            ("complete".to_owned(), None)
        ]
    );
    assert!(writer.stop(late()));
}

#[test]
fn what_cannot_be_written_at_the_end_is_there_after_the_next_start() {
    let (_dir, home) = home();
    let (intake, writer) = start_writer(config(&home)).unwrap();
    assert!(intake.flush(late()));
    let other = Connection::open(home.ledger_file()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    (0..3).for_each(|n| intake.record(row(n, T)));
    assert!(writer.stop(Instant::now()));
    intake.record(row(7, T));
    assert_eq!(intake.stats().lost, 1, "a stopped writer takes nothing");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(stored(&home.ledger_file()), 0);

    let (intake, writer) = start_writer(config(&home)).unwrap();
    assert!(intake.flush(late()));
    assert_eq!(stored(&home.ledger_file()), 3);
    assert!(writer.stop(late()));
    assert_eq!(fs::read_dir(home.spool_dir()).unwrap().count(), 0);
}

#[test]
fn a_database_taken_away_while_in_use_is_begun_anew() {
    let (_dir, home) = home();
    let (intake, writer) = start_writer(config(&home)).unwrap();
    intake.record(row(1, T));
    assert!(intake.flush(late()));
    for file in schema::siblings(&home.ledger_file()) {
        let _ = fs::remove_file(file);
    }
    let end = late();
    let mut n = 2;
    while !home.ledger_file().exists() {
        assert!(Instant::now() < end);
        intake.record(row(n, T));
        let _ = intake.flush(soon());
        n += 1;
    }
    intake.record(row(n, T));
    assert!(intake.flush(late()));
    assert!(stored(&home.ledger_file()) >= 1);
    assert!(writer.stop(late()));
}

#[test]
fn a_link_to_where_nothing_is_yet_is_followed() {
    let (dir, home) = home();
    let target = dir.path().join("elsewhere.sqlite");
    std::os::unix::fs::symlink(&target, home.ledger_file()).unwrap();
    let (intake, writer) = start_writer(config(&home)).unwrap();
    intake.record(row(1, T));
    assert!(intake.flush(late()));
    assert_eq!(stored(&target), 1);
    assert!(writer.stop(late()));
}

#[test]
fn rows_go_where_others_find_them_when_the_wal_is_taken_away() {
    let (_dir, home) = home();
    let (intake, writer) = start_writer(config(&home)).unwrap();
    intake.record(row(1, T));
    assert!(intake.flush(late()));
    let [_, wal, shm] = schema::siblings(&home.ledger_file());
    fs::remove_file(&wal).unwrap();
    fs::remove_file(&shm).unwrap();
    // What was written until the writer looks again went with the file.
    let seen = || {
        let conn = rusqlite::Connection::open(home.ledger_file()).ok()?;
        conn.query_row("SELECT count(*) FROM requests", [], |r| r.get::<_, i64>(0)).ok()
    };
    let end = late();
    for n in 2.. {
        assert!(Instant::now() < end, "others never see what is written");
        let before = seen();
        intake.record(row(n, T));
        assert!(intake.flush(late()));
        if before.is_some_and(|before| seen() == Some(before + 1)) {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert!(writer.stop(late()));
}

#[test]
fn a_panic_of_the_writer_costs_no_row() {
    let (_dir, home) = home();
    let (intake, writer) = start_writer(config(&home)).unwrap();
    assert!(intake.flush(late()));
    cause(&home.ledger_file(), Some(Trouble::PanicOnce));
    (0..10).for_each(|n| intake.record(row(n, T)));
    assert!(intake.flush(late()));
    assert_eq!(stored(&home.ledger_file()), 10);
    wait_for(&intake, |s| s.degraded.is_none());
    assert!(writer.stop(late()));
}

#[test]
fn what_was_put_in_the_place_of_a_corrupt_file_is_not_set_aside_for_it() {
    let (_dir, home) = home();
    let (_elsewhere, other) = super::super::fixture::home();
    super::super::fixture::store(&other, &[row(1, T), row(2, T)]);
    move_all(&other.ledger_file(), &home.ledger_file().with_extension("other"));
    let (intake, writer) = start_writer(config(&home)).unwrap();
    intake.record(row(3, T));
    assert!(intake.flush(late()));
    cause(&home.ledger_file(), Some(Trouble::ReplacedAndCorrupt));
    intake.record(row(4, T));
    assert!(intake.flush(late()) || intake.flush(late()));
    wait_for(&intake, |s| s.degraded.is_none());
    assert_eq!(stored(&home.ledger_file()), 3, "its own two rows, and the one that waited");
    assert_eq!(intake.stats().set_aside, None);
    assert!(writer.stop(late()));
}

#[test]
fn a_second_corrupt_file_does_not_replace_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db.sqlite");
    let now = Timestamp::UNIX_EPOCH;
    fs::write(&path, "one").unwrap();
    let first = set_aside(&path, now).unwrap();
    fs::write(&path, "two").unwrap();
    let second = set_aside(&path, now).unwrap();
    assert_eq!(fs::read_to_string(first).unwrap(), "one");
    assert_eq!(fs::read_to_string(second).unwrap(), "two");
}
