//! The system proxy by `networksetup`, the one tool that an admin user may run without a prompt.

use std::process::{Command, Stdio};

use crate::platform::{SystemProxy, SystemProxyError};

const PROGRAM: &str = "networksetup";

/// The real one.
#[derive(Clone, Copy, Debug)]
pub struct NetworkSetup;

impl SystemProxy for NetworkSetup {
    fn off(&self) -> Result<Option<Vec<String>>, SystemProxyError> {
        let services = active_services(&call(&["-listallnetworkservices"])?);
        let mut failure = None;
        for service in &services {
            for setting in OFF {
                // One service that refuses must not keep the others switched on.
                if let Err(e) = call(&[setting, service, "off"]) {
                    failure.get_or_insert(e);
                }
            }
        }
        failure.map_or(Ok(Some(services)), Err)
    }

    fn leads_to(&self) -> Vec<String> {
        let output = Command::new("scutil").arg("--proxy").stdin(Stdio::null()).output();
        output.map(|o| effective(&String::from_utf8_lossy(&o.stdout))).unwrap_or_default()
    }
}

/// HTTPS first: that is the one that tools with keys in their requests use.
const OFF: [&str; 2] = ["-setsecurewebproxystate", "-setwebproxystate"];

fn call(args: &[&str]) -> Result<String, SystemProxyError> {
    let output = Command::new(PROGRAM)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| SystemProxyError::Spawn { program: PROGRAM, source })?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(said.into_owned());
    }
    // It reports its errors on stdout.
    Err(SystemProxyError::Refused {
        program: PROGRAM,
        call: args.join(" "),
        said: said.split_whitespace().collect::<Vec<_>>().join(" "),
        code: output.status.code().unwrap_or(-1),
    })
}

/// The proxies that are on, of `scutil --proxy`: `key : value` lines.
fn effective(listing: &str) -> Vec<String> {
    let value = |wanted: &str| {
        let mut pairs = listing.lines().filter_map(|l| l.split_once(" : "));
        pairs.find(|(key, _)| key.trim() == wanted).map(|(_, value)| value.trim())
    };
    let on = ["HTTPS", "HTTP"].into_iter().filter_map(|kind| {
        let (host, port) = (value(&format!("{kind}Proxy"))?, value(&format!("{kind}Port"))?);
        (value(&format!("{kind}Enable")) == Some("1")).then(|| format!("{host}:{port}"))
    });
    on.collect()
}

/// Names from `-listallnetworkservices`: the first line explains the asterisk, which marks a
/// disabled service. Names may hold spaces, slashes and parentheses.
fn active_services(listing: &str) -> Vec<String> {
    listing
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty() && !line.starts_with('*'))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_keep_their_names_and_disabled_ones_are_left_out() {
        let listing = "An asterisk (*) denotes that a network service is disabled.\n\
            USB 10/100/1000 LAN 2\nWi-Fi\n*Thunderbolt Bridge\nCorp VPN (1)\n\n";
        assert_eq!(active_services(listing), ["USB 10/100/1000 LAN 2", "Wi-Fi", "Corp VPN (1)"]);
        assert_eq!(active_services(""), Vec::<String>::new());
    }

    #[test]
    fn only_proxies_that_are_on_count() {
        let listing = "<dictionary> {\n  ExceptionsList : <array> {\n    0 : *.local\n  }\n  \
            HTTPEnable : 0\n  HTTPPort : 7890\n  HTTPProxy : 10.0.0.1\n  HTTPSEnable : 1\n  \
            HTTPSPort : 8081\n  HTTPSProxy : 127.0.0.1\n}\n";
        assert_eq!(effective(listing), ["127.0.0.1:8081"]);
        assert_eq!(effective("<dictionary> {\n}\n"), Vec::<String>::new());
    }
}
