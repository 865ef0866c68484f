//! One binary for all integration tests, so that they link once.

#[path = "../support/origin/mod.rs"]
mod origin;

mod ca;
mod clients;
mod commands;
mod drain;
mod expected;
mod fail_open;
mod harness;
mod ladder;
mod layers;
mod origin_itself;
mod programs;
mod supervision;
mod watchdog;
mod wire;
