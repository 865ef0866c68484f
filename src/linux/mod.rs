//! What only Linux has. What builds arguments and parses output compiles, and is tested, anywhere.

#[cfg(target_os = "linux")]
pub mod environ;
#[cfg(target_os = "linux")]
pub mod listener;
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

#[must_use]
pub fn service_manager() -> Option<Box<dyn ServiceManager>> {
    Some(Box::new(systemd::Systemd::default()))
}

#[must_use]
pub fn session_environment() -> Option<Box<dyn SessionEnvironment>> {
    Some(Box::new(session::EnvironmentD::default()))
}
