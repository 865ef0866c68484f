//! `config show`, `config set`, `config check`, `config path`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Subcommand;
use rustix::process::Signal;
use serde_json::json;

use super::output::{AsJson, finish, path, write_json};
use super::{Context, Exit, Failure, bodies, client, lifecycle, lines, say, services, unused};
use crate::config::{self, Key, Origin, Refused, Value};
use crate::home::{PidLock, write_kept};
use crate::meter::own_file;

/// For the daemon to take over what it was told.
const TAKEN_OVER: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

const ON: &str = "Set. From now on bodies of requests and answers are kept, without the secrets that \
    can be told from their look: `halton-meter requests show last --bodies`.";
const OFF: &str = "Set. Nothing more is kept. What is there stays until its time is over; \
    `halton-meter bodies purge` removes it now.";
const UNTOLD: &str = "Set in the file. What another machine or container runs from this home was not \
    told: the same command there does that.";

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Every setting with its value.
    #[command(after_help = "Examples:\n  \
        halton-meter config show --origin\n  \
        halton-meter config show --json | jq -r '.[] | select(.key == \"edge.port\").value'")]
    Show {
        /// Say where each value comes from.
        #[arg(long)]
        origin: bool,
        /// One JSON document (docs/json.md)
        #[arg(long)]
        json: bool,
    },
    /// Change a setting in the file; running processes take it over.
    #[command(after_help = "Examples:\n  \
        halton-meter config set bodies.enabled true\n  \
        halton-meter config set meter.extra_hosts llm.corp.example,gw.corp.example:8443\n\n\
        A list is written with commas or as in TOML, a table as in TOML. `halton-meter config show` lists the keys.")]
    Set {
        /// Which: section.key
        key: String,
        value: String,
    },
    /// Check the file, the environment and the flags; exit 78 names what is wrong.
    #[command(after_help = "Examples:\n  \
        halton-meter config check\n  \
        halton-meter config check -c edge.port=9000")]
    Check(AsJson),
    /// Path of the configuration file.
    #[command(after_help = "Examples:\n  \
        $EDITOR \"$(halton-meter config path)\"")]
    Path(AsJson),
}

pub fn run(ctx: &Context, command: &ConfigCommand, out: &mut impl Write) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Show { origin, json } => show(ctx, *origin, *json, out),
        ConfigCommand::Set { key, value } => set(ctx, key, value, out),
        ConfigCommand::Check(AsJson { json }) => check(ctx, *json, out),
        ConfigCommand::Path(AsJson { json }) => finish(path(&ctx.home.config_file(), *json, out)),
    }
}

/// The files beside it that people edit, too: a mistake there is found nowhere else before it counts.
fn check(ctx: &Context, json: bool, out: &mut dyn Write) -> Result<Exit, Failure> {
    let own = own_file::problems(&ctx.home);
    let strays = config::strays();
    let all: Vec<String> =
        ctx.loaded.problems.iter().map(ToString::to_string).chain(own.iter().map(unused)).collect();
    if json {
        finish(write_json(
            out,
            &json!({ "ok": all.is_empty(), "problems": all, "warnings": strays }),
        ))?;
        return Ok(if all.is_empty() { Exit::OK } else { Exit::CONFIG });
    }
    strays.iter().for_each(say);
    if !own.is_empty() {
        return Err(Failure::new(Exit::CONFIG, lines(&all)));
    }
    ctx.checked()?;
    writeln!(out, "ok")?;
    Ok(Exit::OK)
}

fn set(ctx: &Context, name: &str, text: &str, out: &mut impl Write) -> Result<Exit, Failure> {
    let usage = |why: String| Failure::new(Exit::USAGE, why);
    let key = Key::find(name).ok_or_else(|| {
        usage(format!("unknown key {name}")).hint("`halton-meter config show` lists them")
    })?;
    let value =
        key.accept_here(text).ok_or_else(|| usage(format!("{name}: expected {}", key.expected)))?;
    ctx.home.create().map_err(Failure::from)?;
    let alone = ctx.home.change_one_by_one();
    let path = ctx.home.config_file();
    let before = match fs::read_to_string(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.map_err(|e| unreadable(&path, name, e))?,
    };
    let after = config::with_value(&before, name, &value.to_string())
        .map_err(|refused| refusal(&refused, &path, name))?;
    let after = by_hand(name, after);
    write_kept(&path, after.as_bytes()).map_err(|e| Failure::cannot_write(&path, &e))?;
    drop(alone);
    let read = config::load(&path, &[]);
    let origin = read.values.iter().find(|(known, ..)| known.name == name).map(|(.., o)| o);
    if let Some(origin @ Origin::Environment { .. }) = origin {
        say(format_args!("{name} is set in the file, but {origin} comes before it"));
        return Ok(Exit::OK);
    }
    tell(ctx, name, &value, out)
}

fn unreadable(path: &Path, name: &str, error: io::Error) -> Failure {
    let message = format!("cannot read {}: {error}", path.display());
    // What has no code of its own is the file's: a directory, or text in another encoding.
    let exit = Some(Failure::from(error).exit).filter(|exit| *exit != Exit::FAILED);
    Failure::new(exit.unwrap_or(Exit::CONFIG), message)
        .hint(format!("mend it, or move it away; then set {name} again"))
}

fn refusal(refused: &Refused, path: &Path, name: &str) -> Failure {
    let path = path.display();
    match refused {
        Refused::Broken { line, message } => {
            Failure::new(Exit::CONFIG, format!("{path}:{line}: {message}"))
                .hint(format!("mend that line, then set {name} again"))
        }
        Refused::Form => {
            Failure::new(Exit::CONFIG, format!("{path} has a form that we don't change"))
                .hint(format!("set {name} there by hand"))
        }
        Refused::Wrong(message) => Failure::new(Exit::USAGE, message).hint("nothing was changed"),
    }
}

/// A proxy that is set by hand is the system's no longer.
fn by_hand(name: &str, text: String) -> String {
    let from = "upstream.proxy_from";
    let read = config::load_from(Some((Path::new(""), &text)), |_| None, &[]);
    let said = |(key, value, _): &(&Key, Value, Origin)| {
        key.name == from && *value == Value::Text(config::FROM_SYSTEM.to_owned())
    };
    let stale = name == "upstream.proxy" && read.values.iter().any(said);
    stale.then(|| config::with_value(&text, from, "\"\"").ok()).flatten().unwrap_or(text)
}

/// Lets the running processes read it again; who has not been told goes on as before.
fn tell(ctx: &Context, name: &str, value: &Value, out: &mut impl Write) -> Result<Exit, Failure> {
    let running = |process| PidLock::holder_here(&ctx.home.pid_file(process));
    let daemon = running("daemon");
    for pid in running("edge").into_iter().chain(daemon) {
        lifecycle::signal(pid, Signal::HUP)?;
    }
    if client::runs_elsewhere(&ctx.home, &["edge", "daemon"]) {
        if name == "bodies.enabled" {
            return Err(Failure::new(Exit::FAILED, UNTOLD));
        }
        writeln!(out, "{UNTOLD}")?;
    } else if let (Value::Int(port), "edge.port") = (value, name) {
        let services = services::installed(ctx).is_some();
        let served = client::edge_serves(ctx).map(|addr| addr.port());
        writeln!(out, "{}", port_set(*port, served, services))?;
    } else if name == "daemon.api_port" && daemon.is_some() {
        writeln!(out, "Set. Nothing is metered until `halton-meter restart`.")?;
    } else if let (Value::Bool(on), "bodies.enabled") = (value, name) {
        let end = Instant::now() + TAKEN_OVER;
        let obeyed = || bodies::Standing::look(ctx, bodies::of_daemon(ctx)).kept() == *on;
        while daemon.is_some() && !obeyed() {
            if Instant::now() >= end {
                let why = "the daemon has not taken it over; `halton-meter status` says why";
                return Err(Failure::new(Exit::FAILED, why).hint("`halton-meter restart`"));
            }
            std::thread::sleep(LOOK);
        }
        writeln!(out, "{}", if *on { ON } else { OFF })?;
    } else {
        writeln!(out, "Set. Running processes have been told.")?;
    }
    Ok(Exit::OK)
}

/// What is left to do for a new `edge.port`.
fn port_set(port: i64, served: Option<u16>, services: bool) -> String {
    let there = served.is_some_and(|served| i64::from(served) == port);
    if there || (served.is_none() && !services) {
        return "Set.".to_owned();
    }
    let how = lifecycle::move_edge(services);
    format!(
        "Set. The edge moves there with {how}; programs that point at the old port can't connect then. \
         Until it has moved, `halton-meter run` goes without the meter."
    )
}

fn show(ctx: &Context, origin: bool, json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let shown = |key: &crate::config::Key, value: &Value| match value {
        Value::Text(text)
            if key.secret
                && (text.contains('@') || key.name == "budgets.webhook")
                && !text.is_empty() =>
        {
            Value::Text("(hidden)".to_owned())
        }
        Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            value.clone()
        }
    };
    if json {
        let items: Vec<_> = ctx
            .loaded
            .values
            .iter()
            .map(|(key, value, from)| {
                let value = match shown(key, value) {
                    Value::Bool(b) => json!(b),
                    Value::Int(n) => json!(n),
                    Value::Text(s) => json!(s),
                    Value::List(l) => json!(l),
                    Value::Map(m) => json!(m),
                };
                json!({ "key": key.name, "value": value, "origin": from.to_string() })
            })
            .collect();
        write_json(out, &items)?;
    } else {
        for (key, value, from) in &ctx.loaded.values {
            let value = shown(key, value);
            if origin {
                writeln!(out, "{} = {value}  # {from}", key.name)?;
            } else {
                writeln!(out, "{} = {value}", key.name)?;
            }
        }
    }
    ctx.checked()?;
    Ok(Exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_what_next() {
        let path = Path::new("/h/config.toml");
        for (kind, exit) in [
            (io::ErrorKind::InvalidData, Exit::CONFIG),
            (io::ErrorKind::IsADirectory, Exit::CONFIG),
            (io::ErrorKind::PermissionDenied, Exit::NO_PERMISSION),
        ] {
            let failure = unreadable(path, "edge.port", kind.into());
            assert_eq!(failure.exit, exit, "{kind}");
            let mut said = Vec::new();
            failure.print(&mut said);
            let said = String::from_utf8(said).unwrap();
            assert!(said.contains("/h/config.toml") && said.contains("hint: mend it"), "{said}");
        }
    }

    #[test]
    fn a_new_port_says_what_moves_the_edge() {
        let said = |served, services| port_set(8082, served, services);
        assert_eq!(said(None, false), "Set.");
        assert_eq!(said(Some(8082), true), "Set.");
        for (served, how) in
            [(Some(8081), "edge stop`, then `halton-meter start`"), (None, "init`")]
        {
            let said = said(served, served.is_none());
            assert!(said.contains(how) && !said.contains("restart"), "{said}");
        }
    }
}
