//! `no_proxy`: targets that are reached without the upstream proxy. Programs disagree on the syntax,
//! so this takes all of it that is unambiguous.

use std::net::IpAddr;

use super::hosts::split_port;

/// `*`, names, `.suffix`, `*.suffix`, addresses, networks (`10.0.0.0/8`); each but `*` and networks
/// may end with a port.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NoProxy(Vec<Rule>);

#[derive(Clone, Debug, Eq, PartialEq)]
struct Rule {
    what: What,
    /// `None`: any.
    port: Option<u16>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum What {
    Everything,
    /// Itself and what is below it, in lower case.
    Name(String),
    Address(IpAddr),
    /// The first so many bits.
    Network(IpAddr, u8),
}

impl NoProxy {
    /// What is no rule covers nothing.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = String>) -> Self {
        Self(rules.into_iter().filter_map(|text| Rule::parse(&text)).collect())
    }

    /// Whether there is such a rule.
    #[must_use]
    pub fn is_rule(text: &str) -> bool {
        Rule::parse(text).is_some()
    }

    /// Names are not looked up: a network covers addresses only.
    #[must_use]
    pub fn covers(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        self.0.iter().any(|rule| {
            rule.port.is_none_or(|p| p == port)
                && match (&rule.what, address) {
                    (What::Everything, _) => true,
                    (What::Name(name), None) => is_below(&host, name),
                    (What::Address(own), Some(ip)) => *own == ip,
                    (What::Network(net, bits), Some(ip)) => is_within(ip, *net, *bits),
                    (What::Name(_), Some(_)) | (What::Address(_) | What::Network(..), None) => {
                        false
                    }
                }
        })
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if text == "*" {
            return Some(Self { what: What::Everything, port: None });
        }
        if let Some((net, bits)) = text.split_once('/') {
            let net = net.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok()?;
            let bits: u8 = bits.parse().ok()?;
            let longest = if net.is_ipv4() { 32 } else { 128 };
            return (bits <= longest)
                .then_some(Self { what: What::Network(net, bits), port: None });
        }
        let (host, port) = split_port(&text)?;
        let what = match host.parse::<IpAddr>() {
            Ok(ip) => What::Address(ip.to_canonical()),
            Err(_) => {
                let name = host.strip_prefix("*.").or(host.strip_prefix('.')).unwrap_or(host);
                let name = name.strip_suffix('.').unwrap_or(name);
                let fit = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
                if name.is_empty() || !name.bytes().all(fit) {
                    return None;
                }
                What::Name(name.to_owned())
            }
        };
        Some(Self { what, port })
    }
}

/// At a label's boundary.
fn is_below(host: &str, name: &str) -> bool {
    host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn is_within(ip: IpAddr, net: IpAddr, bits: u8) -> bool {
    let (ip, net, length) = match (ip, net) {
        (IpAddr::V4(ip), IpAddr::V4(net)) => {
            (u128::from(u32::from(ip)), u128::from(u32::from(net)), 32)
        }
        (IpAddr::V6(ip), IpAddr::V6(net)) => (u128::from(ip), u128::from(net), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    let shift = length - u32::from(bits);
    ip.checked_shr(shift).unwrap_or(0) == net.checked_shr(shift).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> NoProxy {
        NoProxy::new(text.split(',').map(str::to_owned))
    }

    #[test]
    fn each_kind_of_rule_covers_what_it_names() {
        #[rustfmt::skip]
        let table: &[(&str, &[&str], &[&str])] = &[
            ("localhost", &["localhost", "LOCALHOST", "localhost.", "a.localhost"], &["notlocalhost"]),
            (".corp.example", &["a.corp.example", "corp.example"], &["acorp.example", "example"]),
            ("*.corp.example", &["a.corp.example", "a.b.corp.example"], &["corp.example.org"]),
            ("X.org", &["x.org", "a.X.ORG"], &["ax.org", "x.org.evil"]),
            ("10.0.0.1", &["10.0.0.1", "::ffff:10.0.0.1"], &["110.0.0.1", "x.10.0.0.1", "10.0.0.11"]),
            ("::1", &["::1", "0:0::1"], &["::2", "1"]),
            ("[2001:db8::1]", &["2001:db8::1"], &["2001:db8::2"]),
            ("10.0.0.0/8", &["10.255.1.2", "::ffff:10.1.1.1"], &["11.0.0.0", "ten.example", "::a00:1"]),
            ("10.1.2.3/16", &["10.1.255.255"], &["10.2.0.0"]),
            ("fe80::/10", &["fe80::1", "febf::"], &["fec0::", "10.0.0.1"]),
            ("0.0.0.0/0", &["8.8.8.8"], &["::1", "dns.example"]),
            ("10.0.0.1/32", &["10.0.0.1"], &["10.0.0.2"]),
            ("*", &["anything", "::1", "1.2.3.4"], &[]),
            (" a.example , b.example ", &["a.example", "b.example"], &["c.example"]),
            (",,", &[], &["a", ""]),
        ];
        for (text, yes, no) in table {
            let n = rules(text);
            for host in *yes {
                assert!(n.covers(host, 443), "{text} covers {host}");
            }
            for host in *no {
                assert!(!n.covers(host, 443), "{text} does not cover {host}");
            }
        }
    }

    #[test]
    fn a_port_restricts_a_rule() {
        let n = rules("a.example:8443,[::1]:80,10.0.0.1:443");
        assert!(n.covers("a.example", 8443) && n.covers("b.a.example", 8443));
        assert!(!n.covers("a.example", 443));
        assert!(n.covers("::1", 80) && !n.covers("::1", 443));
        assert!(n.covers("10.0.0.1", 443) && !n.covers("10.0.0.1", 80));
    }

    #[test]
    fn what_is_no_rule_is_told_apart() {
        for bad in ["", " ", "10.0.0.0/33", "::/129", "x/8", "a b", "http://x", "a:0", "a:x", "."] {
            assert!(!NoProxy::is_rule(bad), "{bad}");
        }
    }
}
