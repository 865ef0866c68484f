//! How long reports take, with roll-ups and without, and what memory.

use std::time::{Duration, Instant};

use halton_meter::home::Home;
use halton_meter::meter::ledger::{
    GroupBy, Ledger, Report, ReportQuery, RequestFilter, Window, roll_up,
};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

const ALL: [GroupBy; 5] =
    [GroupBy::Project, GroupBy::Model, GroupBy::Provider, GroupBy::Client, GroupBy::Day];
const TIMES: usize = 7;

pub(crate) fn read(home: &Home) {
    let bytes = std::fs::metadata(home.ledger_file()).unwrap().len();
    println!("ledger of {} MiB", bytes >> 20);
    // The same window for all: rolling up may take minutes.
    let to = Timestamp::now();
    let (plain, by_rows) = timed(1, || report(home, to, 30, &ALL[..2]));
    show("report of 30 days, row by row", by_rows);
    let begun = Instant::now();
    let hours = roll_up(&home.ledger_file(), Timestamp::now()).unwrap();
    show(&format!("rolling up {hours} hours"), begun.elapsed());
    let (rolled, took) = timed(TIMES, || report(home, to, 30, &ALL[..2]));
    show("report of 30 days by project, model", took);
    assert_eq!(rolled.summary.requests, plain.summary.requests);
    show("report of 30 days by all but sessions", timed(TIMES, || report(home, to, 30, &ALL)).1);
    show(
        "report of 400 days by project, model",
        timed(TIMES, || report(home, to, 401, &ALL[..2])).1,
    );
    memory("reports");
    let by_session = || report(home, to, 30, &[GroupBy::Session]);
    show("report of 30 days by session", timed(TIMES, by_session).1);
    memory("by session");
    let page = |project: Option<&str>, model: Option<&str>| {
        let filter = RequestFilter {
            limit: Some(20),
            project: project.map(str::to_owned),
            model: model.map(str::to_owned),
            ..RequestFilter::default()
        };
        timed(TIMES, || Ledger::open(home).unwrap().requests(&filter).unwrap()).1
    };
    show("first page of requests", page(None, None));
    show("first page of a project's requests", page(Some("project-3"), None));
    show("first page of a model's requests", page(None, Some("model-3")));
    show("first page of nobody's requests", page(Some("nobody"), None));
}

fn report(home: &Home, to: Timestamp, days: i64, by: &[GroupBy]) -> Report {
    let query = ReportQuery {
        window: Window { from: to - SignedDuration::from_hours(24 * days), to },
        by: by.to_vec(),
        project: None,
        zone: TimeZone::UTC,
        vs_previous: false,
    };
    Ledger::open(home).unwrap().report(&query).unwrap()
}

/// The median of so many times.
fn timed<T>(times: usize, run: impl Fn() -> T) -> (T, Duration) {
    let mut all: Vec<(Duration, T)> = (0..times)
        .map(|_| {
            let begun = Instant::now();
            let value = run();
            (begun.elapsed(), value)
        })
        .collect();
    all.sort_by_key(|(took, _)| *took);
    let (took, value) = all.swap_remove(times / 2);
    (value, took)
}

fn show(what: &str, took: Duration) {
    println!("{what:<42}{:>10.1} ms", took.as_secs_f64() * 1e3);
}

/// Where the system tells: the most that was resident so far.
fn memory(after: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(line) = status.lines().find(|line| line.starts_with("VmHWM")) {
        println!("{:<42}{}", format!("most memory so far ({after})"), &line[6..]);
    }
}
