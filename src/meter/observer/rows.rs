//! What an observer writes: when, and with whose name.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{MAX_UNATTRIBUTED, Observer, RowSink};
use crate::meter::exchange::turns::Turns;
use crate::meter::exchange::{Exchange, ExchangeStart};
use crate::meter::feed::Closing;
use crate::meter::http::{GaveUp, Side, StreamId};
use crate::meter::price::Book;
use crate::meter::row::{Completeness, Row};

/// So much may the clocks differ: one that is kept right by small steps is not followed.
const STEP: SignedDuration = SignedDuration::from_secs(2);

impl Observer {
    pub(super) fn start(&self, at: Timestamp, ahead: SignedDuration) -> ExchangeStart {
        ExchangeStart {
            id: Uuid::now_v7(),
            at: at.checked_add(ahead).unwrap_or(at),
            host: self.subject.host.clone(),
            port: self.subject.port,
            local: self.subject.local,
            protocol: self.protocol,
        }
    }

    /// When it was, counted from the connection's beginning.
    pub(super) fn moment(&self, at: Instant) -> Timestamp {
        let (timestamp, instant) = self.subject.since;
        timestamp.checked_add(at.saturating_duration_since(instant)).unwrap_or(timestamp)
    }

    /// How much later it is than that count says: the monotonic clock stands still while the machine
    /// sleeps, and the other one may have been set. Asked once for each exchange, so that its
    /// durations are not touched.
    pub(super) fn ahead(&self) -> SignedDuration {
        let (timestamp, instant) = (self.subject.clocks)(self.subject.since);
        let ahead = timestamp.duration_since(self.moment(instant));
        if ahead.abs() < STEP { SignedDuration::ZERO } else { ahead }
    }

    /// What a silent WebSocket says next may begin another response.
    pub(super) fn begin_turn(&mut self, stream: StreamId) {
        if self.streams.get(&stream).is_some_and(|t| t.turns.as_ref().is_some_and(Turns::is_silent))
        {
            let ahead = self.ahead();
            self.streams.get_mut(&stream).into_iter().for_each(|t| t.turns_ahead = ahead);
        }
    }

    /// Writes the rows of what is under way and has news, once for all that was seen of it in one go: most
    /// requests are over by then, and are written once.
    pub(super) fn settle(&mut self) {
        match std::mem::take(&mut self.unregistered) {
            0 => {}
            requests => self.subject.entry.seen(requests),
        }
        let streams: Vec<StreamId> =
            self.streams.iter().filter(|(_, t)| t.news || t.fed).map(|(id, _)| *id).collect();
        for stream in streams {
            if catch_unwind(AssertUnwindSafe(|| self.write_news(stream))).is_err() {
                return self.give_up(GaveUp::Panicked, Instant::now());
            }
        }
    }

    /// A client that was told to leave, and then does, has not hung up.
    pub(super) fn closing(&self) -> Option<Closing> {
        match self.closing {
            None | Some(Closing::Orderly | Closing::By(Side::Client))
                if self.progress.is_parting() =>
            {
                Some(Closing::Ours)
            }
            closing @ (None | Some(Closing::Orderly | Closing::By(_) | Closing::Ours)) => closing,
        }
    }

    fn write_news(&mut self, stream: StreamId) {
        let Some(tracked) = self.streams.get_mut(&stream) else { return };
        tracked.look();
        if tracked.news {
            self.write(stream);
        }
    }

    pub(super) fn write(&mut self, stream: StreamId) {
        let row = self.row(stream);
        row.into_iter().for_each(|row| self.record(row));
    }

    /// All that is known of it; with that, the bodies of what is over are kept.
    pub(super) fn row(&mut self, stream: StreamId) -> Option<Row> {
        let closing = self.closing();
        let tracked = self.streams.get_mut(&stream)?;
        let row = row_of(&tracked.exchange, &self.book.load(), closing);
        keep(&*self.sink, &mut tracked.exchange, &row);
        tracked.news = false;
        Some(row)
    }

    /// Ends what can't be followed any more.
    pub(super) fn lose(&mut self, stream: StreamId, reason: GaveUp, at: Timestamp) {
        self.observed.lossy.get_or_insert(reason);
        // After a panic an exchange may be in any state.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            self.turns(stream, at, |turns, _, at, sink| turns.lossy(reason, at, sink));
        }));
        let row = catch_unwind(AssertUnwindSafe(|| {
            if let Some(tracked) = self.streams.get_mut(&stream) {
                tracked.exchange.lossy(reason, tracked.at(at));
            }
            self.row(stream)
        }));
        self.streams.remove(&stream);
        if let Ok(Some(row)) = row {
            self.record(row);
        }
    }

    pub(super) fn note_exchange(&mut self) {
        self.observed.exchanges += 1;
        self.unregistered += 1;
    }

    pub(super) fn record(&mut self, mut row: Row) {
        row.connection = Some(self.subject.entry.id());
        // An earlier writing of this row must not come after this one, whenever the owner gets known.
        self.unattributed.retain(|waiting| waiting.id != row.id);
        let known = self.subject.attribution.borrow().clone();
        if let Some(known) = known {
            known.apply(&mut row);
        } else if self.unattributed.len() < MAX_UNATTRIBUTED {
            self.unattributed.push(row.clone());
        }
        self.sink.record(row);
    }

    /// The owner is known now: what was written without goes out again.
    pub(super) fn attribute(&mut self) {
        let known = self.subject.attribution.borrow().clone();
        let Some(known) = known else { return };
        for mut row in std::mem::take(&mut self.unattributed) {
            known.apply(&mut row);
            self.sink.record(row);
        }
    }
}

/// Side calls hold nothing that anybody asked a model.
pub(super) fn keep(sink: &dyn RowSink, exchange: &mut Exchange, row: &Row) {
    if let Some(bodies) = exchange.captured().filter(|_| row.billable) {
        sink.keep_bodies(row.id, bodies);
    }
}

pub(super) fn row_of(exchange: &Exchange, book: &Book, closing: Option<Closing>) -> Row {
    let mut row = exchange.row(book);
    if closing == Some(Closing::Ours) && row.completeness == Completeness::Interrupted {
        row.completeness_reason = Some("daemon stopped".to_owned());
        row.error_class = None;
    }
    row
}
