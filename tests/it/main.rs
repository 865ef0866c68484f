//! One binary for all integration tests, so that they link once.

#[path = "../support/origin/mod.rs"]
mod origin;

mod origin_itself;
mod programs;
