//! The admin API on 127.0.0.1: the daemon's face to the CLI, the watchdog, the edge and people.
//!
//! The listening socket outlives the actor, so a restart refuses nobody. A port that another
//! program holds is no reason to end: the API is away, requests pass raw, and we try again.

pub mod auth;
mod bypass;
mod dashboard;
mod document;
pub mod dto;
pub mod metrics;
mod money;
mod places;
mod port;
pub mod problem;
mod projects;
mod reads;
pub mod routes;
mod rows;
mod server;
pub mod session;
pub mod sse;
#[cfg(test)]
mod tests;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use serde_json::{Value, json};

pub use port::Port;
pub use routes::Api;
use server::Server;

use super::ask;
use crate::beat;
use crate::supervisor::journal::Note;
use crate::supervisor::{Birth, Child};

/// Between two attempts to bind a port that somebody else holds.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often the actor asks its own port, unless somebody has been answered meanwhile, and how many
/// misses mean that the server is stuck.
const SELF_CHECK: Duration = Duration::from_secs(5);
const SELF_PATIENCE: Duration = Duration::from_secs(2);
const SELF_MISSES: u32 = 3;

/// The actor.
pub struct Admin {
    birth: Birth,
    api: Arc<Api>,
    port: Port,
    server: Option<Server>,
    stopping: bool,
    retry: Duration,
    fault: Option<String>,
    misses: u32,
    /// Answers at the last look.
    answered: u64,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("fault", &self.fault).finish_non_exhaustive()
    }
}

impl Admin {
    #[must_use]
    pub fn new(birth: Birth, api: Arc<Api>, port: Port) -> Self {
        Self {
            birth,
            api,
            port,
            server: None,
            stopping: false,
            retry: RETRY_FIRST,
            fault: None,
            misses: 0,
            answered: 0,
        }
    }

    fn listen(&mut self, ctx: &mut Context<Self>) {
        match self.port.take().and_then(|listener| self.serve(listener, ctx)) {
            Ok(()) => {
                if self.fault.take().is_some() {
                    slog::info!(self.birth.log(), "listening after all"; "address" => %self.port.addr());
                    self.api.journal.append(Note::new("api_available"));
                }
            }
            Err(e) => {
                let holder = crate::platform::listener_on(self.port.addr());
                let fault = match (e.kind(), holder) {
                    (io::ErrorKind::AddrInUse, Some(who)) => format!("held by {who}"),
                    (io::ErrorKind::AddrInUse, None) => "held by another program".to_owned(),
                    _ => e.to_string(),
                };
                if self.fault.as_ref() != Some(&fault) {
                    slog::error!(self.birth.log(), "no admin API; requests pass, unmetered";
                        "address" => %self.port.addr(), "fault" => &fault);
                    self.api.journal.append(Note::new("api_unavailable").cause(&fault));
                    self.fault = Some(fault);
                }
                ctx.run_later(self.retry, Self::listen);
                self.retry = (self.retry * 2).min(RETRY_MAX);
            }
        }
    }

    fn serve(&mut self, listener: TcpListener, ctx: &mut Context<Self>) -> io::Result<()> {
        self.api.set_port(self.port.addr().port());
        let (server, ended) = Server::start(listener, Arc::clone(&self.api))?;
        self.server = Some(server);
        ctx.spawn(ended.into_actor(self).map(|_, actor, ctx| {
            if actor.stopping {
                ctx.stop();
            } else {
                actor.birth.fail("the HTTP server ended");
            }
        }));
        Ok(())
    }

    fn check_self(&mut self, ctx: &mut Context<Self>) {
        let answered = self.api.answered.load(Ordering::Relaxed);
        let busy = std::mem::replace(&mut self.answered, answered) != answered;
        if self.server.is_none() || busy {
            self.misses = 0;
            return;
        }
        let question = ask::get(self.port.addr(), "/health", SELF_PATIENCE);
        ctx.spawn(question.into_actor(self).map(|answer, actor, _| {
            actor.misses = if answer.is_ok() { 0 } else { actor.misses + 1 };
            if actor.misses >= SELF_MISSES {
                actor.birth.fail("its own port does not answer");
            }
        }));
    }
}

impl Actor for Admin {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.listen(ctx);
        beat::keep(ctx, SELF_CHECK, Self::check_self);
        self.birth.ready();
    }
}

impl Child for Admin {
    fn observe(&self) -> Value {
        json!({ "address": self.port.addr(), "listening": self.server.is_some(), "fault": self.fault })
    }

    fn stop(&mut self, ctx: &mut Context<Self>) {
        self.stopping = true;
        match &self.server {
            Some(server) => server.stop(),
            None => ctx.stop(),
        }
    }
}
