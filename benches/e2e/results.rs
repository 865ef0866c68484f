//! What was measured, as lines for machines and tables for people.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cases::{Case, Side, Target};
use crate::faults::Fault;
use crate::idle::Held;
use crate::load::Run;
use crate::start::Starts;
use crate::stats::{Series, added, median, percentile, ratio};
use crate::table::{figure, maybe, spread, table, times};

/// One target, one case, one round.
#[derive(Clone, Debug)]
pub struct Cell {
    pub case: String,
    pub side: Side,
    pub target: Target,
    pub round: usize,
    pub unit: &'static str,
    pub units: u64,
    /// In µs, per unit.
    pub cpu: Option<f64>,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub rate: f64,
    pub foreign: Option<f64>,
}

impl Cell {
    /// The case's own cell, and one more for the first events of streams.
    pub fn of(case: &Case, target: Target, round: usize, run: &mut Run) -> Vec<Self> {
        run.samples.sort_unstable();
        run.firsts.sort_unstable();
        let micros = |sorted: &[u64], p| percentile(sorted, p).map(|ns| ns as f64 / 1e3);
        let units = run.units as f64;
        let cell = Self {
            case: case.full_name(),
            side: case.side,
            target,
            round,
            unit: case.unit,
            units: run.units,
            cpu: (target != Target::Direct).then(|| run.used.target.as_secs_f64() * 1e6 / units),
            p50: micros(&run.samples, 50.0),
            p99: micros(&run.samples, 99.0),
            rate: units / run.used.wall.as_secs_f64(),
            foreign: run.used.foreign,
        };
        let first = (!run.firsts.is_empty()).then(|| Self {
            case: format!("{} first event", case.full_name()),
            unit: "stream",
            units: run.firsts.len() as u64,
            cpu: None,
            p50: micros(&run.firsts, 50.0),
            p99: micros(&run.firsts, 99.0),
            rate: run.firsts.len() as f64 / run.used.wall.as_secs_f64(),
            ..cell.clone()
        });
        [Some(cell), first].into_iter().flatten().collect()
    }
}

/// The lines for machines; nowhere unless somebody wants them.
#[derive(Debug)]
pub struct Lines(Option<File>);

impl Lines {
    pub fn to(path: Option<&std::path::Path>) -> Result<Self> {
        let open = |path: &std::path::Path| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        };
        Ok(Self(path.map(open).transpose()?))
    }

    pub fn cell(&mut self, cell: &Cell) -> Result<()> {
        self.line(&json!({
            "case": cell.case, "target": cell.target.name(), "round": cell.round,
            "unit": cell.unit, "units": cell.units, "cpu_us_per_unit": cell.cpu,
            "p50_us": cell.p50, "p99_us": cell.p99, "units_per_s": cell.rate,
            "foreign_cores": cell.foreign,
        }))
    }

    pub fn line(&mut self, value: &Value) -> Result<()> {
        if let Some(file) = &mut self.0 {
            writeln!(file, "{value}")?;
        }
        Ok(())
    }
}

/// One row for each case and target, with ratios to the side's baselines.
pub fn load_table(side: Side, cells: &[Cell]) -> String {
    let baselines = side.baselines();
    let mut head = vec!["case".to_owned(), "target".to_owned(), "CPU µs/unit".to_owned()];
    head.extend(baselines.iter().map(|b| format!("× {}", b.name())));
    head.extend(["p50 µs", "added p50 µs"].map(str::to_owned));
    head.extend(baselines.iter().map(|b| format!("added × {}", b.name())));
    head.extend(["p99 µs", "units/s", "foreign cores (most)"].map(str::to_owned));

    let mut cases: Vec<(&str, &str)> = Vec::new();
    for cell in cells.iter().filter(|c| c.side == side) {
        if !cases.iter().any(|(case, _)| *case == cell.case) {
            cases.push((&cell.case, cell.unit));
        }
    }
    let mut rows = Vec::new();
    for (case, unit) in cases {
        let series = |target, what: fn(&Cell) -> Option<f64>| -> Series {
            let of = cells.iter().filter(|c| c.case == case && c.target == target);
            of.filter_map(|c| Some((c.round, what(c)?))).collect()
        };
        let added_by = |target| -> Option<f64> {
            added(&series(target, |c| c.p50), &series(Target::Direct, |c| c.p50))
        };
        for target in side.targets() {
            let cpu = series(target, |c| c.cpu);
            let foreign = series(target, |c| c.foreign);
            let more = if target == Target::Direct { None } else { added_by(target) };
            let mut row =
                vec![format!("{case} ({unit})"), target.name().to_owned(), spread(cpu.values())];
            row.extend(baselines.iter().map(|b| times(ratio(&cpu, &series(*b, |c| c.cpu)))));
            row.extend([spread(series(target, |c| c.p50).values()), maybe(more)]);
            // A share of almost nothing says nothing.
            let base = |b: &Target| added_by(*b).filter(|base| *base > 1.0);
            row.extend(baselines.iter().map(|b| times(more.zip(base(b)).map(|(a, b)| a / b))));
            row.extend([
                maybe(median(series(target, |c| c.p99).into_values())),
                maybe(median(series(target, |c| Some(c.rate)).into_values())),
                format!(
                    "{} ({})",
                    times(median(foreign.values().copied())),
                    times(foreign.values().copied().max_by(f64::total_cmp))
                ),
            ]);
            rows.push(row);
        }
    }
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    table(2, &head, &rows)
}

pub fn idle_table(held: &[(Side, Target, Held)]) -> String {
    let mib = |bytes: u64| figure(bytes as f64 / f64::from(1 << 20));
    let rows: Vec<_> = held
        .iter()
        .map(|(side, target, held)| {
            let each = held.at_n.saturating_sub(held.before) as f64 / 1024.0;
            vec![
                format!("{}/idle", side.name()),
                target.name().to_owned(),
                held.tunnels.to_string(),
                mib(held.before),
                mib(held.at_n),
                mib(held.after),
                figure(each / held.tunnels as f64),
                figure(held.cpu_before * 1e3),
                figure(held.cpu_at_n * 1e3),
                maybe(held.wakeups_at_n),
            ]
        })
        .collect();
    let head = [
        "case",
        "target",
        "tunnels",
        "MiB before",
        "MiB with them",
        "MiB after",
        "KiB each",
        "CPU ms/s before",
        "CPU ms/s with them",
        "wakeups/s",
    ];
    table(2, &head, &rows)
}

pub fn fault_table(faults: &[(&str, Fault)]) -> String {
    let ms = |time: Duration| figure(time.as_secs_f64() * 1e3);
    let maybe_ms = |time: Option<Duration>| maybe(time.map(|t| t.as_secs_f64() * 1e3));
    let rows: Vec<_> = faults
        .iter()
        .map(|(name, fault)| {
            vec![
                (*name).to_owned(),
                fault.requests.to_string(),
                format!("{} of {}", fault.lost, fault.begun_after),
                format!("{} of {}", fault.in_flight_lost, fault.in_flight),
                maybe_ms(fault.first_success),
                ms(fault.slowest_after),
                maybe_ms(fault.p50_before),
                maybe_ms(fault.p50_following),
            ]
        })
        .collect();
    let head = [
        "case",
        "requests",
        "lost of begun after",
        "lost of in flight",
        "first success ms",
        "slowest after ms",
        "p50 before ms",
        "p50 following ms",
    ];
    table(1, &head, &rows)
}

pub fn start_table(starts: &Starts, size: f64) -> String {
    let row = |what: &str, times: &[Duration]| {
        let ms: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
        vec![what.to_owned(), spread(&ms)]
    };
    let rows = vec![
        row("a program alone, to its first byte, ms", &starts.alone),
        row("run, the tree is up", &starts.warm),
        row("run, nothing runs", &starts.cold),
        row("run, for the first time (makes the CA)", &starts.first),
        row("edge ready", &starts.edge),
        row("daemon ready", &starts.daemon),
        vec!["binary, MiB".to_owned(), figure(size)],
    ];
    table(1, &["start", "median [best]"], &rows)
}
