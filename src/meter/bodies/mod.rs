//! Bodies of requests and answers, kept only for a user who wants them: off by default, without the
//! secrets that can be told, bounded in size and time (ADR 0016).
//!
//! The observer holds what came by ([`Capture`]) until the exchange is over; a thread of its own takes
//! the secrets out and writes the file ([`Shelf`]). Nothing waits for it: what finds no room is
//! dropped and counted.

mod capture;
mod keeper;
mod redact;
mod shelf;

pub use capture::{Body, Capture, MARGIN, Room};
pub use keeper::{Keeper, Stats};
pub use redact::{Redacted, redact};
pub use shelf::{Kept, KeptBody, Shelf, Stock};
