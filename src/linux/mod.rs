//! What only Linux has. What builds arguments and parses output compiles, and is tested, anywhere.

pub mod bus;
#[cfg(target_os = "linux")]
pub mod canary;
#[cfg(target_os = "linux")]
pub mod connect;
#[cfg(target_os = "linux")]
pub mod environ;
pub mod gnome;
#[cfg(target_os = "linux")]
pub mod listener;
#[cfg(target_os = "linux")]
pub mod mounts;
#[cfg(target_os = "linux")]
pub mod owner;
#[cfg(target_os = "linux")]
pub mod resident;
pub mod session;
#[cfg(target_os = "linux")]
pub mod splice;
pub mod systemctl;
pub mod systemd;
pub mod trust_store;
pub mod units;

use crate::platform::{ServiceManager, SessionEnvironment};

/// A machine has a boot id of its own, a container a space of pids.
#[must_use]
pub fn place_of_pids() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let pids = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), pids.display()))
}

#[must_use]
pub fn service_manager() -> Option<Box<dyn ServiceManager>> {
    Some(Box::new(systemd::Systemd::default()))
}

#[must_use]
pub fn session_environment() -> Option<Box<dyn SessionEnvironment>> {
    Some(Box::new(session::EnvironmentD::default()))
}

/// `notify-send`; what it shows may be read as markup, so nothing in it is.
#[must_use]
pub fn notification(title: &str, text: &str) -> Vec<String> {
    let plain = |text: &str| text.replace('&', "+").replace('<', "(").replace('>', ")");
    let words = ["notify-send", "--app-name=Halton Meter", "--", &plain(title), &plain(text)];
    words.map(str::to_owned).into()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_notification_is_arguments_and_no_markup() {
        let command = super::notification("T", "$(rm) <b>&amp; -x");
        assert_eq!(command[2..], ["--", "T", "$(rm) (b)+amp; -x"]);
    }
}
