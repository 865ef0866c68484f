//! What concerns the ledger's file.

use super::super::super::output;
use super::super::facts::Facts;
use super::{Finding, or_ok};

const LOW_DISK: u64 = 200 << 20;

pub(super) fn ledger(f: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some((problem, next)) = &f.ledger.problem {
        found.push(Finding::degraded("ledger", problem).next(next));
    }
    if let Some(free) = f.ledger.free.filter(|free| *free < LOW_DISK) {
        let what = format!("only {} are free on its disk", output::bytes(free));
        found.push(Finding::degraded("ledger", what).next("make room"));
    }
    let rest =
        if f.ledger.unchecked { "; too large to check all of it in a few seconds" } else { "" };
    or_ok(found, "ledger", || match f.ledger.bytes {
        0 => "none yet".to_owned(),
        bytes => format!("opens; {}{rest}", output::bytes(bytes)),
    })
}

/// By what its writer says of it.
pub(super) fn remedy(reason: &str) -> &'static str {
    let says = |text| reason.contains(text);
    if says("brought up to date") {
        "wait: it takes minutes if the ledger is large, and `restart` or `upgrade` would begin it again"
    } else if says("newer version") {
        "install the newer halton-meter, then `halton-meter upgrade`; nothing is deleted"
    } else if says("cannot be opened") || says("cannot use") {
        "see that db.sqlite in the home is a file that you can read and write; it goes on by itself"
    } else if says("read-only") {
        "see that you can write db.sqlite and the home; it goes on by itself"
    } else {
        "make room on the disk, or end what locks the ledger; it goes on by itself"
    }
}
