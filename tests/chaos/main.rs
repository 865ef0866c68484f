//! A storm of failures over mixed live traffic, and the rules that it must not break
//! (docs/fail-open.md). `just chaos [SEED] [SECONDS]`; a short one is among the tests.
//!
//! The seed decides which failures come, in which order and for how long; what they meet depends on
//! the machine's timing as well.

#[path = "../support/harness.rs"]
#[expect(dead_code, reason = "shared with tests/it")]
mod harness;
#[path = "../support/origin/mod.rs"]
#[expect(dead_code, unused_imports, reason = "shared with tests/it")]
mod origin;
#[path = "../support/programs.rs"]
#[expect(dead_code, reason = "shared with tests/it")]
mod programs;

mod accounts;
mod client;
mod http2;
mod oracle;
mod processes;
mod record;
mod relay;
mod report;
mod schedule;
mod storm;
mod strike;
mod traffic;

use std::time::Duration;

#[test]
fn storm() {
    let number = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}: not a number: {text}")),
        Err(_) => default,
    };
    let (seed, seconds) = (number("CHAOS_SEED", 1), number("CHAOS_SECONDS", 30));
    let verdict = storm::run(seed, Duration::from_secs(seconds));
    assert!(verdict.is_empty(), "{} rules broken (above)", verdict.len());
}
