//! (being written)

#[cfg(target_os = "linux")]
pub use crate::linux::{owner, splice};
#[cfg(not(target_os = "linux"))]
pub use crate::macos::{owner, splice};
