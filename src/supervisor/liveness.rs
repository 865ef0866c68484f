//! Whether a child makes progress, and where it panicked.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Once};

/// A child's heartbeat. The runner beats from inside the child's context; a child beats itself
/// only in work that legitimately takes long.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    beats: AtomicU64,
    protected: AtomicUsize,
}

impl Pulse {
    pub fn beat(&self) {
        self.0.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// While the guard lives a missing beat is no failure: for a wait that is known to be long.
    #[must_use]
    pub fn protect(&self) -> Protected {
        self.0.protected.fetch_add(1, Ordering::AcqRel);
        Protected(self.clone())
    }

    pub(super) fn beats(&self) -> u64 {
        self.0.beats.load(Ordering::Relaxed)
    }

    pub(super) fn is_protected(&self) -> bool {
        self.0.protected.load(Ordering::Acquire) > 0
    }
}

/// See [`Pulse::protect`].
#[derive(Debug)]
pub struct Protected(Pulse);

impl Drop for Protected {
    fn drop(&mut self) {
        self.0.beat();
        self.0.0.protected.fetch_sub(1, Ordering::AcqRel);
    }
}

thread_local! {
    static SUPERVISED: Cell<bool> = const { Cell::new(false) };
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs one poll of a child, during which the panic hook notes the place and prints nothing: a
/// panic's text can hold data of the user's (a slice error quotes the string).
pub(super) fn supervised<T>(f: impl FnOnce() -> T) -> T {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            SUPERVISED.set(self.0);
        }
    }
    let _reset = Reset(SUPERVISED.replace(true));
    f()
}

/// Chains to the hook in place for everything that is not a supervised child.
pub(super) fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let other = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if SUPERVISED.try_with(Cell::get).unwrap_or(false) {
                let place = info.location().map(|l| format!("{}:{}", l.file(), l.line()));
                let _ = LOCATION.try_with(|slot| {
                    if let Ok(mut slot) = slot.try_borrow_mut() {
                        *slot = place;
                    }
                });
            } else {
                other(info);
            }
        }));
    });
}

/// What may be said of a panic: the place, and the text when it is a literal in the code.
pub(super) fn describe_panic(payload: &(dyn Any + Send)) -> String {
    let place = LOCATION
        .try_with(|slot| slot.try_borrow_mut().ok().and_then(|mut slot| slot.take()))
        .ok()
        .flatten()
        .unwrap_or_else(|| "unknown place".to_owned());
    match payload.downcast_ref::<&'static str>() {
        Some(text) => format!("{place}: {text}"),
        None => place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formatted_panic_text_is_not_repeated() {
        install_panic_hook();
        let secret = String::from("sk-secret");
        let payload =
            panic::catch_unwind(|| supervised(|| panic!("bad key {secret}"))).unwrap_err();
        let said = describe_panic(payload.as_ref());
        assert!(!said.contains("sk-secret"), "{said}");
        assert!(said.contains("liveness.rs:"), "{said}");
        let payload = panic::catch_unwind(|| supervised(|| panic!("plain"))).unwrap_err();
        assert!(describe_panic(payload.as_ref()).ends_with(": plain"));
    }

    #[test]
    fn protection_nests_and_ends_with_a_beat() {
        let pulse = Pulse::default();
        let (a, b) = (pulse.protect(), pulse.protect());
        drop(a);
        assert!(pulse.is_protected());
        drop(b);
        assert!(!pulse.is_protected());
        assert_eq!(pulse.beats(), 2);
    }
}
