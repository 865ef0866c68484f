//! Does the ledger add up? Each row must be an answer of the origin's, once, with its numbers; each
//! metered answer must be a row, unless a failure took it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::harness::Stand;
use crate::oracle::{Failure, Incident, Route};
use crate::origin::Served;
use crate::record::Try;

#[derive(Debug, Default)]
pub struct Accounts {
    pub rows: usize,
    pub by_completeness: BTreeMap<String, usize>,
    /// Metered answers that a client got whole.
    pub metered: usize,
    /// Of these, without a whole row, and a failure explains it.
    pub taken: usize,
    /// Connections to the metered host that went raw, by their clients' account and by ours.
    pub raw_connections: usize,
    /// Of these, those whose record a failure may have taken.
    pub unnoted: usize,
    pub passed_connections: u64,
    pub faults: Vec<String>,
}

#[derive(Debug)]
struct Row {
    request_id: String,
    completeness: String,
    input: Option<u64>,
    output: Option<u64>,
    cache_read: Option<u64>,
}

const COMPLETE: &str = "complete";
/// How long an answer may be on its way into the database.
const ON_ITS_WAY: Duration = Duration::from_secs(5);
/// How long a damage may stay unnoticed: until a damaged page is used.
const SHOWS: Duration = Duration::from_secs(15);

/// What was read of it, also before a failure that takes it away.
#[derive(Debug, Default)]
pub struct Ledger {
    rows: HashMap<String, Row>,
    accounts: Accounts,
}

impl Ledger {
    pub fn read(&mut self, stand: &Stand) {
        match read(stand) {
            Ok(rows) => self.take(rows),
            Err(e) => {
                return self.accounts.faults.push(format!("the ledger cannot be read: {e}"));
            }
        }
        self.accounts.passed_connections +=
            stand.coverage()["passed_connections"].as_u64().unwrap_or(0);
    }

    /// What is in it now.
    fn take(&mut self, rows: Vec<Row>) {
        let mut seen = BTreeSet::new();
        for row in rows {
            if row.request_id.is_empty() {
                // Cut short before its answer, it has no name; with the whole answer it has.
                if row.completeness == COMPLETE {
                    self.accounts.faults.push("a complete row of nobody's answer".to_owned());
                }
                continue;
            }
            if !seen.insert(row.request_id.clone()) {
                self.accounts.faults.push(format!("{} has two rows", row.request_id));
            }
            self.rows.insert(row.request_id.clone(), row);
        }
    }

    pub fn check(self, served: Vec<Served>, tries: &[Try], incidents: &[Incident]) -> Accounts {
        let Self { rows, mut accounts } = self;
        let served: HashMap<_, _> = served.into_iter().map(|s| (s.request_id.clone(), s)).collect();
        accounts.rows = rows.len();
        for (id, row) in &rows {
            *accounts.by_completeness.entry(row.completeness.clone()).or_default() += 1;
            let Some(s) = served.get(id) else {
                accounts.faults.push(format!("{id} was never served"));
                continue;
            };
            let (got, said) =
                ((row.input, row.output, row.cache_read), (s.input, s.output, s.cache_read));
            if row.completeness == COMPLETE && got != said {
                accounts.faults.push(format!("{id}: {got:?} for {said:?}"));
            }
        }
        let metered = tries.iter().filter(|t| t.route == Route::Metered && t.failed.is_none());
        for (one, id) in metered.filter_map(|t| Some((t, t.request_id.as_deref()?))) {
            accounts.metered += 1;
            // Its client got it whole, so it was there to be read whole.
            let row = rows.get(id).map(|row| row.completeness.as_str());
            if row == Some(COMPLETE) {
                continue;
            }
            if incidents.iter().any(|i| takes(i, one)) {
                accounts.taken += 1;
            } else {
                accounts.faults.push(format!(
                    "{id} ({}, ended at {:.3} s) was metered, and its row is {}",
                    one.kind.name(),
                    one.ended.as_secs_f64(),
                    row.unwrap_or("missing"),
                ));
            }
        }
        if accounts.metered == 0 {
            accounts.faults.push("nothing was metered".to_owned());
        }
        accounts.passed(tries, incidents);
        accounts
    }
}

impl Accounts {
    /// The raw connections to the metered host, by their clients' account and by ours.
    fn passed(&mut self, tries: &[Try], incidents: &[Incident]) {
        let mut raw = BTreeMap::<u64, (Duration, Duration)>::new();
        let mut unclear = BTreeSet::new();
        for one in tries.iter().filter(|t| t.metered_host) {
            match one.route {
                Route::Raw => {
                    let life = raw.entry(one.connection).or_insert((one.opened, one.ended));
                    life.1 = life.1.max(one.ended);
                }
                // Its handshake failed: it may have been a tunnel all the same.
                Route::Unknown => {
                    unclear.insert(one.connection);
                }
                Route::Metered => {}
            }
        }
        let unnoted = |life: &&(Duration, Duration)| {
            let met = |i: &&Incident| {
                use Failure::{EdgeKilled, LedgerCorrupt, LedgerUnwritable};
                matches!(i.failure, EdgeKilled | LedgerCorrupt | LedgerUnwritable)
                    && life.0 <= i.over + ON_ITS_WAY
                    && life.1 + ON_ITS_WAY >= i.begin
            };
            incidents.iter().any(|i| met(&i))
        };
        self.raw_connections = raw.len();
        self.unnoted = raw.values().filter(unnoted).count();
        // What was on its way when the ledger was read, and destroyed, is counted before and after.
        let (least, most) = (raw.len() - self.unnoted, raw.len() + unclear.len() + self.unnoted);
        let noted = self.passed_connections;
        if noted < least as u64 || noted > most as u64 {
            self.faults.push(format!(
                "{noted} raw connections to the metered host are on record, of {least} to {most}"
            ));
        }
    }
}

/// Whether this failure may have taken the row of that answer.
fn takes(incident: &Incident, one: &Try) -> bool {
    let i = incident;
    match i.failure {
        Failure::DaemonKilled => one.started <= i.struck && one.ended + ON_ITS_WAY >= i.begin,
        // What was written after the last look, until that showed.
        Failure::LedgerCorrupt => {
            one.started <= i.struck + SHOWS && one.ended + ON_ITS_WAY >= i.begin
        }
        // What was written into the file that was moved away is back; what was on its way waits,
        // but for a file that was made and removed in between.
        Failure::LedgerUnwritable => {
            one.started <= i.over + ON_ITS_WAY && one.ended + ON_ITS_WAY >= i.begin
        }
        Failure::DaemonFrozen
        | Failure::DaemonTerminated
        | Failure::StopStart
        | Failure::Restart
        | Failure::Upgrade
        | Failure::EdgeKilled
        | Failure::EdgeFrozen
        | Failure::EdgeUpgraded
        | Failure::RootKilled
        | Failure::RootFrozen
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

#[test]
fn what_the_ledger_must_not_say() {
    use crate::record::Kind;

    let row = |id: &str, completeness: &str, input: u64| Row {
        request_id: id.to_owned(),
        completeness: completeness.to_owned(),
        input: Some(input),
        output: None,
        cache_read: None,
    };
    let served =
        |id: &str| Served { request_id: id.to_owned(), input: Some(1), ..Served::default() };
    let tried = Try {
        kind: Kind::New,
        metered_host: true,
        route: Route::Metered,
        connection: 1,
        fresh: true,
        opened: Duration::from_secs(20),
        started: Duration::from_secs(20),
        ended: Duration::from_secs(21),
        bytes: 1,
        request_id: Some("a".to_owned()),
        failed: None,
    };
    let faults = |rows: Vec<Row>, tries: &[Try], killed: Option<u64>| {
        let incident = |at| Incident {
            failure: Failure::DaemonKilled,
            begin: Duration::from_secs(at),
            struck: Duration::from_secs(at),
            over: Duration::from_secs(at),
        };
        let incidents: Vec<_> = killed.map(incident).into_iter().collect();
        let mut ledger = Ledger::default();
        ledger.take(rows);
        ledger.check(vec![served("a")], tries, &incidents).faults
    };
    let one = std::slice::from_ref(&tried);
    let good = || row("a", COMPLETE, 1);
    assert_eq!(faults(vec![good(), row("", "interrupted", 0)], one, None), [""; 0]);
    for (rows, said) in [
        (vec![good(), row("", COMPLETE, 1)], "a complete row of nobody's answer"),
        (vec![good(), good()], "a has two rows"),
        (vec![good(), row("b", "interrupted", 1)], "b was never served"),
        (vec![row("a", COMPLETE, 2)], "for"),
        (vec![row("a", "lossy", 1)], "its row is lossy"),
        (vec![row("a", "interrupted", 1)], "its row is interrupted"),
        (vec![], "its row is missing"),
    ] {
        let faults = faults(rows, one, None);
        assert!(faults.len() == 1 && faults[0].contains(said), "{said}: {faults:?}");
    }
    assert_eq!(faults(vec![], &[], None), ["nothing was metered"]);
    // A failure may take what was on its way, and nothing that came later.
    for (killed, rows, none) in [
        (22, vec![], true),
        (22, vec![row("a", "interrupted", 1)], true),
        (19, vec![row("a", "interrupted", 1)], false),
        (40, vec![], false),
    ] {
        assert_eq!(faults(rows, one, Some(killed)).is_empty(), none, "{killed}");
    }
}
