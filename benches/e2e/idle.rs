//! Tunnels that do nothing: what they hold.

use std::time::{Duration, Instant};

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
    /// Of the whole process tree.
    pub idle_cpu: Duration,
    pub watched: Duration,
}

/// Opens `n` connections with one request each, leaves them alone, closes them. `holder` is the
/// process whose memory is looked at.
pub async fn idle(subject: &Subject, holder: u32, n: usize, watch: Duration) -> Result<Held> {
    const OPENERS: usize = 8;
    let memory = || resident(holder).context("the process is gone");
    let before = memory()?;
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
    // What is done behind the answers has an end; then nothing is left to do.
    tokio::time::sleep(Duration::from_millis(800)).await;
    let at_n = memory()?;
    let (start, began) = (Sample::take(&subject.pids, subject.origin), Instant::now());
    tokio::time::sleep(watch).await;
    let used = start.until(&Sample::take(&subject.pids, subject.origin));
    let watched = began.elapsed();
    let tunnels = open.len() as u64;
    drop(open);
    tokio::time::sleep(Duration::from_millis(800)).await;
    let after = memory()?;
    Ok(Held { tunnels, before, at_n, after, idle_cpu: used.target, watched })
}
