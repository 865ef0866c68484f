//! Watches over the ledger's writer.
//!
//! The writer's thread and the queue before it are older than this actor and survive it: a restart
//! costs no row. What the actor adds is an eye on the writer, and a flush when the tree ends.

use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use serde_json::{Value, json};

use super::meter::Meter;
use crate::beat;
use crate::supervisor::{Birth, Child};
use crate::threads;

/// What the flush at the end may take. What is not written by then is the writer's to spill.
const FLUSH: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_secs(2);

/// The actor.
#[derive(Debug)]
pub struct Ledger {
    birth: Birth,
    meter: Meter,
    degraded: Option<String>,
    lost: u64,
    bodies_dropped: u64,
}

impl Ledger {
    #[must_use]
    pub fn new(birth: Birth, meter: Meter) -> Self {
        Self { birth, meter, degraded: None, lost: 0, bodies_dropped: 0 }
    }

    fn look(&mut self, _: &mut Context<Self>) {
        let stats = self.meter.intake().stats();
        if stats.degraded != self.degraded {
            match &stats.degraded {
                Some(why) => slog::error!(self.birth.log(), "rows wait"; "reason" => why),
                None => slog::info!(self.birth.log(), "rows are written again"),
            }
            self.degraded = stats.degraded;
        }
        let dropped = self.meter.bodies().stats().dropped;
        if dropped != self.bodies_dropped {
            slog::warn!(self.birth.log(), "bodies were dropped"; "total" => dropped);
            self.bodies_dropped = dropped;
        }
        if stats.lost != self.lost {
            slog::error!(self.birth.log(), "rows were lost"; "total" => stats.lost);
            self.lost = stats.lost;
        }
    }
}

impl Actor for Ledger {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        beat::keep(ctx, LOOK, Self::look);
        self.birth.ready();
    }
}

impl Child for Ledger {
    fn observe(&self) -> Value {
        let stats = self.meter.intake().stats();
        json!({
            "queued": stats.queued,
            "written": stats.written,
            "lost": stats.lost,
            "degraded": stats.degraded,
            "bodies": self.meter.bodies().stats(),
        })
    }

    fn stop(&mut self, ctx: &mut Context<Self>) {
        let (intake, log) = (self.meter.intake().clone(), self.birth.log().clone());
        let flush = async move {
            let flushed = threads::blocking(move || intake.flush(Instant::now() + FLUSH)).await;
            if !flushed.unwrap_or(false) {
                slog::warn!(log, "rows still wait for the disk");
            }
        };
        ctx.spawn(flush.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}
