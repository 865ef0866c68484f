//! Loads the price book, the user's own prices on top, and publishes it to whoever prices a request.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::{Actor, AsyncContext, Context, Handler, Message};
use serde_json::{Value, json};
use slog::Logger;

use super::meter::Meter;
use crate::beat;
use crate::home::Home;
use crate::meter::price::{Book, read_own};
use crate::supervisor::{Birth, Child};

/// How soon a price counts that nobody says has changed.
const LOOKS: Duration = Duration::from_secs(2);

/// The actor.
#[derive(Debug)]
pub struct Prices {
    birth: Birth,
    meter: Meter,
    home: Home,
    log: Logger,
    /// Which file was read last.
    seen: Option<Version>,
    own: usize,
    /// Why the last good prices are still in force.
    problem: Option<String>,
}

/// Somebody has changed the user's own prices. Answered when they are in force: how many there are, or why
/// those of before stay.
#[derive(Clone, Copy, Debug)]
pub struct Look;

impl Message for Look {
    type Result = Result<usize, String>;
}

type Version = (u64, u64, Option<SystemTime>);

impl Prices {
    #[must_use]
    pub fn new(birth: Birth, meter: Meter, home: Home, log: Logger) -> Self {
        Self { birth, meter, home, log, seen: None, own: 0, problem: None }
    }

    /// Reads the user's prices if they are others than those that were read.
    fn look(&mut self) {
        let meta = fs::metadata(self.home.prices_file()).ok();
        let version = meta.map(|meta| (meta.ino(), meta.len(), meta.modified().ok()));
        if version == self.seen {
            return;
        }
        self.seen = version;
        match read_own(&self.home.prices_file()) {
            Ok(own) => {
                self.own = own.len();
                self.problem = None;
                let book = Book::builtin().with_own(&own);
                self.meter.publish_book(Arc::new(book));
                slog::info!(self.log, "prices of the user's own are in force"; "prices" => own.len());
            }
            Err(problem) => {
                slog::warn!(self.log, "the user's own prices can't be used; those of before stay";
                    "why" => %problem);
                self.problem = Some(problem.to_string());
            }
        }
    }
}

impl Actor for Prices {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if !self.meter.prices_loaded() {
            self.meter.publish_book(Book::builtin());
        }
        self.look();
        self.meter.publish_prices(ctx.address().recipient());
        beat::keep(ctx, LOOKS, |prices: &mut Self, _| prices.look());
        self.birth.ready();
    }
}

impl Handler<Look> for Prices {
    type Result = Result<usize, String>;

    fn handle(&mut self, _: Look, _: &mut Self::Context) -> Self::Result {
        self.look();
        self.problem.clone().map_or(Ok(self.own), Err)
    }
}

impl Child for Prices {
    fn observe(&self) -> Value {
        json!({
            "loaded": self.meter.prices_loaded(),
            "own": self.own,
            "problem": self.problem,
        })
    }
}
