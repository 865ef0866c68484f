//! Host patterns, proxy rules and connect rules: the values that are more than a scalar.

use std::fmt;
use std::net::SocketAddr;

/// The host of the self-test: always metered, on every list, and found by no resolver (RFC 6761).
pub const SELFTEST_HOST: &str = "selftest.halton-meter.invalid";

/// Whether `host` is [`SELFTEST_HOST`].
#[must_use]
pub fn is_selftest(host: &str) -> bool {
    host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(SELFTEST_HOST)
}

/// `api.example.com`, `*.example.com`, `api.example.com:8443`, `[::1]:8443`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPattern {
    name: String,
    subdomains: bool,
    port: u16,
}

impl HostPattern {
    /// `None` when `text` is not a pattern.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = split_port(text)?;
        let (name, subdomains) = host.strip_prefix("*.").map_or((host, false), |rest| (rest, true));
        is_host(name).then(|| Self {
            name: name.to_ascii_lowercase(),
            subdomains,
            port: port.unwrap_or(443),
        })
    }

    #[must_use]
    pub fn matches(&self, host: &str, port: u16) -> bool {
        if port != self.port {
            return false;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        if !self.subdomains {
            return host.eq_ignore_ascii_case(&self.name);
        }
        let (h, n) = (host.as_bytes(), self.name.as_bytes());
        h.len() > n.len() + 1
            && h[h.len() - n.len() - 1] == b'.'
            && h[h.len() - n.len()..].eq_ignore_ascii_case(n)
    }

    /// The DNS name without the wildcard: what the CA is constrained to.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn covers_subdomains(&self) -> bool {
        self.subdomains
    }

    /// Whether it covers what many owners share: all of `*.com`.
    #[must_use]
    pub fn is_too_wide(&self) -> bool {
        self.subdomains && super::suffixes::is_shared(&self.name)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.subdomains { "*." } else { "" };
        write!(f, "{star}{}", self.name)?;
        if self.port == 443 { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// `gpu:11434`, `*.lan:8000`, `*:11434`: a port, of one host, of a domain, or of any host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlacePattern {
    /// `None` = any.
    host: Option<HostPattern>,
    port: u16,
}

impl PlacePattern {
    /// `None` when `text` is not a pattern with a port.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = split_port(text)?;
        let host = if host == "*" { None } else { Some(HostPattern::parse(text)?) };
        Some(Self { host, port: port? })
    }

    /// `None`: any.
    #[must_use]
    pub fn host(&self) -> Option<&HostPattern> {
        self.host.as_ref()
    }

    #[must_use]
    pub fn matches(&self, host: &str, port: u16) -> bool {
        port == self.port && self.host.as_ref().is_none_or(|pattern| pattern.matches(host, port))
    }
}

/// `"api.example.com:443" = "127.0.0.1:9443"`; `*` as the host matches every host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectRule {
    /// `None` = every host.
    pub host: Option<String>,
    pub port: u16,
    pub to: SocketAddr,
}

impl ConnectRule {
    #[must_use]
    pub fn parse(from: &str, to: &str) -> Option<Self> {
        let (host, port) = split_port(from)?;
        let host = match host {
            "*" => None,
            name if is_host(name) => Some(name.to_ascii_lowercase()),
            _ => return None,
        };
        Some(Self { host, port: port?, to: to.parse().ok()? })
    }

    #[must_use]
    pub fn matches(&self, host: &str, port: u16) -> bool {
        port == self.port && self.host.as_deref().is_none_or(|h| h.eq_ignore_ascii_case(host))
    }
}

/// An HTTP proxy between us and the internet. `Debug` never shows the password.
#[derive(Clone, Eq, PartialEq)]
pub struct UpstreamProxy {
    pub host: String,
    pub port: u16,
    /// Value of `Proxy-Authorization`, ready to send.
    pub authorization: Option<String>,
    /// It was the system's setting, not chosen for us: where it can't be reached we go without it.
    pub from_system: bool,
}

impl UpstreamProxy {
    /// `http://[user[:password]@]host[:port]`; without a port it is 80, as for the tools' own use. What
    /// follows is of no meaning to a proxy, and the tools take it.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let rest = match url.split_once("://") {
            Some((scheme, rest)) => scheme.eq_ignore_ascii_case("http").then_some(rest)?,
            None => url,
        };
        let (user, addr) = match rest.rsplit_once('@') {
            Some((user, addr)) => (Some(user), addr),
            None => (None, rest),
        };
        let (host, port) = split_port(addr.split(['/', '?', '#']).next()?)?;
        is_host(host.strip_suffix('.').unwrap_or(host)).then(|| Self {
            host: host.to_ascii_lowercase(),
            port: port.unwrap_or(80),
            authorization: user.map(|u| {
                let pair = if u.contains(':') { u.to_owned() } else { format!("{u}:") };
                let decoded = percent_decode(&pair);
                format!("Basic {}", base64(&decoded))
            }),
            from_system: false,
        })
    }

    /// `host:port`, without its credentials.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for UpstreamProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let auth = if self.authorization.is_some() { "***@" } else { "" };
        write!(f, "http://{auth}{}:{}", self.host, self.port)
    }
}

/// Splits `host:port`, `[v6]:port`, `host`; a bare IPv6 address has no port.
pub(super) fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, tail) = rest.split_once(']')?;
        return match tail.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok().filter(|p| *p != 0)?))),
            None => tail.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Some((text, None)),
        Some((host, port)) => Some((host, Some(port.parse().ok().filter(|p| *p != 0)?))),
        None => Some((text, None)),
    }
}

fn is_host(name: &str) -> bool {
    if name.parse::<std::net::Ipv6Addr>().is_ok() {
        return true;
    }
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = (bytes[i] == b'%')
            .then(|| text.get(i + 1..i + 3).and_then(|h| u8::from_str_radix(h, 16).ok()))
            .flatten();
        match hex {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    out
}

pub(crate) fn base64(data: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let n = u32::from(chunk[0]) << 16
            | u32::from(*chunk.get(1).unwrap_or(&0)) << 8
            | u32::from(*chunk.get(2).unwrap_or(&0));
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(char::from(ALPHABET[(n >> (18 - 6 * i)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_patterns() {
        let p = HostPattern::parse("API.example.com").unwrap();
        assert!(p.matches("api.EXAMPLE.com", 443));
        assert!(p.matches("api.example.com.", 443));
        assert!(!p.matches("api.example.com", 8443));
        assert!(!p.matches("x.api.example.com", 443));
        let w = HostPattern::parse("*.example.com:8443").unwrap();
        assert!(w.matches("a.b.example.com", 8443));
        assert!(!w.matches("example.com", 8443));
        assert!(!w.matches("badexample.com", 8443));
        for bad in ["", "*", "a b", "x..y", "h:0", "h:99999", "https://h", "*."] {
            assert_eq!(HostPattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn places_have_a_port() {
        for (pattern, host, port, covered) in [
            ("*:11434", "anything", 11434, true),
            ("*:11434", "192.168.1.9", 11434, true),
            ("*:11434", "::1", 11434, true),
            ("*:11434", "anything", 443, false),
            ("gpu:8000", "GPU.", 8000, true),
            ("gpu:8000", "gpu2", 8000, false),
            ("*.lan:80", "a.lan", 80, true),
            ("*.lan:80", "lan", 80, false),
            ("[::1]:8000", "::1", 8000, true),
        ] {
            let place = PlacePattern::parse(pattern).unwrap();
            assert_eq!(place.matches(host, port), covered, "{pattern} {host}:{port}");
        }
        for bad in ["gpu", "*", "", "*:0", "*:x", "http://gpu:1", "*x:1"] {
            assert_eq!(PlacePattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn connect_rules_and_proxies() {
        let r = ConnectRule::parse("*:443", "127.0.0.1:9443").unwrap();
        assert!(r.matches("anything", 443) && !r.matches("anything", 80));
        assert_eq!(ConnectRule::parse("host", "127.0.0.1:1"), None);
        let p = UpstreamProxy::parse("http://us%40er:pa:ss@proxy.corp:3128/").unwrap();
        assert_eq!((p.host.as_str(), p.port), ("proxy.corp", 3128));
        assert_eq!(p.authorization.as_deref(), Some("Basic dXNAZXI6cGE6c3M="));
        assert!(!format!("{p:?}").contains("pa:ss"));
        assert_eq!(UpstreamProxy::parse("socks5://h:1"), None);
    }

    /// What the tools take too.
    #[test]
    fn a_proxy_in_any_spelling() {
        for (url, place) in [
            ("HTTP://proxy.corp:3128", "proxy.corp:3128"),
            ("http://proxy.corp:3128/path", "proxy.corp:3128"),
            ("http://proxy.corp:3128/?x", "proxy.corp:3128"),
            ("http://proxy.corp?x=1", "proxy.corp:80"),
            ("http://proxy.corp.:3128/", "proxy.corp.:3128"),
            ("proxy.corp#x", "proxy.corp:80"),
            ("http://user:pa/ss@proxy.corp:3128/x", "proxy.corp:3128"),
        ] {
            assert_eq!(UpstreamProxy::parse(url).map(|p| p.place()).as_deref(), Some(place));
        }
        for bad in ["HTTPS://h:1", "http://", "http:///path", "http://.", "http://a..:1", "://h"] {
            assert_eq!(UpstreamProxy::parse(bad), None, "{bad}");
        }
    }
}
