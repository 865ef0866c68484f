//! The event journal: append-only JSON lines that all our processes share.
//!
//! A line is written by one `write` on an `O_APPEND` descriptor, in a thread of its own: a full
//! or hanging disk costs lines, which are counted, and never delays a supervisor.

mod read;
mod write;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

pub use read::{Tail, read_all, read_last};

/// Entries that wait for the disk; more are lost.
const WAITING: usize = 1024;
const LISTENERS: usize = 256;

/// One line.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct JournalEntry {
    /// From 1, per process instance.
    pub seq: u64,
    pub at: Timestamp,
    /// `root`, `edge`, `daemon`, `watchdog`.
    pub process: String,
    /// Differs for each start of a process.
    pub instance: String,
    /// With the names of its supervisors, if nested: `meter.ledger`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub child: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub generation: Option<u64>,
    pub event: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<String>,
    /// Before the restart that follows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub delay_ms: Option<u64>,
    /// What [`super::replay`] needs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub step: Option<Step>,
}

/// The input of one `step`, as it was.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Step {
    /// The supervisor, `""` for a process's own.
    pub tree: String,
    /// Which start of that supervisor.
    pub run: u64,
    /// Since that supervisor's start.
    pub micros: u64,
    #[serde(flatten)]
    pub event: super::event::Event,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plan: Option<super::step::Plan>,
}

impl JournalEntry {
    /// Names the entry among all processes' (an event id for streams).
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}:{}", self.instance, self.seq)
    }
}

impl fmt::Display for JournalEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} {:<8} ", self.at, self.process)?;
        if let Some(child) = &self.child {
            write!(f, "{child}")?;
            if let Some(generation) = self.generation {
                write!(f, "#{generation}")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.event.replace('_', " "))?;
        if let Some(cause) = &self.cause {
            write!(f, " ({cause})")?;
        }
        if let Some(ms) = self.delay_ms {
            write!(f, ", again in {ms} ms")?;
        }
        Ok(())
    }
}

/// What there is to say; time, sequence and process are added.
#[derive(Clone, Debug, Default)]
pub struct Note {
    pub child: Option<String>,
    pub generation: Option<u64>,
    pub event: String,
    pub cause: Option<String>,
    pub delay_ms: Option<u64>,
    pub step: Option<Step>,
}

impl Note {
    #[must_use]
    pub fn new(event: &str) -> Self {
        Self { event: event.to_owned(), ..Self::default() }
    }

    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }
}

/// Where a process's supervisors write. Clones share the sequence.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    process: &'static str,
    instance: String,
    seq: Mutex<u64>,
    writer: Option<SyncSender<Message>>,
    lost: Arc<AtomicU64>,
    listeners: broadcast::Sender<JournalEntry>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Flush(mpsc::Sender<()>),
}

impl Journal {
    /// Appends to `path`. Never fails: what can't be written is counted.
    #[must_use]
    pub fn open(path: &Path, process: &'static str) -> Self {
        let lost = Arc::new(AtomicU64::new(0));
        let (writer, lines) = mpsc::sync_channel(WAITING);
        let (path, count) = (path.to_owned(), Arc::clone(&lost));
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write::run(&path, &lines, &count));
        Self::with(process, thread.is_ok().then_some(writer), lost)
    }

    /// Only to listeners, no file.
    #[must_use]
    pub fn disabled() -> Self {
        Self::with("", None, Arc::default())
    }

    fn with(
        process: &'static str,
        writer: Option<SyncSender<Message>>,
        lost: Arc<AtomicU64>,
    ) -> Self {
        let (listeners, _) = broadcast::channel(LISTENERS);
        let instance = uuid::Uuid::now_v7().simple().to_string();
        Self(Arc::new(Inner { process, instance, seq: Mutex::new(0), writer, lost, listeners }))
    }

    pub fn append(&self, note: Note) {
        let inner = &*self.0;
        // The lock keeps file order and sequence the same; it is held for no i/o.
        let mut seq = inner.seq.lock().unwrap_or_else(PoisonError::into_inner);
        *seq += 1;
        let entry = JournalEntry {
            seq: *seq,
            at: Timestamp::now(),
            process: inner.process.to_owned(),
            instance: inner.instance.clone(),
            child: note.child,
            generation: note.generation,
            event: note.event,
            cause: note.cause,
            delay_ms: note.delay_ms,
            step: note.step,
        };
        if let Some(writer) = &inner.writer {
            let sent = serde_json::to_vec(&entry).is_ok_and(|mut line| {
                line.push(b'\n');
                writer.try_send(Message::Line(line)).is_ok()
            });
            if !sent {
                inner.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        let _ = inner.listeners.send(entry);
    }

    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<JournalEntry> {
        self.0.listeners.subscribe()
    }

    /// Entries that the file misses.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Waits, no longer than this, until what was appended so far is in the file.
    pub fn flush(&self, deadline: Duration) {
        if let Some(writer) = &self.0.writer {
            let (done, wait) = mpsc::channel();
            if writer.try_send(Message::Flush(done)).is_ok() {
                let _ = wait.recv_timeout(deadline);
            }
        }
    }
}

#[cfg(test)]
mod tests;
