//! What only Linux has. What builds arguments and parses output compiles, and is tested, anywhere.

#[cfg(target_os = "linux")]
pub mod listener;
#[cfg(target_os = "linux")]
pub mod owner;
#[cfg(target_os = "linux")]
pub mod splice;
pub mod trust_store;

use crate::platform::{ServiceManager, SessionEnvironment};

#[must_use]
pub fn service_manager() -> Option<Box<dyn ServiceManager>> {
    None
}

#[must_use]
pub fn session_environment() -> Option<Box<dyn SessionEnvironment>> {
    None
}
