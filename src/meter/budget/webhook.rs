//! Tells a URL of the user's that a budget has passed a threshold.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::Standing;
use crate::config::{Upstream, Webhook};
use crate::dial::dial;
use crate::meter::hello::Hello;
use crate::meter::row::usd_decimal;
use crate::meter::trust::Trust;
use crate::meter::upstream::{Target, connect};

/// For one attempt, from the first packet to the status line.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before each further attempt.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(15)];
/// A status line is far shorter.
const MAX_ANSWER: usize = 1024;

/// Why it could not be told; holds nothing of the URL.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("the webhook answered {0}")]
    Status(u16),
    #[error("the webhook gave no answer of HTTP")]
    NoAnswer,
    #[error("the webhook did not answer in time")]
    Timeout,
    #[error("the webhook can't be reached")]
    Unreachable,
}

/// Posts `document`, a few times if need be.
///
/// # Errors
/// When nobody took it.
pub async fn post(
    hook: &Webhook,
    document: &Value,
    trust: Option<&Trust>,
    upstream: &Upstream,
) -> Result<(), HookError> {
    let mut pauses = PAUSES.iter();
    loop {
        let attempt = timeout(PATIENCE, attempt(hook, document, trust, upstream)).await;
        let error = match attempt.unwrap_or(Err(HookError::Timeout)) {
            Ok(200..=299) => return Ok(()),
            Ok(status) => HookError::Status(status),
            Err(e) => e,
        };
        match pauses.next().filter(|_| error.may_pass()) {
            Some(pause) => sleep(*pause).await,
            None => return Err(error),
        }
    }
}

async fn attempt(
    hook: &Webhook,
    document: &Value,
    trust: Option<&Trust>,
    upstream: &Upstream,
) -> Result<u16, HookError> {
    let request = request(hook, document);
    if !hook.tls {
        let stream = dial(upstream, &hook.host, hook.port, PATIENCE).await;
        return exchange(stream.map_err(|_| HookError::Unreachable)?, &request).await;
    }
    let target = Target {
        host: &hook.host,
        port: hook.port,
        dial_deadline: PATIENCE,
        tls_deadline: PATIENCE,
    };
    let hello = Hello::ours(&hook.host);
    let stream = connect(trust.ok_or(HookError::Unreachable)?, upstream, target, &hello).await;
    exchange(stream.map_err(|_| HookError::Unreachable)?.tls, &request).await
}

fn request(hook: &Webhook, document: &Value) -> Vec<u8> {
    let body = document.to_string();
    let default = if hook.tls { 443 } else { 80 };
    let port = if hook.port == default { String::new() } else { format!(":{}", hook.port) };
    format!(
        "POST {} HTTP/1.1\r\nhost: {}{port}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nuser-agent: halton-meter/{}\r\nconnection: close\r\n\r\n{body}",
        hook.target,
        hook.host,
        body.len(),
        env!("CARGO_PKG_VERSION"),
    )
    .into_bytes()
}

impl HookError {
    /// Whether another attempt may go better.
    fn may_pass(&self) -> bool {
        match self {
            Self::Status(status) => *status >= 500 || matches!(status, 408 | 429),
            Self::NoAnswer | Self::Timeout | Self::Unreachable => true,
        }
    }
}

/// What is posted.
#[must_use]
pub fn document(standing: &Standing, text: &str) -> Value {
    let budget = &standing.budget;
    let usd = |nano: u64| usd_decimal(i64::try_from(nano).unwrap_or(i64::MAX));
    json!({
        "event": "budget_threshold",
        "text": text,
        "budget": budget.name,
        "project": budget.project,
        "model": budget.model,
        "per": budget.per,
        "from": standing.window.from.to_string(),
        "to": standing.window.to.to_string(),
        "threshold": standing.passed(),
        "percent": standing.percent(),
        "spent_usd": usd(standing.spent_nanousd),
        "limit_usd": usd(budget.limit.nano()),
        "unpriced": standing.unpriced,
    })
}

/// Sends, and reads the status.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> Result<u16, HookError> {
    let io = |_: io::Error| HookError::Unreachable;
    stream.write_all(request).await.map_err(io)?;
    stream.flush().await.map_err(io)?;
    let mut answer = Vec::new();
    loop {
        if let Some(status) = status(&answer) {
            return Ok(status);
        }
        let read = stream.read_buf(&mut answer).await.map_err(io)?;
        if read == 0 || answer.len() > MAX_ANSWER {
            return status(&answer).ok_or(HookError::NoAnswer);
        }
    }
}

/// `HTTP/1.1 204 No Content`.
pub(crate) fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|b| *b == b'\n').next().filter(|line| line.len() < answer.len())?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_is_one_whole_request() {
        let hook = Webhook::parse("https://hooks.example.com/services/T0/secret?x=1#frag").unwrap();
        let request = String::from_utf8(request(&hook, &json!({"a": "é"}))).unwrap();
        assert!(
            request.starts_with(
                "POST /services/T0/secret?x=1 HTTP/1.1\r\nhost: hooks.example.com\r\n"
            )
        );
        assert!(
            request.contains("content-length: 10\r\n")
                && request.ends_with("\r\n\r\n{\"a\":\"é\"}")
        );
    }

    #[test]
    fn the_status_is_that_of_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        for none in [&b"HTTP/1.1 204"[..], b"", b"SSH-2.0\r\n", b"HTTP/1.1 x\r\n", b"\xff\n"] {
            assert_eq!(status(none), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_not_be_trusted_is_tried_three_times_and_told_nothing() {
        let hook = Webhook::parse("https://hooks.example.com/").unwrap();
        let began = tokio::time::Instant::now();
        let upstream = crate::config::load(std::path::Path::new("/nowhere"), &[]).config.upstream;
        let error = post(&hook, &json!({}), None, &upstream).await.unwrap_err();
        assert!(matches!(error, HookError::Unreachable), "{error}");
        assert_eq!(began.elapsed(), PAUSES.iter().sum::<Duration>());
    }
}
