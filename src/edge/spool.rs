//! What was not metered: raw tunnels to metered hosts, one line when one begins and one when it
//! ends, for the daemon to ingest. The second tells all that the first did, so either will do.
//!
//! Written in batches by a thread of its own, which is there before it is needed: the first tunnel
//! after the daemon's death is not to wait for one. A tunnel waits for the line of its beginning, so that a
//! killed edge leaves none unaccounted; but only for a moment, and not at all while the file is slow.
//! No trouble with the file is ever the traffic's: lines are dropped and counted instead.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use crate::home::open_append;

/// The file grows to this; then lines are dropped until the daemon has taken it away.
pub const MAX_FILE: u64 = 16 * 1024 * 1024;
/// How long a tunnel waits for the line of its beginning.
const PATIENCE: Duration = Duration::from_millis(100);
/// Room behind that for what tells of dropped lines.
const ROOM_TO_TELL: u64 = 64 * 1024;
/// How often it is tried again to tell of them, as long as that can't be done.
const AGAIN: Duration = Duration::from_secs(5);
/// Most lines that are queued and not in the file yet.
const QUEUE: u64 = 4096;
const BATCH: usize = 256;

/// One raw tunnel.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Line<R> {
    pub id: Uuid,
    /// When it began.
    pub at: Timestamp,
    pub host: Box<str>,
    pub port: u16,
    pub reason: R,
    /// Not there at its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// How a raw tunnel ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct End {
    pub duration_ms: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// One side broke off instead of closing.
    pub aborted: bool,
}

type Entry = Line<super::route::Reason>;

#[derive(Debug)]
struct Queued {
    line: Entry,
    /// Told when the line was written, or dropped.
    done: Option<oneshot::Sender<()>>,
}

/// Where connections leave their lines.
#[derive(Clone, Debug)]
pub struct Spool {
    /// Bounded by `unwritten`.
    queue: mpsc::Sender<Queued>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    dropped: AtomicU64,
    /// Lines that were queued and are not in the file yet.
    unwritten: AtomicU64,
    /// Somebody waited in vain, and no write has come to its end since.
    slow: AtomicBool,
}

impl State {
    /// Writes or drops them, and tells who waits.
    fn write(&self, file: &mut Writer, batch: Vec<Queued>) {
        let count = batch.len() as u64;
        let text = encode(batch.iter().map(|queued| &queued.line));
        let written = file.append(&text, MAX_FILE);
        if !written {
            self.dropped.fetch_add(count, Ordering::Relaxed);
        }
        self.slow.store(false, Ordering::Relaxed);
        for done in batch.into_iter().filter_map(|queued| queued.done) {
            let _ = done.send(());
        }
        file.tell(self.dropped.load(Ordering::Relaxed), written);
        self.unwritten.fetch_sub(count, Ordering::Relaxed);
    }
}

impl Spool {
    /// The handle, and what writes until every handle is gone.
    pub fn new(path: PathBuf) -> (Self, impl FnOnce() + Send + 'static) {
        Self::telling_again_after(AGAIN, path)
    }

    fn telling_again_after(
        again: Duration,
        path: PathBuf,
    ) -> (Self, impl FnOnce() + Send + 'static) {
        let (queue, lines) = mpsc::channel();
        let state = Arc::new(State::default());
        let spool = Self { queue, state: Arc::clone(&state) };
        let write = move || {
            let mut file = Writer { path, file: None, told: 0, told_since: 0 };
            let dropped = || state.dropped.load(Ordering::Relaxed);
            loop {
                let first = if file.owes(dropped()) {
                    lines.recv_timeout(again)
                } else {
                    lines.recv().map_err(RecvTimeoutError::from)
                };
                match first {
                    Ok(first) => {
                        let others = lines.try_iter().take(BATCH - 1);
                        state.write(&mut file, std::iter::once(first).chain(others).collect());
                    }
                    Err(RecvTimeoutError::Timeout) => file.tell(dropped(), false),
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            file.tell_all(dropped());
        };
        (spool, write)
    }

    /// Records a beginning, and waits a moment until it is written.
    pub async fn begin(&self, line: Entry) {
        let (done, written) = oneshot::channel();
        let queued = self.send(Queued { line, done: Some(done) });
        if queued
            && !self.state.slow.load(Ordering::Relaxed)
            && timeout(PATIENCE, written).await.is_err()
        {
            self.state.slow.store(true, Ordering::Relaxed);
        }
    }

    pub fn record(&self, line: Entry) {
        self.send(Queued { line, done: None });
    }

    /// Nothing waits to be written.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state.unwritten.load(Ordering::Relaxed) == 0
    }

    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }

    fn send(&self, queued: Queued) -> bool {
        let unwritten = self.state.unwritten.fetch_add(1, Ordering::Relaxed);
        let sent = unwritten < QUEUE && self.queue.send(queued).is_ok();
        if !sent {
            self.state.unwritten.fetch_sub(1, Ordering::Relaxed);
            self.state.dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }
}

struct Writer {
    path: PathBuf,
    file: Option<File>,
    /// How many dropped lines the file, or one before it, tells of.
    told: u64,
    /// The same since a line was last written.
    told_since: u64,
}

impl Writer {
    /// All of it, or (nearly always) nothing.
    fn append(&mut self, text: &[u8], limit: u64) -> bool {
        let opened = !self.is_current();
        if opened {
            self.file = open_append(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return false };
        let Ok(length) = file.metadata().map(|m| m.len()) else { return false };
        // What was there may end with half a line, of a write for which the disk had no room.
        let text = match opened && length > 0 {
            true => Cow::Owned([b"\n", text].concat()),
            false => Cow::Borrowed(text),
        };
        let room = length + text.len() as u64 <= limit;
        let written = room && file.write_all(&text).is_ok();
        if !written {
            self.file = None;
        }
        written
    }

    /// Leaves a line that says how many were dropped: at once, and while more are each time that
    /// they have doubled, so that these lines stay few.
    fn tell(&mut self, dropped: u64, written: bool) {
        if written {
            self.told_since = 0;
        }
        if self.owes(dropped) {
            self.tell_all(dropped);
        }
    }

    /// Whether it is time to tell.
    fn owes(&self, dropped: u64) -> bool {
        dropped.saturating_sub(self.told) > self.told_since
    }

    fn tell_all(&mut self, dropped: u64) {
        let untold = dropped.saturating_sub(self.told);
        if untold > 0 {
            let line = format!("{{\"dropped\":{untold},\"at\":\"{}\"}}\n", Timestamp::now());
            if self.append(line.as_bytes(), MAX_FILE + ROOM_TO_TELL) {
                self.told = dropped;
                self.told_since = self.told_since.saturating_add(untold);
            }
        }
    }

    /// The daemon takes the file away by renaming it.
    fn is_current(&self) -> bool {
        let there = fs::metadata(&self.path).map(|m| (m.dev(), m.ino()));
        let ours = self.file.as_ref().and_then(|f| f.metadata().ok()).map(|m| (m.dev(), m.ino()));
        there.is_ok_and(|there| ours == Some(there))
    }
}

fn encode<'a>(lines: impl ExactSizeIterator<Item = &'a Entry>) -> Vec<u8> {
    let mut text = Vec::with_capacity(lines.len() * 256);
    for line in lines {
        let start = text.len();
        if serde_json::to_writer(&mut text, line).is_err() {
            text.truncate(start);
        } else {
            text.push(b'\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::edge::health::Cause;
    use crate::edge::route::Reason;

    fn line(host: &str) -> Entry {
        Line {
            id: Uuid::from_u128(1),
            at: "2026-01-02T03:04:05Z".parse().unwrap(),
            host: host.into(),
            port: 443,
            reason: Reason::Daemon(Cause::Refused),
            end: Some(End { duration_ms: 7, bytes_up: 1, bytes_down: 2, aborted: false }),
        }
    }

    fn begun(host: &str) -> Entry {
        Line { end: None, ..line(host) }
    }

    fn writer(path: &Path) -> Writer {
        Writer { path: path.to_path_buf(), file: None, told: 0, told_since: 0 }
    }

    #[test]
    fn a_full_file_tells_of_what_it_has_no_room_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let mut writer = writer(&path);
        File::create(&path).unwrap().set_len(MAX_FILE).unwrap();
        let told = || {
            let text = fs::read_to_string(&path).unwrap();
            text.matches("dropped").count()
        };
        // One line is dropped after the other.
        for dropped in 1..=1000 {
            assert!(!writer.append(b"x\n", MAX_FILE));
            writer.tell(dropped, false);
            assert!(writer.told * 2 >= dropped, "{} of {dropped}", writer.told);
        }
        assert!((1..=12).contains(&told()), "{}", told());
        // The daemon took the file away.
        fs::remove_file(&path).unwrap();
        assert!(writer.append(b"x\n", MAX_FILE));
        writer.tell(1000, true);
        assert_eq!((writer.told, told()), (1000, 1));
        writer.tell(1000, true);
        assert_eq!(told(), 1);
    }

    #[tokio::test]
    async fn lines_follow_a_rename() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let mut writer = writer(&path);
        assert!(writer.append(&encode([&line("a")].into_iter()), MAX_FILE));
        fs::rename(&path, dir.path().join("taken")).unwrap();
        assert!(writer.append(&encode([&line("b"), &begun("c")].into_iter()), MAX_FILE));
        let text = fs::read_to_string(&path).unwrap();
        let read: Vec<Line<String>> =
            text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((&*read[0].host, read[0].reason.as_str()), ("b", "daemon_not_running"));
        assert_eq!((read[0].end.is_some(), read[1].end), (true, None));
        assert!(!text.contains("null"), "{text}");
    }

    #[tokio::test]
    async fn everything_queued_is_written_before_the_task_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let (spool, write) = Spool::new(path.clone());
        for _ in 0..1000 {
            spool.record(line("a"));
        }
        assert_eq!(spool.dropped(), 0);
        drop(spool);
        std::thread::spawn(write).join().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1000);
    }

    #[tokio::test]
    async fn an_unusable_file_costs_only_lines() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, write) = Spool::new(dir.path().join("no/such/dir"));
        spool.record(line("a"));
        let state = Arc::clone(&spool.state);
        drop(spool);
        std::thread::spawn(write).join().unwrap();
        assert_eq!(state.dropped.load(Ordering::Relaxed), 1);
    }

    /// Without a line for the file: the disk was full, and nothing passed any more.
    #[test]
    fn what_was_dropped_is_told_when_it_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("later/p.jsonl");
        let (spool, write) = Spool::telling_again_after(Duration::from_millis(1), path.clone());
        std::thread::spawn(write);
        spool.record(line("a"));
        while spool.dropped() == 0 {
            std::thread::yield_now();
        }
        fs::create_dir(dir.path().join("later")).unwrap();
        let text = loop {
            match fs::read_to_string(&path) {
                Ok(text) if text.ends_with('\n') => break text,
                Ok(_) | Err(_) => std::thread::yield_now(),
            }
        };
        assert!(text.starts_with("{\"dropped\":1,"), "{text}");
    }

    #[test]
    fn what_was_dropped_is_told_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("later/p.jsonl");
        let (spool, write) = Spool::telling_again_after(Duration::MAX, path.clone());
        let writer = std::thread::spawn(write);
        spool.record(line("a"));
        while !spool.is_idle() {
            std::thread::yield_now();
        }
        fs::create_dir(dir.path().join("later")).unwrap();
        drop(spool);
        writer.join().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\"dropped\":1,"), "{text}");
    }

    #[tokio::test]
    async fn a_beginning_is_in_the_file_when_the_wait_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let (spool, write) = Spool::new(path.clone());
        std::thread::spawn(write);
        spool.begin(begun("a")).await;
        assert!(spool.state.slow.load(Ordering::Relaxed) || path.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_behind_one_who_waited_in_vain() {
        let dir = tempfile::tempdir().unwrap();
        // Its task does not run: as if the disk hung.
        let (spool, write) = Spool::new(dir.path().join("p.jsonl"));
        let start = tokio::time::Instant::now();
        for _ in 0..100 {
            spool.begin(begun("a")).await;
        }
        assert_eq!(start.elapsed(), PATIENCE);
        drop(spool);
        std::thread::spawn(write).join().unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("p.jsonl")).unwrap().lines().count(), 100);
    }

    #[test]
    fn half_a_line_is_not_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        fs::write(&path, b"{\"id\":\"0000").unwrap();
        let mut writer = writer(&path);
        for host in ["a", "b"] {
            assert!(writer.append(&encode([&line(host)].into_iter()), MAX_FILE));
        }
        let text = fs::read_to_string(&path).unwrap();
        let read = |line| serde_json::from_str::<Line<String>>(line).ok();
        let hosts: Vec<_> = text.lines().filter_map(read).map(|line| line.host).collect();
        assert_eq!((text.lines().count(), hosts), (3, vec!["a".into(), "b".into()]));
    }

    #[test]
    fn a_full_file_takes_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        File::create(&path).unwrap().set_len(MAX_FILE - 10).unwrap();
        let mut writer = writer(&path);
        assert!(!writer.append(&encode([&line("a")].into_iter()), MAX_FILE));
        assert_eq!(fs::metadata(&path).unwrap().len(), MAX_FILE - 10);
        fs::remove_file(&path).unwrap();
        assert!(writer.append(&encode([&line("a")].into_iter()), MAX_FILE));
    }
}
