//! One exchange under way, and what its row tells of it so far.

use jiff::{SignedDuration, Timestamp};

use crate::meter::exchange::turns::Turns;
use crate::meter::exchange::{Exchange, Told};

pub(super) struct Tracked {
    pub(super) exchange: Exchange,
    /// The responses of the WebSocket that it opened.
    pub(super) turns: Option<Turns>,
    pub(super) request_ended: bool,
    pub(super) response_ended: bool,
    /// There is something to say of it that no row tells yet.
    pub(super) news: bool,
    /// Something was seen of it since the last look at what its answer has told.
    pub(super) fed: bool,
    told: Told,
    /// What its moments, and those of the turns, are ahead of the connection's
    /// ([`Observer::ahead`](super::Observer::ahead)).
    pub(super) ahead: SignedDuration,
    pub(super) turns_ahead: SignedDuration,
}

impl Tracked {
    pub(super) fn new(exchange: Exchange, ahead: SignedDuration) -> Self {
        Self {
            exchange,
            turns: None,
            request_ended: false,
            response_ended: false,
            news: true,
            fed: false,
            told: Told::default(),
            ahead,
            turns_ahead: ahead,
        }
    }

    /// Notes what an answer has told that goes on: its head and its first usage, which would be lost if
    /// we died before its end.
    pub(super) fn look(&mut self) {
        if !std::mem::take(&mut self.fed) || self.turns.is_some() || self.exchange.is_finished() {
            return;
        }
        if self.told != Told::ALL {
            let told = self.exchange.told();
            self.news |= told != self.told;
            self.told = told;
        }
    }

    /// When it was, by this exchange's count.
    pub(super) fn at(&self, moment: Timestamp) -> Timestamp {
        moment.checked_add(self.ahead).unwrap_or(moment)
    }

    /// A WebSocket that is not in the middle of anything.
    pub(super) fn is_between(&self) -> bool {
        self.turns.as_ref().is_some_and(Turns::is_between)
    }
}
