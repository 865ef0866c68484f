//! The journal as a stream of server-sent events.
//!
//! Several processes append to the journal, so the stream reads the file rather than listen to our
//! own supervisor: events of root, edge and watchdog come too. It looks only while somebody listens.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::web::{self, Bytes};
use tokio::sync::mpsc;

use crate::supervisor::JournalEntry;
use crate::supervisor::journal::{Tail, read_all};

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

/// Streams what comes after `last`; what comes from now on, if that is `None`.
pub fn response(journal: PathBuf, last: Option<String>, slot: Slot) -> HttpResponse {
    let (send, receive) = mpsc::channel(64);
    actix_web::rt::spawn(pump(journal, last, send, slot));
    HttpResponse::Ok()
        .insert_header(("content-type", "text/event-stream"))
        .insert_header(("x-accel-buffering", "no"))
        .body(Events(receive))
}

async fn pump(journal: PathBuf, last: Option<String>, send: mpsc::Sender<Bytes>, slot: Slot) {
    if send.send(Bytes::from(format!("retry: {RETRY_MS}\n\n"))).await.is_err() {
        return;
    }
    let mut source = Source::new(journal, last);
    let mut silence = Duration::ZERO;
    loop {
        let Ok((back, entries)) = web::block(move || {
            let entries = source.look();
            (source, entries)
        })
        .await
        else {
            return;
        };
        source = back;
        for entry in entries {
            silence = Duration::ZERO;
            if send.send(frame(&entry)).await.is_err() {
                return;
            }
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

fn frame(entry: &JournalEntry) -> Bytes {
    let data = serde_json::to_string(entry).unwrap_or_default();
    Bytes::from(format!(
        "id: {}\nevent: {}\ndata: {data}\n\n",
        entry.id(),
        entry.event.replace(char::is_control, " ")
    ))
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

/// What a stream has sent, and where it goes on.
struct Source {
    path: PathBuf,
    /// Where to begin; taken by the first look.
    last: Option<String>,
    tail: Tail,
    /// The highest number of each process instance in the backlog: what was appended while it was
    /// read is in the tail too.
    sent: HashMap<String, u64>,
}

impl Source {
    fn new(path: PathBuf, last: Option<String>) -> Self {
        let tail = Tail::at_end(&path);
        Self { path, last, tail, sent: HashMap::new() }
    }

    /// What was appended since the last look.
    fn look(&mut self) -> Vec<JournalEntry> {
        let mut entries = Vec::new();
        if let Some(last) = self.last.take() {
            entries = read_all(&self.path).unwrap_or_default();
            for entry in &entries {
                let highest = self.sent.entry(entry.instance.clone()).or_default();
                *highest = entry.seq.max(*highest);
            }
            // An id that is not kept any more: better twice than not at all.
            if let Some(at) = entries.iter().position(|e| e.id() == last) {
                entries.drain(..=at);
            }
        }
        let sent = &self.sent;
        let fresh = |e: &JournalEntry| sent.get(&e.instance).is_none_or(|highest| e.seq > *highest);
        entries.extend(self.tail.poll().into_iter().filter(fresh));
        entries
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
        source.look().iter().map(JournalEntry::id).collect()
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
        let (send, mut receive) = mpsc::channel(64);
        let count = Arc::default();
        let slot = Slot::take(&count, 1).unwrap();
        let began = std::time::Instant::now();
        let streaming =
            actix_web::rt::spawn(pump(dir.path().join("events.jsonl"), None, send, slot));
        assert!(receive.recv().await.unwrap().starts_with(b"retry: "));
        assert_eq!(receive.recv().await.unwrap(), Bytes::from_static(b": still here\n\n"));
        assert!(began.elapsed() < Duration::from_secs(8), "two of them are too long for a place");
        drop(receive);
        streaming.await.unwrap();
        assert_eq!(count.load(Ordering::Acquire), 0);
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
