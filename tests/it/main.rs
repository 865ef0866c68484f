//! One binary for all integration tests, so that they link once.

#[path = "../support/client.rs"]
mod client;
#[path = "../support/origin/mod.rs"]
mod origin;

mod ca;
mod clients;
mod commands;
mod coverage;
mod expected;
mod fail_open;
mod harness;
mod layers;
mod ledger_faults;
mod origin_itself;
mod programs;
