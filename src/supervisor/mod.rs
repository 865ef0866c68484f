//! Our own supervision, on actix's public API: a pure core ([`step`]) decides, a thin runner
//! executes. See `docs/supervision.md` for the guarantees.

mod birth;
pub mod event;
#[cfg(debug_assertions)]
mod faults;
pub mod invariants;
pub mod journal;
mod launch;
pub mod liveness;
pub mod replay;
mod runner;
pub mod spec;
pub mod step;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod runner_tests;

use actix::{Actor, Context};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use birth::{Birth, ChildDown, Slot};
pub use event::{Cause, Exit};
pub use journal::{Journal, JournalEntry};
pub use liveness::{Protected, Pulse};
pub use runner::{ChildStatus, Outcome, Supervisor, start};
pub use spec::{Backoff, ChildSpec, Intensity, Lanes, Strategy, TreeSpec};

/// A supervised actor. `started` should be short; call [`Birth::ready`] when it can serve.
///
/// `started`, `stopping` and `stopped` must not panic, and a handler must not block: a context
/// that is not polled serves neither heartbeat nor stop. A wait that blocks the context
/// (`ctx.wait`) needs [`Pulse::protect`].
pub trait Child: Actor<Context = Context<Self>> {
    /// Small serialisable state for `/v1/actors`, `status` and tests.
    fn observe(&self) -> Value;

    /// The supervisor asks the child to end; it must stop its context within its shutdown
    /// deadline. The default ends at once.
    fn stop(&mut self, ctx: &mut Context<Self>) {
        use actix::ActorContext;
        ctx.stop();
    }
}

/// When a child that ended is started again.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    Permanent,
    /// Only after a failure.
    Transient,
    Temporary,
}

/// Which thread (arbiter) the child's context runs on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Lane {
    /// Health, admin, edge monitor: nothing here parses what comes from the network.
    Control,
    /// Ledger, prices, tap.
    Work,
}
