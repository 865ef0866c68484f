//! In which minutes a name occurs: instead of an index of all rows by project, model, session, connection
//! and run.
//!
//! `seen` (`009_seen.sql`) has an entry for each name in each minute in which a row with it began, be it one
//! row or thousands. An entry may be superfluous, so whoever looks for rows ([`clause`](super::clause)) looks at
//! those of the minutes; none may be missing. Triggers see to that, whoever writes. What they would cost for each row
//! the writer saves by [`Noted`], which knows what is in the table already.

use std::collections::HashMap;

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, params};

use super::record::text;
use super::rollup::HOUR;
use crate::meter::row::Row;

/// Microseconds of what an entry is of. Hours are made of them.
pub(super) const MINUTE: i64 = 60_000_000;

/// What a name is of, by its number in the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Rows without one are looked for as well: the name is then an empty BLOB.
    Project = 1,
    /// That answered, or that was asked for when none did.
    Model = 2,
    Session = 3,
    Connection = 4,
    Run = 5,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Project, Self::Model, Self::Session, Self::Connection, Self::Run];

    /// What of a row is the name, as the view `names` has it.
    pub(super) fn column(self) -> &'static str {
        match self {
            Self::Project => "ifnull(project, x'')",
            Self::Model => "coalesce(model, model_requested)",
            Self::Session => "session",
            Self::Connection => "connection",
            Self::Run => "run",
        }
    }

    /// The same of a row that is not written yet.
    fn of(self, row: &Row) -> Option<ValueRef<'_>> {
        let of_text = |name| text(name).map(|name| ValueRef::Text(name.as_bytes()));
        match self {
            Self::Project => Some(of_text(&row.project).unwrap_or(ValueRef::Blob(&[]))),
            Self::Model => of_text(&row.model).or_else(|| of_text(&row.model_requested)),
            Self::Session => of_text(&row.session),
            Self::Connection => row.connection.as_ref().map(|id| ValueRef::Blob(id.as_bytes())),
            Self::Run => of_text(&row.run),
        }
    }
}

/// The minute of a row that began then.
pub(super) fn minute(started_at: i64) -> i64 {
    started_at.div_euclid(MINUTE)
}

/// What a connection has entered, and what is rolled up. It holds as long as nobody else writes to the file:
/// another may take away what is superfluous, roll up an hour, or restore an older copy.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// By kind, the last two minutes of each name: rows of the minute before still come in.
    minutes: [HashMap<Box<[u8]>, [i64; 2]>; Kind::ALL.len()],
    /// The last hour that is rolled up.
    rolled: Option<i64>,
    /// What SQLite tells when somebody else wrote; `None`: of a transaction that may not have been committed.
    as_of: Option<i64>,
    begun: i64,
}

impl Noted {
    /// At the beginning of each transaction, when nobody else can write any more.
    pub(super) fn begun(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.begun = conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if self.as_of.take() != Some(self.begun) {
            self.minutes.iter_mut().for_each(HashMap::clear);
            self.rolled = conn
                .prepare_cached("SELECT max(hour) FROM rollups")?
                .query_row([], |row| row.get(0))?;
        }
        Ok(())
    }

    pub(super) fn committed(&mut self) {
        self.as_of = Some(self.begun);
    }

    /// Enters the names of a row that is to be written. `false`: the triggers have to do it, and more.
    pub(super) fn note(&mut self, conn: &Connection, row: &Row) -> rusqlite::Result<bool> {
        let started_at = row.started_at.as_microsecond();
        // They divide as SQL does.
        if self.rolled.is_some_and(|rolled| started_at / HOUR <= rolled) {
            return Ok(false);
        }
        let minute = minute(started_at);
        for (kind, known) in Kind::ALL.into_iter().zip(&mut self.minutes) {
            let Some(name) = kind.of(row) else { continue };
            let key = name.as_bytes().unwrap_or_default();
            if known.get(key).is_some_and(|minutes| minutes.contains(&minute)) {
                continue;
            }
            conn.prepare_cached("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)")?
                .execute(params![kind as i64, ToSqlOutput::Borrowed(name), minute])?;
            remember(known, key, minute);
        }
        Ok(true)
    }
}

/// An entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    kind: Kind,
    name: Value,
    minute: i64,
}

impl Entry {
    pub(super) fn project(name: Option<&str>, started_at: i64) -> Self {
        let name = name.map_or(Value::Blob(Vec::new()), |name| name.to_owned().into());
        Self { kind: Kind::Project, name, minute: minute(started_at) }
    }

    pub(super) fn model(name: String, minute: i64) -> Self {
        Self { kind: Kind::Model, name: name.into(), minute }
    }

    /// Whether no row has the name in that minute any more. The latest are looked at first: whoever takes a name
    /// from one row after the other begins with the earliest.
    pub(super) fn is_superfluous(&self, conn: &Connection) -> rusqlite::Result<bool> {
        let sql = format!(
            "SELECT 1 FROM requests WHERE started_at >= ? AND started_at < ? AND {} = ? \
             ORDER BY started_at DESC, id DESC LIMIT 1",
            self.kind.column()
        );
        let from = self.minute * MINUTE;
        let there = conn.prepare_cached(&sql)?.exists(params![from, from + MINUTE, self.name])?;
        Ok(!there)
    }

    /// In the transaction in which it is superfluous.
    pub(super) fn remove(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.prepare_cached("DELETE FROM seen WHERE kind = ? AND name = ? AND minute = ?")?
            .execute(params![self.kind as i64, self.name, self.minute])?;
        Ok(())
    }
}

/// What is superfluous in an hour, as far as the daemon itself makes it so: requests are entered under the model
/// that they ask for, and before it is known whose they are. `asked`: models that were asked for, and the minutes,
/// where another one answered.
pub(super) fn superfluous(
    conn: &Connection,
    hour: i64,
    asked: impl IntoIterator<Item = (String, i64)>,
) -> rusqlite::Result<Vec<Entry>> {
    let minutes = [hour * HOUR, (hour + 1) * HOUR].map(minute);
    let mut entries: Vec<Entry> = conn
        .prepare_cached(
            "SELECT minute FROM seen WHERE kind = ? AND name = x'' AND minute >= ? AND minute < ?",
        )?
        .query_map(params![Kind::Project as i64, minutes[0], minutes[1]], |row| {
            Ok(Entry::project(None, row.get::<_, i64>(0)? * MINUTE))
        })?
        .collect::<rusqlite::Result<_>>()?;
    entries.extend(asked.into_iter().map(|(name, minute)| Entry::model(name, minute)));
    let mut found = Vec::new();
    for entry in entries {
        if entry.is_superfluous(conn)? {
            found.push(entry);
        }
    }
    Ok(found)
}

fn remember(known: &mut HashMap<Box<[u8]>, [i64; 2]>, name: &[u8], minute: i64) {
    /// Names of each kind.
    const REMEMBERED: usize = 1024;
    if let Some([last, before]) = known.get_mut(name) {
        (*last, *before) = (minute, *last);
        return;
    }
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.insert(name.into(), [minute; 2]);
}

#[cfg(test)]
mod tests;
