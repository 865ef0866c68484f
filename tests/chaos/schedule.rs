//! Which failures come in which order, from a seed. Pure.

use std::time::Duration;

use crate::oracle::Failure;

/// splitmix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0..n
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// One failure, or two that overlap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    pub first: Failure,
    pub second: Option<Failure>,
    /// From the first blow to the second, and from the last one to the repair.
    pub between: Duration,
    pub hold: Duration,
}

impl Step {
    pub fn failures(&self) -> impl Iterator<Item = Failure> {
        std::iter::once(self.first).chain(self.second)
    }

    pub fn name(&self) -> String {
        self.failures().map(Failure::name).collect::<Vec<_>>().join(" + ")
    }
}

/// Endless: round after round with every failure in it once, in a new order.
#[derive(Clone, Debug)]
pub struct Schedule {
    random: Random,
    round: Vec<Failure>,
}

impl Schedule {
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), round: Vec::new() }
    }

    pub fn next_step(&mut self) -> Step {
        if self.round.is_empty() {
            self.round = Failure::ALL.to_vec();
            for i in (1..self.round.len()).rev() {
                let j = self.random.below(i as u64 + 1) as usize;
                self.round.swap(i, j);
            }
        }
        let first = self.round.pop().expect("filled above");
        let other = Failure::ALL[self.random.below(Failure::ALL.len() as u64) as usize];
        let overlap = self.random.below(3) == 0 && may_overlap(first, other);
        Step {
            first,
            second: overlap.then_some(other),
            between: self.random.millis(0, 400),
            hold: self.random.millis(300, 2_500),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Group {
    Process,
    /// Carried out, or repaired, by a command of ours, or what a command needs.
    Command,
    Ledger,
    Config,
    Provider,
}

fn group(failure: Failure) -> Group {
    match failure {
        Failure::DaemonKilled
        | Failure::DaemonFrozen
        | Failure::DaemonTerminated
        | Failure::EdgeKilled
        | Failure::EdgeFrozen
        | Failure::EdgeUpgraded
        | Failure::WatchdogKilled
        | Failure::SocketRemoved => Group::Process,
        Failure::StopStart
        | Failure::Restart
        | Failure::Upgrade
        | Failure::RootKilled
        | Failure::RootFrozen
        | Failure::Impostor => Group::Command,
        Failure::LedgerLocked | Failure::LedgerCorrupt | Failure::LedgerUnwritable => Group::Ledger,
        Failure::ConfigBroken => Group::Config,
        Failure::ProviderRefuses
        | Failure::ProviderStalls
        | Failure::ProviderResets
        | Failure::ProviderTruncates
        | Failure::ProviderCertificate => Group::Provider,
    }
}

/// Not: what cancels each other out, what no service of ours survives (edge and root at once: their
/// service manager's business), and what would make a command wait for its whole deadline.
fn may_overlap(a: Failure, b: Failure) -> bool {
    let both = [group(a), group(b)];
    let either = |f: Failure| a == f || b == f;
    both[0] != both[1]
        && !(both.contains(&Group::Config) && (both.contains(&Group::Command) || kills(a, b)))
        && !(either(Failure::RootKilled) && either(Failure::EdgeKilled))
        && !(both.contains(&Group::Command)
            && (either(Failure::DaemonFrozen) || either(Failure::EdgeFrozen)))
}

/// A process that starts with a broken file has its defaults: another port, and no test origin.
fn kills(a: Failure, b: Failure) -> bool {
    [a, b].iter().any(|f| {
        matches!(
            f,
            Failure::DaemonKilled
                | Failure::DaemonTerminated
                | Failure::EdgeKilled
                | Failure::EdgeUpgraded
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_storm_and_a_round_leaves_nothing_out() {
        let steps = |seed| {
            let mut schedule = Schedule::new(seed);
            (0..Failure::ALL.len()).map(|_| schedule.next_step()).collect::<Vec<_>>()
        };
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
        for seed in 0..50 {
            let mut firsts: Vec<_> = steps(seed).iter().map(|s| s.first).collect();
            firsts.sort();
            assert_eq!(firsts, Failure::ALL);
        }
        let overlaps = (0..50).flat_map(steps).filter(|s| s.second.is_some()).count();
        assert!(overlaps > 50, "{overlaps}");
    }

    #[test]
    fn overlaps_make_sense() {
        use Failure as F;
        assert!(may_overlap(F::DaemonKilled, F::ProviderStalls));
        assert!(may_overlap(F::RootKilled, F::DaemonKilled));
        assert!(may_overlap(F::StopStart, F::EdgeKilled));
        assert!(may_overlap(F::RootFrozen, F::EdgeKilled));
        for (a, b) in [
            (F::RootKilled, F::EdgeKilled),
            (F::StopStart, F::DaemonFrozen),
            (F::ConfigBroken, F::Restart),
            (F::ConfigBroken, F::DaemonKilled),
            (F::ProviderStalls, F::ProviderResets),
        ] {
            assert!(!may_overlap(a, b) && !may_overlap(b, a), "{a:?} {b:?}");
        }
    }
}
