//! One probe: ask the daemon's `/health`, and see that the control channel leads to the same
//! process. A few lines of HTTP by hand; the edge has no HTTP client.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use uuid::Uuid;

use super::health::{Cause, Verdict};
use super::link::{Alarm, Link, LinkError};
use crate::config::Config;
use crate::dial::HeadEnd;
use crate::handover::channel::ChannelError;
use crate::near;

/// A probe that takes longer has failed.
pub const DEADLINE: Duration = Duration::from_millis(250);
const MAX_ANSWER: usize = 64 * 1024;

/// What a probe needs, and where it leaves the link.
pub struct Prober {
    pub config: Arc<ArcSwap<Config>>,
    pub socket: PathBuf,
    pub link: Arc<ArcSwapOption<Link>>,
    pub alarm: Arc<dyn Alarm>,
    pub log: slog::Logger,
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Why a probe found the daemon wanting.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("health: {0}")]
    Io(#[from] io::Error),
    #[error("health: not the answer of our daemon")]
    Foreign,
    #[error("health: status {0}")]
    Status(u16),
    #[error("health: the daemon says it is {0}")]
    Degraded(String),
    #[error("health: the daemon says that it ends")]
    Draining,
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the control channel leads to another process than the health port")]
    OtherInstance,
}

impl Prober {
    /// Healthy only if daemon, health port and control channel are one and well.
    pub async fn probe(&self) -> Verdict {
        let error = match timeout(DEADLINE, self.attempt()).await {
            Ok(Ok(())) => return Verdict::Healthy,
            Ok(Err(error)) => error,
            Err(_) => return Verdict::Unhealthy(Cause::Timeout),
        };
        let cause = cause(&error);
        slog::debug!(self.log, "probe failed"; "error" => %error, "cause" => cause.as_str());
        Verdict::Unhealthy(cause)
    }

    async fn attempt(&self) -> Result<(), ProbeError> {
        let instance = health(self.config.load().daemon.api_addr()).await?;
        if let Some(link) = self.link.load_full()
            && link.is_usable()
            && link.instance() == instance
        {
            return Ok(());
        }
        let (link, receiver) = Link::connect(&self.socket).await?;
        if link.instance() != instance {
            return Err(ProbeError::OtherInstance);
        }
        self.link.store(Some(Arc::clone(&link)));
        let alarm = Arc::clone(&self.alarm);
        let current = Arc::clone(&self.link);
        tokio::spawn(async move {
            let quiet = StaleGuard { link: Arc::clone(&link), current, alarm };
            link.run(receiver, &quiet).await;
        });
        Ok(())
    }
}

/// Passes on what a link says only while it is the current one.
struct StaleGuard {
    link: Arc<Link>,
    current: Arc<ArcSwapOption<Link>>,
    alarm: Arc<dyn Alarm>,
}

impl Alarm for StaleGuard {
    fn down(&self, cause: Cause) {
        if self.current.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, &self.link)) {
            self.alarm.down(cause);
        }
    }
}

/// The part of `/health` that counts here.
#[derive(serde::Deserialize)]
struct Health {
    status: String,
    instance: Uuid,
    #[serde(default)]
    draining: bool,
}

async fn health(addr: SocketAddr) -> Result<Uuid, ProbeError> {
    let mut stream = near::connect(addr).await?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        if let Some(verdict) = judge(&answer) {
            return verdict;
        }
        if answer.len() > MAX_ANSWER {
            return Err(ProbeError::Foreign);
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return judge_body(&answer);
        }
    }
}

/// `None` until the announced length is there.
fn judge(answer: &[u8]) -> Option<Result<Uuid, ProbeError>> {
    let head_end = HeadEnd::default().feed(answer)?;
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    if response.parse(answer).is_err() {
        return Some(Err(ProbeError::Foreign));
    }
    let length = response
        .headers
        .iter()
        .find(|h| h.name.eq_ignore_ascii_case("content-length"))
        .and_then(|h| std::str::from_utf8(h.value).ok()?.trim().parse::<usize>().ok());
    // Without a length the end of the connection is the end of the body.
    let whole = length.is_some_and(|length| answer.len().saturating_sub(head_end) >= length);
    whole.then(|| judge_body(answer))
}

/// The daemon that says that it is well.
#[cfg(any(test, fuzzing))]
pub(crate) fn instance(answer: &[u8]) -> Option<Uuid> {
    judge(answer).and_then(Result::ok)
}

fn judge_body(answer: &[u8]) -> Result<Uuid, ProbeError> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(head_end)) = response.parse(answer) else {
        return Err(ProbeError::Foreign);
    };
    let body = answer.get(head_end..).unwrap_or_default();
    let status = response.code.unwrap_or_default();
    match (status, serde_json::from_slice::<Health>(body)) {
        (200, Ok(health)) if health.status == "ok" => Ok(health.instance),
        (_, Ok(Health { draining: true, .. })) => Err(ProbeError::Draining),
        (_, Ok(health)) => Err(ProbeError::Degraded(health.status.chars().take(32).collect())),
        (200, Err(_)) => Err(ProbeError::Foreign),
        (status, Err(_)) => Err(ProbeError::Status(status)),
    }
}

fn cause(error: &ProbeError) -> Cause {
    match error {
        ProbeError::Io(e) | ProbeError::Link(LinkError::Channel(ChannelError::Io(e))) => {
            let is = |kind| e.kind() == kind;
            if is(io::ErrorKind::ConnectionRefused) || is(io::ErrorKind::NotFound) {
                Cause::Refused
            } else if is(io::ErrorKind::TimedOut) {
                Cause::Timeout
            } else {
                Cause::Failed
            }
        }
        ProbeError::Degraded(_) => Cause::Degraded,
        ProbeError::Draining => Cause::Draining,
        ProbeError::Foreign
        | ProbeError::Status(_)
        | ProbeError::OtherInstance
        | ProbeError::Link(
            LinkError::Version(_)
            | LinkError::NoHello
            | LinkError::Channel(
                ChannelError::Wire(_) | ChannelError::ForeignPeer(_) | ChannelError::Descriptors,
            ),
        ) => Cause::Foreign,
        ProbeError::Link(LinkError::Closed | LinkError::Channel(ChannelError::Clogged)) => {
            Cause::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(answer: &str) -> Option<Result<Uuid, Cause>> {
        judge(answer.as_bytes()).map(|r| r.map_err(|e| cause(&e)))
    }

    #[test]
    fn answers() {
        let id = Uuid::from_u128(7);
        let with = |line: &str, body: &str| {
            format!("HTTP/1.1 {line}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        let ok = with("200 OK", &format!(r#"{{"status":"ok","instance":"{id}","more":1}}"#));
        assert_eq!(verdict(&ok), Some(Ok(id)));
        for cut in 0..ok.len() {
            assert_eq!(verdict(&ok[..cut]), None, "{cut}");
        }
        let ill = format!(r#"{{"status":"degraded","instance":"{id}"}}"#);
        assert_eq!(verdict(&with("200 OK", &ill)), Some(Err(Cause::Degraded)));
        assert_eq!(verdict(&with("503 No", &ill)), Some(Err(Cause::Degraded)));
        let ends = format!(r#"{{"status":"degraded","instance":"{id}","draining":true}}"#);
        assert_eq!(verdict(&with("503 No", &ends)), Some(Err(Cause::Draining)));
        assert_eq!(verdict(&with("200 OK", "hello")), Some(Err(Cause::Foreign)));
        assert_eq!(verdict(&with("404 Not Found", "")), Some(Err(Cause::Foreign)));
        assert_eq!(verdict("SSH-2.0-x\r\n\r\n"), Some(Err(Cause::Foreign)));
    }
}
