//! The hot pieces, one by one: `cargo bench --bench micro [FILTER]`.
//!
//! Without `--bench` (`cargo test --bench micro`) each runs once, so that none can rot.
//! `--count NAME RUNS` runs one of them without measuring: `tools/bench-count.sh` counts its
//! instructions, which a busy machine does not change.

mod bodies;
#[path = "../generate.rs"]
mod generate;
mod http;
mod ledger;
mod observer;
mod pieces;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};

/// One thing that is measured.
struct Case {
    name: &'static str,
    /// What a run does so many of.
    unit: &'static str,
    units: u64,
    run: Box<dyn FnMut()>,
}

impl Case {
    fn new<T>(
        name: &'static str,
        unit: &'static str,
        units: u64,
        mut run: impl FnMut() -> T + 'static,
    ) -> Self {
        Self { name, unit, units, run: Box::new(move || drop(black_box(run()))) }
    }
}

/// Made one after the other: some have files and threads of their own.
const CASES: &[fn() -> Case] = &[
    pieces::connect_head,
    pieces::feed_chunk,
    http::http1_exchange,
    http::http1_mib,
    http::http2_exchange,
    http::http2_mib,
    bodies::sse_event,
    bodies::sse_mib,
    bodies::gzip_mib,
    bodies::gzip_event,
    bodies::brotli_mib,
    bodies::zstd_mib,
    bodies::anthropic_event,
    bodies::chat_event,
    bodies::responses_event,
    bodies::gemini_event,
    pieces::price,
    pieces::row,
    pieces::owner_known,
    pieces::owner_unknown,
    observer::request,
    ledger::request,
    ledger::request_at_once,
    ledger::report,
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.get(1..).unwrap_or_default() {
        ["--list-units", ..] => {
            for case in CASES.iter().map(|make| make()) {
                println!("{} {} {}", case.name, case.units, case.unit);
            }
        }
        ["--count", name, runs, ..] => {
            let runs: u64 = runs.parse().unwrap_or(1);
            for mut case in CASES.iter().map(|make| make()).filter(|case| case.name == *name) {
                (0..runs).for_each(|_| (case.run)());
            }
        }
        _ => measure(),
    }
}

fn measure() {
    let mut criterion = Criterion::default().configure_from_args().without_plots();
    for mut case in CASES.iter().map(|make| make()) {
        let mut group = criterion.benchmark_group(case.name);
        group.throughput(match case.unit {
            "byte" => Throughput::Bytes(case.units),
            _ => Throughput::Elements(case.units),
        });
        group.bench_function(BenchmarkId::from_parameter(case.unit), |b| b.iter(|| (case.run)()));
        group.finish();
    }
    criterion.final_summary();
}
