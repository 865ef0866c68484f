//! The same answer is counted once, however often it is read back.

use std::borrow::Cow;
use std::sync::LazyLock;

use rusqlite::{Connection, params};

use super::record::{self, COLUMNS};
use crate::meter::row::{Completeness, Protocol, Row};
use crate::meter::surface::grpc::FETCHES;
use crate::meter::usage::UsageState;

/// At most so many rows of one answer give way to another.
const MOST: usize = 32;
const REPEAT: &str = "the same answer is counted in another row";
const TOLD_LATER: &str = "what it cost was told to who read the answer back";

/// The rows of that answer that count, the earliest first: what one looks for is there, before all
/// that read the answer back since, and is found without reading those.
static COUNTED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {COLUMNS} FROM requests WHERE response_id = ?1 AND provider = ?2 AND id <> ?3
            AND billable AND usage <> 'absent' ORDER BY rowid LIMIT {MOST}"
    )
});

/// Those of them that read back what a stream tells. That is done while it runs: since its own row
/// was opened, or, where that was not kept, a moment ago. Not all rows are looked at: some servers
/// call all their answers alike.
static POLLS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {COLUMNS} FROM requests WHERE response_id = ?1 AND provider = ?2 AND id <> ?3
            AND billable AND usage <> 'absent' AND protocol <> '{ws}'
            AND (method = 'GET' COLLATE NOCASE OR path = '{FETCHES}')
            AND rowid >= min(
                coalesce((SELECT rowid FROM requests WHERE id = ?3), {newest}),
                coalesce((SELECT rowid FROM requests WHERE response_id = ?1
                    ORDER BY rowid DESC LIMIT 1 OFFSET {MOST}), 0))
            ORDER BY rowid LIMIT {MOST}",
        ws = Protocol::Ws.as_str(),
        newest = i64::MAX
    )
});

/// The requests for that answer that ended before its usage was told, the latest ones.
static UNTOLD: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {COLUMNS} FROM requests WHERE response_id = ?1 AND provider = ?2 AND id <> ?3
            AND billable AND usage = 'absent' AND completeness <> 'open'
            AND (method <> 'GET' COLLATE NOCASE OR protocol = '{ws}')
            ORDER BY rowid DESC LIMIT {MOST}",
        ws = Protocol::Ws.as_str()
    )
});

/// The row as it is to be written. One that reads an answer back (a poll, a download) counts if it is
/// the first that tells it whole; one that told it only in part gives way. So do all of them to the
/// answer itself, where that is a stream of a background response that somebody polled meanwhile. A request
/// that was told nothing is the same one as what is read back of it later, which counts in its place.
pub(super) fn settled<'a>(conn: &Connection, row: &'a Row) -> rusqlite::Result<Cow<'a, Row>> {
    let Some(answer) = row.response_id.as_deref() else { return Ok(Cow::Borrowed(row)) };
    // A turn on a WebSocket has the method of its handshake.
    let reads = (row.method.eq_ignore_ascii_case("GET") || row.path == FETCHES)
        && row.protocol != Protocol::Ws;
    let id = row.id.as_bytes().as_slice();
    if !row.billable {
        return Ok(Cow::Borrowed(row));
    }
    if row.usage == UsageState::Absent {
        let told = || conn.prepare_cached(&POLLS)?.exists(params![answer, row.provider, id]);
        let told = !reads && row.completeness != Completeness::Open && told()?;
        return Ok(if told { Cow::Owned(uncounted(row, TOLD_LATER)) } else { Cow::Borrowed(row) });
    }
    // An answer that comes in one piece is known to nobody before.
    if !reads && row.stream != Some(true) {
        return Ok(Cow::Borrowed(row));
    }
    let whole =
        |row: &Row| row.completeness == Completeness::Complete && row.usage == UsageState::Reported;
    let told_by = |other: &Row| match (reads, whole(row)) {
        (true, false) => true,
        // The stream itself, unless it broke off before what was read back.
        (false, true) => false,
        (true, true) | (false, false) => whole(other),
    };
    let mut others = conn.prepare_cached(if reads { &COUNTED } else { &POLLS })?;
    let mut give_way = Vec::new();
    for other in others.query_map(params![answer, row.provider, id], record::read)? {
        let other = other?;
        if told_by(&other) {
            return Ok(Cow::Owned(uncounted(row, REPEAT)));
        }
        give_way.push(uncounted(&other, REPEAT));
    }
    if reads {
        let mut untold = conn.prepare_cached(&UNTOLD)?;
        for other in untold.query_map(params![answer, row.provider, id], record::read)? {
            give_way.push(uncounted(&other?, TOLD_LATER));
        }
    }
    for other in &give_way {
        record::rewrite(conn, other)?;
    }
    Ok(Cow::Borrowed(row))
}

fn uncounted(row: &Row, why: &str) -> Row {
    Row {
        billable: false,
        cost_nanousd: None,
        list_nanousd: None,
        price_rule: None,
        cost_estimated: false,
        cost_reason: Some(why.to_owned()),
        ..row.clone()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::meter::ledger::fixture;
    use crate::meter::ledger::schema::MIGRATIONS;

    fn poll(n: u128, completeness: Completeness) -> Row {
        Row {
            method: "GET".to_owned(),
            response_id: Some("resp_1".to_owned()),
            completeness,
            ..fixture::row(n, "2026-11-25T00:00:00Z")
        }
    }

    /// Writes the rows in this order; which of them count?
    fn counted(rows: &[Row]) -> Vec<u128> {
        let mut conn = Connection::open_in_memory().unwrap();
        MIGRATIONS.to_latest(&mut conn).unwrap();
        for row in rows {
            record::write(&conn, row).unwrap();
        }
        let mut stmt = conn.prepare("SELECT id FROM requests WHERE billable ORDER BY id").unwrap();
        let ids = stmt.query_map([], |r| r.get::<_, Vec<u8>>(0)).unwrap();
        ids.map(|id| Uuid::from_slice(&id.unwrap()).unwrap().as_u128()).collect()
    }

    #[test]
    fn polls_and_downloads_count_once() {
        use Completeness::{Complete, Interrupted};
        assert_eq!(counted(&[poll(1, Complete), poll(2, Complete), poll(3, Complete)]), [1]);
        // The first one written again, with its attribution.
        assert_eq!(counted(&[poll(1, Complete), poll(2, Complete), poll(1, Complete)]), [1]);
        // What was cut gives way to what is whole, whatever comes first.
        assert_eq!(counted(&[poll(1, Interrupted), poll(2, Complete)]), [2]);
        assert_eq!(counted(&[poll(1, Complete), poll(2, Interrupted)]), [1]);
        assert_eq!(counted(&[poll(1, Interrupted), poll(2, Interrupted), poll(3, Complete)]), [3]);
    }

    #[test]
    fn what_was_told_when_it_was_asked_is_not_counted_again() {
        let told = Row { method: "POST".to_owned(), ..poll(1, Completeness::Complete) };
        assert_eq!(counted(&[told, poll(2, Completeness::Complete)]), [1]);
        let queued = Row {
            method: "POST".to_owned(),
            usage: UsageState::Absent,
            ..poll(1, Completeness::Complete)
        };
        // It is the one that was read back.
        let told = poll(2, Completeness::Complete);
        assert_eq!(counted(&[queued.clone(), told.clone()]), [2]);
        assert_eq!(counted(&[told.clone(), queued.clone()]), [2]);
        assert_eq!(counted(&[queued.clone(), told.clone(), queued.clone()]), [2], "once more");
        // Over gRPC both have the same method.
        let fetched = Row {
            method: "POST".to_owned(),
            path: FETCHES.to_owned(),
            ..poll(2, Completeness::Complete)
        };
        assert_eq!(counted(&[queued.clone(), fetched.clone(), queued.clone()]), [2]);
        assert_eq!(
            counted(&[fetched.clone(), Row { id: poll(3, Completeness::Complete).id, ..fetched }]),
            [2]
        );
        let open = Row { completeness: Completeness::Open, ..queued.clone() };
        assert_eq!(counted(&[open, told.clone(), queued.clone()]), [2]);
        // Nor does a look before the end tell anything.
        let running = Row { usage: UsageState::Absent, billable: false, ..told.clone() };
        assert_eq!(counted(&[queued.clone(), running]), [1]);
        let cut = Row { stream: Some(true), completeness: Completeness::Interrupted, ..queued };
        assert_eq!(counted(&[cut.clone(), told.clone()]), [2]);
        let elsewhere = Row { provider: "other".to_owned(), ..cut };
        assert_eq!(counted(&[elsewhere, told]), [1, 2]);
        let elsewhere = Row { provider: "other".to_owned(), ..poll(1, Completeness::Complete) };
        assert_eq!(counted(&[elsewhere, poll(2, Completeness::Complete)]), [1, 2]);
    }

    #[test]
    fn a_stream_that_was_polled_meanwhile_counts_once() {
        use Completeness::{Complete, Interrupted};
        let stream = |completeness| Row {
            method: "POST".to_owned(),
            stream: Some(true),
            ..poll(2, completeness)
        };
        assert_eq!(counted(&[poll(1, Complete), stream(Complete)]), [2]);
        assert_eq!(counted(&[poll(1, Complete), poll(3, Complete), stream(Complete)]), [2]);
        // The poll written again, with its attribution; and one that comes later.
        let again = [poll(1, Complete), stream(Complete), poll(1, Complete), poll(3, Complete)];
        assert_eq!(counted(&again), [2]);
        assert_eq!(counted(&[poll(1, Complete), stream(Interrupted)]), [1]);
        let cut = Row { usage: UsageState::Partial, ..poll(1, Complete) };
        assert_eq!(counted(&[cut, stream(Complete)]), [2]);
        // Two that were asked are two, whatever their ids say.
        let other = Row { id: uuid::Uuid::from_u128(4), ..stream(Complete) };
        assert_eq!(counted(&[stream(Complete), other]), [2, 4]);
    }

    #[test]
    fn it_is_found_behind_however_many_polls() {
        use Completeness::{Complete, Open};
        let many = 3 * MOST as u128;
        let read: Vec<Row> = (1..=many).map(|n| poll(n, Complete)).collect();
        assert_eq!(counted(&read), [1]);

        let stream = Row { method: "POST".to_owned(), stream: Some(true), ..poll(2, Complete) };
        let opened = Row { completeness: Open, usage: UsageState::Absent, ..stream.clone() };
        let running =
            (10..10 + many).map(|n| Row { usage: UsageState::Absent, ..poll(n, Complete) });
        let running: Vec<Row> = running.collect();
        let is_counted_of = |rows: &[&[Row]]| {
            let told = counted(&rows.concat());
            let running = |n: &u128| (10..10 + many).contains(n);
            told.into_iter().filter(|n| !running(n)).collect::<Vec<_>>()
        };
        let (opened, stream, last) = (&[opened][..], &[stream][..], &[poll(1, Complete)][..]);
        assert_eq!(is_counted_of(&[opened, &running, stream, last]), [2]);
        assert_eq!(is_counted_of(&[opened, &running, last, stream]), [2]);
        assert_eq!(is_counted_of(&[opened, last, &running, stream]), [2]);
        // Its opening was not kept.
        assert_eq!(is_counted_of(&[&running, last, stream]), [2]);
    }

    #[test]
    fn turns_on_a_websocket_read_nothing_back() {
        use Completeness::{Complete, Interrupted};
        let turn = |n, completeness| Row {
            protocol: Protocol::Ws,
            stream: Some(true),
            ..poll(n, completeness)
        };
        // Two connections whose server calls all answers alike.
        assert_eq!(counted(&[turn(1, Complete), turn(2, Complete)]), [1, 2]);
        assert_eq!(counted(&[turn(1, Interrupted), turn(2, Complete)]), [1, 2]);
        assert_eq!(counted(&[turn(1, Complete), turn(2, Interrupted)]), [1, 2]);
        // What reads it back does not count beside it.
        assert_eq!(counted(&[turn(1, Complete), poll(2, Complete)]), [1]);
        assert_eq!(counted(&[poll(1, Complete), turn(2, Complete)]), [2]);
    }

    #[test]
    fn a_server_that_calls_all_answers_alike_is_not_searched_through() {
        let mut conn = Connection::open_in_memory().unwrap();
        MIGRATIONS.to_latest(&mut conn).unwrap();
        let polls = (&POLLS, "response_id=? AND rowid>?");
        for (query, found) in [(&COUNTED, "response_id=?"), (&UNTOLD, "response_id=?"), polls] {
            let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {}", **query)).unwrap();
            let steps: Vec<String> = plan
                .query_map(params!["a", "p", &[0_u8][..]], |row| row.get(3))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            let wanted = format!("SEARCH requests USING INDEX requests_by_response ({found})");
            assert_eq!(steps[0], wanted, "{steps:?}");
            let otherwise = |step: &String| step.starts_with("SCAN") || step.contains("B-TREE");
            assert!(!steps.iter().any(otherwise), "{steps:?}");
        }
        let streams: Vec<Row> = (1..=3 * MOST as u128)
            .map(|n| Row {
                method: "POST".to_owned(),
                stream: Some(true),
                ..poll(n, Completeness::Complete)
            })
            .collect();
        assert_eq!(counted(&streams).len(), streams.len());
    }

    #[test]
    fn the_rest_of_a_download_that_was_cut_gives_way_to_its_beginning() {
        use Completeness::{Complete, Interrupted};
        let part = |n, completeness| Row { usage: UsageState::Partial, ..poll(n, completeness) };
        assert_eq!(counted(&[part(1, Interrupted), part(2, Complete)]), [1]);
        assert_eq!(counted(&[part(1, Interrupted), part(2, Complete), poll(3, Complete)]), [3]);
    }
}
