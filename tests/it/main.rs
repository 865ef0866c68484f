//! One binary for all integration tests, so that they link once.

#[path = "../support/harness.rs"]
mod harness;
#[path = "../support/origin/mod.rs"]
mod origin;
#[path = "../support/programs.rs"]
mod programs;

mod ca;
mod clients;
mod commands;
mod expected;
mod fail_open;
mod layers;
mod origin_itself;
