use super::*;
use crate::meter::ledger::GroupBy;
use crate::meter::ledger::fixture::{at, home, minutes, row, steps, store};
use crate::meter::ledger::schema::open_writer;
use crate::meter::ledger::{Grouping, ReportQuery, Window};
use jiff::tz::TimeZone;

fn ids(page: &Page) -> Vec<u128> {
    page.rows.iter().map(|r| r.id.as_u128()).collect()
}

#[test]
fn a_home_without_a_ledger_is_empty() {
    let (_dir, home) = home();
    let ledger = Ledger::open(&home).unwrap();
    assert!(ledger.requests(&RequestFilter::default()).unwrap().rows.is_empty());
    assert!(!home.ledger_file().exists(), "reading makes no file");
    std::fs::write(home.ledger_file(), b"").unwrap();
    let ledger = Ledger::open(&home).unwrap();
    assert!(ledger.requests(&RequestFilter::default()).unwrap().rows.is_empty());
}

#[test]
fn a_corrupt_or_foreign_ledger_is_an_error_and_stays() {
    let (_dir, home) = home();
    std::fs::write(home.ledger_file(), b"not a database, honestly".repeat(99)).unwrap();
    let error = Ledger::open(&home).unwrap_err();
    assert!(error.to_string().contains("db.sqlite is no ledger") && error.is_damage(), "{error}");
    std::fs::remove_file(home.ledger_file()).unwrap();
    let (conn, _) = open_writer(&home.ledger_file()).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Ledger::open(&home), Err(LedgerError::Newer { .. })));
}

#[test]
fn filters_select() {
    let (_dir, home) = home();
    let mut rows: Vec<Row> = (1..=6).map(|n| row(n, &format!("2026-11-24T0{n}:00:00Z"))).collect();
    rows[0].project = None;
    rows[1].project = Some("other".into());
    rows[2].billable = false;
    rows[3].model = None;
    rows[3].model_requested = Some("wanted".into());
    rows[4].run = Some("r1".into());
    rows[5].provider = "openai".into();
    store(&home, &rows);
    let ledger = Ledger::open(&home).unwrap();
    let get = |filter: RequestFilter| ids(&ledger.requests(&filter).unwrap());
    let none = RequestFilter::default;
    assert_eq!(get(none()), [6, 5, 4, 2, 1]);
    assert_eq!(get(RequestFilter { all: true, ..none() }), [6, 5, 4, 3, 2, 1]);
    assert_eq!(get(RequestFilter { project: Some("other".into()), ..none() }), [2]);
    assert_eq!(get(RequestFilter { model: Some("wanted".into()), ..none() }), [4]);
    assert_eq!(get(RequestFilter { run: Some("r1".into()), ..none() }), [5]);
    assert_eq!(get(RequestFilter { provider: Some("openai".into()), ..none() }), [6]);
    let since = Some(at("2026-11-24T02:00:00Z"));
    let until = Some(at("2026-11-24T05:00:00Z"));
    assert_eq!(get(RequestFilter { since, until, ..none() }), [4, 2]);
}

#[test]
fn pages_neither_repeat_nor_skip_while_rows_arrive() {
    let (_dir, home) = home();
    // Several rows of one microsecond: the id decides.
    let when = "2026-11-24T01:00:00Z";
    let rows: Vec<Row> = (1..=7).map(|n| row(n * 10, when)).collect();
    store(&home, &rows);
    let ledger = Ledger::open(&home).unwrap();
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let filter = RequestFilter { limit: Some(3), before, ..RequestFilter::default() };
        let page = ledger.requests(&filter).unwrap();
        seen.extend(ids(&page));
        store(&home, &[row(1000 + seen.len() as u128, "2026-11-24T02:00:00Z")]);
        match page.next {
            // As text, the way a caller hands it back.
            Some(cursor) => before = Some(cursor.to_string().parse().unwrap()),
            None => break,
        }
    }
    assert_eq!(seen, [70, 60, 50, 40, 30, 20, 10]);
}

#[test]
fn a_page_that_is_just_full_is_the_last() {
    let (_dir, home) = home();
    store(&home, &[row(1, "2026-11-24T01:00:00Z"), row(2, "2026-11-24T02:00:00Z")]);
    let ledger = Ledger::open(&home).unwrap();
    let page = |limit| {
        let filter = RequestFilter { limit: Some(limit), ..RequestFilter::default() };
        let page = ledger.requests(&filter).unwrap();
        (page.rows.len(), page.next.is_some())
    };
    assert_eq!((page(2), page(1), page(0)), ((2, false), (1, true), (0, false)));
}

#[test]
fn foreign_cursors_are_refused() {
    for text in ["", "x", "1", "1.", ".0", "1.zz", "99999999999999999999.0"] {
        assert!(text.parse::<Cursor>().is_err(), "{text}");
    }
}

#[test]
fn a_reader_sees_rows_while_the_writer_holds_its_transaction() {
    let (_dir, home) = home();
    store(&home, &[row(1, "2026-11-24T01:00:00Z")]);
    let (conn, _) = open_writer(&home.ledger_file()).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE; DELETE FROM requests").unwrap();
    let ledger = Ledger::open(&home).unwrap();
    assert_eq!(ids(&ledger.requests(&RequestFilter::default()).unwrap()), [1]);
}

#[test]
fn a_run_adds_up_its_own_requests_only() {
    let (_dir, home) = home();
    let mut rows: Vec<Row> = (1..=5).map(|n| row(n, "2026-11-24T01:00:00Z")).collect();
    for r in &mut rows[..4] {
        r.run = Some("r1".into());
    }
    rows[0].project = Some("small".into());
    rows[3].billable = false;
    rows[3].cost_nanousd = None;
    store(&home, &rows);
    let ledger = Ledger::open(&home).unwrap();
    let run = ledger.totals_for_run("r1").unwrap();
    assert_eq!((run.totals.requests, run.totals.cost_nanousd), (3, Some(36_900_000)));
    assert_eq!((run.totals.tokens.input, run.totals.unpriced), (Some(300), 0));
    assert_eq!(run.projects, ["my-app", "small"]);
    assert_eq!(ledger.totals_for_run("r2").unwrap().totals, Totals::default());
}

#[test]
fn runs_within_a_run_count_for_it() {
    let (_dir, home) = home();
    let mut rows: Vec<Row> = (1..=7).map(|n| row(n, "2026-11-24T01:00:00Z")).collect();
    let names = ["r1", "r1/r2", "r1/r2/r3", "r1/r4", "r10", "r1-/r2", "r"];
    for (row, name) in rows.iter_mut().zip(names) {
        row.run = Some(name.into());
    }
    rows[2].project = Some("inner".into());
    store(&home, &rows);
    let ledger = Ledger::open(&home).unwrap();
    for (run, requests, projects) in [
        ("r1", 4, &["my-app", "inner"][..]),
        ("r1/r2", 2, &["inner", "my-app"]),
        ("r1/r2/r3", 1, &["inner"]),
        ("r2", 0, &[]),
    ] {
        let found = ledger.totals_for_run(run).unwrap();
        assert_eq!(
            (found.totals.requests, found.projects),
            (requests, projects.iter().map(|&p| p.to_owned()).collect()),
            "{run}"
        );
        let filter = RequestFilter { run: Some(run.into()), ..RequestFilter::default() };
        assert_eq!(ledger.requests(&filter).unwrap().rows.len() as u64, requests, "{run}");
    }
}

fn query(from: &str, to: &str, by: &[GroupBy]) -> ReportQuery {
    ReportQuery {
        window: Window { from: at(from), to: at(to) },
        by: by.to_vec(),
        project: None,
        zone: TimeZone::get("America/New_York").unwrap(),
        vs_previous: false,
    }
}

fn keys(grouping: &Grouping) -> Vec<(Option<&str>, u64)> {
    grouping.groups.iter().map(|g| (g.key.as_deref(), g.totals.requests)).collect()
}

#[test]
fn groups_add_up_to_the_summary_and_are_ordered() {
    let (_dir, home) = home();
    let mut rows: Vec<Row> = (1..=6).map(|n| row(n, "2026-11-24T03:00:00Z")).collect();
    rows[0].project = None;
    rows[1].project = Some("dear".into());
    rows[1].cost_nanousd = Some(i64::MAX / 2);
    // An hour later it is another day at the reader's place.
    rows[2].started_at = at("2026-11-24T05:00:00Z");
    rows[3].started_at = at("2026-11-25T00:00:00Z");
    rows[4].billable = false;
    rows[5].client = None;
    store(&home, &rows);
    let ledger = Ledger::open(&home).unwrap();
    let by = [GroupBy::Project, GroupBy::Day, GroupBy::Client];
    let report =
        ledger.report(&query("2026-11-24T03:00:00Z", "2026-11-25T00:00:00Z", &by)).unwrap();
    assert_eq!(report.summary.requests, 4, "the end is not in, side calls are not");
    assert_eq!(report.coverage.metered_requests, 4);
    for grouping in &report.groupings {
        let sum: u64 = grouping.groups.iter().map(|g| g.totals.requests).sum();
        assert_eq!(sum, 4, "{grouping:?}");
    }
    assert_eq!(keys(&report.groupings[0]), [(Some("dear"), 1), (Some("my-app"), 2), (None, 1)]);
    assert_eq!(keys(&report.groupings[1]), [(Some("2026-11-23"), 3), (Some("2026-11-24"), 1)]);
    assert_eq!(keys(&report.groupings[2]), [(Some("claude"), 3), (None, 1)]);
}

#[test]
fn the_range_before_is_as_long_and_touches() {
    let (_dir, home) = home();
    let mut old = row(1, "2026-11-22T00:00:00Z");
    old.cost_nanousd = Some(5);
    store(&home, &[row(9, "2026-11-21T23:59:59Z"), old, row(2, "2026-11-23T00:00:00Z")]);
    let ledger = Ledger::open(&home).unwrap();
    let mut query = query("2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z", &[GroupBy::Project]);
    query.vs_previous = true;
    let report = ledger.report(&query).unwrap();
    let previous = report.previous.unwrap();
    assert_eq!((report.summary.requests, previous.summary.requests), (1, 1));
    assert_eq!(previous.window.to, report.window.from);
    let group = &report.groupings[0].groups[0];
    assert_eq!(group.previous.as_ref().unwrap().cost_nanousd, Some(5));
}

#[test]
fn lost_rows_show_in_their_range() {
    let (_dir, home) = home();
    let (conn, _) = open_writer(&home.ledger_file()).unwrap();
    let when = at("2026-11-24T01:00:00Z").as_microsecond();
    conn.execute("INSERT INTO losses VALUES (?, 3, 'overflow')", [when]).unwrap();
    let ledger = Ledger::open(&home).unwrap();
    let lost = |from: &str, to: &str| {
        ledger.coverage(Window { from: at(from), to: at(to) }).unwrap().lost_rows
    };
    assert_eq!(lost("2026-11-24T01:00:00Z", "2026-11-24T02:00:00Z"), 3);
    assert_eq!(lost("2026-11-24T00:00:00Z", "2026-11-24T01:00:00Z"), 0);
}

/// Pages that people look at must not read or sort the whole ledger.
#[test]
fn a_page_is_found_by_an_index() {
    let (_dir, home) = home();
    store(&home, &[row(1, "2026-11-24T01:00:00Z")]);
    let ledger = Ledger::open(&home).unwrap();
    let none = RequestFilter::default;
    let text = || Some("x".to_owned());
    let before = Some(Cursor { started_at: 5, id: Uuid::nil() });
    let mut names = Names::default();
    names.show_as("y", "merged");
    names.show_as("z", "merged");
    let merged = || Some("merged".to_owned());
    let mut many = Names::default();
    (0..200).for_each(|n| many.show_as(&n.to_string(), "many"));
    let many_names = (RequestFilter { project: Some("many".to_owned()), ..none() }, &many);
    assert!(found_by(&ledger, &many_names.0, many_names.1).contains("requests_by_time"));
    let by_minutes = "SEARCH seen USING PRIMARY KEY (kind=? AND name=? AND minute>? AND minute<?)";
    let by_run = "SEARCH seen USING PRIMARY KEY (kind=? AND name>? AND name<?)";
    let by_time = "requests_by_time";
    for (filter, found) in [
        (RequestFilter { project: merged(), ..none() }, by_minutes),
        (RequestFilter { project: merged(), before, ..none() }, by_minutes),
        (none(), by_time),
        (RequestFilter { before, ..none() }, by_time),
        (RequestFilter { since: Some(Timestamp::UNIX_EPOCH), ..none() }, by_time),
        (RequestFilter { provider: text(), ..none() }, by_time),
        (RequestFilter { project: text(), ..none() }, by_minutes),
        (RequestFilter { project: text(), before, ..none() }, by_minutes),
        (RequestFilter { project: merged(), model: text(), ..none() }, by_minutes),
        (RequestFilter { model: text(), ..none() }, by_minutes),
        (RequestFilter { model: text(), provider: text(), before, ..none() }, by_minutes),
        (RequestFilter { run: text(), ..none() }, by_run),
    ] {
        let plan = found_by(&ledger, &filter, &names);
        assert!(plan.contains(found), "{filter:?}: {plan}");
        // The rows of a minute are not all looked at either.
        let of_minute = "requests USING INDEX requests_by_time (started_at>? AND started_at<?)";
        assert!(found == by_time || plan.contains(of_minute), "{filter:?}: {plan}");
        // A run is small.
        assert!(found == by_run || !plan.contains("TEMP"), "{filter:?}: {plan}");
        let scanned = plan.replace("SCAN (subquery-", "");
        assert!(found == by_time || !scanned.contains("SCAN "), "{filter:?}: {plan}");
    }
}

fn found_by(ledger: &Ledger, filter: &RequestFilter, names: &Names) -> String {
    let (sql, values) = page(&RequestFilter { limit: Some(20), ..filter.clone() }, names);
    plan(ledger, &sql, values)
}

/// The row that the cursor is at is found, not looked for from the end.
#[test]
fn the_last_page_costs_no_more_than_the_first() {
    let (_dir, home) = home();
    store(&home, &minutes(2000));
    let mut names = Names::default();
    names.show_as("even", "both");
    names.show_as("odd", "both");
    let cases = [
        (None, Names::default(), 2000),
        (Some("odd"), Names::default(), 1000),
        (Some("both"), names, 2000),
    ];
    for (project, names, count) in cases {
        let ledger = Ledger { names, ..Ledger::open(&home).unwrap() };
        let mut filter = RequestFilter {
            project: project.map(str::to_owned),
            since: Some(Timestamp::UNIX_EPOCH),
            until: Some(at("2027-01-01T00:00:00Z")),
            limit: Some(20),
            ..RequestFilter::default()
        };
        let steps = |filter: &RequestFilter| {
            let (sql, values) = page(filter, &ledger.names);
            steps(&ledger.conn, &sql, values)
        };
        let first = steps(&filter);
        let mut seen = Vec::new();
        let last = loop {
            let page = ledger.requests(&filter).unwrap();
            seen.extend(ids(&page));
            match page.next {
                Some(next) => filter.before = Some(next),
                None => break steps(&filter),
            }
        };
        assert!(seen.is_sorted_by(|a, b| a > b) && seen.len() == count, "{project:?}: {seen:?}");
        assert!(last <= 2 * first && first < 10_000, "{project:?}: {first}, {last}");
    }
}

#[test]
fn the_end_of_an_id_is_looked_for_in_an_index() {
    let (_dir, home) = home();
    store(&home, &minutes(30));
    let ledger = Ledger::open(&home).unwrap();
    let ending = |digits: &str| -> Vec<u128> {
        let rows = ledger.requests_ending(digits).unwrap();
        rows.iter().map(|row| row.id.as_u128()).collect()
    };
    assert_eq!((ending("01e"), ending("77")), (vec![30], vec![]));
    assert_eq!(ending("a").len(), 2);
    let plan = plan(&ledger, ENDING, vec!["a".to_owned().into()]);
    assert!(plan.contains("COVERING INDEX"), "{plan}");
}

#[test]
fn a_range_is_found_by_an_index() {
    let (_dir, home) = home();
    store(&home, &[row(1, "2026-11-24T01:00:00Z")]);
    let ledger = Ledger::open(&home).unwrap();
    for (table, at) in
        [("requests", "started_at"), ("losses", "at"), ("passed", "at"), ("unfinished", "at")]
    {
        let sql = format!("SELECT * FROM {table} WHERE {at} >= 1 AND {at} < 2");
        let plan = plan(&ledger, &sql, Vec::new());
        assert!(plan.contains("SEARCH") && plan.contains("_by_time"), "{table}: {plan}");
    }
    let sql = "SELECT hour, cells FROM rollups WHERE hour >= 1 AND hour < 2 ORDER BY hour";
    let rollups = plan(&ledger, sql, Vec::new());
    assert!(rollups.contains("SEARCH") && !rollups.contains("TEMP"), "{rollups}");
    let sql = "SELECT min(minute) FROM seen WHERE kind = 4 AND name = x'00'";
    let first = plan(&ledger, sql, Vec::new());
    assert!(first.contains("SEARCH seen USING PRIMARY KEY (kind=? AND name=?)"), "{first}");
    let of_connection = Clause::default().named(Some(Named::connection(Uuid::nil())));
    let (sql, values) = of_connection.select("SELECT count(*)");
    let rows = plan(&ledger, &sql, values);
    assert!(rows.contains("SEARCH requests USING INDEX requests_by_time"), "{rows}");
}

fn plan(ledger: &Ledger, sql: &str, values: Vec<Value>) -> String {
    let mut stmt = ledger.conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let lines = stmt.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
    lines.map(Result::unwrap).collect::<Vec<_>>().join("; ")
}
