//! `halton-meter bodies`: what is kept of requests and answers, and how to be rid of it.

use std::io::Write;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::output::{bytes, counted, finish, write_json};
use super::{Context, Exit, Failure, client};
use crate::meter::bodies::{Shelf, Stock};

const ASK: Duration = Duration::from_millis(1000);

#[derive(Debug, Subcommand)]
pub enum BodiesCommand {
    /// Whether bodies are kept, and how many there are.
    #[command(after_help = "Examples:
  halton-meter bodies status
  halton-meter config set bodies.enabled true    keeps them from now on")]
    Status {
        /// One JSON document (docs/json.md)
        #[arg(long)]
        json: bool,
    },
    /// Remove all that are there.
    #[command(after_help = "Examples:
  halton-meter bodies purge")]
    Purge,
}

/// Whether bodies are kept, and what is there.
#[derive(Clone, Debug)]
pub struct Standing {
    pub wanted: bool,
    /// What the daemon says; `None`: it does not answer.
    pub daemon: Option<Value>,
    pub stock: Stock,
}

pub fn run(ctx: &Context, command: &BodiesCommand, out: &mut dyn Write) -> Result<Exit, Failure> {
    finish(act(ctx, command, out))
}

fn act(ctx: &Context, command: &BodiesCommand, out: &mut dyn Write) -> anyhow::Result<()> {
    match command {
        BodiesCommand::Status { json: true } => {
            write_json(out, &Standing::look(ctx, of_daemon(ctx)).document())?;
        }
        BodiesCommand::Status { json: false } => {
            let standing = Standing::look(ctx, of_daemon(ctx));
            writeln!(out, "{}", standing.line())?;
            if let Some(dropped) = standing.dropped().filter(|n| *n > 0) {
                writeln!(out, "{} since the daemon started", counted(dropped, "dropped"))?;
            }
        }
        BodiesCommand::Purge => {
            let shelf = Shelf::of(&ctx.home);
            let stock = shelf.stock()?;
            shelf.clear()?;
            writeln!(out, "Removed: {}.", counted(stock.files, "request"))?;
            if ctx.loaded.config.bodies.enabled {
                let off = "`halton-meter config set bodies.enabled false` ends that";
                writeln!(out, "Those to come are kept; {off}.")?;
            }
        }
    }
    Ok(())
}

/// What the daemon says of itself.
pub fn of_daemon(ctx: &Context) -> Option<Value> {
    client::api(ctx, "/v1/actors", ASK).ok()
}

impl Standing {
    /// `actors`: the daemon's answer to `/v1/actors`.
    pub fn look(ctx: &Context, actors: Option<Value>) -> Self {
        let daemon = actors.and_then(|answer| {
            let actors = answer.get("actors")?.as_array()?.iter();
            actors.filter_map(|actor| actor.pointer("/observed/bodies")).next().cloned()
        });
        Self {
            wanted: ctx.loaded.config.bodies.enabled,
            daemon,
            stock: Shelf::of(&ctx.home).stock().unwrap_or_default(),
        }
    }

    /// By the daemon, if it answers: it is the one that keeps them.
    pub fn kept(&self) -> bool {
        let says = self.daemon.as_ref().and_then(|says| says.get("enabled")?.as_bool());
        says.unwrap_or(self.wanted)
    }

    pub fn is_worth_a_word(&self) -> bool {
        self.kept() || self.stock.files > 0
    }

    pub fn dropped(&self) -> Option<u64> {
        self.daemon.as_ref()?.get("dropped")?.as_u64()
    }

    /// `kept (bodies.enabled): 12 requests, 3.4 MB since 2026-11-20`.
    pub fn line(&self) -> String {
        let state = if self.kept() { "kept (bodies.enabled)" } else { "not kept" };
        let mut line = format!("bodies are {state}");
        if self.stock.files > 0 {
            let there = counted(self.stock.files, "request");
            line.push_str(&format!("; there are those of {there}, {}", bytes(self.stock.bytes)));
            line.extend(self.stock.oldest.map(|day| format!(", since {day}")));
            if !self.kept() {
                line.push_str("; `halton-meter bodies purge` removes them");
            }
        }
        line
    }

    pub fn document(&self) -> Value {
        json!({ "enabled": self.kept(), "daemon": self.daemon, "stock": self.stock })
    }
}
