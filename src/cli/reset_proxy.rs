//! `reset-proxy`: needs no home, no configuration, no daemon, no install.

use super::{Exit, Failure, say};

pub fn run() -> Result<Exit, Failure> {
    match crate::watchdog::reset_proxy() {
        Ok(None) => say("no system proxy setting on this platform: nothing to reset"),
        Ok(Some(services)) if services.is_empty() => {
            say("no network service: nothing to reset");
        }
        Ok(Some(services)) => say(format_args!("system proxy off on {}", services.join(", "))),
        Err(e) => {
            return Err(Failure::new(Exit::FAILED, e)
                .hint("open the network settings and switch the web proxies off by hand"));
        }
    }
    Ok(Exit::OK)
}
