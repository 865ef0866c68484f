//! What a caller allows its programs to write and to compute (`ulimit -f`, `-t`, `-c`). How many
//! descriptors: [`crate::descriptors`].

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGXCPU, SIGXFSZ};

use crate::inherit;

/// Lets no limit end this process in the midst of its work: a write beyond it fails, as on a full disk, and
/// so is nobody's but ours.
pub fn outlive() {
    for signal in [SIGXFSZ, SIGXCPU].into_iter().filter(|signal| !inherit::ignored(*signal)) {
        // A handler that does nothing. Unlike a signal that is ignored it is gone in what we start: that
        // ends as it would without us.
        let _ = signal_hook::flag::register(signal, Arc::default());
    }
}

/// For what goes on when its caller has ended: as much as there may be. Of CPU time there is no more than
/// the hard limit for anybody; the kernel kills who has used it up.
pub fn raise() {
    for resource in [Resource::Fsize, Resource::Cpu] {
        let maximum = getrlimit(resource).maximum;
        // Always allowed.
        let _ = setrlimit(resource, Rlimit { current: maximum, maximum });
    }
}

/// A crash of this process writes no core file: there are keys in it, and what was said to models. What it
/// starts may ask for one again.
pub fn without_core() {
    let maximum = getrlimit(Resource::Core).maximum;
    // Always allowed.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum });
}

/// After so many seconds of CPU time each process is killed.
#[must_use]
pub fn cpu_seconds() -> Option<u64> {
    getrlimit(Resource::Cpu).maximum
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use rustix::io::Errno;
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::descriptors::testing::alone;

    fn soft(resource: Resource, current: u64) {
        let maximum = getrlimit(resource).maximum;
        setrlimit(resource, Rlimit { current: Some(current), maximum }).unwrap();
    }

    #[test]
    fn a_limit_fails_a_write_and_ends_nobody_but_what_is_started() {
        if !alone("limits::tests::a_limit_fails_a_write_and_ends_nobody_but_what_is_started") {
            return;
        }
        outlive();
        let mut file = tempfile::tempfile().unwrap();
        soft(Resource::Fsize, 4);
        let written = file.write_all(b"too much");
        let kill = |name: &str| {
            let status = Command::new("sh").args(["-c", &format!("kill -{name} $$")]).status();
            std::os::unix::process::ExitStatusExt::signal(&status.unwrap())
        };
        let ended = [kill("XFSZ"), kill("XCPU")];
        kill_process(getpid(), Signal::XCPU).unwrap();
        raise();
        assert_eq!(Errno::from_io_error(&written.unwrap_err()), Some(Errno::FBIG));
        assert_eq!(ended, [Some(SIGXFSZ), Some(SIGXCPU)]);
        let now = [Resource::Fsize, Resource::Cpu].map(getrlimit);
        assert!(now.iter().all(|limit| limit.current == limit.maximum), "{now:?}");
        file.write_all(b"as much as is wanted").unwrap();
    }

    #[test]
    fn no_core_is_written_by_this_process_and_by_what_wants_one_it_is() {
        if !alone("limits::tests::no_core_is_written_by_this_process_and_by_what_wants_one_it_is") {
            return;
        }
        let before = getrlimit(Resource::Core);
        without_core();
        let now = getrlimit(Resource::Core);
        assert_eq!((now.current, now.maximum), (Some(0), before.maximum));
        let asked = Command::new("sh").args(["-c", "ulimit -Sc \"$(ulimit -Hc)\""]).status();
        assert!(asked.unwrap().success());
    }
}
