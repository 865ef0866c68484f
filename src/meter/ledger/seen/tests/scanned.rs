//! Whatever happens to the rows: what is found by `seen` is what a look at all of them finds.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::meter::ledger::ReportQuery;
use crate::meter::ledger::fixture::at;
use crate::meter::projects::{self, Names};

const ALL: Window = Window { from: Timestamp::MIN, to: Timestamp::MAX };

#[derive(Clone, Debug)]
enum Deed {
    /// A batch of the writer's; whether it is committed.
    Batch(Vec<Row>, bool),
    /// As whoever knows of no `seen` writes.
    Write(Box<Row>),
    /// SQL that somebody thought of, for the rows of which the id leaves this rest.
    Change(&'static str, u8),
    Retag(u8, Retag),
    RollUp,
}

const CHANGES: &[&str] = &[
    "UPDATE requests SET project = 'p9' WHERE id % 7 = ?",
    "UPDATE requests SET project = NULL WHERE id % 7 = ?",
    "UPDATE requests SET model = 'm9', completeness = 'complete' WHERE id % 7 = ?",
    "UPDATE requests SET model = NULL WHERE id % 7 = ?",
    "UPDATE requests SET session = 's9', run = 'r9' WHERE id % 7 = ?",
    "UPDATE requests SET connection = x'00000000000000000000000000000009' WHERE id % 7 = ?",
    "UPDATE requests SET started_at = started_at + 61000000 WHERE id % 7 = ?",
    "UPDATE requests SET started_at = started_at - 4000000000 WHERE id % 7 = ?",
    "UPDATE requests SET cost_nanousd = 5 WHERE id % 7 = ?",
    "DELETE FROM requests WHERE id % 7 = ?",
];

fn some_row() -> impl Strategy<Value = Row> {
    let what = (1..60u128, 0..9000i64, 0..4u8, 0..4u8, 0..3u8, 0..4u8);
    (what, 0..5u128, 0..6u8).prop_map(
        |((id, second, project, model, session, run), connection, more)| {
            let name = |kind: &str, n: u8| (n > 0).then(|| format!("{kind}{n}"));
            let mut row = row(id, "2026-11-24T00:00:00Z");
            // Also before 1970.
            let begin = if more == 5 { Timestamp::UNIX_EPOCH } else { row.started_at };
            row.started_at =
                begin.checked_add(Span::new().seconds(second / 30 * 30 - 600)).unwrap();
            row.project = name("p", project);
            row.model = name("m", model);
            row.model_requested = name("m", session);
            row.session = name("s", session);
            row.run =
                [None, Some("r1"), Some("r1/r2"), Some("r2")][usize::from(run)].map(str::to_owned);
            row.connection = (connection > 0).then(|| Uuid::from_u128(connection));
            row.provider = if more == 1 { "openai" } else { "anthropic" }.to_owned();
            row.billable = more != 2;
            if more == 3 {
                row.completeness = Completeness::Open;
            }
            row
        },
    )
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (prop::collection::vec(some_row(), 1..12), prop::bool::weighted(0.8))
            .prop_map(|(rows, commit)| Deed::Batch(rows, commit)),
        3 => some_row().prop_map(|row| Deed::Write(Box::new(row))),
        3 => (prop::sample::select(CHANGES), 0..7u8).prop_map(|(sql, n)| Deed::Change(sql, n)),
        1 => (1..4u8, prop_oneof![Just(Retag::Back), Just(Retag::To("p2".to_owned()))])
            .prop_map(|(project, to)| Deed::Retag(project, to)),
        2 => Just(Deed::RollUp),
    ]
}

fn happen(home: &Home, conn: &mut Connection, noted: &mut Noted, deed: &Deed) {
    match deed {
        Deed::Batch(rows, commit) => batch(conn, noted, rows, *commit),
        Deed::Write(row) => record::write(conn, row).unwrap(),
        Deed::Change(sql, rest) => {
            let sql = sql.replace("id % 7", "unicode(substr(hex(id), -1)) % 7");
            conn.execute(&sql, [rest]).unwrap();
        }
        Deed::Retag(project, to) => {
            let projects = Some(vec![format!("p{project}")]);
            retag(home, &Selection { projects, ..Selection::default() }, to, false).unwrap();
        }
        Deed::RollUp => {
            roll_up(&home.ledger_file(), at("2026-11-24T02:00:00Z")).unwrap();
        }
    }
}

/// The names that a filter may have, and two that nobody has.
fn filters() -> impl Strategy<Value = RequestFilter> {
    let name = |names: &'static [&'static str]| {
        prop::option::of(prop::sample::select(names).prop_map(str::to_owned))
    };
    let names = (
        name(&["p1", "p2", "p9", "both", "nobody"]),
        name(&["m1", "m2", "m9", "none"]),
        name(&["r1", "r1/r2", "r2", "r"]),
        name(&["openai"]),
    );
    let time = prop::option::of((0..9000i64, 0..5000i64));
    (names, time, any::<bool>()).prop_map(|((project, model, run, provider), time, all)| {
        let moment = |second: i64| {
            let begin = at("2026-11-24T00:00:00Z");
            begin.checked_add(Span::new().seconds(second - 600)).unwrap()
        };
        let since = time.map(|(from, _)| moment(from));
        let until = time.map(|(from, length)| moment(from + length));
        RequestFilter { project, model, run, provider, since, until, all, ..Default::default() }
    })
}

fn shown_as() -> Names {
    let mut names = Names::default();
    names.show_as("p1", "both");
    names.show_as("p3", "both");
    names
}

fn is_of(row: &Row, filter: &RequestFilter) -> bool {
    let model = row.model.as_ref().or(row.model_requested.as_ref());
    let project = row.project.as_deref().map(|name| shown_as().shown(name).to_owned());
    let wanted = filter.project.as_deref().map(|name| shown_as().shown(name).to_owned());
    (wanted.is_none() || wanted == project)
        && (filter.model.is_none() || filter.model.as_ref() == model)
        && filter.run.as_ref().is_none_or(|run| is_of_run(row, run))
        && filter.provider.as_ref().is_none_or(|provider| *provider == row.provider)
        && filter.since.is_none_or(|since| since <= row.started_at)
        && filter.until.is_none_or(|until| row.started_at < until)
        && (filter.all || row.billable)
}

fn is_of_run(row: &Row, run: &str) -> bool {
    row.run.as_deref().is_some_and(|of| of == run || of.starts_with(&format!("{run}/")))
}

/// Every row, without the help of any name.
fn scan(ledger: &Ledger) -> Vec<Row> {
    let sql = format!("SELECT {} FROM requests NOT INDEXED", record::COLUMNS);
    let mut stmt = ledger.conn.prepare(&sql).unwrap();
    let mut rows: Vec<Row> =
        stmt.query_map([], record::read).unwrap().collect::<Result<_, _>>().unwrap();
    rows.sort_by_key(|row| std::cmp::Reverse((row.started_at, row.id)));
    rows
}

fn ids<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<u128> {
    rows.into_iter().map(|row| row.id.as_u128()).collect()
}

fn pages(ledger: &Ledger, filter: &RequestFilter, limit: usize) -> Vec<u128> {
    let mut filter = RequestFilter { limit: Some(limit), ..filter.clone() };
    let mut found = Vec::new();
    loop {
        let page = ledger.requests(&filter).unwrap();
        found.extend(ids(&page.rows));
        match page.next {
            Some(next) => filter.before = Some(next),
            None => return found,
        }
    }
}

fn check_sums(ledger: &Ledger, rows: &[Row]) -> Result<(), TestCaseError> {
    for session in ["s1", "s2", "s9", "none"] {
        let of = |row: &&Row| row.billable && row.session.as_deref() == Some(session);
        let wanted = rows.iter().filter(of).count() as u64;
        prop_assert_eq!(ledger.totals_for_session(session).unwrap().requests, wanted);
    }
    for run in ["r1", "r1/r2", "r9", "r"] {
        let of = |row: &&Row| row.billable && is_of_run(row, run);
        let wanted = rows.iter().filter(of).count() as u64;
        prop_assert_eq!(ledger.totals_for_run(run).unwrap().totals.requests, wanted);
    }
    Ok(())
}

fn check_projects(ledger: &Ledger, rows: &[Row]) -> Result<(), TestCaseError> {
    let mut spans: BTreeMap<Option<&str>, (Timestamp, Timestamp, u64)> = BTreeMap::new();
    for row in rows {
        let shown = row.project.as_deref().map(|name| ledger.names.shown(name));
        let span = spans.entry(shown).or_insert((row.started_at, row.started_at, 0));
        *span = (
            span.0.min(row.started_at),
            span.1.max(row.started_at),
            span.2 + u64::from(row.billable),
        );
    }
    let recorded: BTreeSet<String> = rows.iter().filter_map(|row| row.project.clone()).collect();
    prop_assert_eq!(ledger.recorded_names().unwrap(), recorded);
    for project in ledger.projects(ALL).unwrap() {
        let (_, last, requests) = spans[&project.project.as_deref()];
        prop_assert_eq!((project.last_at, project.totals.requests), (Some(last), requests));
    }
    for name in ["both", "p2", "p9"] {
        let found = ledger.project(name, ALL).unwrap();
        let found = found.map(|p| {
            let shares: u64 = p.clients.iter().map(|share| share.requests).sum();
            (p.first_at.unwrap(), p.sum.last_at.unwrap(), shares)
        });
        prop_assert_eq!(found, spans.get(&Some(name)).copied(), "{}", name);
    }
    Ok(())
}

fn check_window(ledger: &Ledger, rows: &[Row], window: Window) -> Result<(), TestCaseError> {
    let within = || rows.iter().filter(|row| window.contains(row.started_at));
    let connections: HashSet<Uuid> = within().filter_map(|row| row.connection).collect();
    let covered = ledger.coverage(window).unwrap();
    prop_assert_eq!(covered.metered_connections, connections.len() as u64);
    for project in ["both", "p2", "nobody"] {
        let query = ReportQuery {
            window,
            by: Vec::new(),
            project: Some(project.to_owned()),
            zone: TimeZone::UTC,
            vs_previous: false,
        };
        let filter =
            RequestFilter { project: Some(project.to_owned()), ..RequestFilter::default() };
        let wanted = within().filter(|row| is_of(row, &filter)).count() as u64;
        prop_assert_eq!(ledger.report(&query).unwrap().summary.requests, wanted);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn what_is_found_is_what_is_there(
        deeds in prop::collection::vec(deed(), 1..24),
        filters in prop::collection::vec(filters(), 6),
        limit in 1..6usize,
    ) {
        let (_dir, home) = home();
        projects::write(&home.projects_file(), &shown_as()).unwrap();
        let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
        let mut noted = Noted::default();
        deeds.iter().for_each(|deed| happen(&home, &mut conn, &mut noted, deed));
        prop_assert_eq!(count(&conn, MISSING), 0);
        let ledger = Ledger::open(&home).unwrap();
        let rows = scan(&ledger);
        for filter in &filters {
            let wanted = ids(rows.iter().filter(|row| is_of(row, filter)));
            prop_assert_eq!(&pages(&ledger, filter, limit), &wanted, "{:?}", filter);
        }
        check_sums(&ledger, &rows)?;
        check_projects(&ledger, &rows)?;
        check_window(&ledger, &rows, ALL)?;
        for filter in filters {
            if let (Some(from), Some(to)) = (filter.since, filter.until) {
                check_window(&ledger, &rows, Window { from, to })?;
            }
        }
    }
}
