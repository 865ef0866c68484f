//! Owns the tap: the control socket that the edge connects to, and the runtime of the byte pumps.
//!
//! The socket outlives the actor. What can go wrong in setting up (no authority, no socket) is no
//! crash: the tap is away, `/health` says why, requests pass raw, and we try again.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use arc_swap::ArcSwap;
use serde_json::{Value, json};
use uuid::Uuid;

use super::meter::Meter;
use crate::config::Config;
use crate::home::Home;
use crate::meter::tap::{Tap, TapDeps};
use crate::supervisor::{Birth, Child};

/// The control socket, bound once per process. Clones share.
///
/// Whoever makes one holds the daemon's lock: a socket file that lies there is nobody's.
#[derive(Clone, Debug)]
pub struct Door(Arc<State>);

#[derive(Debug)]
struct State {
    path: PathBuf,
    instance: Uuid,
    socket: Mutex<Option<UnixListener>>,
}

impl Door {
    #[must_use]
    pub fn new(home: &Home, instance: Uuid) -> Self {
        Self(Arc::new(State { path: home.control_socket(), instance, socket: Mutex::new(None) }))
    }

    /// Names this daemon to the edge.
    #[must_use]
    pub fn instance(&self) -> Uuid {
        self.0.instance
    }

    /// A descriptor of the socket; binds it if that has not happened.
    pub fn take(&self) -> io::Result<UnixListener> {
        let mut socket = self.0.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = &*socket {
            return socket.try_clone();
        }
        match fs::remove_file(&self.0.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        let bound = UnixListener::bind(&self.0.path)?;
        fs::set_permissions(&self.0.path, Permissions::from_mode(0o600))?;
        bound.set_nonblocking(true)?;
        let copy = bound.try_clone()?;
        *socket = Some(bound);
        Ok(copy)
    }

    /// Takes the socket away for good.
    pub fn close(&self) {
        let mut socket = self.0.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if socket.take().is_some() {
            let _ = fs::remove_file(&self.0.path);
        }
    }
}

/// Between two attempts to set the tap up.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The actor.
#[derive(Debug)]
pub struct TapActor {
    birth: Birth,
    meter: Meter,
    door: Door,
    home: Home,
    config: Arc<ArcSwap<Config>>,
    retry: Duration,
    fault: Option<String>,
}

impl TapActor {
    #[must_use]
    pub fn new(
        birth: Birth,
        meter: Meter,
        door: Door,
        home: Home,
        config: Arc<ArcSwap<Config>>,
    ) -> Self {
        Self { birth, meter, door, home, config, retry: RETRY_FIRST, fault: None }
    }

    /// Reads keys and roots from disk, so not on this thread.
    fn set_up(&mut self, ctx: &mut Context<Self>) {
        let (door, home) = (self.door.clone(), self.home.clone());
        let made = tokio::task::spawn_blocking(move || {
            let socket = door.take().map_err(|e| format!("control socket: {e}"))?;
            let tap = Tap::new(TapDeps { home }).map_err(|e| e.to_string())?;
            Ok((tap, socket))
        });
        ctx.spawn(made.into_actor(self).map(|made, actor, ctx| {
            match made.unwrap_or_else(|_| Err("setting up panicked".to_owned())) {
                Ok((tap, socket)) => actor.serve(tap, socket, ctx),
                Err(fault) => actor.try_later(fault, ctx),
            }
            actor.birth.ready();
        }));
    }

    fn serve(&mut self, tap: Arc<Tap>, socket: UnixListener, ctx: &mut Context<Self>) {
        self.fault = None;
        self.meter.publish_tap(Some(Arc::clone(&tap)));
        ctx.spawn(tap.serve(socket).into_actor(self).map(|ended, actor, _| {
            actor.birth.fail(match ended {
                Ok(()) => "the accept loop ended".to_owned(),
                Err(e) => format!("the accept loop ended: {e}"),
            });
        }));
    }

    fn try_later(&mut self, fault: String, ctx: &mut Context<Self>) {
        if self.fault.as_ref() != Some(&fault) {
            slog::error!(self.birth.log(), "no tap; requests pass, unmetered"; "fault" => &fault);
            self.fault = Some(fault);
        }
        ctx.run_later(self.retry, Self::set_up);
        self.retry = (self.retry * 2).min(RETRY_MAX);
    }
}

impl Actor for TapActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.set_up(ctx);
    }
}

impl Child for TapActor {
    fn observe(&self) -> Value {
        json!({ "fault": self.fault })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_the_new_one_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let path = home.control_socket();
        drop(UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());

        let door = Door::new(&home, Uuid::new_v4());
        drop(door.take().unwrap());
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // The same socket again: who waits in its queue is not turned away.
        assert!(door.take().is_ok());
        door.close();
        assert!(!path.exists());
    }
}
