//! How long a user waits for the first byte of what they started with `run`.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::meter::Meter;

#[derive(Debug, Default)]
pub struct Starts {
    /// The program alone.
    pub alone: Vec<Duration>,
    /// `run`, with the process tree up.
    pub warm: Vec<Duration>,
    /// `run`, with nothing running.
    pub cold: Vec<Duration>,
    /// `run` in a home that has no CA yet.
    pub first: Vec<Duration>,
    /// From the root's wish until its last actor is ready, when the tree starts cold.
    pub daemon: Vec<Duration>,
    pub edge: Vec<Duration>,
}

/// Each `n` times; `install` makes a new home of that name.
pub fn starts(n: usize, install: impl Fn(&str) -> Result<Meter>) -> Result<Starts> {
    let mut starts = Starts::default();
    for number in 0..n {
        // A tree that starts takes the machine from whoever is measured beside it: one at a time.
        let meter = install(&format!("start-{number}"))?;
        starts.first.push(run(&meter)?);
        settle(&meter)?;
        meter.kill()?;
        starts.cold.push(run(&meter)?);
        settle(&meter)?;
        starts.daemon.extend(meter.ready_after("daemon", "admin")?);
        starts.edge.extend(meter.ready_after("edge", "health_cache")?);
        starts.warm.push(run(&meter)?);
        starts.alone.push(first_byte(Command::new("echo").arg("x"))?);
    }
    ensure!(starts.daemon.len() == n && starts.edge.len() == n, "the journal does not tell");
    Ok(starts)
}

fn run(meter: &Meter) -> Result<Duration> {
    first_byte(&mut meter.command(["run", "--quiet", "--", "echo", "x"]))
}

/// Waits until the daemon says that it is ready.
fn settle(meter: &Meter) -> Result<()> {
    meter.wait("daemon", || Ok(meter.ready_after("daemon", "admin")?.is_some()))
}

fn first_byte(command: &mut Command) -> Result<Duration> {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut byte = [0];
    let read = child.stdout.take().context("stdout")?.read_exact(&mut byte);
    let took = began.elapsed();
    let status = child.wait()?;
    read.with_context(|| format!("{command:?} ended with {status}"))?;
    Ok(took)
}

/// MiB.
pub fn size(program: &Path) -> Result<f64> {
    Ok(std::fs::metadata(program)?.len() as f64 / f64::from(1 << 20))
}
