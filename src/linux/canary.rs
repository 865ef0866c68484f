//! A thread that does nothing but die: who holds its descriptor hears of a killed process before the
//! kernel has taken that apart.
//!
//! Sockets are closed by the last thread of a process, after all of its memory has been given back:
//! milliseconds, in which whoever waits at the other end learns nothing. Each thread ends by itself,
//! though, and one that sleeps and was made early is among the first.

use std::os::fd::OwnedFd;
use std::thread;

use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// All that it needs; the C library wants some of it for itself.
const STACK: usize = 64 * 1024;

/// Starts one for this process. The descriptor reads as ready once the thread is no more. `None`: the
/// kernel has no descriptors of threads (before 6.9), or there is no room for one.
#[must_use]
pub fn start() -> Option<OwnedFd> {
    watched(|| {
        loop {
            thread::park();
        }
    })
}

fn watched(life: impl FnOnce() + Send + 'static) -> Option<OwnedFd> {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = thread::Builder::new().name("canary".to_owned()).stack_size(STACK);
    thread
        .spawn(move || {
            let _ = tell.send(of_thread(rustix::thread::gettid()));
            life();
        })
        .ok()?;
    told.recv().ok()?.ok()
}

/// `PIDFD_THREAD` has the value of `O_EXCL`.
fn of_thread(id: Pid) -> rustix::io::Result<OwnedFd> {
    pidfd_open(id, PidfdFlags::from_bits_retain(OFlags::EXCL.bits()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn ended(descriptor: &OwnedFd, patience: Duration) -> bool {
        let patience = Timespec::try_from(patience).unwrap();
        let mut fds = [PollFd::new(descriptor, PollFlags::IN)];
        poll(&mut fds, Some(&patience)).unwrap() == 1
    }

    #[test]
    fn the_end_of_a_thread_is_heard_while_its_process_lives_on() {
        let (end, until) = std::sync::mpsc::channel::<()>();
        let Some(descriptor) = watched(move || {
            let _ = until.recv();
        }) else {
            // Only an old kernel may say that.
            assert!(of_thread(rustix::thread::gettid()).is_err());
            return;
        };
        assert!(!ended(&descriptor, Duration::ZERO));
        drop(end);
        assert!(ended(&descriptor, Duration::from_secs(30)));
    }

    #[test]
    fn a_canary_lives_as_long_as_its_process() {
        let Some(descriptor) = start() else { return };
        assert!(!ended(&descriptor, Duration::ZERO));
    }
}
