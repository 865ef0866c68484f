//! `status`: every process, asked itself; who is not metered, and what is left of plans and budgets.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::client::{self, Health, Tree};
use super::passing::REFUSES;
use super::{
    Context, Exit, Failure, bodies, budget, lifecycle, output, passing, quota, services, unused,
    upstream,
};
use crate::meter::budget::{Standing, standings};
use crate::meter::ledger::{Ledger, Quota};
use crate::meter::own_file;
use crate::setup::Mode;

const ASK: Duration = Duration::from_millis(1000);

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    halton-meter status\n  \
    halton-meter status --json | jq -r .state\n\n\
    Exit codes: 0 metering, or stopped by you; 1 requests pass unmetered, or nothing runs.")]
pub struct StatusArgs {
    /// One JSON document (docs/json.md)
    #[arg(long)]
    json: bool,
}

/// The one word on top.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Edge and daemon are up and can meter.
    Metering,
    /// Stopped by the user; requests pass.
    Stopped,
    /// Requests pass unmetered although metering is wanted.
    Passing,
    /// Nothing of ours runs.
    Down,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Metering => "metering",
            Self::Stopped => "stopped",
            Self::Passing => "passing",
            Self::Down => "down",
        }
    }
}

pub fn run(ctx: &Context, args: &StatusArgs, out: &mut impl Write) -> Result<Exit, Failure> {
    let seen = Seen::look(ctx);
    if args.json {
        output::write_json(out, &seen.document(ctx))?;
    } else {
        print(ctx, &seen, out)?;
    }
    Ok(match seen.state {
        State::Metering | State::Stopped => Exit::OK,
        State::Passing | State::Down => Exit::FAILED,
    })
}

/// What there is to be seen, however it is told.
struct Seen {
    tree: Tree,
    state: State,
    /// Where the edge serves, if not where it is looked for.
    elsewhere: Option<SocketAddr>,
    mode: Option<Mode>,
    actors: Option<Value>,
    bypass: Option<Value>,
    bodies: bodies::Standing,
    quotas: Vec<Quota>,
    passing: Vec<passing::Passing>,
    /// Of files that commands write and people edit.
    own_problems: Vec<String>,
    budgets: Vec<Standing>,
}

impl Seen {
    fn look(ctx: &Context) -> Self {
        let tree = Tree::look(ctx, ASK);
        let answers = matches!(tree.health, Health::Ok(_) | Health::Degraded(_));
        let actors = answers.then(|| client::api(ctx, "/v1/actors", ASK).ok()).flatten();
        Self {
            state: state_of(ctx, &tree),
            elsewhere: tree.edge_elsewhere(ctx),
            mode: Mode::installed(&ctx.home),
            bypass: answers
                .then(|| client::api(ctx, "/v1/bypass", ASK).ok())
                .flatten()
                .and_then(|mut answer| answer.get_mut("bypass").map(Value::take)),
            bodies: bodies::Standing::look(ctx, actors.clone()),
            actors,
            // A ledger that can't be read is the daemon's to complain of.
            quotas: Ledger::open(&ctx.home).and_then(|l| l.quotas()).unwrap_or_default(),
            // While nothing is metered there is nobody to be told apart.
            passing: if tree.metering() { passing::programs(ctx) } else { Vec::new() },
            own_problems: own_file::problems(&ctx.home).iter().map(unused).collect(),
            budgets: standings(&ctx.home, &jiff::ZonedDateTime::now()).unwrap_or_default(),
            tree,
        }
    }

    fn document(&self, ctx: &Context) -> Value {
        let problems = ctx.loaded.problems.iter().map(ToString::to_string);
        json!({
            "state": self.state.name(),
            "home": ctx.home.path().to_string_lossy(),
            "installed": self.mode.map(|m| m.to_string()),
            "edge": {
                "pid": self.tree.edge,
                "address": ctx.loaded.config.edge.addr(),
                "elsewhere": self.elsewhere,
                "status": self.tree.edge_answer,
            },
            "daemon": {
                "pid": self.tree.daemon,
                "address": ctx.loaded.config.daemon.api_addr(),
                "health": health_name(&self.tree.health),
                "reasons": reasons(&self.tree.health),
            },
            "watchdog": { "pid": self.tree.watchdog },
            "root": { "pid": self.tree.root },
            "actors": self.actors,
            "bypass": self.bypass,
            "passing": self.passing,
            "quotas": self.quotas,
            "budgets": self.budgets,
            "bodies": self.bodies.document(),
            "config_problems":
                problems.chain(self.own_problems.iter().cloned()).collect::<Vec<_>>(),
        })
    }
}

pub fn state_of(ctx: &Context, tree: &Tree) -> State {
    let stopped = ctx.home.user_stopped().exists();
    match (&tree.edge_answer, tree.metering(), stopped) {
        (_, true, _) => State::Metering,
        (Some(_), false, true) => State::Stopped,
        (Some(_), false, false) => State::Passing,
        (None, false, _) => State::Down,
    }
}

fn print(ctx: &Context, seen: &Seen, out: &mut impl Write) -> std::io::Result<()> {
    print_processes(ctx, seen, out)?;
    for problem in &ctx.loaded.problems {
        writeln!(out, "  config    {}", output::harmless(&problem.to_string()))?;
    }
    for problem in &seen.own_problems {
        writeln!(out, "  config    {}", output::harmless(&problem.to_string()))?;
    }
    if let Some(mode) = seen.mode {
        let kept = services::installed(ctx).map_or("no service manager", |s| s.name());
        writeln!(out, "  installed {mode}; kept by {kept}")?;
    }
    print_bypass(seen.bypass.as_ref(), out)?;
    for program in &seen.passing {
        writeln!(out, "  passing   {program}")?;
    }
    for line in silent_directories(seen.actors.as_ref()) {
        writeln!(out, "  projects  {line}")?;
    }
    if seen.bodies.is_worth_a_word() {
        writeln!(out, "  {}", seen.bodies.line())?;
    }
    for line in quota::lines(&seen.quotas, jiff::Timestamp::now()) {
        writeln!(out, "  quota     {line}")?;
    }
    for standing in &seen.budgets {
        writeln!(out, "  {}", budget::line(standing))?;
    }
    Ok(())
}

fn print_processes(ctx: &Context, seen: &Seen, out: &mut impl Write) -> std::io::Result<()> {
    let Seen { tree, state, elsewhere, actors, .. } = seen;
    let headline = match (*state, *elsewhere) {
        (State::Metering, _) => "METERING",
        (State::Stopped, _) => "STOPPED: requests pass, unmetered; `halton-meter start` resumes",
        (State::Passing, _) => "PASSING: requests go through, unmetered",
        (State::Down, None) => match anothers(ctx, tree) {
            Some(why) => &format!("DOWN: {why}: nothing of yours is metered"),
            None => down(tree),
        },
        (State::Down, Some(_)) => "DOWN: nobody serves the configured port",
    };
    writeln!(out, "{headline}")?;
    let pid =
        |pid: Option<u32>| pid.map_or_else(|| "not running".to_owned(), |p| format!("pid {p}"));
    let edge_says = match (&tree.edge_answer, *elsewhere, tree.edge.or(tree.lost_edge)) {
        (None, Some(served), _) => lifecycle::elsewhere(ctx, served),
        (Some(status), _, _) => format!(
            "{}, {} unmetered open, daemon {}{}",
            ctx.loaded.config.edge.addr(),
            status.pointer("/tunnels/open").and_then(Value::as_u64).unwrap_or(0),
            status.get("verdict").and_then(Value::as_str).unwrap_or("unknown"),
            upstream::past(status)
                .map(|proxy| format!("; going past {proxy}, which can't be reached"))
                .unwrap_or_default(),
        ),
        (None, None, Some(_)) if anothers(ctx, tree).is_some() => "can't use its home".to_owned(),
        (None, None, Some(_)) if tree.edge.is_none() => "its home was removed".to_owned(),
        (None, None, Some(_)) => "does not answer".to_owned(),
        (None, None, None) => String::new(),
    };
    let edge_says = output::harmless(&edge_says);
    writeln!(out, "  edge      {:<12} {edge_says}", pid(tree.edge.or(tree.lost_edge)))?;
    writeln!(out, "  daemon    {:<12} {}", pid(tree.daemon), words(&tree.health))?;
    writeln!(out, "  watchdog  {}", pid(tree.watchdog))?;
    writeln!(out, "  root      {}", pid(tree.root))?;
    if let Some(list) = actors.as_ref().and_then(|a| a.get("actors")).and_then(Value::as_array) {
        for actor in list {
            let text = |key: &str| actor.get(key).and_then(Value::as_str).unwrap_or("?");
            let number = |key: &str| actor.get(key).and_then(Value::as_u64).unwrap_or(0);
            writeln!(
                out,
                "    {:<14} {:<10} generation {}, {} restarts",
                output::harmless(text("id")),
                output::harmless(text("state")),
                number("generation"),
                number("restarts"),
            )?;
        }
    }
    Ok(())
}

/// Whose home it is, if nothing in it is ours to read.
fn anothers(ctx: &Context, tree: &Tree) -> Option<String> {
    let why = ctx.home.is_ours().err()?;
    tree.edge.is_none().then(|| why.to_string())
}

/// What is there when no edge answers.
fn down(tree: &Tree) -> &'static str {
    match tree {
        Tree { lost_edge: Some(_), .. } => {
            "LOST: the home was removed under the edge, which serves on, and looks for it every few seconds"
        }
        Tree { edge: Some(_), .. } => {
            "DOWN: the edge does not answer: requests hang; `halton-meter doctor` says what next"
        }
        Tree { root: Some(_), .. } => {
            "DOWN: no edge: requests fail; `halton-meter doctor` says what next"
        }
        Tree { daemon: None, watchdog: None, .. } => {
            "DOWN: nothing runs; `halton-meter start` starts it"
        }
        Tree { .. } => "DOWN: no edge: requests fail; `halton-meter start` starts one",
    }
}

/// Who is not metered, although everything runs.
fn print_bypass(bypass: Option<&Value>, out: &mut impl Write) -> std::io::Result<()> {
    let entries = bypass.and_then(Value::as_array).into_iter().flatten();
    // Whoever broke off once may have had any reason.
    for entry in entries {
        let text = |key: &str| entry.get(key).and_then(Value::as_str);
        let lasting = entry.get("lasting").and_then(Value::as_bool) == Some(true);
        let how = match (text("until"), lasting) {
            (Some(until), _) => format!("unmetered until {until}"),
            (None, true) => "whoever can't be identified there is unmetered".to_owned(),
            (None, false) => continue,
        };
        let why = match entry.get("refused").and_then(Value::as_bool) {
            Some(false) => "broke off its handshakes, as who does not accept our certificate",
            Some(true) | None => "does not accept our certificate",
        };
        writeln!(
            out,
            "  bypass    {} by {}: {why}, {how}",
            output::clean(text("host").unwrap_or("?")),
            output::clean(text("program").unwrap_or("an unknown program")),
        )?;
        for line in REFUSES {
            writeln!(out, "            {line}")?;
        }
    }
    Ok(())
}

/// What the tap says of directories that do not answer, in words.
pub fn silent_directories(actors: Option<&Value>) -> Vec<String> {
    let actors = actors.and_then(|answer| answer.get("actors")).and_then(Value::as_array);
    let tap = |actor: &Value| actor.pointer("/observed/tap/silent_directories").cloned();
    let silent = actors.into_iter().flatten().filter_map(tap);
    let named = silent.flat_map(|list| list.as_array().cloned().unwrap_or_default());
    named
        .filter_map(|dir| {
            let dir = output::harmless(dir.as_str()?);
            Some(format!("{dir} does not answer: who works there has no branch, and the directory's name for a project"))
        })
        .collect()
}

fn health_name(health: &Health) -> &'static str {
    match health {
        Health::Ok(_) => "ok",
        Health::Degraded(body) if body.get("draining") == Some(&Value::Bool(true)) => DRAINING,
        Health::Degraded(_) => "degraded",
        Health::Foreign => "another program answers on its port",
        Health::Silent => "does not answer",
        Health::Down => "down",
    }
}

/// Its end is no fault, and says all there is to say of it.
const DRAINING: &str = "draining";

/// `ok`, `draining`, `degraded: ledger: the disk is full` …
pub fn words(health: &Health) -> String {
    let name = health_name(health);
    let reasons = reasons(health);
    if name == DRAINING || reasons.is_empty() {
        return name.to_owned();
    }
    output::harmless(&format!("{name}: {}", reasons.join("; ")))
}

pub fn reasons(health: &Health) -> Vec<String> {
    match health {
        Health::Ok(body) | Health::Degraded(body) => body
            .get("reasons")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|r| r.as_str().map(str::to_owned))
            .collect(),
        Health::Foreign | Health::Silent | Health::Down => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_no_fault() {
        let degraded = |reasons: &[&str], draining: bool| {
            words(&Health::Degraded(json!({ "reasons": reasons, "draining": draining })))
        };
        assert_eq!(words(&Health::Ok(json!({ "reasons": [] }))), "ok");
        assert_eq!(degraded(&["draining: shutting down"], true), "draining");
        assert_eq!(
            degraded(&["ledger: full", "clock: x"], false),
            "degraded: ledger: full; clock: x"
        );
    }

    #[test]
    fn nothing_runs_only_when_nothing_does() {
        let none = Tree {
            root: None,
            edge: None,
            daemon: None,
            watchdog: None,
            edge_answer: None,
            lost_edge: None,
            foreign: false,
            ending: false,
            health: Health::Down,
        };
        let one = Some(1);
        let said = |tree: Tree| down(&tree).to_owned();
        assert!(said(none.clone()).contains("nothing runs"));
        let lost = said(Tree { lost_edge: one, ..none.clone() });
        assert!(lost.contains("home was removed") && lost.contains("serves on"), "{lost}");
        let frozen = said(Tree { edge: one, ..none.clone() });
        assert!(frozen.contains("does not answer: requests hang") && frozen.contains("doctor"));
        let root = said(Tree { root: one, ..none.clone() });
        assert!(root.contains("no edge") && root.contains("doctor"), "{root}");
        for left in [Tree { daemon: one, ..none.clone() }, Tree { watchdog: one, ..none }] {
            let left = said(left);
            assert!(left.contains("no edge") && left.contains("start"), "{left}");
        }
    }
}
