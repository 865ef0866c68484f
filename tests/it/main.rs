//! One binary for all integration tests, so that they link once.

#[path = "../support/client.rs"]
mod client;
#[path = "../support/origin/mod.rs"]
mod origin;

mod bypass;
mod ca;
mod clients;
mod commands;
mod coverage;
mod doctor;
mod drain;
mod expected;
mod fail_open;
mod harness;
mod layers;
mod origin_itself;
mod programs;
mod selftest;
mod supervision;
mod upgrade;
mod watchdog;
mod wire;
