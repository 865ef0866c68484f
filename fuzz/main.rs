//! One program for all targets; `HALTON_FUZZ` names the one to run, or is `list`. Whatever a target
//! promises by its assertions, this adds: an input may take so much memory and so much time, and no
//! more.
#![no_main]

mod cost;

use std::sync::OnceLock;

use halton_meter::fuzzing::{TARGETS, Target};

#[global_allocator]
static HEAP: cost::Heap = cost::Heap;

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("HALTON_FUZZ").unwrap_or_default();
        let target = TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| list(&name));
        let _ = TARGET.set(target);
    },
    |data: &[u8]| cost::bounded(TARGET.get().expect("set at the start"), data)
);

/// Name and longest input of each.
fn list(name: &str) -> ! {
    for target in TARGETS {
        println!("{} {}", target.name, target.longest << 10);
    }
    std::process::exit(i32::from(name != "list"))
}
