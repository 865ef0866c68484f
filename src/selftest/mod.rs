//! `halton-meter selftest`: real requests through the running chain to an origin of its own and into
//! a ledger of its own, in a second or two and without the internet.
//!
//! The command is the provider ([`origin`]) and the client ([`client`]); edge and daemon find the
//! provider by the [`notice`](crate::notice). They treat its one host name like any metered host's, except that the
//! daemon keeps rows, trust and bypass list of the test apart, and that nothing of it counts as
//! traffic.

pub mod client;
pub mod origin;
pub mod report;
mod run;

pub use report::{Check, Level, Report};
pub use run::{Problem, Subject, clean_up, run};
