//! The loads. Each is bounded in count and time, and measures one target once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{Conn, Net, PATIENCE, Stream, TAIL, download, message, post};
use crate::origin::{PIECE, noise};
use crate::pki::HOST;
use crate::platform::monotonic_ns;
use crate::usage::{Sample, Used};

/// What is measured: a way, and the processes whose time counts.
#[derive(Clone, Debug)]
pub struct Subject {
    pub net: Net,
    pub pids: Vec<u32>,
    pub origin: u32,
}

/// What came of it.
#[derive(Debug)]
pub struct Run {
    pub used: Used,
    /// What CPU time is divided by.
    pub units: u64,
    /// How long each took, in nanoseconds; empty where only the whole has a time.
    pub samples: Vec<u64>,
    /// Until each stream's first event.
    pub firsts: Vec<u64>,
    /// Requests to a model that were answered, those before the measurement too.
    pub messages: u64,
    pub failed: u64,
}

impl Subject {
    fn sample(&self) -> Sample {
        Sample::take(&self.pids, self.origin)
    }

    /// What a target does behind its answers (rows are written within 100 ms) is its work too.
    async fn end(&self, start: &Sample) -> Used {
        let answered = self.sample();
        if !self.pids.is_empty() && self.net.tls.is_some() {
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        let used = start.until(&self.sample());
        Used { wall: start.until(&answered).wall, ..used }
    }
}

/// Requests on kept connections, each waiting for its answer.
pub async fn keep_alive(subject: &Subject, connections: usize, time: Duration) -> Result<Run> {
    let request = message("");
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut conn = Conn::open(&subject.net).await?;
        conn.exchange(&request).await?;
        open.push(conn);
    }
    let start = subject.sample();
    let end = Instant::now() + time;
    let mut workers = JoinSet::new();
    for mut conn in open {
        let request = request.clone();
        workers.spawn(async move {
            let (mut samples, mut failed) = (Vec::new(), 0);
            while Instant::now() < end {
                let began = Instant::now();
                match timeout(PATIENCE, conn.exchange(&request)).await {
                    Ok(Ok(())) => samples.push(nanos(began)),
                    Ok(Err(_)) | Err(_) => {
                        failed += 1;
                        break;
                    }
                }
            }
            (samples, failed)
        });
    }
    let (samples, failed) = gather(workers).await?;
    let units = samples.len() as u64;
    let messages = units + connections as u64;
    let used = subject.end(&start).await;
    Ok(Run { used, units, samples, firsts: Vec::new(), messages, failed })
}

/// New connections, one after the other, with one request each.
pub async fn fresh(subject: &Subject, at_most: usize, time: Duration) -> Result<Run> {
    let request = message("");
    let one = async || {
        let mut conn = Conn::open(&subject.net).await?;
        conn.exchange(&request).await?;
        conn.close().await
    };
    one().await?;
    let start = subject.sample();
    let end = Instant::now() + time;
    let (mut samples, mut failed) = (Vec::new(), 0);
    while Instant::now() < end && samples.len() < at_most && failed == 0 {
        let began = Instant::now();
        match timeout(PATIENCE, one()).await {
            Ok(Ok(())) => samples.push(nanos(began)),
            Ok(Err(_)) | Err(_) => failed += 1,
        }
    }
    let units = samples.len() as u64;
    let used = subject.end(&start).await;
    Ok(Run { used, units, samples, firsts: Vec::new(), messages: units + 1, failed })
}

/// One large answer. Units are MiB.
pub async fn down(subject: &Subject, mib: u64) -> Result<Run> {
    let mut conn = Conn::with_buffer(&subject.net, 4 * PIECE).await?;
    conn.exchange(&message("")).await?;
    let start = subject.sample();
    conn.exchange(&download(mib << 20)).await?;
    let used = subject.end(&start).await;
    Ok(Run { used, units: mib, samples: Vec::new(), firsts: Vec::new(), messages: 1, failed: 0 })
}

/// Large requests to a model. Units are MiB.
pub async fn up(subject: &Subject, mib: u64) -> Result<Run> {
    const EACH: u64 = 8;
    let mut conn = Conn::open(&subject.net).await?;
    conn.exchange(&message("")).await?;
    let (head, piece) = (post("", EACH << 20), noise());
    let start = subject.sample();
    for _ in 0..mib / EACH {
        conn.send(&head).await?;
        for _ in 0..(EACH << 20) / PIECE as u64 {
            conn.send(&piece).await?;
        }
        conn.exchange(TAIL.as_bytes()).await?;
    }
    let used = subject.end(&start).await;
    let (samples, firsts, messages) = (Vec::new(), Vec::new(), mib / EACH + 1);
    Ok(Run { used, units: mib / EACH * EACH, samples, firsts, messages, failed: 0 })
}

/// Streams side by side. A sample is an event's delay from the origin's write to our read.
pub async fn streams(subject: &Subject, streams: u64, events: u64, gap: Duration) -> Result<Run> {
    let mut open = Vec::new();
    for _ in 0..streams {
        let mut conn = Conn::with_buffer(&subject.net, 16 * 1024).await?;
        conn.exchange(&message("")).await?;
        open.push(conn);
    }
    let request = message(&format!("stream {events} {}", gap.as_micros()));
    let start = subject.sample();
    let mut workers = JoinSet::new();
    for (number, mut conn) in open.into_iter().enumerate() {
        let request = request.clone();
        // Not all at the same instant.
        let wait = gap * u32::try_from(number)? / u32::try_from(streams)?;
        workers.spawn(async move {
            tokio::time::sleep(wait).await;
            let (mut delays, mut first) = (Vec::new(), 0);
            let began = Instant::now();
            conn.send(&request).await?;
            let read = conn.receive_events(|sent| {
                if delays.is_empty() {
                    first = nanos(began);
                }
                delays.push(monotonic_ns().saturating_sub(sent));
            });
            let long = PATIENCE + gap * u32::try_from(events)?;
            timeout(long, read).await.context("a stream that does not end")??;
            ensure!(delays.len() as u64 == events, "{} of {events} events", delays.len());
            anyhow::Ok((delays, first))
        });
    }
    let (mut samples, mut firsts, mut failed) = (Vec::new(), Vec::new(), 0);
    while let Some(stream) = workers.join_next().await {
        match stream? {
            Ok((delays, first)) => {
                samples.extend(delays);
                firsts.push(first);
            }
            Err(_) => failed += 1,
        }
    }
    ensure!(!firsts.is_empty(), "no stream came to its end");
    let units = samples.len() as u64;
    let used = subject.end(&start).await;
    Ok(Run { used, units, samples, firsts, messages: 2 * streams - failed, failed })
}

/// Requests side by side on one HTTP/2 connection.
pub async fn h2(subject: &Subject, streams: usize, time: Duration) -> Result<Run> {
    let tls = match subject.net.open().await? {
        Stream::Tls(tls) => tls,
        Stream::Plain(_) => anyhow::bail!("HTTP/2 is for TLS"),
    };
    let (send, connection) = h2::client::handshake(*tls).await?;
    let driver = tokio::spawn(connection);
    let send = send.ready().await?;
    h2_exchange(send.clone()).await?;
    let start = subject.sample();
    let end = Instant::now() + time;
    let mut workers = JoinSet::new();
    for _ in 0..streams {
        let send = send.clone();
        workers.spawn(async move {
            let (mut samples, mut failed) = (Vec::new(), 0);
            while Instant::now() < end && failed == 0 {
                let began = Instant::now();
                match timeout(PATIENCE, h2_exchange(send.clone())).await {
                    Ok(Ok(())) => samples.push(nanos(began)),
                    Ok(Err(_)) | Err(_) => failed += 1,
                }
            }
            (samples, failed)
        });
    }
    let (samples, failed) = gather(workers).await?;
    let units = samples.len() as u64;
    let used = subject.end(&start).await;
    driver.abort();
    Ok(Run { used, units, samples, firsts: Vec::new(), messages: units + 1, failed })
}

async fn h2_exchange(send: h2::client::SendRequest<Bytes>) -> Result<()> {
    let body = message("");
    let at = memchr::memmem::find(&body, b"\r\n\r\n").context("a head")? + 4;
    let request = http::Request::post(format!("https://{HOST}/v1/messages"))
        .header("content-type", "application/json")
        .body(())?;
    let (response, mut stream) = send.ready().await?.send_request(request, false)?;
    stream.send_data(Bytes::from(body).slice(at..), true)?;
    let response = response.await?;
    ensure!(response.status() == 200, "status {}", response.status());
    let mut answer = response.into_body();
    while let Some(data) = answer.data().await {
        answer.flow_control().release_capacity(data?.len())?;
    }
    Ok(())
}

async fn gather(mut workers: JoinSet<(Vec<u64>, u64)>) -> Result<(Vec<u64>, u64)> {
    let (mut samples, mut failed) = (Vec::new(), 0);
    while let Some(worker) = workers.join_next().await {
        let (more, lost) = worker?;
        samples.extend(more);
        failed += lost;
    }
    Ok((samples, failed))
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
