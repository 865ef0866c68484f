//! Tunnels that do nothing: what they hold.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::client::{Conn, message};
use crate::load::Subject;
use crate::platform::resident;
use crate::usage::Sample;

#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub tunnels: u64,
    pub before: u64,
    pub at_n: u64,
    pub after: u64,
    /// CPU time per second of the whole process tree: without them, and with them.
    pub cpu_before: f64,
    pub cpu_at_n: f64,
    /// Wakeups per second of the same processes with them.
    pub wakeups_at_n: Option<f64>,
}

/// How often it is looked again when there still is something to do, at most.
const LOOKS: usize = 8;
/// Idle, as far as a share of a core tells.
const QUIET: f64 = 0.01;

/// Opens `n` connections with one request each, leaves them alone, closes them. `holder` is the
/// process whose memory is looked at, each time after `settle`.
pub async fn idle(
    subject: &Subject,
    holder: u32,
    n: usize,
    watch: Duration,
    settle: Duration,
) -> Result<Held> {
    const OPENERS: usize = 8;
    let memory = async || {
        tokio::time::sleep(settle).await;
        resident(holder).context("the process is gone")
    };
    // What is done behind the answers has an end; then nothing is left to do.
    let cpu = async || {
        let (mut share, mut wakeups) = (1.0, None);
        for _ in 0..LOOKS {
            let start = Sample::take(&subject.pids, subject.origin);
            tokio::time::sleep(watch).await;
            let used = start.until(&Sample::take(&subject.pids, subject.origin));
            share = used.target.as_secs_f64() / used.wall.as_secs_f64();
            wakeups = used.wakeups.map(|n| n as f64 / used.wall.as_secs_f64());
            if share < QUIET {
                break;
            }
        }
        (share, wakeups)
    };
    let (cpu_before, _) = cpu().await;
    let before = memory().await?;
    let mut openers = JoinSet::new();
    for opener in 0..OPENERS {
        let net = subject.net.clone();
        let mine = n / OPENERS + usize::from(opener < n % OPENERS);
        openers.spawn(async move {
            let request = message("");
            let mut open = Vec::with_capacity(mine);
            for _ in 0..mine {
                // A small buffer: these are our bytes, not the target's, but there are many.
                let mut conn = Conn::with_buffer(&net, 2048).await?;
                conn.exchange(&request).await?;
                open.push(conn);
            }
            anyhow::Ok(open)
        });
    }
    let mut open = Vec::with_capacity(n);
    while let Some(opened) = openers.join_next().await {
        open.extend(opened??);
    }
    let (cpu_at_n, wakeups_at_n) = cpu().await;
    let at_n = memory().await?;
    let tunnels = open.len() as u64;
    drop(open);
    tokio::time::sleep(Duration::from_millis(800)).await;
    let after = memory().await?;
    Ok(Held { tunnels, before, at_n, after, cpu_before, cpu_at_n, wakeups_at_n })
}
