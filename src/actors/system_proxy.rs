//! The system proxy. The daemon leads it through the edge once that answers, if `init --full` put us in
//! charge, and takes it back when it ends. The watchdog takes it off when the daemon is gone.
//!
//! The platform's tool may hang. It runs on a thread of its own, which nobody waits for beyond his
//! patience: not a blocking task, as a runtime waits for those before it ends.

mod looks;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use looks::Looks;

use super::edge_monitor;
use crate::home::{Home, write_atomic};
use crate::platform::{self, SystemProxy};
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

/// The services it went off on; `None`: there was nothing to take off.
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

/// For the watchdog: it goes off wherever it leads to the edge. What leads elsewhere was never ours, and
/// nobody would put it back.
pub async fn off(home: Home, edge: SocketAddr, patience: Duration) -> Off {
    static BUSY: AtomicBool = AtomicBool::new(false);
    bounded(&BUSY, patience, move || leave(&*platform::system_proxy(), &home, edge)).await
}

fn leave(
    proxy: &dyn SystemProxy,
    home: &Home,
    edge: SocketAddr,
) -> Result<Option<Vec<String>>, String> {
    // A service that says nothing is ours if any is likely to be.
    let blind = home.proxy_managed().exists() || proxy.leads_to().contains(&edge.to_string());
    // What `init` led to a port that is no longer the configured one is as dead.
    let led = SystemState::read(home).and_then(|s| s.edge).filter(|led| *led != edge);
    let mut off = BTreeSet::new();
    for edge in [edge].into_iter().chain(led) {
        off.extend(proxy.off_where_it_leads_to(edge, blind).map_err(|e| e.to_string())?);
    }
    Ok(Some(off.into_iter().collect()).filter(|services: &Vec<_>| !services.is_empty()))
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
        // What we can't read we can't restore: then it goes off.
        let Ok(Some(found)) = proxy.read() else { return leave(&*proxy, &home, edge) };
        let was = SystemState::read(&home).and_then(|s| s.proxy).unwrap_or_default();
        let (mut names, mut steps) = (Vec::new(), Vec::new());
        for service in &found {
            let back = proxy.restore(edge, &was, std::slice::from_ref(service));
            names.extend((!back.is_empty()).then(|| service.name.clone()));
            steps.extend(back);
        }
        match perform(&steps) {
            Ok(()) => Ok(Some(names).filter(|names| !names.is_empty())),
            Err(_) => leave(&*proxy, &home, edge),
        }
    })
    .await
}

/// A network service by place and name: another location has services of its own with the same names.
type Known = BTreeSet<(String, String)>;

/// As long as the daemon lives: each network service is led through the edge once, when it is first
/// seen. Whoever takes it off later, a person or the watchdog, is not contradicted.
/// What `direct` says (rules for `NO_PROXY`) is reached without it.
pub async fn keep(
    home: Home,
    edge: SocketAddr,
    direct: Vec<&'static str>,
    seen: edge_monitor::Board,
    tell: impl Fn(Note),
) {
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
        let (known, home, direct) = (Arc::clone(&known), home.clone(), direct.clone());
        let on = bounded(&BUSY, ON, move || turn_on(edge, &direct, &known, &home)).await;
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
    direct: &[&str],
    known: &Mutex<Known>,
    home: &Home,
) -> Result<Option<Vec<String>>, String> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if *turn == Turn::Ended {
        return Ok(None);
    }
    let (proxy, managed) = (platform::system_proxy(), home.proxy_managed());
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let is_new = |place: &str, name: &str| !known.contains(&(place.to_owned(), name.to_owned()));
    let Some(found) = proxy.read_those(&is_new).map_err(|e| e.to_string())? else {
        return Ok(None);
    };
    // It may be gone since: `init` and `uninstall` take it away first.
    if !managed.exists() {
        return Ok(None);
    }
    let seen: Vec<_> = found.iter().map(|s| (s.place.clone(), s.name.clone())).collect();
    let before = SystemState::read(home).unwrap_or_default();
    let (state, new) = before.claim(edge, found);
    if new.is_empty() {
        // Nothing to keep either: an `init` that is being taken back must find the file as it was.
        known.extend(seen);
        return Ok(Some(Vec::new()));
    }
    if state != before {
        // What can't be put back is not changed.
        write_atomic(&home.system_state(), &state.to_json()).map_err(|e| e.to_string())?;
    }
    perform(&proxy.set(edge, direct, state.proxy.as_deref().unwrap_or_default(), &new))?;
    if !managed.exists() {
        // They took it away meanwhile, and may have been past some services before we were.
        let found = proxy.read().map_err(|e| e.to_string())?.unwrap_or_default();
        perform(&proxy.restore(edge, &new, &found))?;
        return Ok(None);
    }
    known.extend(seen);
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

    /// Leads to the edge or not; says what it was asked.
    struct Asked {
        leads: bool,
        asked: Mutex<Vec<(u16, bool)>>,
    }

    impl SystemProxy for Asked {
        fn off(&self) -> Result<Option<Vec<String>>, platform::SystemProxyError> {
            panic!("everybody's")
        }

        fn leads_to(&self) -> Vec<String> {
            self.leads.then(|| "127.0.0.1:8081".to_owned()).into_iter().collect()
        }

        fn off_where_it_leads_to(
            &self,
            edge: SocketAddr,
            blind: bool,
        ) -> Result<Vec<String>, platform::SystemProxyError> {
            self.asked.lock().unwrap().push((edge.port(), blind));
            Ok(Vec::new())
        }
    }

    #[test]
    fn only_who_is_in_charge_or_in_force_switches_off_what_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let edge = ([127, 0, 0, 1], 8081).into();
        let asked = |leads| {
            let proxy = Asked { leads, asked: Mutex::default() };
            assert_eq!(leave(&proxy, &home, edge), Ok(None));
            proxy.asked.into_inner().unwrap()
        };
        assert_eq!(asked(false), [(8081, false)]);
        assert_eq!(asked(true), [(8081, true)]);
        std::fs::write(home.proxy_managed(), "").unwrap();
        assert_eq!(asked(false), [(8081, true)]);
        let led = SystemState { edge: Some(([127, 0, 0, 1], 9090).into()), ..Default::default() };
        std::fs::write(home.system_state(), led.to_json()).unwrap();
        assert_eq!(asked(false), [(8081, true), (9090, true)], "another port since");
    }

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
