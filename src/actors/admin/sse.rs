//! The journal as a stream of server-sent events.
//!
//! Several processes append to the journal, so the stream reads the file rather than listen to our
//! own supervisor: events of root, edge and watchdog come too. It looks only while somebody listens.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::web::{self, Bytes};
use serde::Deserialize;
use tokio::sync::mpsc;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// A comment after this much silence tells both ends that the other still listens.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// What a client should wait before it comes again.
const RETRY_MS: u32 = 1000;
/// A line of the journal is short; what is longer is not one.
const MAX_LINE: u64 = 64 * 1024;

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
    let mut tail = Tail::new(journal, last);
    let mut silence = Duration::ZERO;
    loop {
        let Ok((back, entries)) = web::block(move || {
            let entries = tail.look();
            (tail, entries)
        })
        .await
        else {
            return;
        };
        tail = back;
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

fn frame(entry: &Entry) -> Bytes {
    Bytes::from(format!("id: {}\nevent: {}\ndata: {}\n\n", entry.id, entry.event, entry.line))
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

/// A line of the journal with what the stream needs of it.
#[derive(Debug)]
struct Entry {
    /// `INSTANCE.SEQ`: unique in a file that several processes write.
    id: String,
    event: String,
    line: String,
}

impl Entry {
    fn parse(line: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Parts {
            instance: String,
            seq: u64,
            event: String,
        }
        let line = std::str::from_utf8(line).ok()?.trim_end();
        let parts: Parts = serde_json::from_str(line).ok()?;
        let id = format!("{}.{}", parts.instance, parts.seq);
        Some(Self { id, event: parts.event, line: line.to_owned() })
    }
}

/// Follows the journal through its rotations.
struct Tail {
    path: PathBuf,
    /// Where to begin; taken by the first look.
    begin: Option<Begin>,
    file: Option<File>,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

enum Begin {
    Now,
    After(String),
}

impl Tail {
    fn new(path: PathBuf, last: Option<String>) -> Self {
        let begin = Some(last.map_or(Begin::Now, Begin::After));
        Self { path, begin, file: None, partial: Vec::new() }
    }

    /// What was appended since the last look.
    fn look(&mut self) -> VecDeque<Entry> {
        let mut entries = VecDeque::new();
        match self.begin.take() {
            Some(Begin::Now) => {
                self.file = File::open(&self.path).ok();
                if let Some(file) = &mut self.file {
                    let _ = file.seek(SeekFrom::End(0));
                }
                return entries;
            }
            Some(Begin::After(last)) => {
                // What was rotated away first; from its end the journal itself is next.
                self.file = File::open(self.path.with_extension("1.jsonl")).ok();
                self.read_on(&mut entries);
                // An id that is not kept any more: better twice than not at all.
                if let Some(at) = entries.iter().position(|e| e.id == last) {
                    entries.drain(..=at);
                }
            }
            None => self.read_on(&mut entries),
        }
        entries
    }

    fn read_on(&mut self, entries: &mut VecDeque<Entry>) {
        loop {
            if let Some(file) = &mut self.file
                && read_lines(file, &mut self.partial, entries).is_err()
            {
                self.file = None;
            }
            // Renamed away: nobody appends to it any more, the next one begins.
            let current = std::fs::metadata(&self.path).ok().map(|m| (m.dev(), m.ino()));
            let ours =
                self.file.as_ref().and_then(|f| f.metadata().ok()).map(|m| (m.dev(), m.ino()));
            if current.is_none() || current == ours {
                return;
            }
            self.partial.clear();
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(_) => return,
            }
        }
    }
}

fn read_lines(
    file: &mut File,
    partial: &mut Vec<u8>,
    entries: &mut VecDeque<Entry>,
) -> io::Result<()> {
    let mut reader = BufReader::new(file);
    loop {
        if (&mut reader).take(MAX_LINE).read_until(b'\n', partial)? == 0 {
            return Ok(());
        }
        if partial.ends_with(b"\n") {
            entries.extend(Entry::parse(partial));
            partial.clear();
        } else if partial.len() as u64 >= MAX_LINE {
            // Not a journal's line. Its rest is no JSON and is passed over.
            partial.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(seq: u64) -> String {
        format!(r#"{{"seq":{seq},"instance":"i","event":"ready","child":"tap"}}"#)
    }

    fn append(path: &std::path::Path, text: &str) {
        crate::home::open_append(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn ids(tail: &mut Tail) -> Vec<String> {
        tail.look().into_iter().map(|e| e.id).collect()
    }

    #[test]
    fn resumes_behind_an_id_even_over_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        append(&dir.path().join("events.1.jsonl"), &format!("{}\n{}\n", line(1), line(2)));
        append(&path, &format!("{}\n{}\n", line(3), line(4)));
        let from = |last: &str| ids(&mut Tail::new(path.clone(), Some(last.to_owned())));
        assert_eq!(from("i.1"), ["i.2", "i.3", "i.4"]);
        assert_eq!(from("i.3"), ["i.4"]);
        assert!(from("i.4").is_empty());
        assert_eq!(from("i.99"), ["i.1", "i.2", "i.3", "i.4"]);
        assert!(ids(&mut Tail::new(path, None)).is_empty());
    }

    #[test]
    fn follows_half_lines_rubbish_and_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut tail = Tail::new(path.clone(), None);
        assert!(ids(&mut tail).is_empty());
        let (head, rest) = {
            let mut text = line(1);
            let rest = text.split_off(20);
            (text, rest)
        };
        append(&path, &head);
        assert!(ids(&mut tail).is_empty());
        append(&path, &format!("{rest}\nrubbish\n{}\n", line(2)));
        assert_eq!(ids(&mut tail), ["i.1", "i.2"]);

        append(&path, &format!("{}\n", line(3)));
        std::fs::rename(&path, dir.path().join("events.1.jsonl")).unwrap();
        append(&path, &format!("{}\n", line(4)));
        assert_eq!(ids(&mut tail), ["i.3", "i.4"]);
        assert!(ids(&mut tail).is_empty());
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
