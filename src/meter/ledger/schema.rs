//! Opening the database file for writing: modes, pragmas, migrations.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};

use super::{LedgerError, damage};
use crate::home::beside;

/// Forward only; a released step is never edited.
const STEPS: &[M<'static>] = &[
    M::up(include_str!("001_init.sql")),
    M::up(include_str!("002_coverage.sql")),
    M::up(include_str!("003_rollups.sql")),
    M::up(include_str!("004_charge.sql")),
    M::up(include_str!("005_projects.sql")),
    M::up(include_str!("006_accounts.sql")),
    M::up(include_str!("007_handshakes.sql")),
    M::up(include_str!("008_cut_short.sql")),
    M::up(include_str!("009_seen.sql")),
];
pub(super) const MIGRATIONS: Migrations<'static> = Migrations::from_slice(STEPS);

/// The `user_version` that this program writes and reads.
pub(super) const VERSION: usize = STEPS.len();

/// How long one statement waits for another process's lock. Short: the writer has its own retry,
/// and must stay able to beat, to stop and to say that it is stuck.
const BUSY: Duration = Duration::from_millis(200);

/// A file, whatever its name is by now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// What is opened at the path: links are followed.
    pub(super) fn of(path: &Path) -> Option<Self> {
        Some(Self::in_meta(&fs::metadata(path).ok()?))
    }

    /// What lies there itself, be it a link.
    fn of_itself(path: &Path) -> Option<Self> {
        Some(Self::in_meta(&fs::symlink_metadata(path).ok()?))
    }

    fn in_meta(meta: &fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
}

/// Which files an open connection writes to, to notice when they were taken from under us.
#[derive(Clone, Debug)]
pub(super) struct Files {
    /// Where they lay when they were opened.
    pub(super) at: PathBuf,
    pub(super) main: FileId,
    /// It stays as long as a connection is open.
    wal: Option<FileId>,
}

impl Files {
    fn of(path: &Path) -> Option<Self> {
        let at = behind_links(path);
        let [main, wal, _] = siblings(&at).map(|file| FileId::of_itself(&file));
        Some(Self { at, main: main?, wal })
    }

    /// Whether the main file is no longer where it was, and its WAL is.
    pub(super) fn left_wal(&self) -> bool {
        FileId::of_itself(&self.at) != Some(self.main) && self.wal_is_there()
    }

    /// Whether the WAL is still there.
    pub(super) fn wal_is_there(&self) -> bool {
        let [_, wal, _] = siblings(&self.at);
        self.wal.is_some() && FileId::of_itself(&wal) == self.wal
    }

    /// Whether others who open this path get the same: also the WAL, which for them lies beside what
    /// links lead to by now.
    pub(super) fn are_at(&self, path: &Path) -> bool {
        Self::of(path)
            .is_some_and(|now| now.main == self.main && (self.wal.is_none() || now.wal == self.wal))
    }
}

/// Opens, or makes, the ledger for its one writer.
#[cfg(test)]
pub(super) fn open_writer(path: &Path) -> Result<(Connection, Files), LedgerError> {
    open_writer_telling(path, |_| {})
}

/// The same; tells what version a ledger has that is about to be brought up to date, which may take minutes.
pub(super) fn open_writer_telling(
    path: &Path,
    tell: impl FnOnce(usize),
) -> Result<(Connection, Files), LedgerError> {
    make(path).map_err(|source| LedgerError::Io { path: path.to_path_buf(), source })?;
    tighten(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    checkpoint_in_order(&conn)?;
    // 16 MiB: the pages that every batch changes are written back less often.
    conn.pragma_update(None, "wal_autocheckpoint", 4000)?;
    let found = version(&conn)?;
    if found > VERSION {
        return Err(LedgerError::Newer { found, known: VERSION });
    }
    if 0 < found && found < VERSION {
        tell(found);
    }
    MIGRATIONS.to_latest(&mut conn)?;
    let files = Files::of(path).ok_or_else(|| LedgerError::Moved { path: path.to_path_buf() })?;
    Ok((conn, files))
}

/// For each connection that may checkpoint, be it by closing last. Without full syncs then, macOS's disks
/// may write pages of the database before the WAL that they come from: a power cut between them damages it.
pub(super) fn checkpoint_in_order(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "synchronous", "normal")?;
    conn.pragma_update(None, "checkpoint_fullfsync", true)
}

/// Before SQLite does it with the umask's mode; -wal and -shm get the mode of the main file.
///
/// A file that is there is not opened: whoever closes a descriptor of it takes away the locks that
/// SQLite holds on it for this process's readers, and for the writer with them.
fn make(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    match options.create_new(true).open(path) {
        Ok(_) => Ok(()),
        // A link to where nothing is yet: nobody has that open either.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && FileId::of(path).is_none() => {
            options.create_new(false).create(true).truncate(false).open(path).map(drop)
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// Looks whether somebody else could read the file. The writer's own connection has much of it in
/// memory, and would go on for long in one that is damaged. A large file is not read as a whole.
pub(super) fn look(path: &Path) -> Result<(), LedgerError> {
    // The writer does it: longer than some 30 ms and rows would wait.
    const WHOLE: u64 = 16 << 20;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    if fs::metadata(path).is_ok_and(|m| m.len() > WHOLE) {
        let latest = "SELECT id, path, connection FROM requests ORDER BY started_at DESC LIMIT 1";
        conn.prepare(latest)?.query([])?.next()?;
        return Ok(());
    }
    Ok(damage::quick(&conn)?)
}

pub(super) fn version(conn: &Connection) -> rusqlite::Result<usize> {
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(found).unwrap_or(usize::MAX))
}

/// What links at `path` lead to, whether it is there or not. SQLite keeps its files beside that.
pub(super) fn behind_links(path: &Path) -> PathBuf {
    // As many as SQLite follows.
    const LINKS: usize = 200;
    let mut at = path.to_path_buf();
    for _ in 0..LINKS {
        let Ok(to) = fs::read_link(&at) else { break };
        // An absolute one replaces all of it.
        at.pop();
        at.push(to);
    }
    at
}

/// The database and the two files that SQLite keeps beside it, if it is no link ([`behind_links`]).
pub(super) fn siblings(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| beside(path, suffix))
}

/// Takes group and others off an existing file, by its name ([`make`]); failing to is not worth losing rows for.
fn tighten(path: &Path) {
    for file in siblings(&behind_links(path)) {
        if let Ok(meta) = fs::metadata(&file)
            && meta.permissions().mode() & 0o077 != 0
        {
            let _ = fs::set_permissions(&file, Permissions::from_mode(0o600));
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FlockOperation, fcntl_lock};

    use super::*;

    #[test]
    fn migrations_are_valid_and_leave_nothing_to_do() {
        MIGRATIONS.validate().unwrap();
        let mut conn = Connection::open_in_memory().unwrap();
        MIGRATIONS.to_latest(&mut conn).unwrap();
        assert_eq!(version(&conn).unwrap(), VERSION);
    }

    #[test]
    fn what_takes_long_is_told_before() {
        let dir = tempfile::tempdir().unwrap();
        let told = |path: &Path| {
            let mut told = None;
            open_writer_telling(path, |found| told = Some(found)).unwrap();
            told
        };
        assert_eq!(told(&dir.path().join("new")), None);
        let old = dir.path().join("old");
        MIGRATIONS.to_version(&mut Connection::open(&old).unwrap(), 3).unwrap();
        assert_eq!((told(&old), told(&old)), (Some(3), None));
    }

    #[test]
    fn refused_handshakes_of_before_are_no_requests_any_more() {
        let mut conn = Connection::open_in_memory().unwrap();
        MIGRATIONS.to_version(&mut conn, 6).unwrap();
        // id, method, protocol, usage, cost, status, error, completeness
        let rows = [
            "1, 'GET', 'h1', 'absent', NULL, 426, 'bad_request', 'complete'",
            "2, 'CONNECT', 'h2', 'absent', NULL, 401, 'auth', 'complete'",
            "3, 'GET', 'h1', 'absent', NULL, NULL, 'network', 'interrupted'",
            // Not these: refused within a socket, running, answered, no handshake.
            "4, 'GET', 'ws', 'absent', NULL, 429, 'rate_limit', 'complete'",
            "5, 'GET', 'h1', 'absent', NULL, NULL, NULL, 'open'",
            "6, 'GET', 'h1', 'absent', NULL, 200, NULL, 'complete'",
            "7, 'POST', 'h1', 'absent', NULL, 429, 'rate_limit', 'complete'",
            "8, 'GET', 'h1', 'reported', 5, 500, 'in_stream', 'complete'",
        ];
        for row in rows {
            let sql = format!(
                "INSERT INTO requests (id, method, protocol, usage, cost_nanousd, status, error_class, \
                 completeness, billable, started_at, host, path, provider, cost_estimated, billing) \
                 SELECT CAST(column1 AS BLOB), column2, column3, column4, column5, column6, column7, \
                 column8, 1, 0, 'h', '/', 'p', 0, 'metered' FROM (VALUES ({row}))"
            );
            conn.execute(&sql, []).unwrap();
        }
        conn.execute("INSERT INTO rollups VALUES (0, 1, x'00', x'00')", []).unwrap();
        MIGRATIONS.to_latest(&mut conn).unwrap();
        let mut stmt = conn
            .prepare("SELECT CAST(id AS TEXT) FROM requests WHERE billable ORDER BY 1")
            .unwrap();
        let left: Vec<String> =
            stmt.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(left, ["4", "5", "6", "7", "8"]);
        let rolled: i64 =
            conn.query_row("SELECT count(*) FROM rollups", [], |row| row.get(0)).unwrap();
        assert_eq!(rolled, 0, "what was added up before is not true any more");
    }

    #[test]
    fn files_are_private_even_when_they_were_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.sqlite");
        fs::write(&path, b"").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let (conn, _) = open_writer(&path).unwrap();
        conn.execute("INSERT INTO losses VALUES (1, 1, '')", []).unwrap();
        for file in siblings(&path) {
            let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", file.display());
        }
    }

    /// Looked at by a process of its own: nobody is locked out by his own locks.
    #[test]
    fn to_open_it_again_takes_no_lock_away() {
        const NAME: &str = "meter::ledger::schema::tests::to_open_it_again_takes_no_lock_away";
        const VAR: &str = "HALTON_METER_TEST_LOCKED";
        if let Some(path) = std::env::var_os(VAR) {
            let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
            // Of the whole file.
            fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap_err();
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.sqlite");
        drop(open_writer(&path).unwrap());
        let reader = Connection::open(&path).unwrap();
        assert_eq!(version(&reader).unwrap(), VERSION);
        let _writer = open_writer(&path).unwrap();
        drop(reader);
        let mut other = std::process::Command::new(std::env::current_exe().unwrap());
        let other = other.args([NAME, "--exact", "--nocapture"]).env(VAR, &path).output().unwrap();
        let said = String::from_utf8_lossy(&other.stdout);
        assert!(other.status.success() && said.contains("1 passed"), "{other:?}");
    }

    #[test]
    fn a_ledger_of_a_newer_version_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.sqlite");
        let (conn, _) = open_writer(&path).unwrap();
        conn.pragma_update(None, "user_version", 99).unwrap();
        drop(conn);
        assert!(matches!(open_writer(&path), Err(LedgerError::Newer { .. })));
    }
}
