//! Rows at a steady rate for a long time: none lost, none late, little work.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use halton_meter::home::Home;
use halton_meter::meter::exchange::{Exchange, ExchangeStart};
use halton_meter::meter::http::{Headers, RequestHead};
use halton_meter::meter::ledger::start_writer;
use halton_meter::meter::price::Book;
use halton_meter::meter::row::{Completeness, Protocol, Row};
use jiff::Timestamp;
use rusqlite::Connection;
use uuid::Uuid;

use crate::generate::config;

/// Requests are handed in so often, as many as are due.
const STEP: Duration = Duration::from_millis(5);
/// How long a request takes.
const LASTS: Duration = Duration::from_millis(500);

pub(crate) fn soak(seconds: u64, rate: u64) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("home"));
    home.create().unwrap();
    let (intake, writer) = start_writer(config(&home)).unwrap();
    assert!(intake.flush(Instant::now() + Duration::from_secs(60)));
    let template = template();
    let latest = Arc::new(AtomicU64::new(0));
    let ages = Arc::new(Mutex::new(Vec::new()));
    let mut records: Vec<u32> = Vec::new();
    let mut under_way: VecDeque<(Instant, Row)> = VecDeque::new();
    let mut record = |row: Row| {
        let begun = Instant::now();
        intake.record(row);
        records.push(u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX));
    };
    let begun = Instant::now();
    let cpu = writer_cpu();
    let total = seconds * rate;
    let mut handed = 0;
    while handed < total || !under_way.is_empty() {
        let now = Instant::now();
        let due = (begun.elapsed().as_micros() as u64 * rate / 1_000_000).min(total);
        for _ in handed..due {
            let row = Row { id: Uuid::now_v7(), started_at: Timestamp::now(), ..template.clone() };
            record(row.clone());
            under_way.push_back((now + LASTS, row));
        }
        handed = due;
        while under_way.front().is_some_and(|(end, _)| *end <= now) {
            let Some((_, row)) = under_way.pop_front() else { break };
            let status = Some(200);
            record(Row { completeness: Completeness::Complete, status, ..row });
        }
        let (latest, ages) = (Arc::clone(&latest), Arc::clone(&ages));
        intake.when_kept(Box::new(move || {
            let age = now.elapsed().as_micros() as u64;
            latest.fetch_max(age, Ordering::Relaxed);
            ages.lock().unwrap().push(u32::try_from(age).unwrap_or(u32::MAX));
        }));
        sleep(STEP);
    }
    assert!(intake.flush(Instant::now() + Duration::from_secs(60)));
    let cpu = writer_cpu().zip(cpu).map(|(after, before)| after - before);
    let stats = intake.stats();
    assert!(writer.stop(Instant::now() + Duration::from_secs(60)));
    let conn = Connection::open(home.ledger_file()).unwrap();
    let open = "SELECT count(*), sum(completeness = 'open') FROM requests";
    let (stored, open): (i64, i64) =
        conn.query_row(open, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    println!(
        "{total} requests at {rate}/s, each written twice: {stored} kept, {} lost",
        stats.lost
    );
    let mut ages = std::mem::take(&mut *ages.lock().unwrap());
    let us = |ns: u32| f64::from(ns) / 1e3;
    println!(
        "handing in a row        p50 {:.2} µs, p99 {:.2} µs",
        us(part(&mut records, 50)),
        us(part(&mut records, 99)),
    );
    println!(
        "from there to the disk  p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
        us(part(&mut ages, 50)),
        us(part(&mut ages, 99)),
        latest.load(Ordering::Relaxed) as f64 / 1e3,
    );
    if let Some(cpu) = cpu {
        println!(
            "the writer's CPU        {:.1} µs/request",
            cpu.as_secs_f64() * 1e6 / total as f64
        );
    }
    assert_eq!((u64::try_from(stored), open, stats.lost), (Ok(total), 0, 0));
}

fn part(values: &mut [u32], percent: usize) -> u32 {
    values.sort_unstable();
    values.get(values.len() * percent / 100).copied().unwrap_or(0)
}

/// Time on a CPU of the writer's thread, where the system tells.
fn writer_cpu() -> Option<Duration> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    tasks.filter_map(Result::ok).find_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        (name.trim() == "ledger").then_some(())?;
        let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    })
}

/// As a request of a coding tool.
fn template() -> Row {
    let start = ExchangeStart {
        id: Uuid::now_v7(),
        at: Timestamp::now(),
        host: "api.anthropic.com".to_owned(),
        port: 443,
        local: false,
        protocol: Protocol::H1,
    };
    let head = RequestHead {
        method: "POST".to_owned(),
        target: "/v1/messages".to_owned(),
        authority: None,
        protocol: None,
        headers: Headers::default(),
    };
    let some = |text: &str| Some(text.to_owned());
    let mut row = Exchange::new(start, &head).row(&Book::builtin());
    row.model_requested = some("claude-sonnet-5");
    row.model = some("claude-sonnet-5");
    row.tokens.input = Some(1200);
    row.tokens.cache_read = Some(80_000);
    row.tokens.output = Some(700);
    row.cost_nanousd = Some(12_345_678);
    row.price_rule = some("2026-11-24:anthropic/claude-sonnet-5");
    row.project = some("my-app");
    row.project_source = some("git");
    row.client = some("claude");
    row.client_pid = Some(4242);
    row.run = some("0198f000-0000-7000-8000-000000000000");
    row.session = some("0198f000-0000-7000-8000-000000000001");
    row.branch = some("main");
    row.cwd = some("/home/somebody/src/my-app");
    row.connection = Some(Uuid::now_v7());
    row
}
