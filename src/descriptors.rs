//! How many descriptors a process of ours may have. Its caller's soft limit is often a low one: 256 in a
//! shell of macOS, 1024 on Linux.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What macOS always allows, also where the hard limit is "unlimited".
pub const MANY: u64 = 10_240;
/// What a process needs besides its connections: files, the database, look-ups.
const OTHERS: u64 = 128;
/// To the client, and to the provider.
const PER_CONNECTION: u64 = 2;

/// Asks for as many as there may be.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if !set(limit.maximum, limit.maximum) && limit.current.is_some_and(|now| now < MANY) {
        set(Some(MANY), limit.maximum);
    }
}

/// Asks for [`MANY`] at most: the tools that this process starts get its limit too, and some of them
/// close each number below it one by one.
pub fn raise_to_many() {
    let limit = getrlimit(Resource::Nofile);
    if let Some(wanted) = within_many(limit.current, limit.maximum) {
        set(Some(wanted), limit.maximum);
    }
}

/// How many connections fit, before the kernel has to say that no descriptor is left.
#[must_use]
pub fn connections(at_most: usize) -> usize {
    room(getrlimit(Resource::Nofile).current, at_most)
}

fn set(current: Option<u64>, maximum: Option<u64>) -> bool {
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).is_ok()
}

/// `None`: it has as many, or can't have more.
fn within_many(current: Option<u64>, maximum: Option<u64>) -> Option<u64> {
    let wanted = maximum.map_or(MANY, |most| most.min(MANY));
    current.filter(|now| *now < wanted).map(|_| wanted)
}

fn room(limit: Option<u64>, at_most: usize) -> usize {
    let Some(limit) = limit else { return at_most };
    let fit = limit.saturating_sub(OTHERS) / PER_CONNECTION;
    // Few others may be open: a small number is worth a try.
    usize::try_from(fit).unwrap_or(at_most).clamp(1, at_most)
}

/// For tests of what happens when there are none.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    const VAR: &str = "HALTON_METER_TEST_ALONE";

    /// Limits are a process's: runs the test of this name by itself. True there, where it is to go on.
    pub(crate) fn alone(test: &str) -> bool {
        if std::env::var_os(VAR).is_some() {
            return true;
        }
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture"]).env(VAR, "1");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
        false
    }

    /// Those that are open stay; no other is to be had until this is dropped.
    pub(crate) struct NoneLeft(Rlimit);

    pub(crate) fn none_left() -> NoneLeft {
        let before = getrlimit(Resource::Nofile);
        assert!(set(Some(0), before.maximum));
        NoneLeft(before)
    }

    impl Drop for NoneLeft {
        fn drop(&mut self) {
            set(self.0.current, self.0.maximum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raised_to_the_hard_limit_and_never_lowered() {
        assert_eq!(within_many(Some(256), None), Some(MANY));
        assert_eq!(within_many(Some(1024), Some(524_288)), Some(MANY));
        assert_eq!(within_many(Some(256), Some(4096)), Some(4096));
        assert_eq!(within_many(Some(4096), Some(4096)), None);
        assert_eq!(within_many(Some(524_288), Some(524_288)), None);
        assert_eq!(within_many(None, None), None);
    }

    #[test]
    fn connections_end_before_descriptors_do() {
        assert_eq!(room(Some(MANY), 4096), 4096);
        assert_eq!(room(Some(1024), 4096), 448);
        assert_eq!(room(Some(256), 4096), 64);
        assert_eq!(room(Some(20), 4096), 1);
        assert_eq!(room(None, 4096), 4096);
    }
}
