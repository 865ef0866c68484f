//! Judges every request, and prints the table.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::accounts::Accounts;
use crate::oracle::{Excuse, Fault, Incident, direct, excuse};
use crate::processes::Usage;
use crate::record::{Kind, Try};

/// One line of the table.
#[derive(Clone, Debug)]
pub struct StepReport {
    pub name: String,
    pub begin: Duration,
    pub mended: Duration,
    /// End of the first metered request that began after the repair.
    pub back: Option<Duration>,
    pub until: Duration,
}

#[derive(Debug)]
pub struct Summary {
    pub seed: u64,
    pub length: Duration,
    pub steps: Vec<StepReport>,
    pub incidents: Vec<Incident>,
    pub tries: Vec<Try>,
    pub usage: Usage,
    pub accounts: Accounts,
}

/// Broken rules that are shown in full.
const SHOWN: usize = 25;

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: usize,
    in_flight: usize,
    idle: usize,
    provider: usize,
    new_failed: usize,
    others_failed: usize,
    wrong: usize,
    direct_failed: usize,
}

/// Prints all of it; `broken` and what the requests add to it.
pub fn print(summary: &Summary, mut broken: Vec<String>) -> Vec<String> {
    let verdicts: Vec<_> =
        summary.tries.iter().map(|t| (t, judge(t, &summary.incidents))).collect();
    broken.extend(
        verdicts
            .iter()
            .filter(|(_, v)| *v == Verdict::Broken)
            .map(|(t, _)| tell(t, &summary.incidents)),
    );
    broken.extend(summary.accounts.faults.iter().cloned());
    steps(summary, &verdicts);
    kinds(&verdicts);
    usage(&summary.usage);
    accounts(&summary.accounts);
    for text in broken.iter().take(SHOWN) {
        println!("BROKEN: {text}");
    }
    if broken.len() > SHOWN {
        println!("BROKEN: … {} more", broken.len() - SHOWN);
    }
    let word = if broken.is_empty() { "no rule broken" } else { "RULES BROKEN" };
    println!("chaos: {word}; again: just chaos {} {}", summary.seed, summary.length.as_secs());
    broken
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Fine,
    Excused(Excuse),
    Broken,
}

fn judge(one: &Try, incidents: &[Incident]) -> Verdict {
    let Some(broken) = one.broken() else { return Verdict::Fine };
    let excuse = incidents.iter().find_map(|i| {
        // Nothing of ours is on the direct way: only the provider can be to blame.
        if one.kind == Kind::Direct { direct(i, &broken) } else { excuse(i, &broken) }
    });
    excuse.map_or(Verdict::Broken, Verdict::Excused)
}

fn tell(one: &Try, incidents: &[Incident]) -> String {
    let s = |d: Duration| format!("{:.3}", d.as_secs_f64());
    let near: Vec<_> = incidents
        .iter()
        .filter(|i| {
            i.begin <= one.ended && i.over.saturating_add(Duration::from_secs(3)) >= one.opened
        })
        .map(|i| format!("{} {}–{}–{}", i.failure.name(), s(i.begin), s(i.struck), s(i.over)))
        .collect();
    let failed = one.failed.as_ref().map(|f| {
        format!(
            "{:?} in {:?}{}: {}",
            f.fault,
            f.stage,
            if f.silent { ", silent" } else { "" },
            f.text
        )
    });
    format!(
        "{} ({} host, {:?}, connection {}{}) opened {} started {} ended {}: {}; near: {}",
        one.kind.name(),
        if one.metered_host { "metered" } else { "other" },
        one.route,
        one.connection,
        if one.fresh { ", fresh" } else { "" },
        s(one.opened),
        s(one.started),
        s(one.ended),
        failed.unwrap_or_default(),
        if near.is_empty() { "nothing".to_owned() } else { near.join(", ") },
    )
}

fn count<'a>(verdicts: impl Iterator<Item = &'a (&'a Try, Verdict)>) -> Counts {
    let mut counts = Counts::default();
    for (one, verdict) in verdicts {
        if one.kind == Kind::Direct {
            counts.direct_failed += usize::from(*verdict != Verdict::Fine);
            continue;
        }
        counts.requests += 1;
        counts.wrong += usize::from(one.failed.as_ref().is_some_and(|f| f.fault == Fault::Wrong));
        match verdict {
            Verdict::Fine => {}
            Verdict::Excused(Excuse::InFlight) => counts.in_flight += 1,
            Verdict::Excused(Excuse::IdleClosed) => counts.idle += 1,
            Verdict::Excused(Excuse::Provider) => counts.provider += 1,
            Verdict::Broken if one.fresh => counts.new_failed += 1,
            Verdict::Broken => counts.others_failed += 1,
        }
    }
    counts
}

fn steps(summary: &Summary, verdicts: &[(&Try, Verdict)]) {
    println!(
        "\n{:>3} {:>6} {:<46} {:>6} {:>6} {:>5} {:>5} {:>5} {:>5} {:>5} {:>5} {:>5} {:>7} {:>8}",
        "#",
        "at s",
        "failure",
        "held s",
        "reqs",
        "NEW",
        "other",
        "WRONG",
        "cut",
        "idle",
        "prov",
        "dir",
        "new ms",
        "back ms"
    );
    for (n, step) in summary.steps.iter().enumerate() {
        // By its end: a request belongs to the failure that it met.
        let within = |t: &Try| t.ended >= step.begin && t.ended < step.until;
        let counts = count(verdicts.iter().filter(|(t, _)| within(t)));
        let slowest = verdicts
            .iter()
            .filter(|(t, v)| *v == Verdict::Fine && t.kind == Kind::New && within(t))
            .map(|(t, _)| t.took())
            .max()
            .unwrap_or_default();
        let back = step.back.map_or("never".to_owned(), |b| {
            (b.saturating_sub(step.mended)).as_millis().to_string()
        });
        println!(
            "{:>3} {:>6.1} {:<46} {:>6.1} {:>6} {:>5} {:>5} {:>5} {:>5} {:>5} {:>5} {:>5} {:>7} {:>8}",
            n + 1,
            step.begin.as_secs_f64(),
            step.name,
            (step.mended - step.begin).as_secs_f64(),
            counts.requests,
            counts.new_failed,
            counts.others_failed,
            counts.wrong,
            counts.in_flight,
            counts.idle,
            counts.provider,
            counts.direct_failed,
            slowest.as_millis(),
            back,
        );
    }
    println!(
        "NEW: failed new connections. other, WRONG: other failed requests, wrong bytes. cut, idle: cut in \
         flight, closed between\nrequests, as the design allows. prov, dir: failed by the provider, of which \
         the direct client met so many.\nnew ms: slowest request on a new connection. back ms: from the repair \
         to the end of a metered request."
    );
}

fn kinds(verdicts: &[(&Try, Verdict)]) {
    println!(
        "\n{:<16} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9}",
        "traffic", "metered", "raw", "excused", "broken", "MiB", "p50 ms", "max ms"
    );
    for kind in Kind::ALL {
        let of: Vec<_> = verdicts.iter().filter(|(t, _)| t.kind == kind).collect();
        let mut ends = BTreeMap::<&str, usize>::new();
        let mut took = Vec::new();
        let mut bytes = 0;
        for (one, verdict) in of {
            let end = match verdict {
                Verdict::Fine if one.route == crate::oracle::Route::Metered => "metered",
                Verdict::Fine => "raw",
                Verdict::Excused(_) => "excused",
                Verdict::Broken => "broken",
            };
            *ends.entry(end).or_default() += 1;
            bytes += one.bytes;
            if *verdict == Verdict::Fine {
                took.push(one.took().as_millis());
            }
        }
        took.sort_unstable();
        let n = |end: &str| ends.get(end).copied().unwrap_or(0);
        println!(
            "{:<16} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9}",
            kind.name(),
            n("metered"),
            n("raw"),
            n("excused"),
            n("broken"),
            bytes >> 20,
            took.get(took.len() / 2).copied().unwrap_or(0),
            took.last().copied().unwrap_or(0),
        );
    }
}

fn usage(usage: &Usage) {
    println!("\n{:<16} {:>20} {:>20} {:>20}", "RSS KiB/fds", "before", "most", "at rest");
    for (name, idle) in &usage.idle {
        let show = |held: Option<&crate::processes::Held>| {
            held.map_or("-".to_owned(), |h| format!("{}/{}", h.rss_kib, h.descriptors))
        };
        println!(
            "{name:<16} {:>20} {:>20} {:>20}",
            show(Some(idle)),
            show(usage.most.get(name)),
            show(usage.rest.get(name))
        );
    }
}

fn accounts(a: &Accounts) {
    println!(
        "\nledger: {} rows {:?}; {} metered answers, {} of their rows taken by failures; \
         {} raw connections to the metered host, {} of them on record, {} met a failure that may take that",
        a.rows,
        a.by_completeness,
        a.metered,
        a.taken,
        a.raw_connections,
        a.passed_connections,
        a.unnoted,
    );
}
