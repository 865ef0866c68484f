//! What is us: our ports, on whatever this machine's loopback is called.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Lets the edge listen on another address than loopback, at the user's own risk.
pub const NON_LOOPBACK_VAR: &str = "HALTON_METER_ALLOW_NON_LOOPBACK";

/// Our own ports: nothing may lead back to them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OwnPorts {
    pub edge: u16,
    pub api: u16,
}

impl OwnPorts {
    #[must_use]
    pub fn has(self, port: u16) -> bool {
        port == self.edge || port == self.api
    }

    /// Whether that is us, by its name alone.
    #[must_use]
    pub fn is_us(self, host: &str, port: u16) -> bool {
        self.has(port) && is_loopback(host)
    }

    /// Whether a connection that was made leads back to us, however its target was spelled.
    #[must_use]
    pub fn leads_back(self, peer: SocketAddr) -> bool {
        self.has(peer.port()) && is_loopback_ip(peer.ip())
    }
}

/// Every spelling of this machine's loopback that needs no resolver.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let host = host.split_once('%').map_or(host, |(address, _zone)| address);
    if let Ok(ip) = host.parse::<IpAddr>() {
        return is_loopback_ip(ip);
    }
    let tail = host.rsplit('.').next().unwrap_or(host);
    tail.eq_ignore_ascii_case("localhost")
        || host.eq_ignore_ascii_case("localhost.localdomain")
        || old_ipv4(host).is_some_and(|ip| is_loopback_ip(ip.into()))
}

/// This machine by the name that it gives itself.
#[must_use]
pub fn is_own_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let names = rustix::system::uname();
    names.nodename().to_str().is_ok_and(|own| own.eq_ignore_ascii_case(host))
}

fn is_loopback_ip(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        // To connect to the unspecified address is to connect to this machine.
        IpAddr::V4(v4) => v4.is_loopback() || v4.octets().first() == Some(&0),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified(),
    }
}

/// `127.1`, `0x7f000001`, `2130706433`, `0177.0.0.1`: what a C library's resolver takes too.
fn old_ipv4(host: &str) -> Option<Ipv4Addr> {
    let mut parts = Vec::with_capacity(4);
    for part in host.split('.') {
        let hex = part.strip_prefix("0x").or_else(|| part.strip_prefix("0X"));
        let number = match (hex, part.strip_prefix('0')) {
            (Some(hex), _) => u32::from_str_radix(hex, 16).ok()?,
            (None, Some(octal)) if !octal.is_empty() => u32::from_str_radix(octal, 8).ok()?,
            (None, Some(_) | None) => part.parse().ok()?,
        };
        parts.push(number);
    }
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|n| *n > 255) {
        return None;
    }
    let shift = 8 * (4 - u32::try_from(leading.len()).ok()?);
    if shift < 32 && *last >> shift != 0 {
        return None;
    }
    let high = leading.iter().zip([24, 16, 8]).fold(0u32, |sum, (n, bits)| sum | n << bits);
    Some(Ipv4Addr::from(high | last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_knows_its_name_in_any_case() {
        let names = rustix::system::uname();
        let own = names.nodename().to_str().unwrap();
        for spelled in [own.to_owned(), own.to_ascii_uppercase(), format!("{own}.")] {
            assert!(is_own_name(&spelled), "{spelled}");
        }
        assert!(!is_own_name(&format!("not-{own}")) && !is_own_name("api.anthropic.com"));
    }
}
