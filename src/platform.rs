//! (being written)

#[cfg(target_os = "linux")]
pub use crate::linux::splice;
#[cfg(not(target_os = "linux"))]
pub use crate::macos::splice;
