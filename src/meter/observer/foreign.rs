//! An observer that is told what to see, for the fuzzer.

use super::*;

pub(crate) fn subject(alpn: Option<&[u8]>, since: (Timestamp, Instant)) -> Subject {
    Subject {
        entry: Entry::unrecorded(Uuid::nil()),
        host: String::new(),
        port: 443,
        local: false,
        alpn: alpn.map(<[u8]>::to_vec),
        since,
        clocks: |since| since,
        attribution: watch::channel(None).1,
    }
}

pub(crate) fn observe(
    subject: Subject,
    sink: Arc<dyn RowSink>,
    script: impl FnOnce(&mut dyn FnMut(Seen<'_>)),
) -> Observed {
    let book = Arc::new(ArcSwap::from(Book::builtin()));
    let mut observer = Observer::new(subject, sink, book, follower, Arc::default());
    script(&mut |seen| observer.see(seen));
    observer.end();
    observer.settle();
    observer.observed
}
