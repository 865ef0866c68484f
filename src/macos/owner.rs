//! Which process owns a socket: not known on this platform yet, and said so.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Whether this platform can tell at all.
pub const AVAILABLE: bool = false;

/// A process and the descriptor by which it holds a socket.
pub type Holder = (u32, i32);

#[must_use]
pub fn of_socket(_: SocketAddr, _: SocketAddr, _recent: &[Holder]) -> Option<Holder> {
    None
}

#[must_use]
pub fn start_time(_pid: u32) -> Option<u64> {
    None
}

#[must_use]
pub fn executable(_pid: u32) -> Option<PathBuf> {
    None
}

#[must_use]
pub fn working_directory(_pid: u32) -> Option<PathBuf> {
    None
}

#[must_use]
pub fn arguments(_pid: u32) -> Vec<String> {
    Vec::new()
}

#[must_use]
pub fn variable(_pid: u32, _name: &str) -> Option<String> {
    None
}
