//! What was not metered: one line per raw tunnel to a metered host, for the daemon to ingest.
//!
//! Written in batches on a blocking thread. Traffic never waits for the file, and no trouble with
//! the file is ever the traffic's: lines are dropped and counted instead.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::home::open_append;

/// The file grows to this; then lines are dropped until the daemon has taken it away.
pub const MAX_FILE: u64 = 16 * 1024 * 1024;
const QUEUE: usize = 4096;
const BATCH: usize = 256;

/// One raw tunnel.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Line<R> {
    /// When it began.
    pub at: Timestamp,
    pub host: Box<str>,
    pub port: u16,
    pub duration_ms: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub reason: R,
}

type Queued = Line<super::route::Reason>;

/// Where connections leave their lines.
#[derive(Clone, Debug)]
pub struct Spool {
    queue: mpsc::Sender<Queued>,
    dropped: Arc<AtomicU64>,
    /// Lines that were queued and are not in the file yet.
    unwritten: Arc<AtomicU64>,
}

impl Spool {
    /// The handle, and the task that writes until every handle is gone.
    pub fn new(path: PathBuf) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, mut lines) = mpsc::channel::<Queued>(QUEUE);
        let (dropped, unwritten) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let spool =
            Self { queue, dropped: Arc::clone(&dropped), unwritten: Arc::clone(&unwritten) };
        let write = async move {
            let mut file = Writer { path, file: None };
            let mut batch = Vec::new();
            while lines.recv_many(&mut batch, BATCH).await > 0 {
                let count = batch.len() as u64;
                let text = encode(&batch);
                batch.clear();
                let written = tokio::task::spawn_blocking(move || {
                    let written = file.append(&text);
                    (file, written)
                });
                let Ok((back, ok)) = written.await else { return };
                file = back;
                if !ok {
                    dropped.fetch_add(count, Ordering::Relaxed);
                }
                unwritten.fetch_sub(count, Ordering::Relaxed);
            }
        };
        (spool, write)
    }

    pub fn record(&self, line: Queued) {
        self.unwritten.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(line).is_err() {
            self.unwritten.fetch_sub(1, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nothing waits to be written.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.unwritten.load(Ordering::Relaxed) == 0
    }

    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

struct Writer {
    path: PathBuf,
    file: Option<File>,
}

impl Writer {
    /// All of it, or (nearly always) nothing.
    fn append(&mut self, text: &[u8]) -> bool {
        if !self.is_current() {
            self.file = open_append(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return false };
        let room = file.metadata().is_ok_and(|m| m.len() + text.len() as u64 <= MAX_FILE);
        let written = room && file.write_all(text).is_ok();
        if !written {
            self.file = None;
        }
        written
    }

    /// The daemon takes the file away by renaming it.
    fn is_current(&self) -> bool {
        let there = fs::metadata(&self.path).map(|m| (m.dev(), m.ino()));
        let ours = self.file.as_ref().and_then(|f| f.metadata().ok()).map(|m| (m.dev(), m.ino()));
        there.is_ok_and(|there| ours == Some(there))
    }
}

fn encode(lines: &[Queued]) -> Vec<u8> {
    let mut text = Vec::with_capacity(lines.len() * 192);
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
    use super::*;
    use crate::edge::health::Cause;
    use crate::edge::route::Reason;

    fn line(host: &str) -> Queued {
        Line {
            at: "2026-01-02T03:04:05Z".parse().unwrap(),
            host: host.into(),
            port: 443,
            duration_ms: 7,
            bytes_up: 1,
            bytes_down: 2,
            reason: Reason::Daemon(Cause::Refused),
        }
    }

    #[tokio::test]
    async fn lines_follow_a_rename() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let mut writer = Writer { path: path.clone(), file: None };
        assert!(writer.append(&encode(&[line("a")])));
        fs::rename(&path, dir.path().join("taken")).unwrap();
        assert!(writer.append(&encode(&[line("b"), line("c")])));
        let text = fs::read_to_string(&path).unwrap();
        let read: Vec<Line<String>> =
            text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((&*read[0].host, read[0].reason.as_str()), ("b", "daemon_not_running"));
        assert!(
            text.starts_with(r#"{"at":"2026-01-02T03:04:05Z","host":"b","port":443,"#),
            "{text}"
        );
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
        write.await;
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1000);
    }

    #[tokio::test]
    async fn an_unusable_file_costs_only_lines() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, write) = Spool::new(dir.path().join("no/such/dir"));
        spool.record(line("a"));
        let dropped = Arc::clone(&spool.dropped);
        drop(spool);
        write.await;
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_full_file_takes_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        File::create(&path).unwrap().set_len(MAX_FILE - 10).unwrap();
        let mut writer = Writer { path: path.clone(), file: None };
        assert!(!writer.append(&encode(&[line("a")])));
        assert_eq!(fs::metadata(&path).unwrap().len(), MAX_FILE - 10);
        fs::remove_file(&path).unwrap();
        assert!(writer.append(&encode(&[line("a")])));
    }
}
