//! `GET /metrics`: what is counted anyhow, in the text format 0.0.4 that Prometheus reads.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use actix_web::{HttpResponse, web};
use jiff::{SignedDuration, Timestamp};

use super::dto::{ActorAnswer, CheckAnswer};
use super::reads::read;
use super::routes::Api;
use crate::actors::edge_monitor::EdgeSeen;
use crate::meter::ledger::{Group, IntakeStats, Totals, Window};
use crate::meter::row::usd_decimal;
use crate::meter::tap::TapSnapshot;
use crate::supervisor::{JournalEntry, journal};

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const PREFIX: &str = "halton_meter_";
/// What the root starts, and starts again.
const PROCESSES: [&str; 3] = ["edge", "daemon", "watchdog"];

/// The most that each counter of the ledger has shown. `recompute-costs` may find less than before, and who
/// reads counters takes each step down for a beginning at zero, and the rest for news.
#[derive(Debug, Default)]
pub struct Peaks {
    most: Mutex<BTreeMap<String, i64>>,
    /// What was dated ahead at the first look, by provider: the clock was ahead before the daemon began.
    ahead: OnceLock<Vec<Group>>,
}

impl Peaks {
    /// What the first look has to look for, by a clock that says `now`.
    fn unseen(&self, began: Timestamp, now: Timestamp) -> Option<Window> {
        let soon = now.saturating_add(SignedDuration::from_secs(1)).unwrap_or(now);
        let ahead = Window { from: soon.max(began), to: Timestamp::MAX };
        self.ahead.get().is_none().then_some(ahead)
    }

    fn ahead(&self, provider: Option<&str>) -> Option<&Totals> {
        let mut groups = self.ahead.get()?.iter();
        groups.find(|group| group.key.as_deref() == provider).map(|group| &group.totals)
    }

    fn raise(&self, series: String, now: i64) -> i64 {
        let mut peaks = self.most.lock().unwrap_or_else(PoisonError::into_inner);
        let peak = peaks.entry(series).or_insert(now);
        *peak = now.max(*peak);
        *peak
    }
}

/// What is counted, for Prometheus (text format 0.0.4). Counters begin with the daemon.
#[utoipa::path(
    get,
    path = "/metrics",
    security(("token" = [])),
    responses(
        (status = 200, description = "see docs/api.md", body = String, content_type = "text/plain"),
    )
)]
pub(super) async fn get_metrics(api: web::Data<Api>) -> HttpResponse {
    let since = Window { from: api.started_at, to: Timestamp::MAX };
    let unseen = api.peaks.unseen(api.started_at, Timestamp::now());
    let file = api.home.journal_file();
    let (checks, edge, actors, spent, events) = tokio::join!(
        api.health.renewed(),
        api.edge.renewed(),
        api.tree.observe(),
        read(&api, move |ledger| {
            let ahead = unseen.map(|window| ledger.by_provider(window)).transpose()?;
            Ok((ledger.by_provider(since)?, ahead))
        }),
        web::block(move || journal::read_all(&file)),
    );
    let (health, checks) = api.health(&checks);
    // What can't be read is left out: the rest says why.
    let (spent, ahead) = spent.unwrap_or_default();
    if let Some(groups) = ahead {
        let _ = api.peaks.ahead.set(groups);
    }
    let seen = Seen {
        started_at: api.started_at,
        healthy: health.reasons.is_empty(),
        checks,
        spent,
        ledger: api.meter.intake().stats(),
        tap: api.meter.tap().map(|tap| tap.snapshot()),
        edge,
        actors,
        events: events.ok().and_then(Result::ok).unwrap_or_default(),
    };
    HttpResponse::Ok().content_type(CONTENT_TYPE).body(seen.text(&api.peaks))
}

/// All that is told.
struct Seen {
    started_at: Timestamp,
    healthy: bool,
    checks: Vec<CheckAnswer>,
    /// By provider, of what began since the daemon did.
    spent: Vec<Group>,
    ledger: IntakeStats,
    tap: Option<TapSnapshot>,
    edge: Arc<EdgeSeen>,
    actors: Vec<ActorAnswer>,
    events: Vec<JournalEntry>,
}

impl Seen {
    fn text(&self, peaks: &Peaks) -> String {
        let mut text = Text::default();
        self.daemon(&mut text);
        self.spent(&mut text, peaks);
        self.edge(&mut text);
        self.tap(&mut text);
        self.ledger(&mut text);
        self.restarts(&mut text);
        text.0
    }

    fn daemon(&self, text: &mut Text) {
        text.gauge("build_info", "The version, as a label.")
            .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        text.gauge("start_time_seconds", "When the daemon began, in seconds since 1970.")
            .sample(&[], self.started_at.as_second());
        text.gauge("healthy", "1: connections are metered. 0: they pass raw.")
            .sample(&[], u8::from(self.healthy));
        let mut checks = text.gauge("check_ok", "The conditions of metering, one by one.");
        for check in &self.checks {
            checks.sample(&[("check", check.name)], u8::from(check.ok));
        }
    }

    fn spent(&self, text: &mut Text, peaks: &Peaks) {
        type Sum = fn(&Totals) -> u64;
        let sums: [(&str, &str, Sum); 4] = [
            ("requests_total", "Requests to a model that are over.", |t| t.requests - t.open),
            ("failed_requests_total", "Of them, refused, failed or aborted.", |t| t.errors),
            ("incomplete_requests_total", "Of them, cut or not followed.", |t| t.incomplete),
            ("unpriced_requests_total", "With tokens, but without a price.", |t| t.unpriced),
        ];
        for (name, help, sum) in sums {
            let mut family = text.counter(name, help);
            for (provider, totals, ahead) in self.providers(peaks) {
                let now = sum(totals).saturating_sub(ahead.map_or(0, sum));
                let now = i64::try_from(now).unwrap_or(i64::MAX);
                family.peak(&[("provider", provider)], now, peaks, |n| n.to_string());
            }
        }
        let mut tokens = text.counter("tokens_total", "Tokens, each in one class.");
        for (provider, totals, ahead) in self.providers(peaks) {
            let ahead = ahead.map(|totals| totals.tokens).unwrap_or_default().by_kind();
            for ((class, n), (_, ahead)) in totals.tokens.by_kind().into_iter().zip(ahead) {
                let Some(n) = n else { continue };
                let now = i64::try_from(n.saturating_sub(ahead.unwrap_or(0))).unwrap_or(i64::MAX);
                let labels = [("provider", provider), ("class", class)];
                tokens.peak(&labels, now, peaks, |n| n.to_string());
            }
        }
        let help =
            "What is paid for (metered), and what a plan covers, at list prices (subscription).";
        let mut cost = text.counter("cost_dollars_total", help);
        type Amount = fn(&Totals) -> Option<i64>;
        let billed: [(&str, Amount); 2] = [
            ("metered", |totals| totals.cost_nanousd),
            ("subscription", |totals| totals.subscription_nanousd),
        ];
        for (provider, totals, ahead) in self.providers(peaks) {
            for (billing, amount) in billed {
                let Some(nano) = amount(totals) else { continue };
                let nano = nano.saturating_sub(ahead.and_then(amount).unwrap_or(0)).max(0);
                let labels = [("provider", provider), ("billing", billing)];
                cost.peak(&labels, nano, peaks, usd_decimal);
            }
        }
    }

    /// With what was dated ahead, which is of before.
    fn providers<'a>(
        &'a self,
        peaks: &'a Peaks,
    ) -> impl Iterator<Item = (&'a str, &'a Totals, Option<&'a Totals>)> {
        self.spent.iter().map(|group| {
            let provider = group.key.as_deref();
            (provider.unwrap_or("unknown"), &group.totals, peaks.ahead(provider))
        })
    }

    fn edge(&self, text: &mut Text) {
        let status = self.edge.status.as_ref();
        text.gauge("edge_up", "The edge answers.").sample(&[], u8::from(status.is_some()));
        let told = |pointer: &str| status.and_then(|status| status.pointer(pointer)?.as_u64());
        text.gauge("edge_connections", "Connections that are open at the edge.")
            .known(told("/tunnels/open"));
        let counters = [
            ("edge_raw_total", "Connections that the edge tunnelled.", "/tunnels/raw_total"),
            ("edge_handed_total", "Connections that the daemon took.", "/tunnels/handed_total"),
            (
                "edge_unmetered_total",
                "Connections to metered hosts that passed unmetered.",
                "/passed_metered_total",
            ),
            (
                "edge_spool_dropped_total",
                "Records of such connections that the spool had no room for.",
                "/spool_dropped",
            ),
        ];
        for (name, help, pointer) in counters {
            text.counter(name, help).known(told(pointer));
        }
    }

    fn tap(&self, text: &mut Text) {
        type Count = fn(&TapSnapshot) -> u64;
        let tap = self.tap.as_ref();
        let gauges: [(&str, &str, Count); 2] = [
            ("connections", "Connections that are being metered.", |t| t.open as u64),
            ("bypassed_clients", "Programs that refuse our certificate and stay raw.", |t| {
                t.bypass.iter().filter(|entry| entry.until.is_some() || entry.lasting).count()
                    as u64
            }),
        ];
        for (name, help, count) in gauges {
            text.gauge(name, help).known(tap.map(count));
        }
        let counters: [(&str, &str, Count); 5] = [
            ("offers_total", "Connections that the edge offered.", |t| t.offers),
            ("commits_total", "Connections that were taken.", |t| t.commits),
            ("late_commits_total", "Takings that came too late.", |t| t.refused),
            ("client_rejections_total", "Handshakes that clients broke off.", |t| {
                t.rejected_by_client
            }),
            ("lossy_exchanges_total", "Exchanges that could not be followed.", |t| t.lossy),
        ];
        for (name, help, count) in counters {
            text.counter(name, help).known(tap.map(count));
        }
        let mut declines =
            text.counter("declines_total", "Connections that were left raw, by reason.");
        for (reason, n) in tap.into_iter().flat_map(|tap| &tap.declined) {
            declines.sample(&[("reason", reason)], n);
        }
        let mut bytes = text.counter("bytes_total", "Bytes of metered connections.");
        if let Some(tap) = tap {
            bytes.sample(&[("direction", "up")], tap.bytes_up);
            bytes.sample(&[("direction", "down")], tap.bytes_down);
        }
    }

    fn ledger(&self, text: &mut Text) {
        text.gauge("ledger_queued_rows", "Rows that wait for the disk.")
            .sample(&[], self.ledger.queued);
        text.counter("ledger_written_rows_total", "Rows that were written, again or not.")
            .sample(&[], self.ledger.written);
        text.counter("ledger_lost_rows_total", "Rows that could not be kept.")
            .sample(&[], self.ledger.lost);
    }

    fn restarts(&self, text: &mut Text) {
        let mut actors = text.counter("actor_restarts_total", "Restarts of the daemon's actors.");
        for actor in &self.actors {
            actors.sample(&[("actor", &actor.id)], actor.restarts);
        }
        let help = "Restarts of processes by the supervisor that runs now.";
        let mut processes = text.counter("process_restarts_total", help);
        for process in PROCESSES {
            let of_it =
                |e: &&JournalEntry| e.process == "root" && e.child.as_deref() == Some(process);
            let last = self.events.iter().rev().filter(of_it).find_map(|e| e.generation);
            if let Some(generation) = last {
                processes.sample(&[("process", process)], generation.saturating_sub(1));
            }
        }
    }
}

/// The document in the making.
#[derive(Default)]
struct Text(String);

impl Text {
    fn counter<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.family(name, "counter", help)
    }

    fn gauge<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.family(name, "gauge", help)
    }

    fn family<'a>(&'a mut self, name: &'a str, kind: &str, help: &str) -> Family<'a> {
        let _ = write!(self.0, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n");
        Family { text: &mut self.0, name }
    }
}

/// The samples of one name.
struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Family<'_> {
    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let series = self.series(labels);
        let _ = writeln!(self.text, "{series} {value}");
    }

    fn known(&mut self, value: Option<u64>) {
        value.into_iter().for_each(|value| self.sample(&[], value));
    }

    /// Never less than it was.
    fn peak(
        &mut self,
        labels: &[(&str, &str)],
        now: i64,
        peaks: &Peaks,
        show: impl Fn(i64) -> String,
    ) {
        let most = peaks.raise(self.series(labels), now);
        self.sample(labels, show(most));
    }

    fn series(&self, labels: &[(&str, &str)]) -> String {
        let labels: Vec<_> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        format!("{PREFIX}{}{labels}", self.name)
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn seen() -> Seen {
        let group = |provider: &str, requests| {
            let tokens = crate::meter::usage::Tokens { input: Some(7), ..Default::default() };
            let totals = Totals {
                requests,
                open: 1,
                tokens,
                cost_nanousd: Some(1_500_000_000),
                ..Totals::default()
            };
            Group { key: Some(provider.to_owned()), totals, previous: None }
        };
        let event = |process: &str, child: &str, generation| JournalEntry {
            seq: 1,
            at: Timestamp::UNIX_EPOCH,
            process: process.to_owned(),
            instance: "i".to_owned(),
            child: Some(child.to_owned()),
            generation,
            event: "child_ready".to_owned(),
            cause: None,
            delay_ms: None,
            step: None,
        };
        let status =
            serde_json::json!({ "tunnels": { "open": 3, "raw_total": 5 }, "spool_dropped": 0 });
        Seen {
            started_at: Timestamp::UNIX_EPOCH,
            healthy: true,
            checks: vec![CheckAnswer { name: "tap", ok: false, fault: None }],
            spent: vec![group("anthropic", 3), group("a \"\\\n b", 2)],
            ledger: IntakeStats::default(),
            tap: Some(TapSnapshot {
                declined: BTreeMap::from([("draining", 2)]),
                ..TapSnapshot::default()
            }),
            edge: Arc::new(EdgeSeen { status: Some(status), ..EdgeSeen::default() }),
            actors: Vec::new(),
            events: vec![
                event("root", "edge", Some(7)),
                event("root", "edge", Some(3)),
                event("root", "edge", None),
                event("daemon", "edge", Some(9)),
            ],
        }
    }

    /// Series and values, as a reader of the format takes them.
    fn parse(text: &str) -> BTreeMap<String, f64> {
        let (mut helped, mut kinds) = (Vec::new(), BTreeMap::new());
        let mut samples = BTreeMap::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                helped.push(help.split_once(' ').unwrap().0);
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(helped.last(), Some(&name));
                assert!(kinds.insert(name, kind).is_none(), "{name} twice");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                assert!(kinds.contains_key(name), "{line}");
                assert_eq!(helped.last(), Some(&name), "{line}");
                assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
                if let Some(labels) = series.strip_prefix(name).filter(|l| !l.is_empty()) {
                    assert!(labels.starts_with('{') && labels.ends_with("\"}"), "{line}");
                }
                assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none());
            }
        }
        samples
    }

    #[test]
    fn each_line_can_be_read_and_says_what_was_seen() {
        let samples = parse(&seen().text(&Peaks::default()));
        let table = [
            (r#"requests_total{provider="anthropic"}"#, 2.0),
            (r#"requests_total{provider="a \"\\\n b"}"#, 1.0),
            (r#"tokens_total{provider="anthropic",class="input"}"#, 7.0),
            (r#"cost_dollars_total{provider="anthropic",billing="metered"}"#, 1.5),
            (r#"check_ok{check="tap"}"#, 0.0),
            ("healthy", 1.0),
            ("edge_up", 1.0),
            ("edge_connections", 3.0),
            ("edge_raw_total", 5.0),
            (r#"declines_total{reason="draining"}"#, 2.0),
            (r#"process_restarts_total{process="edge"}"#, 2.0),
            ("ledger_lost_rows_total", 0.0),
        ];
        for (series, value) in table {
            assert_eq!(samples.get(&format!("halton_meter_{series}")), Some(&value), "{series}");
        }
        assert!(!samples.contains_key("halton_meter_edge_handed_total"), "nobody told");
    }

    #[test]
    fn a_counter_never_falls() {
        let (mut seen, peaks) = (seen(), Peaks::default());
        let series = r#"halton_meter_cost_dollars_total{provider="anthropic",billing="metered"}"#;
        let mut cost = |nano| {
            seen.spent.iter_mut().for_each(|group| group.totals.cost_nanousd = Some(nano));
            parse(&seen.text(&peaks)).get(series).copied()
        };
        assert_eq!(cost(2_000_000_000), Some(2.0));
        assert_eq!(cost(1_000_000_000), Some(2.0), "priced again");
        assert_eq!(cost(2_500_000_000), Some(2.5));
    }
}
