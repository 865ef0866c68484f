//! A new program in place of this one, in the same process: `execve`, with the listening socket and
//! every live connection kept.
//!
//! Nothing is lost on the way: the new program must pass a preflight first; then the connections
//! that are between two stages get there; then all is written down between two polls, and the image
//! is replaced. Whatever fails, the old image goes on as it was. Metered connections live in the
//! daemon and notice nothing.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use super::serve::Shared;
use super::signals::Signals;
pub use super::takeover::FORMAT;
use super::takeover::{self, State};
use super::tunnels::Rest;
use crate::home::{Home, PidLock};
use crate::inherit;
use crate::threads;

/// For connections between two stages. Longer than an answer of ours lingers.
const SETTLE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(2);

/// What became of upgrades.
#[derive(Debug)]
pub struct Record {
    image: u64,
    refusal: RefCell<Option<Refusal>>,
}

/// Why the last one was not done.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    pub at: Timestamp,
    pub why: String,
}

impl Record {
    #[must_use]
    pub fn new(image: u64) -> Self {
        Self { image, refusal: RefCell::default() }
    }

    /// Images that this process has had, this one included.
    #[must_use]
    pub fn image(&self) -> u64 {
        self.image
    }

    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.borrow().clone()
    }

    pub fn refused(&self, why: &str) {
        let refusal = Refusal { at: Timestamp::now(), why: why.to_owned() };
        self.refusal.replace(Some(refusal));
    }
}

/// Asks a program whether it can take over from this one.
///
/// # Errors
/// Why it can't.
pub async fn preflight(program: &Path) -> Result<(), String> {
    let program = program.to_path_buf();
    let asked = threads::blocking(move || inherit::preflight(&program, "edge", FORMAT)).await;
    asked.unwrap_or_else(|e| Err(e.to_string()))
}

/// Replaces the image. The caller accepts nothing meanwhile. Returns only if that failed; then
/// everything goes on.
pub async fn replace(
    shared: &Rc<Shared>,
    home: &Home,
    program: &Path,
    listener: BorrowedFd<'_>,
    lock: &PidLock,
    signals: &Signals,
) -> String {
    let mut state = match inherit::state_file(&home.run_dir()) {
        Ok(file) => file,
        Err(e) => return format!("the state can't be written: {e}"),
    };
    shared.health.withdraw();
    let error = if settle(shared).await {
        let tunnels = shared.tunnels.rest();
        let error = exec(shared, &tunnels, program, listener, lock, &mut state, signals);
        takeover::keep(&shared.live, &tunnels);
        error.to_string()
    } else {
        "connections did not come to rest".to_owned()
    };
    let _ = inherit::leave(listener, false);
    shared.health.resume();
    error
}

/// No offer is out, no answer of ours on its way, no line unwritten.
async fn settle(shared: &Shared) -> bool {
    let start = Instant::now();
    let rest = async {
        while !shared.live.is_settled() || !shared.spool.is_idle() || shared.live.any_stays() {
            // A spool that can't be written must not keep us from it for ever; what can't go on in
            // the next image does, and who asked is told why.
            if shared.live.is_settled() && start.elapsed() > SETTLE / 2 {
                break;
            }
            sleep(LOOK).await;
        }
    };
    timeout(SETTLE, rest).await.is_ok()
}

/// From here to `execve` no other task runs, and no tunnel moves.
fn exec(
    shared: &Shared,
    tunnels: &Rest<'_>,
    program: &Path,
    listener: BorrowedFd<'_>,
    lock: &PidLock,
    state: &mut File,
    signals: &Signals,
) -> io::Error {
    // Closed again if this fails.
    let lock = lock.handle();
    let packed = (|| {
        let listener = inherit::leave(listener, true)?;
        let lock = lock?;
        let number = lock.as_ref().map(|lock| inherit::leave(lock, true)).transpose()?;
        let image = shared.upgrades.image() + 1;
        let totals = shared.counters.totals();
        let content = State::pack(listener, number, image, totals, &shared.live, tunnels)?;
        Ok((content, lock))
    })();
    match packed {
        Ok((content, _lock)) => {
            let told = || signals.is_end_pending();
            inherit::replace(program, std::env::args_os().skip(1), state, &content, told)
        }
        Err(e) => e,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::testing::alone;

    #[tokio::test]
    async fn without_a_thread_to_ask_on_it_is_refused() {
        if !alone("edge::upgrade::tests::without_a_thread_to_ask_on_it_is_refused") {
            return;
        }
        let _none_left = threads::testing::none_left();
        let why = preflight(Path::new("/bin/true")).await.unwrap_err();
        assert_eq!(why, threads::none().to_string());
    }
}
