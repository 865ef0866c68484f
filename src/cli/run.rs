//! `run`: the main job. Nothing of ours keeps the command from running.

mod child;
mod script;

use std::ffi::OsString;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use uuid::Uuid;

use super::env::Vars;
use super::lifecycle::{self, Ready};
use super::{Context, Exit, Failure, budget, env, report, say, told, unused, upstream};
use super::{client, codex};
use crate::home::{HomeError, PidLock};
use crate::meter::own_file;

/// The command runs unmetered if the daemon is not ready by then.
const PATIENCE: Duration = Duration::from_secs(3);
/// For the last rows to reach the ledger.
const FLUSH: Duration = Duration::from_millis(1500);
/// What a command had in hand when it was ended is over a moment after it; what it left in the background
/// is not.
const SETTLE: Duration = Duration::from_millis(600);
const LOOKS: Duration = Duration::from_millis(40);
/// Runs around a run whose summaries count it: more would not fit into the row.
const AROUND: usize = 4;

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    halton-meter run -- claude -p 'hello'\n  \
    halton-meter run --project billing -- python job.py")]
pub struct RunArgs {
    /// Project that the requests belong to (default: `halton-meter project here` shows it).
    #[arg(long)]
    project: Option<OsString>,
    /// No summary at the end.
    #[arg(long)]
    quiet: bool,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub fn run(ctx: &Context, args: &RunArgs) -> Result<Exit, Failure> {
    for problem in &ctx.loaded.problems {
        say(format_args!("{problem} (using the value below it)"));
    }
    // Whoever leads somewhere leads to where somebody answers.
    let served = ctx.as_served();
    if let Some(served) = &served {
        say(lifecycle::elsewhere(ctx, served.loaded.config.edge.addr()));
    }
    let ctx = served.as_ref().unwrap_or(ctx);
    let vars = guarded(|| prepare(ctx));
    let run = nested(std::env::var(env::RUN_VAR).ok().as_deref(), Uuid::now_v7());
    let mut command = command(args);
    let led = vars.is_ok();
    match vars {
        Ok(vars) => {
            command.envs(vars).env(env::RUN_VAR, &run);
        }
        Err(why) => {
            say_without(why);
            // The shell may have ours from `env`: they lead nowhere now.
            for (name, value) in env::taken_back(ctx, &[ctx.loaded.config.edge.addr()]) {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
        }
    }

    let started = Timestamp::now();
    let end = execute(&mut command)?;
    if led {
        // Who asks for a report next has it whole, also without a summary here.
        settle(ctx, &run);
        if !args.quiet {
            summary(ctx, &run, started, &args.command);
        }
    }
    Ok(child::end_as(end))
}

/// There is not even a home to look into.
pub fn without_us(args: &RunArgs, why: &HomeError) -> Result<Exit, Failure> {
    say_without(why);
    execute(&mut command(args)).map(child::end_as)
}

/// `OUTER/INNER` within another run. What is no run of ours is left out.
fn nested(outer: Option<&str>, own: Uuid) -> String {
    let ids = outer.into_iter().flat_map(|ids| ids.split('/')).take(AROUND);
    let mut ids: Vec<String> =
        ids.map_while(|id| Some(Uuid::try_parse(id).ok()?.to_string())).collect();
    ids.push(own.to_string());
    ids.join("/")
}

fn say_without(why: impl std::fmt::Display) {
    say(format_args!("not metered, running without the proxy: {why}"));
}

fn command(args: &RunArgs) -> Command {
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]);
    match args.project.as_ref().map(|name| name.to_str()) {
        Some(Some(name)) => drop(command.env(env::PROJECT_VAR, name)),
        Some(None) => say("--project: the name is no UTF-8, going on without it"),
        None => {}
    }
    command
}

/// Runs it to its end, whatever that is.
fn execute(command: &mut Command) -> Result<ExitStatus, Failure> {
    child::run(command).map_err(|e| {
        let name = command.get_program().display();
        if e.kind() == io::ErrorKind::NotFound {
            Failure::new(Exit::NOT_FOUND, format!("{name}: command not found"))
        } else {
            Failure::new(Exit::NOT_EXECUTABLE, format!("{name}: {e}"))
        }
    })
}

/// A panic of ours, whose own words are out by then, is no reason not to run the command either.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Failure::new(Exit::FAILED, "a fault of halton-meter's own")))
}

/// What leads a command to us, or why it is better off without.
fn prepare(ctx: &Context) -> Result<Vars, Failure> {
    env::nameable(&ctx.home)?;
    ctx.home.holds_sockets()?;
    ctx.home.create()?;
    env::prepare_ca(ctx)?;
    let vars = env::for_programs(ctx)?;
    match ready(ctx) {
        Ready::Metering => {}
        Ready::Passing(why) => say(format_args!("not metered: {why}")),
        Ready::NoEdge(why) => return Err(Failure::new(Exit::UNAVAILABLE, why)),
    }
    Ok(vars)
}

/// Starts what is not running, and says whether a program or a shell is to be led to it.
pub fn ready(ctx: &Context) -> Ready {
    match lifecycle::ensure(ctx, PATIENCE) {
        ready @ Ready::NoEdge(_) => ready,
        ready @ (Ready::Metering | Ready::Passing(_)) => {
            better_without_us(ctx).map_or(ready, Ready::NoEdge)
        }
    }
}

/// A user behind a proxy that the running edge does not go through, or is not let through by, is better
/// off with that proxy than with us: without it the edge may not reach anything. So is one whose edge
/// still goes through the proxy of another network.
fn better_without_us(ctx: &Context) -> Option<String> {
    let own = upstream::of_environment(&env::own(ctx), ctx.loaded.config.edge.addr());
    let configured = upstream::Configured::by(&ctx.loaded.config.upstream);
    if let Some(own) = own.as_ref().filter(|own| !own.usable()) {
        return own.lost_on(&upstream::Ways::default(), configured);
    }
    let pid = PidLock::holder(&ctx.home.pid_file("edge")).ok()??;
    let status = client::edge_status(ctx, pid, PATIENCE)?;
    let edges = upstream::of_edge(&status);
    let https = edges.https.as_deref().filter(|_| !configured.https);
    let http = edges.http.as_deref().filter(|_| !configured.http);
    // Mostly it is one.
    let of_a_shell = https.into_iter().chain(http.filter(|http| https != Some(*http)));
    for place in of_a_shell {
        if let Some(why) = upstream::left_behind(ctx, place, own.as_ref()) {
            return Some(why);
        }
    }
    let own = own?;
    own.lost_on(&edges, configured).or_else(|| {
        upstream::refusal(ctx, &own).map(|why| format!("your own proxy ({own}): {why}"))
    })
}

fn settle(ctx: &Context, run: &str) {
    let ended = Instant::now();
    loop {
        // The daemon writes what is still in flight; if it can't, the ledger as it is must do.
        let flushed = client::api(ctx, "/v1/flush", FLUSH);
        if flushed.is_err() || ended.elapsed() > SETTLE || report::open_of_run(&ctx.home, run) == 0
        {
            break;
        }
        thread::sleep(LOOKS);
    }
}

fn summary(ctx: &Context, run: &str, started: Timestamp, command: &[OsString]) {
    let mut silent = false;
    let summary = report::summary_of_run(&ctx.home, run, started, &mut || {
        silent = true;
        nothing_came_by(ctx, started)
    });
    match summary {
        Ok(text) => say(text),
        Err(e) => say(format_args!("no summary: {}", told(&e))),
    }
    if silent && command.first().is_some_and(|program| codex::is_codex(program)) {
        codex::served_elsewhere(started).iter().for_each(say);
    }
    for warning in budget::news(&ctx.home, &jiff::ZonedDateTime::now()) {
        say(warning);
    }
    own_file::problems(&ctx.home).iter().for_each(|problem| say(unused(problem)));
}

/// Of any program: the edge does not know who asks.
fn nothing_came_by(ctx: &Context, started: Timestamp) -> bool {
    let edge = PidLock::holder(&ctx.home.pid_file("edge")).ok().flatten();
    let status = edge.and_then(|pid| client::edge_status(ctx, pid, FLUSH));
    let last =
        status.and_then(|status| status.get("last_asked_at")?.as_str()?.parse::<Timestamp>().ok());
    last.is_some_and(|last| last < started)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::attribution::MAX_NAME;

    #[test]
    fn a_panic_of_ours_is_a_reason_to_go_without_us_and_no_more() {
        let panics = || -> Result<u8, Failure> { panic!("as the test wants") };
        assert!(guarded(panics).unwrap_err().to_string().contains("fault"));
        assert_eq!(guarded(|| Ok(7)).unwrap(), 7);
    }

    #[test]
    fn a_run_within_a_run_names_both() {
        let own = |n| Uuid::from_u128(n);
        let outer = nested(None, own(1));
        assert_eq!(outer, own(1).to_string());
        assert_eq!(nested(Some(&outer), own(2)), format!("{outer}/{}", own(2)));
        for foreign in ["", "mine", "mine/its"] {
            assert_eq!(nested(Some(foreign), own(2)), own(2).to_string(), "{foreign}");
        }
        let deep = (2..20).fold(outer.clone(), |outer, n| nested(Some(&outer), own(n)));
        assert!(deep.starts_with(&outer) && deep.ends_with(&own(19).to_string()), "{deep}");
        assert!(deep.len() <= MAX_NAME, "{deep}");
    }
}
