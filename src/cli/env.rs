//! The variables that send a program through the meter: for `run`, and for shells by `env`.

mod variables;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::lifecycle::Ready;
use super::{Context, Exit, Failure, client, lifecycle, output, run, say, upstream};
use crate::config::Config;
use crate::home::{Home, PidLock};
pub use crate::meter::ca::union_bundle;
use crate::meter::ca::{Ca, is_union, renew_unions};
use crate::meter::trust;
use crate::platform;
pub use variables::Vars;
pub use variables::{
    CA_VARS, Direct, FORMER_VARS, LOCAL, NO_PROXY_VARS, PROXY_VARS, foreign_proxies, looked_at,
    names, variables,
};
use variables::{Changes, Environment};

pub const PROJECT_VAR: &str = "HALTON_PROJECT";
/// Ties a row to the `run` that its client was started by.
pub const RUN_VAR: &str = "HALTON_RUN";

/// What a new shell waits for an edge that says nothing.
const IF_UP: Duration = Duration::from_millis(300);
/// For an edge to say that it is of this home, before a first CA is made there.
const LOST: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
#[command(
    after_help = "Starts edge and daemon if need be, as `run` does; --unset, --if-up and --json do not.\n\n\
    Examples:\n  \
    eval \"$(halton-meter env)\"\n  \
    halton-meter env --shell fish | source\n  \
    eval \"$(halton-meter env --unset)\""
)]
pub struct EnvArgs {
    /// Syntax of the output.
    #[arg(long, value_enum, default_value_t)]
    shell: Shell,
    /// Print the commands that take ours away again and put back what was there before.
    #[arg(long)]
    unset: bool,
    /// Print them only if the edge answers and goes through the proxy that this shell has, if any, and the
    /// commands that take ours away if it does not; never waits for long. For the start files of shells.
    #[arg(long, conflicts_with_all = ["unset", "json"])]
    if_up: bool,
    /// Print as one JSON object.
    #[arg(long, conflicts_with = "shell")]
    json: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Shell {
    #[default]
    Posix,
    Fish,
}

pub fn run(ctx: &Context, args: &EnvArgs, out: &mut impl Write) -> Result<Exit, Failure> {
    let served = ctx.as_served();
    let here = served.as_ref().unwrap_or(ctx);
    let (edge, configured) = (here.loaded.config.edge.addr(), ctx.loaded.config.edge.addr());
    let asked = args.if_up || args.json;
    let answer = asked.then(|| answer(ctx, edge)).flatten();
    let down = asked && answer.is_none();
    let kept = args.if_up && answer.is_some_and(|answer| keeps_own(here, &answer));
    // A shell that got ours from its session is better off without them; what else is there stays.
    let take_back = |out: &mut _| print(out, args.shell, &taken_back(ctx, &[edge, configured]));
    if args.unset || (args.if_up && down) || kept {
        take_back(out)?;
        return Ok(Exit::OK);
    }
    ctx.checked()?;
    nameable(&ctx.home)?;
    ctx.home.create()?;
    prepare_ca(ctx)?;
    if edge != configured && !args.if_up {
        say(lifecycle::elsewhere(ctx, edge));
    }
    if args.json && down {
        say(format_args!("nobody serves {edge}: `halton-meter start`"));
    }
    if !args.if_up && !args.json {
        // Where nobody answers, every request of the shell would fail.
        match run::ready(here) {
            Ready::Metering => {}
            Ready::Passing(why) => say(format_args!("not metered: {why}")),
            Ready::NoEdge(why) => return Err(not_led(&why, Exit::UNAVAILABLE, take_back(out))),
        }
    }
    let vars = match for_programs(here) {
        Ok(vars) => vars,
        Err(why) if args.json => return Err(why),
        Err(why) => return Err(not_led(&why, why.exit, take_back(out))),
    };
    if args.json {
        output::write_json(out, &vars)?;
    } else {
        let present = present();
        let known = platform::reached_without_us();
        let found = Environment::new(&present, &ctx.home, &[edge], known);
        let former = found.former().map(|name| (name.to_owned(), None));
        let vars = vars.into_iter().map(|(name, value)| (name, Some(value)));
        print(out, args.shell, &former.chain(vars).collect())?;
    }
    Ok(Exit::OK)
}

/// What to say to a shell that had ours taken `back`.
fn not_led(why: &dyn Display, exit: Exit, back: std::io::Result<()>) -> Failure {
    match back {
        Ok(()) => Failure::new(exit, format!("this shell is not led through us: {why}")),
        Err(e) => e.into(),
    }
}

/// What leads a program of this process's to the edge.
///
/// # Errors
/// When a union of the user's roots and ours can't be written: with theirs alone every TLS connection
/// would fail.
pub fn for_programs(ctx: &Context) -> Result<Vars, Failure> {
    let config = &ctx.loaded.config;
    let direct = direct(config, false);
    variables(&present(), config.edge.addr(), &ctx.home, &direct, &union_bundle)
        .map_err(|e| Failure::new(Exit::CANT_CREATE, e))
}

/// The commands that set these variables, or take away those without a value.
fn print(out: &mut impl Write, shell: Shell, vars: &Changes) -> std::io::Result<()> {
    for (name, value) in vars {
        match (shell, value) {
            (Shell::Posix, Some(value)) => {
                writeln!(out, "export {name}='{}'", value.replace('\'', "'\\''"))?;
            }
            (Shell::Fish, Some(value)) => {
                let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
                writeln!(out, "set -gx {name} '{quoted}'")?;
            }
            (Shell::Posix, None) => writeln!(out, "unset {name}")?,
            (Shell::Fish, None) => writeln!(out, "set -e {name}")?,
        }
    }
    Ok(())
}

/// What programs reach without us here.
#[must_use]
pub fn direct(config: &Config, proxied: bool) -> Direct {
    Direct::of(platform::reached_without_us(), config, proxied)
}

/// The variables of this process. A value that is no text becomes one that says nothing to us: no such
/// file, no such proxy; so what it stands in stays the user's.
#[must_use]
pub fn present() -> Vars {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// The same as the user has them, without ours.
#[must_use]
pub fn own(ctx: &Context) -> Vars {
    let mut vars = present();
    for (name, value) in taken_back(ctx, &[ctx.loaded.config.edge.addr()]) {
        match value {
            Some(value) => vars.insert(name, value),
            None => vars.remove(&name),
        };
    }
    vars
}

/// What rids this process's environment of ours.
#[must_use]
pub fn taken_back(ctx: &Context, edges: &[SocketAddr]) -> Changes {
    let present = present();
    let known = platform::reached_without_us();
    let environment = Environment::new(&present, &ctx.home, edges, known);
    environment.taken_back(&|file| is_union(&ctx.home, file))
}

/// Variables and documents of ours are text: a path that is none would lead programs nowhere, and
/// without their roots every TLS connection of theirs fails.
pub fn nameable(home: &Home) -> Result<(), Failure> {
    if home.path().to_str().is_some() {
        return Ok(());
    }
    let why = format!(
        "{}: a home whose path is no UTF-8 can't be named to programs",
        home.path().display()
    );
    Err(Failure::new(Exit::FAILED, why).hint("set HALTON_METER_HOME to another directory"))
}

/// Our edge lives, and says this at once. One that is about to end is none to be led to.
fn answer(ctx: &Context, edge: SocketAddr) -> Option<Value> {
    if PidLock::is_ending(&ctx.home.pid_file("root")) {
        return None;
    }
    let pid = PidLock::holder(&ctx.home.pid_file("edge")).ok()??;
    client::edge_status_at(edge, pid, IF_UP)
}

/// What `run` looks at too, but for what takes a connection to a proxy.
fn keeps_own(ctx: &Context, edge: &Value) -> bool {
    let found = upstream::of_environment(&own(ctx), ctx.loaded.config.edge.addr());
    let configured = upstream::Configured::by(&ctx.loaded.config.upstream);
    upstream::kept(found.as_ref(), &upstream::of_edge(edge), configured)
}

/// Makes sure that the CA and the bundle are there before a program is pointed at them.
pub fn prepare_ca(ctx: &Context) -> Result<(), Failure> {
    let log = slog::Logger::root(slog::Discard, slog::o!());
    let config = &ctx.loaded.config;
    if !ctx.home.ca_cert().exists() {
        client::await_lost(ctx, LOST);
    }
    let extra = config.upstream.extra_ca_file.as_deref().map(trust::read_certificates);
    let certificates = || {
        let read = |path: &Path| std::fs::read(path).ok();
        (read(&ctx.home.ca_cert()), read(&ctx.home.next_ca_cert()))
    };
    let before = certificates();
    Ca::load_or_create(&ctx.home, &config.meter.hosts, &log)
        .and_then(|ca| ca.write_bundle(&ctx.home, &extra.unwrap_or_default()))
        .map(drop)
        .map_err(|e| Failure::new(Exit::CANT_CREATE, e))?;
    renew_unions(&ctx.home);
    // A daemon that went on to sign as before would be refused by every new client.
    if before.0.is_some() && before != certificates() {
        lifecycle::reload(ctx);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn each_shell_gets_its_own_syntax() {
        #[derive(Debug, Parser)]
        struct Line {
            #[command(flatten)]
            args: EnvArgs,
        }
        let value = r"it's C:\".to_owned();
        let vars = Changes::from([("A".to_owned(), Some(value)), ("B".to_owned(), None)]);
        let posix = "export A='it'\\''s C:\\'\nunset B\n";
        for (words, expected) in [
            (&["env"][..], posix),
            (&["env", "--shell", "posix"], posix),
            (&["env", "--shell", "fish"], "set -gx A 'it\\'s C:\\\\'\nset -e B\n"),
        ] {
            let mut out = Vec::new();
            print(&mut out, Line::parse_from(words).args.shell, &vars).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{words:?}");
        }
    }
}
