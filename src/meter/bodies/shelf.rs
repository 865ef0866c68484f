//! The files: one for each exchange, in a directory for each day. Its name is the row's id, which
//! holds the time: where a body is needs no index, and an old day is one directory to remove.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::home::{Home, write_atomic};

/// The file of one exchange.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Kept {
    pub id: Uuid,
    pub request: KeptBody,
    pub response: KeptBody,
}

/// One body as it is kept.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct KeptBody {
    /// `None`: it is no text, or can't be decoded.
    pub text: Option<String>,
    /// Of the whole body, decoded.
    pub bytes: u64,
    /// There is more than is kept.
    pub cut: bool,
    /// Why something of it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// What was taken out, and how often.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub redacted: std::collections::BTreeMap<String, u64>,
}

/// What lies there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Stock {
    pub files: u64,
    pub bytes: u64,
    pub oldest: Option<Date>,
}

/// The directory.
#[derive(Clone, Debug)]
pub struct Shelf {
    dir: PathBuf,
}

impl Shelf {
    #[must_use]
    pub fn of(home: &Home) -> Self {
        Self { dir: home.bodies_dir() }
    }

    /// Whether the bodies of this row are kept.
    #[must_use]
    pub fn has(&self, id: Uuid) -> bool {
        self.path(id).is_some_and(|path| path.exists())
    }

    /// # Errors
    /// When there is a file that can't be read.
    pub fn read(&self, id: Uuid) -> io::Result<Option<Kept>> {
        let Some(path) = self.path(id) else { return Ok(None) };
        match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::other),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes the file; says how long it is.
    ///
    /// # Errors
    /// When it can't be written; nothing is left of it then.
    pub fn write(&self, kept: &Kept) -> io::Result<u64> {
        let path = self.path(kept.id).ok_or_else(|| io::Error::other("the id has no time"))?;
        let text = serde_json::to_vec(kept).map_err(io::Error::other)?;
        let day = path.parent().unwrap_or(&self.dir);
        DirBuilder::new().recursive(true).mode(0o700).create(day)?;
        write_atomic(&path, &text).inspect_err(|_| {
            self.sweep(day);
        })?;
        Ok(text.len() as u64)
    }

    /// Removes what is older than `days`, then the oldest until the rest is within `most` bytes, and
    /// what a write that was broken off has left. Says what stays.
    ///
    /// Ids never go back: after a clock that was ahead they are, too. What is of a day to come is as old as
    /// its file; if that is of one, too, it is from now on as old as this look at it.
    ///
    /// # Errors
    /// When something can't be listed or removed.
    pub fn prune(&self, days: u32, most: u64, today: Date) -> io::Result<Stock> {
        let first = today.saturating_sub(i64::from(days).days());
        // Today and elsewhere.
        let tomorrow = today.saturating_add(1.day());
        let mut stock = Stock::default();
        let mut left: Vec<(Date, PathBuf, u64)> = Vec::new();
        for (date, dir) in self.days()? {
            if date < first {
                fs::remove_dir_all(&dir)?;
                continue;
            }
            self.sweep(&dir);
            for (path, bytes) in files(&dir)? {
                let date = if date > tomorrow { written(&path, today, tomorrow)? } else { date };
                if date < first {
                    remove(&path)?;
                    continue;
                }
                stock.bytes += bytes;
                left.push((date, path, bytes));
            }
        }
        // Ids begin with their time.
        left.sort();
        let mut rest = left.into_iter().peekable();
        while stock.bytes > most
            && let Some((_, path, bytes)) = rest.next()
        {
            remove(&path)?;
            stock.bytes -= bytes;
        }
        stock.oldest = rest.peek().map(|(date, ..)| *date);
        stock.files = rest.count() as u64;
        for (_, dir) in self.days()? {
            // Only an empty one goes.
            let _ = fs::remove_dir(dir);
        }
        Ok(stock)
    }

    /// # Errors
    /// When it can't be listed.
    pub fn stock(&self) -> io::Result<Stock> {
        let mut stock = Stock::default();
        for (date, dir) in self.days()? {
            for (_, bytes) in files(&dir)? {
                stock.files += 1;
                stock.bytes += bytes;
                stock.oldest = Some(stock.oldest.map_or(date, |oldest| oldest.min(date)));
            }
        }
        Ok(stock)
    }

    /// Removes all of it.
    ///
    /// # Errors
    /// When something can't be removed.
    pub fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn path(&self, id: Uuid) -> Option<PathBuf> {
        let (seconds, nanos) = id.get_timestamp()?.to_unix();
        let at = Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()?;
        let day = at.to_zoned_datetime(TimeZone::UTC).date();
        Some(self.dir.join(day.to_string()).join(format!("{id}.json")))
    }

    /// The days, in order. What is not ours is left alone.
    fn days(&self) -> io::Result<Vec<(Date, PathBuf)>> {
        let mut days: Vec<(Date, PathBuf)> = entries(&self.dir)?
            .into_iter()
            .filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, path)))
            .collect();
        days.sort();
        Ok(days)
    }

    /// Takes away what a write that was broken off has left.
    fn sweep(&self, day: &Path) {
        let left = |path: &PathBuf| path.extension().is_some_and(|end| end == "tmp");
        for path in entries(day).unwrap_or_default().iter().filter(|path| left(path)) {
            let _ = fs::remove_file(path);
        }
    }
}

/// The day on which a file was written; today, from now on, if that is still to come.
fn written(path: &Path, today: Date, tomorrow: Date) -> io::Result<Date> {
    let modified = fs::metadata(path)?.modified()?;
    let date = Timestamp::try_from(modified)
        .map_or(Date::MAX, |at| at.to_zoned_datetime(TimeZone::UTC).date());
    if date <= tomorrow {
        return Ok(date);
    }
    let noon = today.at(12, 0, 0, 0).to_zoned_datetime(TimeZone::UTC).map_err(io::Error::other)?;
    date_file(path, noon.timestamp())?;
    Ok(today)
}

fn date_file(path: &Path, at: Timestamp) -> io::Result<()> {
    let at = SystemTime::try_from(at).map_err(io::Error::other)?;
    fs::File::options().write(true).open(path)?.set_modified(at)
}

fn files(day: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let ours = |path: &PathBuf| path.extension().is_some_and(|end| end == "json");
    let size = |path: PathBuf| fs::metadata(&path).ok().map(|meta| (path, meta.len()));
    Ok(entries(day)?.into_iter().filter(ours).filter_map(size).collect())
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use uuid::{NoContext, Timestamp as Moment};

    use super::*;

    fn shelf() -> (tempfile::TempDir, Shelf) {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf { dir: dir.path().join("bodies") };
        (dir, shelf)
    }

    fn kept(at: &str, text: &str) -> Kept {
        let at: Timestamp = at.parse().unwrap();
        let seconds = u64::try_from(at.as_second()).unwrap();
        Kept {
            id: Uuid::new_v7(Moment::from_unix(NoContext, seconds, 0)),
            request: KeptBody { text: Some(text.to_owned()), ..KeptBody::default() },
            response: KeptBody::default(),
        }
    }

    #[test]
    fn what_is_written_is_read_and_is_private() {
        let (dir, shelf) = shelf();
        let one = kept("2026-11-28T23:59:59Z", "hello");
        assert!(!shelf.has(one.id) && shelf.read(one.id).unwrap().is_none());
        shelf.write(&one).unwrap();
        assert!(shelf.has(one.id));
        assert_eq!(shelf.read(one.id).unwrap().unwrap(), one);
        let day = dir.path().join("bodies/2026-11-28");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir.path().join("bodies")), mode(&day)), (0o700, 0o700));
        assert_eq!(mode(&day.join(format!("{}.json", one.id))), 0o600);
        assert!(!shelf.has(Uuid::new_v4()), "an id without a time");
    }

    #[test]
    fn old_days_go_first_and_then_the_oldest_files() {
        let (dir, shelf) = shelf();
        let all: Vec<Kept> = [
            "2026-11-20T00:00:00Z",
            "2026-11-27T10:00:00Z",
            "2026-11-28T10:00:00Z",
            "2026-11-28T11:00:00Z",
        ]
        .iter()
        .map(|at| kept(at, &"x".repeat(1000)))
        .collect();
        let size = all.iter().map(|one| shelf.write(one).unwrap()).max().unwrap();
        fs::write(dir.path().join("bodies/2026-11-28/left.json.1.tmp"), "half").unwrap();
        fs::create_dir(dir.path().join("bodies/mine")).unwrap();
        let there = |shelf: &Shelf| all.iter().map(|one| shelf.has(one.id)).collect::<Vec<_>>();
        let today = "2026-11-28".parse().unwrap();
        let stock = shelf.prune(7, u64::MAX, today).unwrap();
        assert_eq!(there(&shelf), [false, true, true, true]);
        assert_eq!((stock.files, stock.oldest), (3, Some("2026-11-27".parse().unwrap())));
        assert_eq!(stock, shelf.stock().unwrap());
        assert!(!dir.path().join("bodies/2026-11-28/left.json.1.tmp").exists());
        let stock = shelf.prune(7, size, today).unwrap();
        assert_eq!(there(&shelf), [false, false, false, true]);
        assert_eq!(stock.files, 1);
        assert!(!dir.path().join("bodies/2026-11-27").exists(), "an empty day goes");
        assert!(dir.path().join("bodies/mine").exists(), "what is not ours stays");
        shelf.clear().unwrap();
        shelf.clear().unwrap();
        assert_eq!(shelf.stock().unwrap(), Stock::default());
    }

    #[test]
    fn what_a_clock_that_was_ahead_dated_goes_in_its_time() {
        let (_dir, shelf) = shelf();
        let ahead = kept("2031-01-01T10:00:00Z", "while it was ahead");
        let after = kept("2031-01-01T10:00:01Z", "after it was set right");
        let written = |one: &Kept, at: &str| {
            shelf.write(one).unwrap();
            date_file(&shelf.path(one.id).unwrap(), at.parse().unwrap()).unwrap();
        };
        written(&ahead, "2031-01-01T10:00:00Z");
        written(&after, "2026-11-20T10:00:00Z");
        let there = |today: &str| {
            let stock = shelf.prune(7, u64::MAX, today.parse().unwrap()).unwrap();
            (shelf.has(ahead.id), shelf.has(after.id), stock.oldest.map(|date| date.to_string()))
        };
        let oldest = |date: &str| Some(date.to_owned());
        assert_eq!(there("2026-11-25"), (true, true, oldest("2026-11-20")));
        assert_eq!(there("2026-11-27"), (true, true, oldest("2026-11-20")));
        assert_eq!(there("2026-11-28"), (true, false, oldest("2026-11-25")));
        assert_eq!(there("2026-12-02"), (true, false, oldest("2026-11-25")));
        assert_eq!(there("2026-12-03"), (false, false, None));
        assert_eq!(shelf.stock().unwrap(), Stock::default());
    }
}
