//! The address that is told when a budget passes a threshold.

use std::fmt;

/// Where to post. Its path and query are as good as a password: shown nowhere.
#[derive(Clone, Eq, PartialEq)]
pub struct Webhook {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub target: String,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Webhook {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_those_that_can_be_posted_to() {
        let hook = Webhook::parse("https://hooks.example.com/services/T0/secret?x=1#frag").unwrap();
        assert_eq!((hook.host.as_str(), hook.port), ("hooks.example.com", 443));
        assert_eq!(hook.target, "/services/T0/secret?x=1");
        assert!(!format!("{hook:?}").contains("secret"));
        assert_eq!(Webhook::parse("http://127.0.0.1:9000?a").unwrap().target, "/?a");
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
            assert_eq!(Webhook::parse(wrong), None, "{wrong}");
        }
    }
}
