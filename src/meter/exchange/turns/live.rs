//! The turns of a Gemini Live session. They have no ids, come one after the other, asked for by a
//! message (`clientContent`) or by what the user is heard to say, and tell their usage with their
//! last word or near it.
//!
//! Each message with a usage holds that of its turn so far, so the last one counts. What is told when
//! no turn is open, behind one whose usage is known, is a repetition: nothing may count twice.

use jiff::Timestamp;

use super::{Exchange, Sink, Talk, end};
use crate::meter::surface::scan::Found;
use crate::meter::surface::socket::live_said;
use crate::meter::usage::UsageState;

impl Talk {
    /// Nothing has been said yet to what was asked last: more of it is the same turn's.
    pub(super) fn is_waited_for(&self) -> bool {
        self.open.back().is_some_and(|turn| turn.exchange.responded_at.is_none())
    }

    pub(super) fn live_message(
        &mut self,
        found: &Found,
        text: &[u8],
        opened: &Exchange,
        at: Timestamp,
        sink: &mut Sink<'_>,
    ) {
        let said = live_said(found);
        if said.content {
            // Nobody waits for the usage of the one before any longer.
            self.open.retain_mut(|turn| {
                let over = turn.over.is_some() && turn.settle(at);
                if over {
                    end(&mut turn.exchange, &mut self.quota, sink);
                }
                !over
            });
        }
        if self.open.is_empty() && (said.content || (said.over && said.usage)) {
            self.unasked(&super::socket::said(found), opened, at, sink);
        }
        let bytes = std::mem::take(&mut self.server.bytes);
        let Some(turn) = self.open.front_mut() else { return };
        // That the session is set up or can be resumed is no answer.
        let answers = said.content || said.usage || said.over;
        if !answers && turn.exchange.responded_at.is_none() {
            return;
        }
        turn.exchange.hear(bytes, at);
        turn.exchange.hold_response(text);
        turn.exchange.message(found, None);
        if said.over {
            turn.over = turn.over.or(Some(at));
        }
        let known = turn.exchange.response.reading().usage.state == UsageState::Reported;
        let Some(over) = turn.over.filter(|_| known) else { return };
        if let Some(mut turn) = self.open.pop_front() {
            if let Some(why) = turn.missed.take() {
                // Its last word may have been another's.
                turn.exchange.unfollowable(&why, over);
            }
            self.finish(turn, over, sink);
        }
    }
}
