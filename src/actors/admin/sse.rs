//! The journal as a stream of server-sent events.
//!
//! Several processes append to the journal, so the stream reads the file rather than listen to our
//! own supervisor: events of root, edge and watchdog come too. It looks only while somebody listens, and
//! reads on only when what it read before is on its way.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::{self, Bytes};
use actix_web::{HttpResponse, HttpResponseBuilder};
use tokio::sync::mpsc;

use crate::supervisor::JournalEntry;
use crate::supervisor::journal::{Tail, read_last};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// A comment after this much silence tells both ends that the other still listens. Who has left is noticed
/// at the second one only, and takes up a place until then.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// What a client should wait before it comes again.
const RETRY_MS: u32 = 1000;

/// One open stream, counted.
#[derive(Debug)]
pub struct Slot(Arc<AtomicUsize>);

impl Slot {
    /// `None`: there are `most` already.
    #[must_use]
    pub fn take(count: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < most).then_some(n + 1))
            .ok()
            .map(|_| Self(Arc::clone(count)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether who listens still may.
pub type May = Box<dyn Fn() -> bool>;

/// Streams what comes after `last`; what comes from now on, if that is `None`.
pub fn response(journal: PathBuf, last: Option<String>, slot: Slot, may: May) -> HttpResponse {
    // One piece waits while the next one is read.
    let (send, receive) = mpsc::channel(1);
    actix_web::rt::spawn(pump(journal, last, send, slot, may));
    head().body(Events(receive))
}

/// The last events, and no stream.
pub async fn last(journal: PathBuf, most: usize) -> HttpResponse {
    let entries = web::block(move || read_last(&journal, most)).await.unwrap_or_default();
    head().body(frames(&entries))
}

/// What every answer begins with.
pub fn head() -> HttpResponseBuilder {
    let mut head = HttpResponse::Ok();
    head.insert_header(("content-type", "text/event-stream"));
    head.insert_header(("x-accel-buffering", "no"));
    head
}

async fn pump(
    journal: PathBuf,
    last: Option<String>,
    send: mpsc::Sender<Bytes>,
    slot: Slot,
    may: May,
) {
    if send.send(Bytes::from(format!("retry: {RETRY_MS}\n\n"))).await.is_err() {
        return;
    }
    let mut source = Source::new(journal, last);
    let mut silence = Duration::ZERO;
    while may() {
        let Ok((back, entries)) = web::block(move || {
            let entries = source.look();
            (source, entries)
        })
        .await
        else {
            return;
        };
        source = back;
        if let Some(entries) = entries {
            silence = Duration::ZERO;
            if !entries.is_empty() && send.send(frames(&entries)).await.is_err() {
                return;
            }
            continue;
        }
        if silence >= HEARTBEAT {
            silence = Duration::ZERO;
            if send.send(Bytes::from_static(b": still here\n\n")).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => silence += LOOK,
            () = send.closed() => break,
        }
    }
    drop(slot);
}

fn frames(entries: &[JournalEntry]) -> Bytes {
    let frame = |entry: &JournalEntry| {
        let data = serde_json::to_string(entry).unwrap_or_default();
        let event = entry.event.replace(char::is_control, " ");
        format!("id: {}\nevent: {event}\ndata: {data}\n\n", entry.id())
    };
    Bytes::from(entries.iter().map(frame).collect::<String>())
}

struct Events(mpsc::Receiver<Bytes>);

impl MessageBody for Events {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(Ok))
    }
}

/// Where a stream goes on.
struct Source {
    path: PathBuf,
    /// What was seen last, until it is found.
    last: Option<String>,
    tail: Tail,
}

impl Source {
    fn new(path: PathBuf, last: Option<String>) -> Self {
        let tail = if last.is_some() { Tail::at_kept(&path) } else { Tail::at_end(&path) };
        Self { path, last, tail }
    }

    /// A bit of what was appended since the last look; `None`: that is all.
    fn look(&mut self) -> Option<Vec<JournalEntry>> {
        while let Some(last) = &self.last {
            let Some(mut entries) = self.tail.poll_some() else {
                // An id that is not kept any more: better twice than not at all.
                self.tail = Tail::at_kept(&self.path);
                self.last = None;
                break;
            };
            if let Some(at) = entries.iter().position(|e| e.id() == *last) {
                entries.drain(..=at);
                self.last = None;
                return Some(entries);
            }
        }
        self.tail.poll_some()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(seq: u64) -> String {
        format!(
            "{}\n",
            serde_json::json!({
                "seq": seq, "at": "2026-11-01T00:00:00Z", "process": "daemon", "instance": "i",
                "event": "ready",
            })
        )
    }

    fn append(path: &std::path::Path, text: &str) {
        crate::home::open_append(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn ids(source: &mut Source) -> Vec<String> {
        std::iter::from_fn(|| source.look()).flatten().map(|e| e.id()).collect()
    }

    #[test]
    fn resumes_behind_an_id_even_over_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        append(&dir.path().join("events.1.jsonl"), &(line(1) + &line(2)));
        append(&path, &(line(3) + &line(4)));
        let from = |last: &str| ids(&mut Source::new(path.clone(), Some(last.to_owned())));
        assert_eq!(from("i:1"), ["i:2", "i:3", "i:4"]);
        assert_eq!(from("i:3"), ["i:4"]);
        assert!(from("i:4").is_empty());
        assert_eq!(from("i:99"), ["i:1", "i:2", "i:3", "i:4"]);
        assert!(ids(&mut Source::new(path, None)).is_empty());
    }

    #[test]
    fn what_comes_while_the_backlog_is_read_comes_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        append(&path, &line(1));
        let mut source = Source::new(path.clone(), Some("i:1".to_owned()));
        append(&path, &line(2));
        assert_eq!(ids(&mut source), ["i:2"]);
        append(&path, &line(3));
        assert_eq!(ids(&mut source), ["i:3"]);
        assert!(ids(&mut source).is_empty());
    }

    #[actix::test]
    async fn a_stream_is_not_silent_for_long_and_gives_its_place_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let (send, mut receive) = mpsc::channel(1);
        let count = Arc::default();
        let slot = Slot::take(&count, 1).unwrap();
        let began = std::time::Instant::now();
        let streaming = actix_web::rt::spawn(pump(path, None, send, slot, Box::new(|| true)));
        assert!(receive.recv().await.unwrap().starts_with(b"retry: "));
        assert_eq!(receive.recv().await.unwrap(), Bytes::from_static(b": still here\n\n"));
        assert!(began.elapsed() < Duration::from_secs(8), "two of them are too long for a place");
        drop(receive);
        streaming.await.unwrap();
        assert_eq!(count.load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_long_journal_is_read_bit_by_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let many = |seqs: std::ops::Range<u64>| seqs.map(line).collect::<String>();
        append(&dir.path().join("events.1.jsonl"), &many(1..5001));
        append(&path, &many(5001..9001));
        let mut source = Source::new(path.clone(), Some("0".to_owned()));
        let mut seen = Vec::new();
        while let Some(entries) = source.look() {
            assert!(entries.len() < 1500, "{} at once", entries.len());
            seen.extend(entries.iter().map(|e| e.seq));
        }
        assert_eq!(seen, (1..9001).collect::<Vec<_>>());
        let mut source = Source::new(path.clone(), Some("i:4999".to_owned()));
        assert_eq!(ids(&mut source).len(), 4001);
        let seqs = |most| read_last(&path, most).iter().map(|e| e.seq).collect::<Vec<_>>();
        assert_eq!(seqs(3), [8998, 8999, 9000]);
        assert_eq!(read_last(&dir.path().join("none.jsonl"), 3).len(), 0);
        // Over a rotation.
        std::fs::write(&path, line(9001)).unwrap();
        assert_eq!(seqs(2), [5000, 9001]);
    }

    #[actix::test]
    async fn a_stream_ends_when_who_listens_may_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let (send, mut receive) = mpsc::channel(1);
        let slot = Slot::take(&Arc::default(), 1).unwrap();
        let may = std::rc::Rc::new(std::cell::Cell::new(true));
        let asked = std::rc::Rc::clone(&may);
        let path = dir.path().join("events.jsonl");
        let streaming =
            actix_web::rt::spawn(pump(path, None, send, slot, Box::new(move || asked.get())));
        assert!(receive.recv().await.is_some());
        may.set(false);
        assert!(receive.recv().await.is_none());
        streaming.await.unwrap();
    }

    #[test]
    fn slots_are_given_back() {
        let count = Arc::default();
        let first = Slot::take(&count, 1).unwrap();
        assert!(Slot::take(&count, 1).is_none());
        drop(first);
        assert!(Slot::take(&count, 1).is_some());
    }
}
