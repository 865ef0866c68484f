//! The daemon's actors: its control plane. Bytes never pass through them.

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
