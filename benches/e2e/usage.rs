//! What processes used while something was measured.

use std::time::{Duration, Instant};

use crate::platform::{cpu, machine_busy, waits};

/// Taken before and after.
#[derive(Clone, Debug)]
pub struct Sample {
    at: Instant,
    target: Duration,
    ours: Duration,
    machine: Option<Duration>,
    waits: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub struct Used {
    pub wall: Duration,
    pub target: Duration,
    /// Cores that neither target nor origin nor we used: above 0.2 or so, the cell was disturbed.
    pub foreign: Option<f64>,
    /// How often a thread of the target's had to be woken.
    pub wakeups: Option<u64>,
}

impl Sample {
    pub fn take(target: &[u32], origin: u32) -> Self {
        let sum = |pids: &[u32]| pids.iter().filter_map(|pid| cpu(*pid)).sum();
        Self {
            at: Instant::now(),
            target: sum(target),
            ours: sum(&[origin, std::process::id()]),
            machine: machine_busy(),
            waits: target.iter().map(|pid| waits(*pid)).sum(),
        }
    }

    pub fn until(&self, later: &Self) -> Used {
        let wall = later.at - self.at;
        let target = later.target.saturating_sub(self.target);
        let ours = later.ours.saturating_sub(self.ours);
        let foreign = self.machine.zip(later.machine).map(|(before, after)| {
            let rest = after.saturating_sub(before).saturating_sub(target + ours);
            rest.as_secs_f64() / wall.as_secs_f64()
        });
        let wakeups = self.waits.zip(later.waits).map(|(a, b)| b.saturating_sub(a));
        Used { wall, target, foreign, wakeups }
    }
}
