//! What only macOS has. What builds arguments and parses output compiles, and is tested, anywhere.

pub mod activate;
pub mod listener;
pub mod owner;
pub mod splice;
pub mod system_proxy;
pub mod trust_store;
