//! The daemon dies, or freezes, under a steady load of new connections.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use crate::client::{Conn, Net, PATIENCE, message};
use crate::meter::{Meter, send};
use crate::stats::percentile;

/// One request on a connection of its own.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    began: Duration,
    ended: Duration,
    answered: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub requests: usize,
    /// Begun before the fault and ended after it: what was read and not answered dies with the
    /// process that read it.
    pub in_flight: usize,
    pub in_flight_lost: usize,
    pub begun_after: usize,
    /// Of those begun after it, and of those that were over before: each one is a failure of ours.
    pub lost: usize,
    /// From the fault to the end of the first answered request that began after it.
    pub first_success: Option<Duration>,
    pub slowest_after: Duration,
    pub p50_before: Option<Duration>,
    /// Of those that began when the first one had been answered.
    pub p50_following: Option<Duration>,
}

/// New connections per second.
const RATE: u32 = 50;

/// The load alone, as a measure for the others.
pub async fn steady(net: &Net, time: Duration) -> Result<Fault> {
    let attempts = load(net, time, Instant::now()).await?;
    Ok(judge(&attempts, Duration::MAX))
}

/// `KILL` or `STOP` to the daemon after a third of the time.
pub async fn fault(meter: &Meter, net: &Net, signal: Signal, time: Duration) -> Result<Fault> {
    let daemon = meter.pid("daemon").context("no daemon")?;
    let zero = Instant::now();
    let strike = async {
        tokio::time::sleep(time / 3).await;
        let at = zero.elapsed();
        send(daemon, signal)?;
        // Not when the next one happens to be due.
        let first = attempt(net.clone(), zero).await;
        if signal == Signal::STOP {
            // What it had read then gets its answer, unless the root has ended it already.
            sleep_until((zero + time).into()).await;
            let _ = send(daemon, Signal::CONT);
        }
        anyhow::Ok((first, at))
    };
    let (attempts, strike) = tokio::join!(load(net, time, zero), strike);
    let (mut attempts, (first, at)) = (attempts?, strike?);
    attempts.push(first);
    Ok(judge(&attempts, at))
}

/// Begins a request each time one is due, whether the others have ended or not.
async fn load(net: &Net, time: Duration, zero: Instant) -> Result<Vec<Attempt>> {
    let mut open = JoinSet::new();
    let due = (0_u32..).map(|number| Duration::from_secs(1) * number / RATE);
    for due in due.take_while(|due| *due < time) {
        sleep_until((zero + due).into()).await;
        open.spawn(attempt(net.clone(), zero));
    }
    let mut done = Vec::new();
    while let Some(attempt) = open.join_next().await {
        done.push(attempt?);
    }
    Ok(done)
}

async fn attempt(net: Net, zero: Instant) -> Attempt {
    let began = zero.elapsed();
    let exchange = async {
        let mut conn = Conn::open(&net).await?;
        conn.exchange(&message("")).await?;
        conn.close().await
    };
    let answered = matches!(timeout(PATIENCE, exchange).await, Ok(Ok(())));
    Attempt { began, ended: zero.elapsed(), answered }
}

fn judge(attempts: &[Attempt], at: Duration) -> Fault {
    let before: Vec<_> = attempts.iter().filter(|a| a.ended <= at).collect();
    let in_flight: Vec<_> = attempts.iter().filter(|a| a.began <= at && a.ended > at).collect();
    let after: Vec<_> = attempts.iter().filter(|a| a.began > at).collect();
    let lost = |of: &[&Attempt]| of.iter().filter(|a| !a.answered).count();
    let first = after.iter().filter(|a| a.answered).map(|a| a.ended).min();
    let following: Vec<_> =
        after.iter().filter(|a| first.is_some_and(|first| a.began > first)).copied().collect();
    Fault {
        requests: attempts.len(),
        in_flight: in_flight.len(),
        in_flight_lost: lost(&in_flight),
        begun_after: after.len(),
        lost: lost(&after) + lost(&before),
        first_success: first.map(|first| first - at),
        slowest_after: after.iter().map(|a| a.ended - a.began).max().unwrap_or_default(),
        p50_before: middle(&before),
        p50_following: middle(&following),
    }
}

fn middle(attempts: &[&Attempt]) -> Option<Duration> {
    let nanos = |a: &&Attempt| u64::try_from((a.ended - a.began).as_nanos()).unwrap_or(u64::MAX);
    let mut times: Vec<u64> = attempts.iter().map(nanos).collect();
    times.sort_unstable();
    percentile(&times, 50.0).map(Duration::from_nanos)
}
