//! What an answer that goes on has told so far.

use super::Exchange;
use crate::meter::usage::UsageState;

/// Each of it is worth a row, in case we die before the answer's end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Told {
    head: bool,
    /// The first of it: Claude's streams begin with the input.
    usage: bool,
}

impl Told {
    /// There is no more to wait for.
    pub const ALL: Self = Self { head: true, usage: true };
}

impl Exchange {
    #[must_use]
    pub fn told(&self) -> Told {
        let head = self.status.is_some();
        Told { head, usage: head && self.response.reading().usage.state != UsageState::Absent }
    }
}
