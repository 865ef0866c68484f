//! Tells a URL of the user's that a budget has passed a threshold.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::Standing;
use crate::config;
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

/// Where to post. Its path and query are as good as a password: shown nowhere.
#[derive(Clone, Eq, PartialEq)]
pub struct Hook {
    tls: bool,
    host: String,
    port: u16,
    /// Path and query.
    target: String,
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hook").field("host", &self.host).finish_non_exhaustive()
    }
}

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

impl Hook {
    /// `https://host[:port]/path`; `http://` for what is on this machine.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let plain = |c: char| c.is_ascii_graphic();
        let rest = rest.split('#').next()?;
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(at)?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, if tls { 443 } else { 80 }),
        };
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let local = matches!(host, "127.0.0.1" | "localhost");
        if host.is_empty() || !host.chars().all(named) || !target.chars().all(plain) {
            return None;
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        let target = format!("{slash}{target}");
        (tls || local).then(|| Self { tls, host: host.to_owned(), port, target })
    }

    /// Posts `document`, a few times if need be.
    ///
    /// # Errors
    /// When nobody took it.
    pub async fn post(
        &self,
        document: &Value,
        trust: Option<&Trust>,
        upstream: &config::Upstream,
    ) -> Result<(), HookError> {
        let mut pauses = PAUSES.iter();
        loop {
            let attempt = timeout(PATIENCE, self.attempt(document, trust, upstream)).await;
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
        &self,
        document: &Value,
        trust: Option<&Trust>,
        upstream: &config::Upstream,
    ) -> Result<u16, HookError> {
        let request = self.request(document);
        if !self.tls {
            let stream = dial(upstream, &self.host, self.port, PATIENCE).await;
            return exchange(stream.map_err(|_| HookError::Unreachable)?, &request).await;
        }
        let target = Target {
            host: &self.host,
            port: self.port,
            dial_deadline: PATIENCE,
            tls_deadline: PATIENCE,
        };
        let hello = Hello::ours(&self.host);
        let stream = connect(trust.ok_or(HookError::Unreachable)?, upstream, target, &hello).await;
        exchange(stream.map_err(|_| HookError::Unreachable)?.tls, &request).await
    }

    fn request(&self, document: &Value) -> Vec<u8> {
        let body = document.to_string();
        let default = if self.tls { 443 } else { 80 };
        let port = if self.port == default { String::new() } else { format!(":{}", self.port) };
        format!(
            "POST {} HTTP/1.1\r\nhost: {}{port}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nuser-agent: halton-meter/{}\r\nconnection: close\r\n\r\n{body}",
            self.target,
            self.host,
            body.len(),
            env!("CARGO_PKG_VERSION"),
        )
        .into_bytes()
    }
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
    fn urls_are_those_that_can_be_posted_to() {
        let hook = Hook::parse("https://hooks.example.com/services/T0/secret?x=1#frag").unwrap();
        assert_eq!((hook.host.as_str(), hook.port), ("hooks.example.com", 443));
        assert_eq!(hook.target, "/services/T0/secret?x=1");
        assert!(!format!("{hook:?}").contains("secret"));
        let request = String::from_utf8(hook.request(&json!({"a": "é"}))).unwrap();
        assert!(
            request.starts_with(
                "POST /services/T0/secret?x=1 HTTP/1.1\r\nhost: hooks.example.com\r\n"
            )
        );
        assert!(
            request.contains("content-length: 10\r\n")
                && request.ends_with("\r\n\r\n{\"a\":\"é\"}")
        );
        assert_eq!(Hook::parse("http://127.0.0.1:9000?a").unwrap().target, "/?a");
        for wrong in [
            "",
            "https://",
            "ftp://x/",
            "http://example.com/",
            "https://u:p@x/",
            "https://x:99999/",
            "https://x/a b",
            "https://x/\r\nhost: y",
            "https://[::1]/",
        ] {
            assert_eq!(Hook::parse(wrong), None, "{wrong}");
        }
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
        let hook = Hook::parse("https://hooks.example.com/").unwrap();
        let began = tokio::time::Instant::now();
        let upstream = config::load(std::path::Path::new("/nowhere"), &[]).config.upstream;
        let error = hook.post(&json!({}), None, &upstream).await.unwrap_err();
        assert!(matches!(error, HookError::Unreachable), "{error}");
        assert_eq!(began.elapsed(), PAUSES.iter().sum::<Duration>());
    }
}
