//! Faults of actors on request, for tests of the real processes. Debug builds only, and only where
//! `HALTON_METER_FAULTS=1`: a release build has no trace of this file.
//!
//! A file `run/fault.PROCESS.CHILD` (`fault.daemon.meter.tap`) holds the fault's name; it is gone once
//! the fault has been passed on.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use actix::{AsyncContext, Context};
use tokio::sync::mpsc;

use super::runner::Command;
use super::{Birth, Child};
use crate::home::Home;

/// Set to `1` where faults may be asked for.
const VAR: &str = "HALTON_METER_FAULTS";
const LOOK: Duration = Duration::from_millis(20);
/// What a failed or panicked child says of it.
const WHY: &str = "a test asked for it";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    Panic,
    Fail,
    /// The context is not polled any more.
    Hang,
    /// The thread is not either.
    Block,
}

impl Fault {
    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "panic" => Some(Self::Panic),
            "fail" => Some(Self::Fail),
            "hang" => Some(Self::Hang),
            "block" => Some(Self::Block),
            _ => None,
        }
    }
}

/// Passes on what is asked of these children, as long as the supervisor lives.
pub(super) fn listen(
    process: &'static str,
    children: Vec<String>,
    commands: mpsc::WeakUnboundedSender<Command>,
) {
    if std::env::var_os(VAR).is_none_or(|v| v != "1") {
        return;
    }
    let Ok(home) = Home::from_env() else { return };
    actix_rt::spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(commands) = commands.upgrade() else { break };
            for (path, fault) in asked(&home.run_dir(), process, &children).unwrap_or_default() {
                let _ = commands.send(Command::Fault(path, fault));
            }
        }
    });
}

fn asked(dir: &Path, process: &str, children: &[String]) -> io::Result<Vec<(String, Fault)>> {
    let mut asked = Vec::new();
    let prefix = format!("fault.{process}.");
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(path) = name.strip_prefix(&prefix) else { continue };
        let child = path.split('.').next().unwrap_or_default();
        let ours = children.iter().any(|c| c == child);
        if let (true, Some(fault)) = (ours, Fault::parse(&fs::read_to_string(entry.path())?)) {
            fs::remove_file(entry.path())?;
            asked.push((path.to_owned(), fault));
        }
    }
    Ok(asked)
}

/// Within an actor's context.
pub(super) fn commit<A: Child>(fault: Fault, birth: &Birth, ctx: &mut Context<A>) {
    match fault {
        Fault::Panic => panic!("{}", WHY),
        Fault::Fail => birth.fail(WHY),
        Fault::Hang => ctx.wait(actix::fut::wrap_future(std::future::pending::<()>())),
        Fault::Block => loop {
            std::thread::park();
        },
    }
}

/// Within the task of a nested supervisor.
pub(super) async fn commit_in_tree(fault: Fault, birth: &Birth) {
    match fault {
        Fault::Panic => panic!("{}", WHY),
        Fault::Fail => birth.fail(WHY),
        Fault::Hang => std::future::pending().await,
        Fault::Block => loop {
            std::thread::park();
        },
    }
}
