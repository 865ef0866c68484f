//! Does the ledger add up? Each row must be an answer of the origin's, once, with its numbers; each
//! metered answer must be a row, unless a failure took it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::harness::Stand;
use crate::oracle::{Failure, Incident, Route};
use crate::record::Try;

#[derive(Debug, Default)]
pub struct Accounts {
    pub rows: usize,
    pub by_completeness: BTreeMap<String, usize>,
    /// Metered answers that a client got whole.
    pub metered: usize,
    /// Of these, without a row, and a failure explains it.
    pub taken: usize,
    /// Connections to the metered host that went raw, by their clients' account and by ours.
    pub raw_connections: usize,
    pub passed_connections: Option<u64>,
    pub faults: Vec<String>,
}

struct Row {
    request_id: String,
    completeness: String,
    input: Option<u64>,
    output: Option<u64>,
    cache_read: Option<u64>,
}

/// How long an answer may be on its way into the database.
const ON_ITS_WAY: Duration = Duration::from_secs(5);

pub fn check(stand: &Stand, tries: &[Try], incidents: &[Incident]) -> Accounts {
    let mut accounts = Accounts::default();
    let rows = match read(stand) {
        Ok(rows) => rows,
        Err(e) => {
            accounts.faults.push(format!("the ledger cannot be read: {e}"));
            return accounts;
        }
    };
    accounts.rows = rows.len();
    for row in &rows {
        *accounts.by_completeness.entry(row.completeness.clone()).or_default() += 1;
    }
    let served: HashMap<_, _> =
        stand.origin.served().into_iter().map(|s| (s.request_id.clone(), s)).collect();
    let mut seen = BTreeSet::new();
    for row in rows.iter().filter(|r| !r.request_id.is_empty()) {
        if !seen.insert(row.request_id.as_str()) {
            accounts.faults.push(format!("{} has two rows", row.request_id));
        }
        match served.get(&row.request_id) {
            None => accounts.faults.push(format!("{} was never served", row.request_id)),
            Some(s) if row.completeness == "complete" => {
                let (got, said) =
                    ((row.input, row.output, row.cache_read), (s.input, s.output, s.cache_read));
                if got != said {
                    accounts.faults.push(format!("{}: {got:?} for {said:?}", row.request_id));
                }
            }
            Some(_) => {}
        }
    }
    let metered = tries.iter().filter(|t| t.route == Route::Metered && t.failed.is_none());
    for (one, id) in metered.filter_map(|t| Some((t, t.request_id.as_deref()?))) {
        accounts.metered += 1;
        if seen.contains(id) {
            continue;
        }
        if incidents.iter().any(|i| takes(i, one)) {
            accounts.taken += 1;
        } else {
            accounts.faults.push(format!(
                "{id} ({}, ended at {:.3} s) was metered and has no row",
                one.kind.name(),
                one.ended.as_secs_f64()
            ));
        }
    }
    let raw = tries.iter().filter(|t| t.metered_host && t.route == Route::Raw);
    accounts.raw_connections = raw.map(|t| t.connection).collect::<BTreeSet<_>>().len();
    accounts.passed_connections = stand.coverage()["passed_connections"].as_u64();
    accounts
}

/// Whether this failure may have taken the row of that answer.
fn takes(incident: &Incident, one: &Try) -> bool {
    let i = incident;
    match i.failure {
        Failure::DaemonKilled => one.started <= i.struck && one.ended + ON_ITS_WAY >= i.begin,
        // Whatever was in the file, and what was written until that showed.
        Failure::LedgerCorrupt => one.started <= i.struck + ON_ITS_WAY,
        // What was written into the file that was moved away is back; what was on its way waits,
        // but for a file that was made and removed in between.
        Failure::LedgerUnwritable => {
            one.started <= i.over + ON_ITS_WAY && one.ended + ON_ITS_WAY >= i.begin
        }
        Failure::DaemonFrozen
        | Failure::DaemonTerminated
        | Failure::StopStart
        | Failure::Restart
        | Failure::EdgeKilled
        | Failure::RootKilled
        | Failure::WatchdogKilled
        | Failure::SocketRemoved
        | Failure::Impostor
        | Failure::LedgerLocked
        | Failure::ConfigBroken
        | Failure::ProviderRefuses
        | Failure::ProviderStalls
        | Failure::ProviderResets
        | Failure::ProviderTruncates
        | Failure::ProviderCertificate => false,
    }
}

fn read(stand: &Stand) -> rusqlite::Result<Vec<Row>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(stand.home.ledger_file(), flags)?;
    let mut statement = connection.prepare(
        "SELECT coalesce(provider_request_id, ''), completeness, input_tokens, output_tokens, \
         cache_read_tokens FROM requests WHERE billable",
    )?;
    let rows = statement.query_map([], |row| {
        let count = |n| row.get::<_, Option<i64>>(n).map(|v| v.and_then(|v| u64::try_from(v).ok()));
        Ok(Row {
            request_id: row.get(0)?,
            completeness: row.get(1)?,
            input: count(2)?,
            output: count(3)?,
            cache_read: count(4)?,
        })
    })?;
    rows.collect()
}
