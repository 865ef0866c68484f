//! Owns the tap: the control socket that the edge connects to, and the runtime of the byte pumps.
//!
//! The socket outlives the actor. What can go wrong in setting up (no authority, no socket) is no
//! crash: the tap is away, `/health` says why, requests pass raw, and we try again.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, SpawnHandle, WrapFuture};
use arc_swap::ArcSwap;
use serde_json::{Value, json};
use slog::Logger;
use uuid::Uuid;

use super::meter::Meter;
use crate::config::Config;
use crate::descriptors;
use crate::home::Home;
use crate::meter::tap::{Limits, ProbeError, Tap, TapDeps};
use crate::supervisor::{Birth, Child};
use crate::threads;

/// The control socket, bound once per process (again if its file is gone). Clones share.
///
/// Whoever makes one holds the daemon's lock: a socket file that lies there is nobody's.
#[derive(Clone, Debug)]
pub struct Door(Arc<State>);

#[derive(Debug)]
struct State {
    path: PathBuf,
    instance: Uuid,
    canary: Option<Arc<OwnedFd>>,
    bound: Mutex<Option<Bound>>,
}

#[derive(Debug)]
struct Bound {
    socket: UnixListener,
    /// Device and inode of the file that leads to it.
    file: (u64, u64),
}

impl Door {
    #[must_use]
    pub fn new(home: &Home, instance: Uuid, canary: Option<OwnedFd>) -> Self {
        Self(Arc::new(State {
            path: home.control_socket(),
            instance,
            canary: canary.map(Arc::new),
            bound: Mutex::new(None),
        }))
    }

    /// Names this daemon to the edge.
    #[must_use]
    pub fn instance(&self) -> Uuid {
        self.0.instance
    }

    /// A descriptor of the socket; binds it if that has not happened.
    pub fn take(&self) -> io::Result<UnixListener> {
        let mut bound = self.0.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bound) = &*bound
            && identity(&self.0.path).ok() == Some(bound.file)
        {
            return bound.socket.try_clone();
        }
        match fs::remove_file(&self.0.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        let socket = UnixListener::bind(&self.0.path)?;
        fs::set_permissions(&self.0.path, Permissions::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        let copy = socket.try_clone()?;
        *bound = Some(Bound { socket, file: identity(&self.0.path)? });
        Ok(copy)
    }

    /// Whether its file still leads to the socket. Reads the file system.
    fn is_open(&self) -> bool {
        let bound = self.0.bound.lock().unwrap_or_else(PoisonError::into_inner);
        bound.as_ref().is_some_and(|b| identity(&self.0.path).ok() == Some(b.file))
    }

    /// Takes the socket away for good.
    pub fn close(&self) {
        let mut bound = self.0.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bound) = bound.take()
            && identity(&self.0.path).ok() == Some(bound.file)
        {
            let _ = fs::remove_file(&self.0.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()))
}

/// Between two attempts to set the tap up.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How often the actor asks its own tap once it is suspected, and how many misses mean that it is
/// stuck.
const SELF_CHECK: Duration = Duration::from_secs(2);
const SELF_PATIENCE: Duration = Duration::from_secs(1);
const SELF_MISSES: u32 = 3;

/// What the actor finds when it asks its own tap.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Found {
    Fine,
    /// We could not ask.
    Unknown,
    Stuck,
    NoSocket,
}

/// `open`: the socket's file leads to it.
fn found(answer: &Result<Duration, ProbeError>, open: bool) -> Found {
    match answer {
        Ok(_) => Found::Fine,
        Err(ProbeError::Shortage) => Found::Unknown,
        Err(
            ProbeError::Timeout
            | ProbeError::Channel(_)
            | ProbeError::Closed
            | ProbeError::Foreign
            | ProbeError::Lost,
        ) => {
            if open {
                Found::Stuck
            } else {
                Found::NoSocket
            }
        }
    }
}

/// An offer too many is declined; where descriptors run out, much else fails first.
fn limits() -> Limits {
    let most = Limits::default();
    Limits { connections: descriptors::connections(most.connections), ..most }
}

/// The actor.
#[derive(Debug)]
pub struct TapActor {
    birth: Birth,
    parts: TapParts,
    retry: Duration,
    fault: Option<String>,
    accepting: Option<SpawnHandle>,
    /// Writes down who stays raw.
    keeping: Option<SpawnHandle>,
    /// A set-up is under way, or the next attempt at one is due.
    setting_up: bool,
    misses: u32,
}

/// What the actor is made of.
#[derive(Clone, Debug)]
pub struct TapParts {
    pub home: Home,
    pub config: Arc<ArcSwap<Config>>,
    pub meter: Meter,
    pub door: Door,
    pub log: Logger,
}

impl TapParts {
    /// The socket, and the tap of the last generation if there is one: its connections live on.
    /// Reads files. Somebody may have deleted all of them, directories too.
    fn make(&self) -> Result<(Arc<Tap>, UnixListener), String> {
        self.home.create().map_err(|e| e.to_string())?;
        let socket = self.door.take().map_err(|e| format!("control socket: {e}"))?;
        if let Some(tap) = self.meter.tap() {
            return Ok((tap, socket));
        }
        let config = self.config.load_full();
        let keys = self.meter.keys(&self.home, &config, &self.log).map_err(|e| e.to_string())?;
        let tap = Tap::new(TapDeps {
            home: self.home.clone(),
            instance: self.door.instance(),
            canary: self.door.0.canary.clone(),
            config: Arc::clone(&self.config),
            ca: Arc::clone(&keys.ca),
            trust: Arc::clone(&keys.trust),
            sink: self.meter.sink(),
            book: self.meter.book(),
            register: self.meter.register(),
            bypass: Arc::clone(self.meter.bypass(&self.home, &self.log).list()),
            limits: limits(),
            log: self.log.clone(),
        });
        Ok((tap.map_err(|e| e.to_string())?, socket))
    }
}

impl TapActor {
    #[must_use]
    pub fn new(birth: Birth, parts: TapParts) -> Self {
        Self {
            birth,
            parts,
            retry: RETRY_FIRST,
            fault: None,
            accepting: None,
            keeping: None,
            setting_up: false,
            misses: 0,
        }
    }

    /// Not on this thread, as it reads files. One at a time, however many reasons there are.
    fn set_up(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.setting_up, true) {
            return;
        }
        let parts = self.parts.clone();
        let made = threads::blocking(move || parts.make());
        ctx.spawn(made.into_actor(self).map(|made, actor, ctx| {
            match made.unwrap_or_else(|e| Err(format!("setting up: {e}"))) {
                Ok((tap, socket)) => actor.serve(tap, socket, ctx),
                Err(fault) => actor.try_later(fault, ctx),
            }
            actor.birth.ready();
        }));
    }

    fn serve(&mut self, tap: Arc<Tap>, socket: UnixListener, ctx: &mut Context<Self>) {
        (self.fault, self.retry, self.setting_up) = (None, RETRY_FIRST, false);
        self.parts.meter.publish_tap(Arc::clone(&tap));
        let serve =
            tap.serve(socket).into_actor(self).map(|ended, actor, _: &mut Context<Self>| {
                actor.birth.fail(match ended {
                    Ok(()) => "the accept loop ended".to_owned(),
                    Err(e) => format!("the accept loop ended: {e}"),
                });
            });
        self.accepting = Some(ctx.spawn(serve));
        if self.keeping.is_none()
            && let Some(file) = self.parts.meter.known_bypass().cloned()
        {
            self.keeping = Some(ctx.spawn(file.keep().into_actor(self)));
        }
    }

    /// The health actor asks the tap anyhow, at least every 2 s: at rest its failures are enough.
    fn await_suspicion(&mut self, ctx: &mut Context<Self>) {
        let meter = self.parts.meter.clone();
        let suspected = async move { meter.tap_suspected().await };
        ctx.spawn(suspected.into_actor(self).map(|(), actor, ctx| actor.check_self(ctx)));
    }

    /// A tap that does not accept any more is as good as a crashed one.
    fn check_self(&mut self, ctx: &mut Context<Self>) {
        let Some(tap) = self.parts.meter.tap() else { return self.await_suspicion(ctx) };
        let door = self.parts.door.clone();
        let question = async move {
            let answer = tap.probe(SELF_PATIENCE).await;
            let open =
                answer.is_ok() || threads::blocking(move || door.is_open()).await.unwrap_or(true);
            found(&answer, open)
        };
        ctx.spawn(question.into_actor(self).map(|found, actor, ctx| match found {
            Found::Fine => {
                actor.misses = 0;
                actor.await_suspicion(ctx);
            }
            Found::Unknown => {
                ctx.run_later(SELF_CHECK, Self::check_self);
            }
            // Somebody emptied the run directory: no reason to wait, or to lose the tap.
            Found::NoSocket => {
                if let Some(accepting) = actor.accepting.take() {
                    slog::warn!(
                        actor.birth.log(),
                        "the control socket's file is gone, binding anew"
                    );
                    ctx.cancel_future(accepting);
                }
                actor.set_up(ctx);
                ctx.run_later(SELF_CHECK, Self::check_self);
            }
            Found::Stuck => {
                actor.misses += 1;
                ctx.run_later(SELF_CHECK, Self::check_self);
                if actor.misses == SELF_MISSES {
                    actor.parts.meter.retire_tap();
                    actor.birth.fail("its accept path does not answer");
                }
            }
        }));
    }

    fn try_later(&mut self, fault: String, ctx: &mut Context<Self>) {
        if self.fault.as_ref() != Some(&fault) {
            slog::error!(self.birth.log(), "no tap; requests pass, unmetered"; "fault" => &fault);
            self.fault = Some(fault);
        }
        ctx.run_later(self.retry, |actor, ctx| {
            actor.setting_up = false;
            actor.set_up(ctx);
        });
        self.retry = (self.retry * 2).min(RETRY_MAX);
    }
}

impl Actor for TapActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.set_up(ctx);
        self.await_suspicion(ctx);
    }
}

impl Child for TapActor {
    fn observe(&self) -> Value {
        json!({
            "fault": self.fault,
            "tap": self.parts.meter.tap().map(|tap| tap.snapshot()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn who_lacks_descriptors_is_not_stuck() {
        assert_eq!(found(&Ok(Duration::ZERO), true), Found::Fine);
        assert_eq!(found(&Err(ProbeError::Timeout), true), Found::Stuck);
        assert_eq!(found(&Err(ProbeError::Timeout), false), Found::NoSocket);
        assert_eq!(found(&Err(ProbeError::Shortage), true), Found::Unknown);
        assert_eq!(found(&Err(ProbeError::Shortage), false), Found::Unknown);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_the_new_one_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let path = home.control_socket();
        drop(UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());

        let door = Door::new(&home, Uuid::new_v4(), None);
        drop(door.take().unwrap());
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // The same socket again: who waits in its queue is not turned away.
        drop(door.take().unwrap());
        UnixStream::connect(&path).unwrap();
        // Its file was lost, as when somebody empties the run directory.
        fs::remove_file(&path).unwrap();
        drop(door.take().unwrap());
        UnixStream::connect(&path).unwrap();
        door.close();
        assert!(!path.exists());
    }
}
