//! Opening a ledger that is there, at the version that it has. Only its one writer brings it up to
//! date: a daemon of that version may be at work on it, and would find a newer one at its next look.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use rusqlite::{Connection, OpenFlags};

use super::LedgerError;
use super::schema::{self, VERSION};

/// A change waits for the daemon's writer, whose transactions are short.
const PATIENCE: Duration = Duration::from_secs(10);
const READ_PATIENCE: Duration = Duration::from_secs(2);

/// For reading, also where nothing can be written; `None`: nothing is in it.
pub(super) fn to_read(path: &Path) -> Result<Option<Connection>, LedgerError> {
    if !is_there(path)? {
        return Ok(None);
    }
    let conn = match open_read_only(path) {
        Err(rusqlite::Error::SqliteFailure(e, _)) if unwritable(e.code) => as_it_is(path)?,
        other => other?,
    };
    known(conn)
}

/// For changing rows while a daemon may run; `None`: nothing is in it.
pub(super) fn to_change(path: &Path) -> Result<Option<Connection>, LedgerError> {
    if !is_there(path)? {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(PATIENCE)?;
    schema::checkpoint_in_order(&conn)?;
    known(conn)
}

/// One that can't be reached is not one that holds nothing, nor is a link to where nothing is.
fn is_there(path: &Path) -> Result<bool, LedgerError> {
    match path.try_exists() {
        Ok(false) if path.is_symlink() => {
            Err(LedgerError::Dangling { path: path.to_path_buf(), to: schema::behind_links(path) })
        }
        other => other.map_err(|source| LedgerError::Io { path: path.to_path_buf(), source }),
    }
}

/// The connection, if this program knows what is in it.
fn known(conn: Connection) -> Result<Option<Connection>, LedgerError> {
    match schema::version(&conn)? {
        // Made by a daemon that has not come to fill it.
        0 => Ok(None),
        found if found > VERSION => Err(LedgerError::Newer { found, known: VERSION }),
        found if found < VERSION => Err(LedgerError::Older { found, known: VERSION }),
        _ => Ok(Some(conn)),
    }
}

fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(READ_PATIENCE)?;
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(conn)
}

/// In a directory that can't be written, SQLite can't make the companions that a WAL database wants;
/// nobody writes there either, so the file can be read as it is. Not what is in a WAL alone.
fn as_it_is(path: &Path) -> Result<Connection, LedgerError> {
    let conn = open_immutable(path)?;
    let [_, wal, _] = schema::siblings(&schema::behind_links(path));
    // One that can't be looked at can't be read.
    if fs::metadata(&wal).map_or_else(|e| e.kind() != io::ErrorKind::NotFound, |m| m.len() > 0) {
        return Err(LedgerError::Unmerged { wal });
    }
    Ok(conn)
}

fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let escaped =
        path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)
}

fn unwritable(code: rusqlite::ErrorCode) -> bool {
    matches!(code, rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::home::Home;
    use crate::meter::ledger::fixture::{home, row, store};
    use crate::meter::ledger::schema::{MIGRATIONS, open_writer};
    use crate::meter::ledger::{Ledger, Retag, Selection, Window, reprice, retag};
    use crate::meter::price::Book;

    const ALL: Window = Window { from: Timestamp::MIN, to: Timestamp::MAX };

    #[test]
    fn a_ledger_that_can_only_be_read_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("50%? #1.sqlite");
        drop(open_writer(&path).unwrap());
        let conn = open_immutable(&path).unwrap();
        assert_eq!(schema::version(&conn).unwrap(), VERSION);
    }

    #[test]
    fn a_wal_beside_it_is_not_passed_over() {
        let (_dir, home) = home();
        let path = home.ledger_file();
        store(&home, &[row(1, "2026-11-24T00:00:00Z")]);
        assert_eq!(schema::version(&as_it_is(&path).unwrap()).unwrap(), VERSION);
        let (writer, _) = open_writer(&path).unwrap();
        as_it_is(&path).expect("an empty one");
        writer.execute("INSERT INTO losses VALUES (1, 1, '')", []).unwrap();
        let refused = as_it_is(&path).unwrap_err();
        assert!(refused.to_string().contains("db.sqlite-wal"), "{refused}");
        drop(writer);
        as_it_is(&path).expect("closed");
    }

    fn changes(home: &Home, dry: bool) -> [Result<u64, LedgerError>; 2] {
        let selection = Selection::default();
        let to = Retag::To("other".to_owned());
        [
            reprice(home, Book::builtin().as_ref(), ALL, dry, &mut |_| {}).map(|d| d.changed),
            retag(home, &selection, &to, dry).map(|d| d.changed),
        ]
    }

    #[test]
    fn only_the_writer_brings_a_ledger_up_to_date() {
        let (_dir, home) = home();
        let mut conn = Connection::open(home.ledger_file()).unwrap();
        MIGRATIONS.to_version(&mut conn, VERSION - 1).unwrap();
        for dry in [true, false] {
            for refused in changes(&home, dry) {
                assert!(matches!(refused, Err(LedgerError::Older { .. })), "{dry}: {refused:?}");
            }
        }
        assert!(matches!(Ledger::open(&home), Err(LedgerError::Older { .. })));
        assert_eq!(schema::version(&conn).unwrap(), VERSION - 1);
    }

    #[test]
    fn one_that_can_t_be_reached_is_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let home = Home::at(dir.path().join("file"));
        assert!(Ledger::open(&home).is_err());
        for refused in changes(&home, false) {
            assert!(refused.is_err());
        }
        assert!(Ledger::open(&Home::at(dir.path().join("none"))).is_ok());
    }

    #[test]
    fn a_link_to_where_nothing_is_is_not_an_empty_one() {
        let (_dir, home) = home();
        let away = home.path().join("disk/db.sqlite");
        std::os::unix::fs::symlink("disk/db.sqlite", home.ledger_file()).unwrap();
        let refused = Ledger::open(&home).unwrap_err().to_string();
        assert!(refused.contains(&away.display().to_string()), "{refused}");
        for refused in changes(&home, false) {
            assert!(matches!(refused, Err(LedgerError::Dangling { .. })), "{refused:?}");
        }
        fs::create_dir(home.path().join("disk")).unwrap();
        store(&home, &[row(1, "2026-11-24T00:00:00Z")]);
        assert!(Ledger::open(&home).is_ok() && away.exists());
    }

    /// No-op where fsync keeps the order.
    #[test]
    fn who_writes_checkpoints_in_order() {
        let (_dir, home) = home();
        let path = home.ledger_file();
        let in_order = |conn: &Connection| {
            let read = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            (read("checkpoint_fullfsync").unwrap(), read("synchronous").unwrap())
        };
        let (writer, _) = open_writer(&path).unwrap();
        assert_eq!(in_order(&writer), (1, 1));
        assert_eq!(in_order(&to_change(&path).unwrap().unwrap()), (1, 1));
    }

    #[test]
    fn a_dry_run_waits_for_no_writer() {
        let (_dir, home) = home();
        store(&home, &[row(1, "2026-11-24T00:00:00Z")]);
        let writer = Connection::open(home.ledger_file()).unwrap();
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        let [repriced, retagged] = changes(&home, true);
        assert_eq!((repriced.unwrap(), retagged.unwrap()), (1, 1));
    }
}
