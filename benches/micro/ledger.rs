//! The ledger: a request written, a report read.

use std::time::{Duration, Instant};

use halton_meter::home::Home;
use halton_meter::meter::exchange::Exchange;
use halton_meter::meter::ledger::{
    GroupBy, Intake, Ledger, ReportQuery, Window, Writer, roll_up, start_writer,
};
use halton_meter::meter::price::Book;
use halton_meter::meter::row::{Completeness, Row};
use halton_meter::meter::usage::UsageState;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::Case;
use crate::generate::{config, generate};
use crate::pieces::{head, start};

const REQUESTS: u64 = 500;

/// A home for as long as the case lives.
struct Stand {
    home: Home,
    _dir: tempfile::TempDir,
}

impl Stand {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        home.create().unwrap();
        Self { home, _dir: dir }
    }
}

fn row() -> Row {
    Exchange::new(start(), &head()).row(&Book::builtin())
}

/// As most of them end.
fn done(row: Row) -> Row {
    Row {
        completeness: Completeness::Complete,
        status: Some(200),
        usage: UsageState::Reported,
        cost_nanousd: Some(7_000_000),
        ..row
    }
}

fn writer(stand: &Stand) -> (Intake, Writer) {
    start_writer(config(&stand.home)).unwrap()
}

/// Opened, completed, both on the disk.
pub(crate) fn request() -> Case {
    let mut made: Option<(Intake, Writer, Stand)> = None;
    let template = row();
    Case::new("ledger", "request", REQUESTS, move || {
        let (intake, _, _) = made.get_or_insert_with(|| {
            let stand = Stand::new();
            let (intake, writer) = writer(&stand);
            (intake, writer, stand)
        });
        let open: Vec<Row> =
            (0..REQUESTS).map(|_| Row { id: Uuid::now_v7(), ..template.clone() }).collect();
        let flush = || assert!(intake.flush(Instant::now() + Duration::from_secs(60)));
        open.iter().cloned().for_each(|row| intake.record(row));
        flush();
        open.into_iter().map(done).for_each(|row| intake.record(row));
        flush();
    })
}

/// The same for one that was over before it could be written: most of them.
pub(crate) fn request_at_once() -> Case {
    let mut made: Option<(Intake, Writer, Stand)> = None;
    let done = done(row());
    Case::new("ledger-once", "request", REQUESTS, move || {
        let (intake, _, _) = made.get_or_insert_with(|| {
            let stand = Stand::new();
            let (intake, writer) = writer(&stand);
            (intake, writer, stand)
        });
        (0..REQUESTS).for_each(|_| intake.record(Row { id: Uuid::now_v7(), ..done.clone() }));
        assert!(intake.flush(Instant::now() + Duration::from_secs(60)));
    })
}

/// 30 days out of 400, rolled up.
pub(crate) fn report() -> Case {
    let mut made: Option<Stand> = None;
    let rows = if std::env::args().any(|word| word == "--bench") { 200_000 } else { 4_000 };
    Case::new("report", "report", 1, move || {
        let stand = made.get_or_insert_with(|| {
            let stand = Stand::new();
            generate(&stand.home, rows);
            assert!(roll_up(&stand.home.ledger_file(), Timestamp::now()).unwrap() > 0);
            stand
        });
        let to = Timestamp::now();
        let query = ReportQuery {
            window: Window { from: to - SignedDuration::from_hours(24 * 30), to },
            by: vec![GroupBy::Project, GroupBy::Model],
            project: None,
            zone: TimeZone::UTC,
            vs_previous: false,
        };
        let report = Ledger::open(&stand.home).unwrap().report(&query).unwrap();
        assert!(report.summary.requests > 0);
        report
    })
}
