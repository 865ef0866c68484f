//! Logs: slog, by an asynchronous drain that drops and counts rather than blocks.
//!
//! A process in the foreground writes lines for people to stderr; one that runs on its own writes
//! JSON lines to a file of its own, rotated by size. The level can change while it runs.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use slog::{Drain, FnValue, Level, Logger, OwnedKVList, PushFnValue, Record, o};

use crate::home::{Home, beside, open_append};

/// Where records go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogTo {
    Stderr,
    /// `Home::log_file(process)`; stderr when that can't be written.
    File,
}

/// A full file becomes `NAME.1`, that one `NAME.2`; so three files of this size at most.
const MAX_FILE: u64 = 5 * 1024 * 1024;
const KEPT: u32 = 2;
/// How often at most a file is looked for that somebody may have removed.
const LOOK: Duration = Duration::from_secs(5);
/// Records that may wait for the writer; what comes on top is dropped and counted.
const QUEUE: usize = 4096;

/// The level of this process, for all loggers of [`root`].
static LEVEL: AtomicUsize = AtomicUsize::new(4);

/// Who waits for the writers of this process's loggers.
static WRITERS: Mutex<Vec<slog_async::AsyncGuard>> = Mutex::new(Vec::new());

/// The logger of a process. Call [`finish`] before the process ends.
pub fn root(process: &'static str, home: &Home, level: Level, to: LogTo) -> Logger {
    set_level(level);
    let file = match to {
        LogTo::Stderr => None,
        LogTo::File => RotatingFile::open(home.log_file(process), MAX_FILE).ok(),
    };
    match file {
        Some(file) => logger(process, json(file)),
        None => logger(process, terminal()),
    }
}

/// Changes the level of the running process.
pub fn set_level(level: Level) {
    LEVEL.store(level.as_usize(), Ordering::Relaxed);
}

/// Writes what is queued. What is logged later is lost: threads may outlive the last good word.
pub fn finish() {
    // Dropping a guard waits for its writer.
    WRITERS.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// A logger that says nothing, for tests and for code that got none.
pub fn silent() -> Logger {
    Logger::root(slog::Discard, o!())
}

fn logger<D>(process: &'static str, drain: D) -> Logger
where
    D: Drain<Err = slog::Never, Ok = ()> + Send + 'static,
{
    let (queue, guard) = slog_async::Async::new(drain)
        .chan_size(QUEUE)
        .overflow_strategy(slog_async::OverflowStrategy::DropAndReport)
        .thread_name("log".to_owned())
        .build_with_guard();
    WRITERS.lock().unwrap_or_else(PoisonError::into_inner).push(guard);
    // Not `fuse`, which panics: a log that can't be written is no reason to end.
    Logger::root(Arc::new(AtLevel(queue).ignore_res()), o!("process" => process))
}

fn terminal() -> impl Drain<Err = slog::Never, Ok = ()> + Send {
    // Colour only when stderr is a terminal, which the decorator finds out.
    let decorator = slog_term::TermDecorator::new().stderr().build();
    slog_term::FullFormat::new(decorator)
        .use_custom_timestamp(|out: &mut dyn Write| write!(out, "{}", now()))
        .use_original_order()
        .build()
        .ignore_res()
}

fn json<W: Write + Send + 'static>(out: W) -> impl Drain<Err = slog::Never, Ok = ()> + Send {
    slog_json::Json::new(out)
        .set_newlines(true)
        .set_flush(true)
        .add_key_value(o!(
            "msg" => PushFnValue(|record: &Record<'_>, ser| ser.emit(record.msg())),
            "level" => FnValue(|record: &Record<'_>| record.level().as_str().to_ascii_lowercase()),
            "at" => FnValue(|_: &Record<'_>| now()),
        ))
        .build()
        .ignore_res()
}

fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// Lets through what is at least as important as the process's level.
struct AtLevel<D>(D);

impl<D: Drain<Ok = ()>> Drain for AtLevel<D> {
    type Ok = ();
    type Err = D::Err;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), D::Err> {
        if record.level().as_usize() <= LEVEL.load(Ordering::Relaxed) {
            self.0.log(record, values)?;
        }
        Ok(())
    }
}

/// A file that is renamed away when it is full. Rotates between writes of whole lines.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    file: File,
    size: u64,
    max: u64,
    at_line_start: bool,
    looked: Option<Instant>,
}

impl RotatingFile {
    /// Opens for appending, 0600.
    pub fn open(path: PathBuf, max: u64) -> io::Result<Self> {
        let file = open_append(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size, max, at_line_start: true, looked: Some(Instant::now()) })
    }

    /// Anew, in a directory of its own if that went too. The home is not ours to make.
    fn come_back(&mut self) -> io::Result<()> {
        if let Some(dir) = self.path.parent()
            && !dir.exists()
        {
            DirBuilder::new().mode(0o700).create(dir)?;
        }
        self.file = open_append(&self.path)?;
        self.size = self.file.metadata()?.len();
        Ok(())
    }

    fn is_gone(&self) -> bool {
        fs::symlink_metadata(&self.path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
    }

    fn rotate(&mut self) -> io::Result<()> {
        for n in (1..KEPT).rev() {
            rename_if_there(&numbered(&self.path, n), &numbered(&self.path, n + 1))?;
        }
        rename_if_there(&self.path, &numbered(&self.path, 1))?;
        self.file = open_append(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

impl Write for RotatingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.at_line_start && self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            if self.is_gone() {
                // Else it goes on where nobody sees it.
                let _ = self.come_back();
            }
        }
        if self.at_line_start && self.size >= self.max {
            // A directory that can't be written to must not end the log: the file grows instead.
            let _ = self.rotate();
        }
        let n = self.file.write(bytes)?;
        self.size = self.size.saturating_add(n as u64);
        if let Some(last) = bytes.get(..n).and_then(<[u8]>::last) {
            self.at_line_start = *last == b'\n';
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    beside(path, format!(".{n}"))
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn lines_are_json_private_and_on_disk_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let log = root("daemon", &home, Level::Info, LogTo::File);
        slog::info!(log, "one"; "port" => 8765);
        slog::debug!(log, "not shown");
        set_level(Level::Debug);
        slog::debug!(log, "two");
        // Although a clone is still around.
        finish();
        slog::error!(log, "too late, and no harm done");

        let path = home.log_file("daemon");
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["msg"], "one");
        assert_eq!(lines[0]["level"], "info");
        assert_eq!(lines[0]["process"], "daemon");
        assert_eq!(lines[0]["port"], 8765);
        assert_eq!(lines[1]["msg"], "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn rotates_between_lines_and_keeps_two_old_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut out = RotatingFile::open(path.clone(), 8).unwrap();
        for n in 0..6 {
            // In two writes, as a serialiser does: a line must not be torn by the rotation.
            write!(out, "line-").unwrap();
            writeln!(out, "number-{n}").unwrap();
        }
        let read = |p: &Path| fs::read_to_string(p).unwrap();
        assert_eq!(read(&path), "line-number-5\n");
        assert_eq!(read(&numbered(&path, 1)), "line-number-4\n");
        assert_eq!(read(&numbered(&path, 2)), "line-number-3\n");
        assert!(!numbered(&path, 3).exists());
    }

    #[test]
    fn a_log_that_was_removed_comes_back_with_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let path = home.log_file("root");
        let mut out = RotatingFile::open(path.clone(), MAX_FILE).unwrap();
        writeln!(out, "one").unwrap();
        fs::remove_dir_all(home.log_dir()).unwrap();
        writeln!(out, "lost").unwrap();
        out.looked = None;
        writeln!(out, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        let mode = fs::metadata(home.log_dir()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        // Whoever removes the home does not find it again.
        fs::remove_dir_all(home.path()).unwrap();
        out.looked = None;
        writeln!(out, "three").unwrap();
        assert!(!home.path().exists());
    }

    #[test]
    fn an_unwritable_home_still_gives_a_logger() {
        let dir = tempfile::tempdir().unwrap();
        let log = root("daemon", &Home::at(dir.path().join("absent")), Level::Info, LogTo::File);
        slog::info!(log, "goes to stderr");
    }
}
