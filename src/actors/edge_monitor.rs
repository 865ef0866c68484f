//! Watches the edge process from the daemon's side: does it live, and what does it say of itself.
//!
//! It never touches the edge: starting it is the root's business.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ask::{self, AskError};
use super::wish::Wish;
use crate::beat;
use crate::home::{Home, PidLock};
use crate::supervisor::{Birth, Child};

/// Between two looks as long as nobody wants to know; more often while it does not answer.
const INTERVAL: Duration = Duration::from_secs(10);
const INTERVAL_WHEN_WRONG: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(1);
/// How long who wants to know waits for a look.
const RENEWAL: Duration = Duration::from_millis(250);

/// What was seen of the edge last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EdgeSeen {
    pub at: Option<Timestamp>,
    /// The live process that holds the edge's lock.
    pub pid: Option<u32>,
    /// Its own status; `None`: it said nothing, or somebody else answered.
    pub status: Option<Value>,
    pub fault: Option<String>,
}

/// Where the actor publishes. Clones share.
#[derive(Clone, Debug, Default)]
pub struct Board {
    seen: Arc<ArcSwap<EdgeSeen>>,
    wish: Arc<Wish>,
}

impl Board {
    #[must_use]
    pub fn read(&self) -> Arc<EdgeSeen> {
        self.seen.load_full()
    }

    /// What a look right now sees, unless the edge takes too long.
    pub async fn renewed(&self) -> Arc<EdgeSeen> {
        self.wish.renew(RENEWAL).await;
        self.read()
    }
}

/// Pid and answer, put together: an answer counts only when it is the lock's holder who speaks.
#[must_use]
pub fn fold(pid: Option<u32>, answer: Result<(u16, Value), AskError>, at: Timestamp) -> EdgeSeen {
    let (status, fault) = match (pid, answer) {
        (None, Err(AskError::Refused)) => (None, Some("not running".to_owned())),
        (None, Ok(_) | Err(AskError::Timeout | AskError::Broken | AskError::Foreign)) => {
            (None, Some("not running; another program holds its port".to_owned()))
        }
        (Some(pid), Ok((_, body)))
            if body.get("pid").and_then(Value::as_u64) == Some(u64::from(pid)) =>
        {
            (Some(body), None)
        }
        (Some(_), Ok(_)) => (None, Some(AskError::Foreign.to_string())),
        (Some(_), Err(e)) => (None, Some(e.to_string())),
    };
    EdgeSeen { at: Some(at), pid, status, fault }
}

/// The actor.
#[derive(Debug)]
pub struct EdgeMonitor {
    birth: Birth,
    board: Board,
    home: Home,
    addr: SocketAddr,
}

impl EdgeMonitor {
    #[must_use]
    pub fn new(birth: Birth, board: Board, home: Home, addr: SocketAddr) -> Self {
        Self { birth, board, home, addr }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let (lock, addr) = (self.home.pid_file("edge"), self.addr);
        let question = async move {
            let answer = ask::get(addr, "/health", PATIENCE).await;
            fold(PidLock::holder(&lock).ok().flatten(), answer, Timestamp::now())
        };
        ctx.spawn(question.into_actor(self).map(|seen, actor, ctx| {
            let before = actor.board.seen.swap(Arc::new(seen.clone()));
            actor.board.wish.fulfil();
            if (before.pid, &before.fault) != (seen.pid, &seen.fault) {
                slog::info!(actor.birth.log(), "edge"; "pid" => seen.pid, "fault" => &seen.fault);
            }
            actor.rest(if seen.fault.is_none() { INTERVAL } else { INTERVAL_WHEN_WRONG }, ctx);
        }));
    }

    fn rest(&mut self, time: Duration, ctx: &mut Context<Self>) {
        let board = self.board.clone();
        let rest = async move { board.wish.rest(Instant::now() + beat::until(time)).await };
        ctx.spawn(rest.into_actor(self).map(|(), actor, ctx| actor.look(ctx)));
    }
}

impl Actor for EdgeMonitor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.birth.ready();
        self.look(ctx);
    }
}

impl Child for EdgeMonitor {
    fn observe(&self) -> Value {
        let seen = self.board.read();
        json!({ "pid": seen.pid, "fault": seen.fault })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lock_holder_speaks_for_the_edge() {
        let answer = |pid: u32| Ok((200, json!({ "pid": pid })));
        let see = |pid, answer| {
            let seen = fold(pid, answer, Timestamp::UNIX_EPOCH);
            (seen.status.is_some(), seen.fault)
        };
        assert_eq!(see(Some(7), answer(7)), (true, None));
        assert_eq!(see(Some(7), answer(8)), (false, Some("the answer is not ours".into())));
        assert_eq!(see(Some(7), Err(AskError::Timeout)), (false, Some("no answer in time".into())));
        assert_eq!(see(None, Err(AskError::Refused)), (false, Some("not running".into())));
        let taken = Some("not running; another program holds its port".into());
        assert_eq!(see(None, answer(8)), (false, taken));
    }
}
