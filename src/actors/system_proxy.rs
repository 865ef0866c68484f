//! The system proxy goes off: by the watchdog when the daemon is gone, by the daemon when it ends.
//!
//! The platform's tool may hang. It runs on a thread of its own, which nobody waits for beyond his
//! patience: not a blocking task, as a runtime waits for those before it ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::platform;
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

/// Takes it off on every active network service.
pub async fn off(patience: Duration) -> Off {
    static BUSY: AtomicBool = AtomicBool::new(false);
    bounded(&BUSY, patience, || platform::system_proxy().off().map_err(|e| e.to_string())).await
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
