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
}
