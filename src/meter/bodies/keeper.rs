//! The switch, and the thread that writes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::{Timestamp, tz::TimeZone};
use slog::Logger;
use uuid::Uuid;

use super::capture::{Body, Capture, Room};
use super::redact::redact;
use super::shelf::{Kept, KeptBody, Shelf};
use crate::config::Bodies;
use crate::home::Home;

/// Memory for what is in hand and what waits for the disk.
const ROOM: usize = 64 << 20;
/// How often old files are looked for.
const LOOK: Duration = Duration::from_secs(600);
/// At the end of a body that was broken off: what may be the beginning of a secret.
const LAST_WORD: usize = 4096;

/// What has become of them, in this process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
pub struct Stats {
    pub enabled: bool,
    pub kept: u64,
    /// No room, no disk, or an error of ours.
    pub dropped: u64,
}

/// Clones share.
#[derive(Clone, Debug)]
pub struct Keeper(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    wanted: ArcSwap<Bodies>,
    room: Arc<Room>,
    kept: AtomicU64,
    failed: AtomicU64,
    stopped: AtomicBool,
    /// `None`: there is no thread.
    queue: Mutex<Option<Sender<Job>>>,
}

enum Job {
    Keep(Uuid, Box<Capture>),
    /// The configuration is another one.
    Look,
    Flush(Sender<()>),
}

impl Keeper {
    /// Keeps nothing, ever.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Starts the thread. Without one nothing is kept.
    #[must_use]
    pub fn start(home: &Home, wanted: Bodies, log: &Logger) -> Self {
        let (queue, jobs) = mpsc::channel();
        let shared = Arc::new(Shared {
            wanted: ArcSwap::from_pointee(wanted),
            room: Room::new(ROOM),
            kept: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            queue: Mutex::new(Some(queue)),
        });
        let worker = Worker {
            shared: Arc::clone(&shared),
            shelf: Shelf::of(home),
            log: log.new(slog::o!("part" => "bodies")),
            total: 0,
            fault: None,
        };
        let thread = std::thread::Builder::new().name("bodies".to_owned());
        if let Err(e) = thread.spawn(move || worker.run(&jobs)) {
            slog::error!(log, "no thread for bodies: none will be kept"; "error" => %e);
            *shared.queue.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Self(Some(shared))
    }

    /// Takes the configuration over; from here on nothing more is written if it says so.
    pub fn want(&self, wanted: Bodies) {
        if let Some(shared) = &self.0 {
            shared.wanted.store(Arc::new(wanted));
            shared.send(Job::Look);
        }
    }

    /// Bodies are not wanted any more, whatever else is.
    pub fn turn_off(&self) {
        if let Some(shared) = &self.0 {
            let wanted = Bodies { enabled: false, ..**shared.wanted.load() };
            shared.wanted.store(Arc::new(wanted));
        }
    }

    /// For an exchange that begins, if its bodies are wanted.
    #[must_use]
    pub fn begin(&self) -> Option<Capture> {
        let shared = self.0.as_ref()?;
        let wanted = shared.wanted.load();
        wanted.enabled.then(|| Capture::new(wanted.body_bytes, Arc::clone(&shared.room)))
    }

    /// For one that is over. Never waits.
    pub fn keep(&self, id: Uuid, capture: Capture) {
        let Some(shared) = self.0.as_ref().filter(|_| !capture.is_given_up()) else { return };
        if shared.wanted.load().enabled && !shared.send(Job::Keep(id, Box::new(capture))) {
            shared.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        let Some(shared) = &self.0 else { return Stats::default() };
        Stats {
            enabled: shared.wanted.load().enabled,
            kept: shared.kept.load(Ordering::Relaxed),
            dropped: shared.failed.load(Ordering::Relaxed).saturating_add(shared.room.refused()),
        }
    }

    /// Waits until what was given so far is written or dropped. False when that took too long.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        let Some(shared) = &self.0 else { return true };
        let (done, waits) = mpsc::channel();
        shared.send(Job::Flush(done)) && waits.recv_timeout(patience).is_ok()
    }

    /// The same, and nothing is written afterwards.
    pub fn stop(&self, deadline: Instant) -> bool {
        let written = self.flush(deadline.saturating_duration_since(Instant::now()));
        if let Some(shared) = &self.0 {
            shared.stopped.store(true, Ordering::Release);
        }
        written
    }
}

impl Shared {
    fn send(&self, job: Job) -> bool {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.as_ref().is_some_and(|queue| queue.send(job).is_ok())
    }

    fn wants(&self) -> bool {
        self.wanted.load().enabled && !self.stopped.load(Ordering::Acquire)
    }
}

struct Worker {
    shared: Arc<Shared>,
    shelf: Shelf,
    log: Logger,
    /// Bytes on disk, as far as we know.
    total: u64,
    /// What the log was told last.
    fault: Option<String>,
}

impl Worker {
    fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        self.prune();
        let mut looked = Instant::now();
        loop {
            match jobs.recv_timeout(LOOK.saturating_sub(looked.elapsed())) {
                Ok(Job::Keep(id, capture)) => self.keep(id, &capture),
                Ok(Job::Flush(done)) => drop(done.send(())),
                Ok(Job::Look) => self.prune(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if looked.elapsed() >= LOOK {
                self.prune();
                looked = Instant::now();
            }
        }
    }

    fn keep(&mut self, id: Uuid, capture: &Capture) {
        if !self.shared.wants() {
            return;
        }
        // It reads foreign bytes.
        let made = catch_unwind(AssertUnwindSafe(|| Kept {
            id,
            request: kept(&capture.request, capture.cap()),
            response: kept(&capture.response, capture.cap()),
        }));
        let Ok(made) = made else { return self.failed("taking secrets out panicked") };
        // That took a while.
        if !self.shared.wants() {
            return;
        }
        match self.shelf.write(&made) {
            Ok(bytes) => {
                self.fault = None;
                self.shared.kept.fetch_add(1, Ordering::Relaxed);
                self.total = self.total.saturating_add(bytes);
                if self.total > self.shared.wanted.load().total_bytes {
                    self.prune();
                }
            }
            Err(e) => self.failed(&e.to_string()),
        }
    }

    fn failed(&mut self, why: &str) {
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
        self.complain(why);
    }

    fn prune(&mut self) {
        let wanted = **self.shared.wanted.load();
        let today = Timestamp::now().to_zoned_datetime(TimeZone::UTC).date();
        // A tenth more than must go, so that not each new file has to look through all of them.
        let over = self.total > wanted.total_bytes;
        let most = if over { wanted.total_bytes / 10 * 9 } else { wanted.total_bytes };
        match self.shelf.prune(wanted.retention_days, most, today) {
            Ok(stock) => self.total = stock.bytes,
            Err(e) => self.complain(&e.to_string()),
        }
    }

    /// Once for each reason, as it will come again with each body.
    fn complain(&mut self, why: &str) {
        if self.fault.as_deref() != Some(why) {
            slog::warn!(self.log, "bodies can't be kept as they should"; "error" => why);
            self.fault = Some(why.to_owned());
        }
    }
}

/// What goes to the disk.
fn kept(body: &Body, cap: usize) -> KeptBody {
    let mut kept = KeptBody {
        bytes: body.bytes,
        cut: body.bytes > cap as u64,
        missing: body.unread.clone(),
        ..KeptBody::default()
    };
    let Some(text) = text(body) else {
        kept.missing = kept.missing.or_else(|| Some("it is not text".to_owned()));
        return kept;
    };
    let text = if body.whole || kept.cut { text } else { without_last_word(text) };
    let redacted = redact(text, cap);
    kept.text = Some(redacted.text);
    kept.redacted = redacted.found.into_iter().map(|(class, n)| (class.to_owned(), n)).collect();
    kept
}

/// `None`: it is none, and so nobody could tell what is secret in it.
fn text(body: &Body) -> Option<&str> {
    match std::str::from_utf8(&body.held) {
        Ok(text) => Some(text),
        // The last character is not all there.
        Err(e) if e.error_len().is_none() => {
            std::str::from_utf8(body.held.get(..e.valid_up_to())?).ok()
        }
        Err(_) => None,
    }
}

fn without_last_word(text: &str) -> &str {
    let word = |c: char| c.is_ascii_alphanumeric() || "_-+/=.~:@%\\".contains(c);
    let rest = text.trim_end_matches(word);
    if text.len() - rest.len() > LAST_WORD { text } else { rest }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
