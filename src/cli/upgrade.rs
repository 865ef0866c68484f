//! `upgrade`: the running processes change to a new program. Edge and root do so in place, with
//! their port and every live tunnel; daemon and watchdog are drained and started anew.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::Value;

use super::client::{self, Tree};
use super::lifecycle::{self, elsewhere, tell};
use super::{Context, Exit, Failure, lost, say, services};
use crate::home::{own_program, write_atomic};
use crate::platform::Service;
use crate::setup;
use crate::supervisor::journal;

/// A preflight takes 10 s at most, coming to rest 3 s.
const PATIENCE: Duration = Duration::from_secs(30);
const ASK: Duration = Duration::from_millis(1000);
/// For the edge to be heard. A full queue of connections has a client come again after 1, 3 and 7 s.
const HEARD: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    cargo install --locked --path . && halton-meter upgrade   after the program's file was replaced\n  \
    halton-meter upgrade --binary ./halton-meter         change to another file")]
pub struct UpgradeArgs {
    /// The new program; this one if not given.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

pub fn run(ctx: &Context, args: &UpgradeArgs) -> Result<Exit, Failure> {
    let program = match &args.binary {
        Some(path) => path.canonicalize(),
        None => own_program(),
    };
    let program = program.map_err(|e| {
        let path =
            args.binary.as_ref().map_or_else(|| "this program".into(), |p| p.display().to_string());
        Failure::new(Exit::FAILED, format!("{path}: {e}"))
    })?;
    let tree = look(ctx);
    tree.is_ours()?;
    if tree.ending {
        return Err(Failure::new(Exit::UNAVAILABLE, client::ENDING)
            .hint("`halton-meter start` then starts the new program"));
    }
    if let Some(pid) = tree.lost_edge {
        return Err(Failure::new(Exit::FAILED, lost::said(ctx, pid)));
    }
    if tree.root.is_none() && tree.edge.is_none() && tree.daemon.is_none() {
        say("nothing runs; `halton-meter start` starts the new program");
        return Ok(Exit::OK);
    }
    if let (Some(pid), Some(answer)) = (tree.edge, &tree.edge_answer) {
        edge(ctx, pid, answer, &program)?;
    } else if tree.edge.is_some() {
        return Err(match tree.edge_elsewhere(ctx) {
            Some(served) => Failure::new(Exit::FAILED, elsewhere(ctx, served)),
            None => Failure::new(Exit::FAILED, "the edge does not answer")
                .hint("`halton-meter status` shows what it does"),
        });
    }
    if let Some(pid) = tree.root {
        root(ctx, pid, &program)?;
    }
    if let Some(services) = services::installed(ctx) {
        for (service, name) in [(Service::Edge, "edge"), (Service::Daemon, "metering")] {
            let defined = services.state(service).and_then(|state| state.program);
            if let Some(old) = defined.filter(|old| *old != program) {
                say(stays(service, name, services.name(), &old, &program));
            }
        }
    }
    if ctx.home.user_stopped().exists() {
        return Ok(Exit::OK);
    }
    // No wish of the user's to be refused again.
    lifecycle::renew(ctx, &Tree::look_when_found(ctx, ASK))
}

/// Who changes programs can wait for an edge that is busy.
fn look(ctx: &Context) -> Tree {
    let deadline = Instant::now() + HEARD;
    let mut tree = Tree::look_when_found(ctx, ASK);
    while tree.edge.is_some()
        && tree.edge_answer.is_none()
        && tree.edge_elsewhere(ctx).is_none()
        && Instant::now() < deadline
    {
        tree = Tree::look(ctx, HEARD);
    }
    tree
}

/// The manager restarts what its definition names.
fn stays(service: Service, name: &str, manager: &str, old: &Path, new: &Path) -> String {
    let when = match service {
        Service::Edge => "from the next login on",
        Service::Daemon | Service::Watchdog => "now",
    };
    let (old, new) = (old.display(), setup::quoted(new));
    format!("{name}: {manager} starts {old} {when}, until `{new} init` changes that")
}

/// Asks the edge itself how it went.
fn edge(ctx: &Context, pid: u32, before: &Value, program: &std::path::Path) -> Result<(), Failure> {
    let image = |answer: &Value| answer.get("image").and_then(Value::as_u64);
    let Some(first) = image(before) else {
        return Err(Failure::new(
            Exit::FAILED,
            "the running edge is too old to be changed in place",
        )
        .hint("when no tool is at work: `halton-meter edge stop`, then `halton-meter start`"));
    };
    let asked = Timestamp::now();
    request(ctx, "edge", pid, program)?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(answer) = client::edge_status(ctx, pid, ASK) {
            if image(&answer).is_some_and(|now| now > first) {
                let version = answer.get("version").and_then(Value::as_str).unwrap_or("unknown");
                let open = answer.pointer("/tunnels/open").and_then(Value::as_u64).unwrap_or(0);
                say(format_args!(
                    "edge: now version {version}, same process, {open} connections kept"
                ));
                return Ok(());
            }
            let refused = answer.pointer("/upgrade_refused/at").and_then(Value::as_str);
            if refused.and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at >= asked) {
                let why = answer.pointer("/upgrade_refused/why").and_then(Value::as_str);
                return Err(Failure::new(Exit::FAILED, why.unwrap_or("the edge refused"))
                    .hint("the old program goes on as before"));
            }
        } else if Tree::look(ctx, ASK).edge != Some(pid) {
            return Err(Failure::new(Exit::FAILED, "the edge ended; its root starts a new one")
                .hint(format!("see {}", ctx.home.log_file("edge").display())));
        }
        std::thread::sleep(LOOK);
    }
    Err(Failure::new(Exit::FAILED, "the edge did not say how it went"))
}

/// The root says it in the journal.
fn root(ctx: &Context, pid: u32, program: &std::path::Path) -> Result<(), Failure> {
    let asked = Timestamp::now();
    request(ctx, "root", pid, program)?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let entries = journal::read_all(&ctx.home.journal_file()).unwrap_or_default();
        let fresh = entries.iter().filter(|e| e.process == "root" && e.at >= asked);
        for entry in fresh {
            match entry.event.as_str() {
                "upgraded" => {
                    say("root: changed, same process");
                    return Ok(());
                }
                "upgrade_refused" => {
                    let why = entry.cause.clone().unwrap_or_else(|| "the root refused".to_owned());
                    return Err(Failure::new(Exit::FAILED, why)
                        .hint("the edge has changed already; the old root goes on"));
                }
                _ => {}
            }
        }
        std::thread::sleep(LOOK);
    }
    Err(Failure::new(Exit::FAILED, "the root did not say how it went"))
}

fn request(ctx: &Context, process: &str, pid: u32, program: &Path) -> Result<(), Failure> {
    let (path, file) = (program.as_os_str().as_encoded_bytes(), ctx.home.upgrade_request());
    write_atomic(&file, path).map_err(|e| not_asked(process, &file, &e))?;
    Ok(tell(pid, Signal::USR2)?)
}

/// The request is a file: a disk may have no room for it.
fn not_asked(process: &str, file: &Path, why: &std::io::Error) -> Failure {
    Failure::cannot_write(file, why).hint(format!(
        "the {process} was not asked, its old program goes on; make room (or give write access) and \
         `halton-meter upgrade` again"
    ))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_full_disk_is_told_with_what_it_was_for_and_what_next() {
        let full = ErrorKind::StorageFull.into();
        let failure = not_asked("edge", Path::new("/h/run/upgrade"), &full);
        assert_eq!(failure.exit, Exit::CANT_CREATE);
        let mut said = Vec::new();
        failure.print(&mut said);
        let said = String::from_utf8(said).unwrap();
        for part in [
            "cannot write /h/run/upgrade",
            &full.to_string(),
            "hint: the edge was not asked",
            "make room",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
