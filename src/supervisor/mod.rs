//! Our own supervision, on actix's public API: a pure core ([`step`]) decides, a thin runner
//! executes. See `docs/supervision.md` for the guarantees.

use actix::{Actor, Context};

use serde_json::Value;

/// A supervised actor. `started` should be short; call [`Birth::ready`] when it can serve.
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
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
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
