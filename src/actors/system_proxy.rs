//! The system proxy. The daemon leads it through the edge once that answers, if `init --full` put us in
//! charge, and takes it back when it ends. The watchdog takes it off when the daemon is gone.
//!
//! The platform's tool may hang. It runs on a thread of its own, which nobody waits for beyond his
//! patience: not a blocking task, as a runtime waits for those before it ends.

mod looks;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use looks::Looks;

use super::edge_monitor;
use crate::home::Home;
use crate::platform;
use crate::setup::{self, Os, Step, SystemState};
use crate::supervisor::journal::Note;

/// Why it may still be on.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OffError {
    #[error("{0}")]
    Tool(String),
    #[error("the system's tool does not come to an end")]
    Hangs,
    #[error("the thread for it could not be started: {0}")]
    Thread(String),
}

/// The services it went off on; `None`: this platform has no such setting.
pub type Off = Result<Option<Vec<String>>, OffError>;

/// Between two looks whether the edge answers.
const EDGE_LOOK: Duration = Duration::from_millis(250);
/// What the platform's tool may take to turn it on.
const ON: Duration = Duration::from_secs(60);

/// Turning it on and taking it back don't overlap; the latter is the last word.
static TURN: Mutex<Turn> = Mutex::new(Turn::Open);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Turn {
    Open,
    Ended,
}

/// Takes it off on every active network service.
pub async fn off(patience: Duration) -> Off {
    static BUSY: AtomicBool = AtomicBool::new(false);
    bounded(&BUSY, patience, || platform::system_proxy().off().map_err(|e| e.to_string())).await
}

/// For the daemon's way out: what leads to the edge is as `init` found it. Nothing is touched that
/// leads elsewhere, and nothing at all where we are not in charge and nothing leads to us.
pub async fn take_back(home: Home, edge: SocketAddr, patience: Duration) -> Off {
    static BUSY: AtomicBool = AtomicBool::new(false);
    bounded(&BUSY, patience, move || {
        let mut turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        *turn = Turn::Ended;
        let proxy = platform::system_proxy();
        let leads_here = || proxy.leads_to().contains(&edge.to_string());
        if !home.proxy_managed().exists() && !leads_here() {
            return Ok(None);
        }
        // What we can't read we can't restore: then all of it goes off.
        let Ok(Some(found)) = proxy.read() else { return proxy.off().map_err(|e| e.to_string()) };
        let ours = found.iter().filter(|s| s.http.is(edge) || s.https.is(edge));
        let names = ours.map(|s| s.name.clone()).collect();
        let was = SystemState::read(&home).and_then(|s| s.proxy).unwrap_or_default();
        match perform(&proxy.restore(edge, &was, &found)) {
            Ok(()) => Ok(Some(names)),
            Err(_) => proxy.off().map_err(|e| e.to_string()),
        }
    })
    .await
}

/// A network service, in a place: another location has services of its own with the same names.
type Known = BTreeSet<(String, String)>;

/// As long as the daemon lives: each network service is led through the edge once, when it is first
/// seen. Whoever takes it off later, a person or the watchdog, is not contradicted.
pub async fn keep(home: Home, edge: SocketAddr, seen: edge_monitor::Board, tell: impl Fn(Note)) {
    static BUSY: AtomicBool = AtomicBool::new(false);
    if !platform::has_system_proxy() {
        return;
    }
    let (known, mut looks) = (Arc::new(Mutex::new(Known::new())), Looks::start());
    let mut last_failure = None;
    loop {
        while !home.proxy_managed().exists() || seen.read().status.is_none() {
            sleep(EDGE_LOOK).await;
        }
        let (known, managed) = (Arc::clone(&known), home.proxy_managed());
        let on = bounded(&BUSY, ON, move || turn_on(edge, &known, &managed)).await;
        let failure = on.as_ref().err().map(ToString::to_string);
        match &on {
            Ok(Some(services)) if !services.is_empty() => {
                let on = services.join(", ");
                tell(Note::new("system_proxy").cause(format!("system proxy leads here on {on}")));
            }
            Ok(_) => {}
            // The network is rebuilt after sleep: the next looks may do better. Said once.
            Err(e) if failure != last_failure => {
                looks.soon();
                let why = format!("system proxy could not be turned on: {e}");
                tell(Note::new("system_proxy").cause(why));
            }
            Err(_) => {}
        }
        last_failure = failure;
        looks.next().await;
    }
}

/// Services that are not known yet; gives their names.
fn turn_on(
    edge: SocketAddr,
    known: &Mutex<Known>,
    managed: &Path,
) -> Result<Option<Vec<String>>, String> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if *turn == Turn::Ended {
        return Ok(None);
    }
    let proxy = platform::system_proxy();
    let place = proxy.place().map_err(|e| e.to_string())?;
    let Some(mut new) = proxy.read().map_err(|e| e.to_string())? else { return Ok(None) };
    // It may be gone since: `init` and `uninstall` take it away first.
    if !managed.exists() {
        return Ok(None);
    }
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    new.retain(|service| !known.contains(&(place.clone(), service.name.clone())));
    perform(&proxy.set(edge, &new))?;
    if !managed.exists() {
        // They took it away meanwhile, and may have been past some services before we were.
        let found = proxy.read().map_err(|e| e.to_string())?.unwrap_or_default();
        perform(&proxy.restore(edge, &new, &found))?;
        return Ok(None);
    }
    known.extend(new.iter().map(|service| (place.clone(), service.name.clone())));
    Ok(Some(new.into_iter().map(|s| s.name).collect()))
}

/// Each of them, even if one fails.
fn perform(steps: &[Step]) -> Result<(), String> {
    let mut os = Os::default();
    let mut done = Ok(());
    for step in steps {
        done = done.and(setup::perform(&mut os, step).map_err(|e| e.to_string()));
    }
    done
}

/// What the journal says of it; nothing where there is nothing to take off.
#[must_use]
pub fn note(why: &str, off: &Off) -> Option<Note> {
    let text = match off {
        Ok(None) => return None,
        Ok(Some(services)) => format!("{why}; system proxy off on {}", services.join(", ")),
        Err(e) => format!("{why}; system proxy could not be taken off: {e}"),
    };
    Some(Note::new("system_proxy").cause(text))
}

/// `busy` is set for as long as a call runs, so that calls which hang don't pile up.
async fn bounded(
    busy: &'static AtomicBool,
    patience: Duration,
    call: impl FnOnce() -> Result<Option<Vec<String>>, String> + Send + 'static,
) -> Off {
    if busy.swap(true, Ordering::AcqRel) {
        return Err(OffError::Hangs);
    }
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("system-proxy".to_owned()).spawn(move || {
        let result = call();
        busy.store(false, Ordering::Release);
        let _ = tell.send(result);
    });
    if let Err(e) = thread {
        busy.store(false, Ordering::Release);
        return Err(OffError::Thread(e.to_string()));
    }
    match timeout(patience, told).await {
        Ok(Ok(result)) => result.map_err(OffError::Tool),
        Ok(Err(_)) => Err(OffError::Tool("it panicked".to_owned())),
        Err(_) => Err(OffError::Hangs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn a_tool_that_hangs_is_not_waited_for_and_not_called_twice() {
        static BUSY: AtomicBool = AtomicBool::new(false);
        let (release, released) = std::sync::mpsc::channel();
        let hang = move || {
            let () = released.recv().unwrap();
            Ok(None)
        };
        assert_eq!(bounded(&BUSY, MS, hang).await, Err(OffError::Hangs));
        let never = || panic!("two at once");
        assert_eq!(bounded(&BUSY, MS * 60_000, never).await, Err(OffError::Hangs));
        release.send(()).unwrap();
        while BUSY.load(Ordering::Acquire) {
            tokio::time::sleep(MS).await;
        }
        let fine = || Ok(Some(vec!["Wi-Fi".to_owned()]));
        let off = bounded(&BUSY, MS * 60_000, fine).await;
        let said = note("why", &off).unwrap().cause.unwrap();
        assert_eq!(said, "why; system proxy off on Wi-Fi");
        assert!(note("why", &Ok(None)).is_none());
    }
}
