//! The command line: a file for each command, under its name. stdout is data, stderr is messages.
//!
//! The other files are what several commands share:
//!
//! - asking our processes: `client`, and when the answer is none, `intruder`, `lost`, `no_edge`; bringing them
//!   up, `lifecycle`, `services`; being them, `processes`
//! - changing the user's machine: `apply`; the proxy that is there already, `upstream`
//! - programs that go their own way: `codex`, `containers`, `passing`
//! - words and numbers: `output`, `range`, `summary`, `failure`; the terminal, `live`

mod apply;
mod bodies;
mod budget;
mod ca;
mod client;
mod codex;
mod config;
mod containers;
mod dashboard;
pub(crate) mod doctor;
mod env;
mod events;
mod export;
mod failure;
mod harmless;
mod init;
mod intruder;
mod lifecycle;
mod live;
mod lost;
mod manual;
mod no_edge;
mod output;
mod passing;
mod pricing;
mod processes;
mod project;
mod quota;
mod range;
mod recompute;
mod report;
mod requests;
mod reset_proxy;
mod run;
mod selftest;
mod services;
mod status;
mod statusline;
mod stdout;
mod summary;
mod top;
mod uninstall;
mod up;
mod upgrade;
mod upstream;
mod userenv;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;

use clap::{Args, CommandFactory, Parser, Subcommand};
use jiff::tz::TimeZone;

use failure::told;

pub use crate::exit::Exit;
pub use failure::Failure;

use crate::config::Loaded;
use crate::home::Home;
use crate::inherit;
use crate::limits;
use crate::meter::own_file::{self, OwnError};

/// Shows what your LLM tools spend, per project, without touching the tools.
#[derive(Debug, Parser)]
#[command(
    name = "halton-meter",
    version,
    after_help = "Examples:\n  \
        halton-meter run -- claude -p 'hello'      run a tool and see what it cost\n  \
        halton-meter report --since 7d             what was spent, by project\n  \
        halton-meter stop                          stop metering; tools keep working\n  \
        halton-meter edge stop                     take everything down, the port too\n\n\
        Exit codes: 0 ok, 1 failed, 2 usage, 69 daemon unavailable, 73/77 can't write, 78 bad config;\n\
        `run` exits as its command does."
)]
struct Cli {
    /// Overrides a setting for this call and the processes it starts (repeatable).
    #[arg(short = 'c', long = "config", value_name = "SECTION.KEY=VALUE", global = true)]
    flags: Vec<String>,
    /// When to use colour; NO_COLOR is honoured.
    #[arg(long, value_enum, default_value_t, global = true)]
    color: output::Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command through the meter; starts edge and daemon if need be.
    Run(run::RunArgs),
    /// Run the whole tree in the foreground with a live view; Ctrl-C ends it.
    #[command(after_help = "Examples:\n  \
        halton-meter up                    then, in another terminal: halton-meter run -- claude\n  \
        halton-meter up -c log.level=debug")]
    Up,
    /// What runs now, and what today has come to: a live view.
    Top(top::TopArgs),
    /// The same and more in your browser.
    Dashboard(dashboard::DashboardArgs),
    /// Install services; with --apps and --full, lead more through the meter. Shows each change first.
    Init(init::InitArgs),
    /// Undo every change that `init` made.
    Uninstall(uninstall::UninstallArgs),
    /// Start metering (daemon and watchdog; the edge too if it is down).
    Start(lifecycle::StartArgs),
    /// Stop metering. The edge stays: tools keep working, unmetered.
    #[command(after_help = "Examples:\n  \
        halton-meter stop\n  \
        halton-meter start    metering again")]
    Stop,
    /// Restart daemon and watchdog; exchanges in flight finish first.
    #[command(after_help = "Examples:\n  \
        halton-meter restart")]
    Restart,
    /// Change to a new program in place: no tunnel is lost, metered exchanges finish first.
    Upgrade(upgrade::UpgradeArgs),
    /// What runs, in which state, and what was metered of late.
    Status(status::StatusArgs),
    /// Every part, asked itself: what is wrong, and what to do about it.
    Doctor(doctor::DoctorArgs),
    /// Send real requests through the running chain to a provider of its own; seconds, no internet.
    Selftest(selftest::SelftestArgs),
    /// What was spent: tokens, cost, latency, coverage.
    Report(report::ReportArgs),
    /// The requests themselves, newest first.
    Requests(requests::RequestsArgs),
    /// Requests out of the ledger, as CSV, JSON or FOCUS.
    Export(export::ExportArgs),
    /// Projects: what there are, what they are called, and whose requests are whose.
    #[command(subcommand)]
    Project(project::ProjectCommand),
    /// What is kept of what was asked and answered (off by default), and how to be rid of it.
    #[command(subcommand)]
    Bodies(bodies::BodiesCommand),
    /// One line for an editor's or Claude Code's status line.
    Statusline(statusline::StatuslineArgs),
    /// Prices: the list, and your own.
    #[command(subcommand)]
    Pricing(pricing::PricingCommand),
    /// Amounts that warn when they are used up; nothing is ever blocked.
    #[command(subcommand)]
    Budget(budget::BudgetCommand),
    /// Price what is in the ledger again.
    RecomputeCosts(recompute::RecomputeArgs),
    /// Supervision events: starts, crashes, restarts.
    Events(events::EventsArgs),
    /// Variables that send a shell's tools through the meter.
    Env(env::EnvArgs),
    /// The local certificate authority: paths, the system's trust, rotation.
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Settings: show, change, check.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Completions for a shell, on standard output.
    Completions(manual::CompletionsArgs),
    /// The manual page of the program or of one command, on standard output.
    Man(manual::ManArgs),
    /// Escape hatch: take the system proxy off, whatever else is broken.
    #[command(after_help = "Examples:\n  \
        halton-meter reset-proxy")]
    ResetProxy,
    /// Says whether this program can take over from a running process.
    #[command(hide = true)]
    Preflight { process: String, format: u32 },
    #[command(hide = true)]
    Userenv(userenv::UserenvArgs),
    #[command(hide = true)]
    Edge(EdgeArgs),
    #[command(hide = true)]
    Daemon(ServiceArgs),
    #[command(hide = true)]
    Watchdog(ServiceArgs),
    #[command(hide = true)]
    Supervise(SuperviseArgs),
}

#[derive(Args, Debug)]
struct EdgeArgs {
    #[command(subcommand)]
    command: Option<EdgeCommand>,
}

#[derive(Debug, Subcommand)]
enum EdgeCommand {
    /// Take the edge down too: programs that point at it can't connect any more.
    Stop,
}

#[derive(Args, Debug)]
struct SuperviseArgs {
    /// Stay in the session of the caller and log to stderr.
    #[arg(long)]
    foreground: bool,
    /// A service manager keeps this process, and daemon and watchdog by themselves.
    #[arg(long, conflicts_with = "foreground")]
    edge_only: bool,
}

#[derive(Args, Debug)]
struct ServiceArgs {
    /// A service manager keeps this process: it waits until another one of its kind has ended, and
    /// ends at once after `halton-meter stop`.
    #[arg(long)]
    service: bool,
}

/// What every command gets.
#[derive(Debug)]
pub struct Context {
    pub home: Home,
    pub loaded: Loaded,
    /// `-c` flags as given; passed on to started processes through their environment.
    pub flags: Vec<String>,
    pub color: output::Color,
}

/// Parses and runs one command.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Exit {
    inherit::see_ends();
    limits::outlive();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { Exit::USAGE } else { Exit::OK };
        }
    };
    match dispatch(cli) {
        Ok(exit) => exit,
        Err(failure) => {
            let failure = match Home::from_env() {
                Ok(home) => failure.of_ledger(&home.ledger_file()),
                Err(_) => failure,
            };
            failure.print(&mut std::io::stderr());
            failure.exit
        }
    }
}

fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let mut out = stdout::Stdout(std::io::stdout().lock());
    // What needs nothing, no home and no configuration: above all the escape hatch.
    if let Command::ResetProxy = cli.command {
        return reset_proxy::run();
    } else if let Command::Completions(args) = &cli.command {
        return manual::completions(args, &Cli::command(), &mut out);
    } else if let Command::Man(args) = &cli.command {
        return manual::man(args, Cli::command(), &mut out);
    }
    let home = match (Home::from_env(), &cli.command) {
        (Ok(home), _) => home,
        (Err(e), Command::Run(args)) => {
            drop(out);
            return run::without_us(args, &e);
        }
        (Err(e), _) => {
            return Err(Failure::new(Exit::NO_PERMISSION, e).hint("set HOME or HALTON_METER_HOME"));
        }
    };
    let loaded = crate::config::load(&home.config_file(), &cli.flags);
    let ctx = Context { home, loaded, flags: cli.flags, color: cli.color };
    match cli.command {
        Command::Run(args) => {
            drop(out);
            run::run(&ctx, &args)
        }
        Command::Up => {
            ctx.checked()?;
            drop(out);
            up::run(&ctx)
        }
        Command::Top(args) => top::run(ctx.warned(), &args, &mut out),
        Command::Dashboard(args) => dashboard::run(&ctx, &args, &mut out),
        Command::Init(args) => init::run(ctx.checked()?, &args),
        Command::Uninstall(args) => uninstall::run(&ctx, &args),
        Command::Start(args) => lifecycle::start(ctx.checked()?, &args),
        Command::Stop => lifecycle::stop(&ctx),
        Command::Restart => lifecycle::restart(ctx.checked()?),
        Command::Upgrade(args) => upgrade::run(ctx.checked()?, &args),
        Command::Status(args) => status::run(&ctx, &args, &mut out),
        Command::Doctor(args) => doctor::run(&ctx, &args, &mut out),
        Command::Selftest(args) => selftest::run(&ctx, &args, &mut out),
        Command::Report(args) => report::run(ctx.warned(), &args, &mut out),
        Command::Requests(args) => requests::run(ctx.warned(), &args, &mut out),
        Command::Export(args) => export::run(ctx.warned(), &args, &mut out),
        Command::Project(command) => {
            let refused = command.changes_by_names().then(|| ctx.home.projects_file());
            project::run(ctx.warned_but(refused.as_deref()), &command, &mut out)
        }
        Command::Bodies(command) => bodies::run(ctx.warned(), &command, &mut out),
        Command::Statusline(args) => statusline::run(&ctx, &args, &mut out),
        Command::Pricing(command) => {
            pricing::run(ctx.warned_but(Some(&ctx.home.prices_file())), &command, &mut out)
        }
        Command::Budget(command) => {
            budget::run(ctx.warned_but(Some(&ctx.home.budgets_file())), &command, &mut out)
        }
        Command::RecomputeCosts(args) => {
            recompute::run(ctx.warned_but(Some(&ctx.home.prices_file())), &args, &mut out)
        }
        Command::Events(args) => events::run(ctx.warned(), &args, &mut out),
        Command::Env(args) => env::run(&ctx, &args, &mut out),
        Command::Ca(command) => ca::run(&ctx, &command, &mut out),
        Command::Config(command) => config::run(&ctx, &command, &mut out),
        Command::Completions(args) => manual::completions(&args, &Cli::command(), &mut out),
        Command::Man(args) => manual::man(&args, Cli::command(), &mut out),
        Command::ResetProxy => reset_proxy::run(),
        Command::Preflight { process, format } => {
            Ok(processes::preflight(&process, format, &mut out))
        }
        Command::Userenv(args) => userenv::run(&ctx, &args),
        Command::Edge(EdgeArgs { command: Some(EdgeCommand::Stop) }) => lifecycle::edge_stop(&ctx),
        Command::Edge(EdgeArgs { command: None }) => Ok(processes::edge(ctx)),
        Command::Daemon(args) => Ok(processes::daemon(ctx, args.service)),
        Command::Watchdog(args) => Ok(processes::watchdog(ctx, args.service)),
        Command::Supervise(args) => Ok(processes::supervise(ctx, args.foreground, args.edge_only)),
    }
}

impl Context {
    /// What only reads goes on with the default for what is wrong, and says so.
    fn warned(&self) -> &Self {
        self.warned_but(None)
    }

    /// The same, if the command refuses what is wrong in this file of the user's own.
    fn warned_but(&self, file: Option<&Path>) -> &Self {
        for problem in &self.loaded.problems {
            say(problem);
        }
        let zone = std::env::var_os("TZ");
        if let Some(told) = unknown_zone(zone.as_deref(), TimeZone::try_system().is_ok()) {
            say(told);
        }
        own_file::problems(&self.home)
            .iter()
            .filter(|problem| file != Some(problem.path()))
            .for_each(|problem| say(unused(problem)));
        self
    }

    /// The same with the edge where it serves, if that is another port than the configured one: it
    /// keeps the one that it was started with.
    fn as_served(&self) -> Option<Self> {
        let configured = self.loaded.config.edge.addr();
        let served = client::edge_serves(self).filter(|served| *served != configured)?;
        let mut loaded = self.loaded.clone();
        loaded.config.edge.port = served.port();
        Some(Self { home: self.home.clone(), loaded, flags: self.flags.clone(), color: self.color })
    }

    /// What starts or changes something refuses a configuration with mistakes in it.
    fn checked(&self) -> Result<&Self, Failure> {
        match self.loaded.problems.as_slice() {
            [] => Ok(self),
            problems => {
                Err(Failure::new(Exit::CONFIG, lines(problems))
                    .hint("`halton-meter config check` checks again; running processes keep the last good configuration"))
            }
        }
    }
}

fn lines(problems: &[impl std::fmt::Display]) -> String {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n  ")
}

/// Of prices, names of projects, or budgets with a mistake in them.
fn unused(problem: &OwnError) -> String {
    format!("{problem} (the file is not used until it is mended)")
}

/// Days are then other days than those that were meant, and nobody else says so.
fn unknown_zone(named: Option<&OsStr>, known: bool) -> Option<String> {
    let name = named.filter(|name| !known && !name.is_empty())?;
    let name = output::clean(&name.to_string_lossy());
    Some(format!(
        "TZ is {name:?}, of which this machine knows no time zone: days and times are those of UTC"
    ))
}

/// One message line on stderr, the same form everywhere.
fn say(text: impl std::fmt::Display) {
    // Much of it was said by others.
    let text = output::harmless_lines(&text.to_string());
    let _ = writeln!(std::io::stderr(), "halton-meter: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_that_nobody_knows_is_told_and_only_that() {
        let told = |name: &str, known| unknown_zone(Some(OsStr::new(name)), known);
        assert!(told("Europe/Nowhere", false).unwrap().contains("\"Europe/Nowhere\""));
        assert_eq!(told("Europe/Zurich", true), None);
        // Without a name, or without any zone on the machine, it is UTC by convention.
        assert_eq!((told("", false), unknown_zone(None, false)), (None, None));
    }
}
