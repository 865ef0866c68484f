//! The checks, one after the other.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::client::{Client, ClientError, Connection};
use super::origin::{MODEL, Origin, Served};
use super::report::{Check, Level, Report};
use crate::home::Home;
use crate::meter::ledger::{Ledger, RequestFilter};
use crate::meter::price::{Book, Query};
use crate::meter::row::{Completeness, Row};
use crate::meter::trust::read_certificates;
use crate::meter::usage::{Tokens, Usage, UsageState};
use crate::notice::Notice;

/// A run takes a fraction of it; a notice that outlives its run is void after it.
const LIFE: SignedDuration = SignedDuration::from_secs(60);
/// For rows to reach the throw-away ledger.
const ROWS: Duration = Duration::from_secs(3);
/// For a refusal to reach the list of clients that stay raw.
const BYPASS: Duration = Duration::from_secs(4);
const TICK: Duration = Duration::from_millis(5);

/// What is tested, and what is known of it beforehand.
#[derive(Clone, Debug)]
pub struct Subject {
    pub home: Home,
    pub edge: SocketAddr,
    /// Why requests are not metered, if that is known, and what to do about it.
    pub unmetered: Option<(String, String)>,
    /// The edge reaches this machine by way of another proxy.
    pub loopback_by_proxy: bool,
}

/// Why nothing could be tested.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("another self-test is running")]
    Busy,
    #[error("cannot prepare {}: {source}", home.selftest().path().display())]
    Io { home: Home, source: io::Error },
}

/// Takes away what a run has laid out. For a run that is interrupted, too.
pub fn clean_up(home: &Home) {
    let _ = fs::remove_dir_all(home.selftest().path());
}

/// Runs everything; `said` is called with each check as it is done, `hurry` when the daemon should
/// not wait any longer to look at what it has seen.
///
/// # Errors
/// When it could not even begin.
pub fn run(
    subject: &Subject,
    hurry: &dyn Fn(),
    said: &mut dyn FnMut(&Check),
) -> Result<Report, Problem> {
    let home = &subject.home;
    let io = |source| Problem::Io { home: home.clone(), source };
    let _lock = Notice::lock(home).map_err(io)?.ok_or(Problem::Busy)?;
    // Of a run that was killed.
    clean_up(home);
    let _laid_out = LaidOut(home);
    let trial = home.selftest();
    for dir in [trial.path().to_path_buf(), trial.spool_dir()] {
        DirBuilder::new().mode(0o700).create(dir).map_err(io)?;
    }
    let origin = Origin::start().map_err(io)?;
    let notice = Notice {
        id: Uuid::new_v4(),
        pid: std::process::id(),
        origin: origin.addr(),
        root_pem: origin.root_pem().to_owned(),
        until: Timestamp::now().checked_add(LIFE).unwrap_or(Timestamp::MAX),
    };
    notice.write(home).map_err(io)?;
    let mut bench = Bench { subject, origin, checks: Vec::new(), hurry, said, metered: 0 };
    bench.all();
    Ok(Report::new(bench.checks))
}

struct LaidOut<'a>(&'a Home);

impl Drop for LaidOut<'_> {
    fn drop(&mut self) {
        clean_up(self.0);
    }
}

struct Bench<'a> {
    subject: &'a Subject,
    origin: Origin,
    checks: Vec<Check>,
    hurry: &'a dyn Fn(),
    said: &'a mut dyn FnMut(&Check),
    /// Requests that went by way of the daemon.
    metered: usize,
}

/// Level, detail, next action.
type Found = (Level, String, Option<String>);

impl Bench<'_> {
    fn all(&mut self) {
        self.check("raw", Self::raw);
        self.check("json", |b| b.asks(&[false], "a JSON answer"));
        self.check("stream", |b| b.asks(&[true], "a stream"));
        self.check("keep-alive", |b| b.asks(&[false, true], "two requests on one connection"));
        self.check("ledger", Self::ledger);
        self.check("distrust", Self::distrust);
    }

    fn check(&mut self, name: &'static str, run: impl FnOnce(&mut Self) -> Found) {
        let begun = Instant::now();
        let (level, detail, next) = run(self);
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let check = Check { name, level, ms, detail, next };
        (self.said)(&check);
        self.checks.push(check);
    }

    /// A host that is not metered: nobody may have had a look inside.
    fn raw(&mut self) -> Found {
        if self.subject.loopback_by_proxy {
            let why = "127.0.0.1 is reached through upstream.proxy; not tried";
            return (Level::Skipped, why.to_owned(), None);
        }
        let tried = self.distrusting().and_then(|client| {
            let addr = self.origin.addr();
            let mut connection = client.connect(&addr.ip().to_string(), addr.port())?;
            connection.ask(false, || {})
        });
        match tried {
            Ok(body) if self.last().is_some_and(|s| s.body == body) => {
                (Level::Ok, "a host that is not metered is reached untouched".to_owned(), None)
            }
            Ok(_) => broken(&ClientError::Garbled),
            Err(e) => broken(&e),
        }
    }

    /// Requests to the metered host, as a client sends them that was started by `run`.
    fn asks(&mut self, streams: &[bool], what: &str) -> Found {
        let bundle = self.subject.home.ca_bundle();
        let mut roots = read_certificates(&bundle);
        if roots.is_empty() {
            return (
                Level::Broken,
                format!("{} holds no certificate: clients can verify nobody", bundle.display()),
                Some("`halton-meter doctor --fix` writes it again".to_owned()),
            );
        }
        // Its part is that of the system's roots: a request that passes raw must work too.
        roots.push(self.origin.root().clone());
        let done = self.client(roots).and_then(|client| {
            let mut connection = client.connect_metered()?;
            let raw = connection.shows(self.origin.leaf());
            for stream in streams {
                self.ask(&mut connection, *stream)?;
            }
            Ok(raw)
        });
        match done {
            Err(e) => broken(&e),
            Ok(true) => self.passed(what),
            Ok(false) => {
                self.metered += streams.len();
                if self.origin.served().iter().any(|served| !served.in_time) {
                    let why =
                        "the stream is held back: its beginning did not arrive before its end";
                    return (Level::Degraded, why.to_owned(), Some(report_it()));
                }
                (Level::Ok, format!("{what}, metered, byte for byte"), None)
            }
        }
    }

    /// What came must be what was sent.
    fn ask(&self, connection: &mut Connection, stream: bool) -> Result<(), ClientError> {
        let body = connection.ask(stream, || self.origin.open_gate())?;
        if self.last().is_some_and(|served| served.body == body) {
            Ok(())
        } else {
            Err(ClientError::Garbled)
        }
    }

    /// The request worked, but past the daemon.
    fn passed(&self, what: &str) -> Found {
        let (why, next) = self.subject.unmetered.clone().unwrap_or_else(|| {
            ("the daemon left it to the edge".to_owned(), "`halton-meter doctor`".to_owned())
        });
        (Level::Degraded, format!("{what}: passed, unmetered; {why}"), Some(next))
    }

    /// Tokens and price of what was sent, and nothing else.
    fn ledger(&mut self) -> Found {
        if self.metered == 0 {
            return (Level::Skipped, "nothing was metered".to_owned(), None);
        }
        let served = self.origin.served();
        // The last ones: the raw tunnel's requests were before them.
        let sent = served.get(served.len().saturating_sub(self.metered)..).unwrap_or_default();
        (self.hurry)();
        let end = Instant::now() + ROWS;
        let found = loop {
            let rows = self.rows();
            let found = compare(sent, &rows);
            if found.is_ok() || Instant::now() >= end {
                break found;
            }
            std::thread::sleep(TICK);
        };
        match found {
            Ok(()) => {
                let text = format!("{} rows with tokens and price as they were sent", sent.len());
                (Level::Ok, text, None)
            }
            Err(why) => (Level::Degraded, format!("wrong rows: {why}"), Some(report_it())),
        }
    }

    fn rows(&self) -> Vec<Row> {
        let filter = RequestFilter { all: true, ..RequestFilter::default() };
        let ledger = Ledger::open(&self.subject.home.selftest());
        ledger.and_then(|ledger| ledger.requests(&filter)).map(|page| page.rows).unwrap_or_default()
    }

    /// A client that does not want our certificate may fail once; then it is left alone.
    fn distrust(&mut self) -> Found {
        let Ok(client) = self.distrusting() else { return broken(&ClientError::Garbled) };
        let end = Instant::now() + BYPASS;
        let mut failures = 0;
        loop {
            let tried =
                client.connect_metered().and_then(|mut connection| connection.ask(false, || {}));
            match tried {
                Ok(_) if failures == 0 && self.metered > 0 => {
                    let why = "a client that knows no CA of ours was not intercepted";
                    return (
                        Level::Degraded,
                        why.to_owned(),
                        Some("`halton-meter doctor`".to_owned()),
                    );
                }
                Ok(_) => {
                    let how = match failures {
                        0 => "passes raw".to_owned(),
                        1 => "fails once, then passes raw".to_owned(),
                        n => format!("failed {n} times in a row, then passed raw"),
                    };
                    return (
                        Level::Ok,
                        format!("a client that refuses our certificate {how}"),
                        None,
                    );
                }
                Err(ClientError::Certificate(_)) if Instant::now() < end => {
                    failures += 1;
                    // It takes the daemon an instant to find out who the client was.
                    std::thread::sleep(TICK * 4 * failures);
                }
                Err(e) => return broken(&e),
            }
        }
    }

    fn client(
        &self,
        roots: Vec<rustls::pki_types::CertificateDer<'static>>,
    ) -> Result<Client, ClientError> {
        Client::trusting(self.subject.edge, roots).ok_or(ClientError::Garbled)
    }

    /// Knows the provider's root, and not ours.
    fn distrusting(&self) -> Result<Client, ClientError> {
        self.client(vec![self.origin.root().clone()])
    }

    fn last(&self) -> Option<Served> {
        self.origin.served().pop()
    }
}

fn broken(error: &ClientError) -> Found {
    let next = match error {
        ClientError::Connect(..) => "`halton-meter start`",
        ClientError::Refused(_) | ClientError::Timeout | ClientError::Broken(_) => {
            "`halton-meter doctor` looks at each part"
        }
        ClientError::Certificate(_) => {
            "the daemon signs with another CA than the bundle holds: `halton-meter restart`"
        }
        ClientError::Garbled => return (Level::Broken, error.to_string(), Some(report_it())),
    };
    (Level::Broken, error.to_string(), Some(next.to_owned()))
}

fn report_it() -> String {
    "this is a bug of ours: please report it".to_owned()
}

/// Whether `rows` are exactly what was `sent`.
fn compare(sent: &[Served], rows: &[Row]) -> Result<(), String> {
    if rows.len() != sent.len() {
        return Err(format!("{} for {} requests", rows.len(), sent.len()));
    }
    for served in sent {
        let row = rows.iter().find(|row| row.tokens.input == served.tokens.input);
        let Some(row) = row else { return Err("a request is missing".to_owned()) };
        if row.completeness != Completeness::Complete {
            return Err("a request is not complete".to_owned());
        }
        if row.tokens != served.tokens {
            return Err("the tokens differ".to_owned());
        }
        if row.cost_nanousd.is_none() || row.cost_nanousd != price(served.tokens, row.started_at) {
            return Err("the price differs".to_owned());
        }
    }
    Ok(())
}

fn price(tokens: Tokens, at: Timestamp) -> Option<i64> {
    let usage = Usage { state: UsageState::Reported, tokens, ..Usage::default() };
    let query = Query { provider: "anthropic", model: MODEL, at, ended: at, usage: &usage };
    Book::builtin().quote(&query).cost_nanousd
}

#[cfg(test)]
mod tests;
