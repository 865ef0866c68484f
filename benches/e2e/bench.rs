//! The run, part by part.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::cases::{CASES, Case, Scale, Side, Target};
use crate::results::{self, Cell, Lines};
use crate::stage::{Cast, Stage};
use crate::stats::turn;
use crate::{Args, faults, idle, one_thread, start};

struct Bench<'a> {
    args: &'a Args,
    scale: Scale,
    stage: Stage,
    runtime: Runtime,
    lines: Lines,
    /// What must not happen, did.
    wrong: Vec<String>,
}

/// Everything that `args` want; an error if anything was lost.
pub fn run(args: &Args) -> Result<()> {
    let began = Instant::now();
    let descriptors = raise_descriptors();
    let (program, whose) = program();
    ensure!(program.is_file(), "no program at {}: build it first", program.display());
    println!("{}, {whose}", program.display());
    let mut scale = if args.smoke { Scale::SMOKE } else { Scale::FULL };
    scale.rounds = args.rounds.unwrap_or(scale.rounds);
    // A proxy needs two for each tunnel.
    scale.idle_raw = scale.idle_raw.min(descriptors.saturating_sub(200) / 2);
    let dir = tempfile::TempDir::with_prefix("halton-bench-")?;
    let mut bench = Bench {
        args,
        scale,
        stage: Stage::new(program, dir.path())?,
        runtime: one_thread()?,
        lines: Lines::to(args.json.as_deref())?,
        wrong: Vec::new(),
    };
    bench.loads()?;
    bench.idle()?;
    bench.faults()?;
    bench.starts()?;
    println!("\n{:.0} s", began.elapsed().as_secs_f64());
    ensure!(bench.wrong.is_empty(), "wrong:\n  {}", bench.wrong.join("\n  "));
    Ok(())
}

impl Bench<'_> {
    fn wants(&self, name: &str) -> bool {
        self.args.only.is_empty() || self.args.only.iter().any(|part| name.contains(part.as_str()))
    }

    fn loads(&mut self) -> Result<()> {
        let cases: Vec<_> = CASES.into_iter().filter(|c| self.wants(&c.full_name())).collect();
        if cases.is_empty() {
            return Ok(());
        }
        let cast = self.stage.cast("loads")?;
        let (mut cells, mut messages) = (Vec::new(), 0);
        for case in &cases {
            eprint!("{}: ", case.full_name());
            let targets = case.side.targets();
            for round in 0..self.scale.rounds {
                for place in 0..targets.len() {
                    let target = targets[turn(place, round, targets.len())];
                    messages += self.cell(&cast, case, target, round, &mut cells)?;
                }
                eprint!(".");
            }
            eprintln!();
        }
        for side in [Side::Edge, Side::Tap] {
            if cases.iter().any(|case| case.side == side) {
                println!("\n{}", results::load_table(side, &cells));
            }
        }
        self.check_ledger(&cast, "loads", messages);
        Ok(())
    }

    /// Measures one target once; how many rows that makes.
    fn cell(
        &mut self,
        cast: &Cast,
        case: &Case,
        target: Target,
        round: usize,
        cells: &mut Vec<Cell>,
    ) -> Result<u64> {
        let subject = self.stage.subject(cast, case, target);
        let what = format!("{} by {}", case.full_name(), target.name());
        let mut run = match self.runtime.block_on(case.run(&subject, &self.scale)) {
            Ok(run) => run,
            Err(e) => {
                self.wrong.push(format!("{what}: {e:#}"));
                return Ok(0);
            }
        };
        if run.failed > 0 {
            self.wrong.push(format!("{what}: {} failed", run.failed));
        }
        for cell in Cell::of(case, target, round, &mut run) {
            self.lines.cell(&cell)?;
            cells.push(cell);
        }
        let metered = case.side == Side::Tap && target == Target::Meter;
        Ok(if metered { run.messages } else { 0 })
    }

    fn idle(&mut self) -> Result<()> {
        let mut table = Vec::new();
        for (side, n) in [(Side::Edge, self.scale.idle_raw), (Side::Tap, self.scale.idle_tls)] {
            if !self.wants(&format!("{}/idle", side.name())) {
                continue;
            }
            let cast = self.stage.cast(&format!("idle-{}", side.name()))?;
            for target in side.targets().into_iter().filter(|t| *t != Target::Direct) {
                let subject = self.stage.plain_subject(&cast, side, target);
                let holder = self.stage.holder(&cast, side, target)?;
                let settle =
                    if target == Target::Meter { self.scale.idle_settle } else { Duration::ZERO };
                let idle = idle::idle(&subject, holder, n, self.scale.idle_watch, settle);
                let held = self
                    .runtime
                    .block_on(idle)
                    .with_context(|| format!("{}/idle by {}", side.name(), target.name()))?;
                self.lines.line(&json!({
                    "case": format!("{}/idle", side.name()), "target": target.name(),
                    "tunnels": held.tunnels, "rss_before": held.before, "rss_at_n": held.at_n,
                    "rss_after": held.after,
                    "cpu_per_s_before": held.cpu_before, "cpu_per_s_at_n": held.cpu_at_n,
                    "wakeups_per_s_at_n": held.wakeups_at_n,
                }))?;
                table.push((side, target, held));
            }
            if side == Side::Tap {
                self.check_ledger(&cast, "tap/idle", n as u64);
            }
        }
        if !table.is_empty() {
            println!("\n{}", results::idle_table(&table));
        }
        Ok(())
    }

    fn faults(&mut self) -> Result<()> {
        if !self.wants("faults") {
            return Ok(());
        }
        let cast = self.stage.cast("faults")?;
        let time = self.scale.fault;
        let net = |target| self.stage.plain_subject(&cast, Side::Tap, target).net;
        let (direct, meter) = (net(Target::Direct), net(Target::Meter));
        let rows = self.runtime.block_on(async {
            anyhow::Ok(vec![
                ("faults/none, direct", faults::steady(&direct, time / 3).await?),
                ("faults/none, meter", faults::steady(&meter, time / 3).await?),
                ("faults/KILL", faults::fault(&cast.meter, &meter, Signal::KILL, time).await?),
                ("faults/STOP", {
                    cast.meter.wait_metering()?;
                    faults::fault(&cast.meter, &meter, Signal::STOP, time).await?
                }),
            ])
        })?;
        for (name, fault) in &rows {
            if fault.lost > 0 {
                self.wrong.push(format!("{name}: {} requests lost", fault.lost));
            }
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            self.lines.line(&json!({
                "case": name, "requests": fault.requests, "begun_after": fault.begun_after,
                "lost": fault.lost, "in_flight": fault.in_flight,
                "in_flight_lost": fault.in_flight_lost,
                "first_success_ms": fault.first_success.map(ms),
                "slowest_after_ms": ms(fault.slowest_after),
                "p50_before_ms": fault.p50_before.map(ms),
                "p50_following_ms": fault.p50_following.map(ms),
            }))?;
        }
        println!("\n{}", results::fault_table(&rows));
        Ok(())
    }

    fn starts(&mut self) -> Result<()> {
        if !self.wants("start") {
            return Ok(());
        }
        let starts = start::starts(self.scale.starts, |name| self.stage.install(name))?;
        let size = start::size(&self.stage.program)?;
        for (what, times) in [
            ("alone", &starts.alone),
            ("warm", &starts.warm),
            ("cold", &starts.cold),
            ("first", &starts.first),
            ("edge", &starts.edge),
            ("daemon", &starts.daemon),
        ] {
            let ms: Vec<_> = times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
            self.lines.line(&json!({ "case": format!("start/{what}"), "ms": ms }))?;
        }
        println!("\n{}", results::start_table(&starts, size));
        Ok(())
    }

    /// A bench that loses rows measures something else.
    fn check_ledger(&mut self, cast: &Cast, what: &str, messages: u64) {
        match cast.meter.check_ledger(messages) {
            Ok(()) => {
                println!("\n{what}: {messages} requests, {messages} rows, each with its tokens");
            }
            Err(e) => self.wrong.push(format!("{what}: {e:#}")),
        }
    }
}

/// `HALTON_METER_BIN`, else what cargo built with us.
fn program() -> (PathBuf, &'static str) {
    match std::env::var_os("HALTON_METER_BIN") {
        Some(named) => (named.into(), "as HALTON_METER_BIN says"),
        None => (
            env!("CARGO_BIN_EXE_halton-meter").into(),
            "as cargo built it for this bench, with test features: tools/bench.sh takes the release",
        ),
    }
}

/// As many descriptors as we may have, and how many that is.
fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let now = getrlimit(Resource::Nofile).current;
    now.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX)
}
