//! The actors: the control plane. Bytes never pass through them.
//!
//! - The daemon's, put together in [`tree`]: [`ledger`], [`prices`] and [`tap`], with what outlives them in
//!   [`meter`]; [`budgets`], [`edge_monitor`], [`health`], [`admin`].
//! - The root's: [`process`], each an operating-system process.
//! - Asked by both and by the watchdog: [`ask`], [`system_proxy`]; [`wish`] wakes what rests.

pub mod admin;
pub mod ask;
pub mod budgets;
pub mod edge_monitor;
pub mod health;
pub mod ledger;
pub mod meter;
pub mod prices;
pub mod process;
pub mod system_proxy;
pub mod tap;
pub mod tree;
pub mod wish;
