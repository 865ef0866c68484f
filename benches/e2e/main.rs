//! The product's cost end to end, beside the least that its work can cost, in one interleaved run:
//! `just bench`, `just bench --smoke`, `just bench --only tap/keep-alive,faults`
//! (docs/performance.md says how to read it).
//!
//! Whatever loses a request or a row fails the run; no time ever does.

mod baselines;
mod bench;
mod cases;
mod client;
mod faults;
mod idle;
mod load;
mod meter;
mod origin;
mod pki;
mod platform;
mod results;
mod role;
mod stage;
mod start;
mod stats;
mod table;
mod usage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use tokio::runtime::{Builder, Runtime};

/// End-to-end bench of halton-meter.
#[derive(Debug, Parser)]
struct Args {
    /// A minute's run that checks that everything works; its figures are coarse
    #[arg(long)]
    smoke: bool,
    /// How often each case is repeated
    #[arg(long)]
    rounds: Option<usize>,
    /// Only cases whose name contains one of these: edge/…, tap/…, idle, faults, start
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Write one line of JSON for each cell
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What cargo tells a bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let role = args.next().and_then(|role| role.into_string().ok());
    let done = match (role.as_deref(), args.next()) {
        (Some(role), Some(dir)) if !role.starts_with('-') => play(role, Path::new(&dir)),
        (Some(_) | None, _) => measure(&Args::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<()> {
    if !args.bench {
        println!("this is no test: cargo bench --bench e2e, or tools/bench.sh");
        return Ok(());
    }
    bench::run(args)
}

/// This process is one of the others.
fn play(role: &str, dir: &Path) -> Result<()> {
    if role == stage::GUARD {
        meter::stand_guard(dir);
        return Ok(());
    }
    role::end_with_parent();
    if role != stage::ORIGIN {
        role::leave_session();
    }
    match role {
        // One thread each for origin and client: they are to take as little of the machine as they can.
        stage::ORIGIN => one_thread()?.block_on(origin::run(dir)),
        stage::COPY => all_threads()?.block_on(baselines::copying()),
        stage::SPLICE => all_threads()?.block_on(baselines::splicing()),
        stage::INTERCEPT => all_threads()?.block_on(baselines::intercepting(dir)),
        _ => bail!("no such role: {role}"),
    }
}

fn one_thread() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn all_threads() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().enable_all().build()?)
}
