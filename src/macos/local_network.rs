//! Local network privacy: since macOS 15 a program reaches addresses of the local network only if it was
//! started in a terminal, is root's, or the user has allowed it. Our edge is an agent, so it waits for that;
//! the tools that it connects for mostly don't have to (ADR 0024). Pure.

use std::net::IpAddr;

/// What programs reach without us, in `NO_PROXY`. No network of IPv6 addresses: httpx takes no variable
/// that has one in it, and then there is no client at all.
pub const NO_PROXY: [&str; 5] =
    [".local", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"];

/// The same, in that order, among the exceptions of the system proxy: `*.local` and `169.254/16` are macOS's
/// own.
pub const EXCEPTIONS: [&str; 5] =
    ["*.local", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254/16"];

/// Rules for `NO_PROXY` as exceptions of the system proxy.
#[must_use]
pub fn exceptions(rules: &[&str]) -> Vec<&'static str> {
    let pairs = NO_PROXY.iter().zip(EXCEPTIONS);
    pairs.filter(|(rule, _)| rules.contains(rule)).map(|(_, exception)| exception).collect()
}

/// For whoever is told that there was no way.
pub const REFUSED: &str = "macOS may be keeping halton-meter from your local network: allow it in System Settings > \
     Privacy & Security > Local Network";

/// For whoever is about to be asked.
pub const ASKS: &str = "macOS may ask once whether halton-meter may find devices on your local network: allow it, or what \
     programs ask of such a device through us fails (System Settings > Privacy & Security > Local Network)";

/// Whether an address is one of those that networks at home and at work give to their own. Public ones may
/// be on the local network too, which can't be told from them.
#[must_use]
pub fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NoProxy;

    #[test]
    fn what_is_local_is_told_from_the_internet_and_from_this_machine() {
        for (text, local) in [
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.168.1.9", true),
            ("169.254.3.4", true),
            ("::ffff:192.168.1.9", true),
            ("fe80::1", true),
            ("fd12::1", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("1.1.1.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_local(text.parse().unwrap()), local, "{text}");
        }
    }

    #[test]
    fn the_rules_cover_local_addresses_and_no_others() {
        let rules = NoProxy::new(NO_PROXY.map(str::to_owned));
        for host in ["ha.local", "10.1.2.3", "172.16.0.1", "192.168.1.9", "169.254.3.4"] {
            assert!(rules.covers(host, 80), "{host}");
        }
        for host in ["api.anthropic.com", "gpu.lan", "172.32.0.1", "1.1.1.1", "mylocal"] {
            assert!(!rules.covers(host, 443), "{host}");
        }
        assert!(NO_PROXY.iter().all(|rule| !rule.contains(':')), "httpx");
        assert_eq!(exceptions(&NO_PROXY), EXCEPTIONS);
        assert_eq!(exceptions(&[".local", "169.254.0.0/16"]), ["*.local", "169.254/16"]);
    }
}
