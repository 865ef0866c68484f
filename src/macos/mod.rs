//! What only macOS has. What builds arguments and parses output compiles, and is tested, anywhere.

pub mod activate;
pub mod agents;
pub mod environ;
pub mod image;
pub mod launchctl;
pub mod launchd;
pub mod libproc;
pub mod listener;
pub mod local_network;
pub mod network;
pub mod owner;
pub mod plist;
pub mod procinfo;
pub mod route;
pub mod session;
pub mod splice;
pub mod system_proxy;
pub mod trust_store;

#[cfg(test)]
#[path = "../../tests/support/standins.rs"]
mod standins;

use std::path::{Path, PathBuf};

use crate::platform::{ServiceManager, SessionEnvironment};

/// All of a machine's processes are in one space.
#[must_use]
pub fn place_of_pids() -> Option<String> {
    let mut asked = std::process::Command::new("/usr/sbin/sysctl");
    let said = asked.args(["-n", "kern.bootsessionuuid"]).output().ok()?.stdout;
    let boot = String::from_utf8(said).ok()?.trim().to_owned();
    (!boot.is_empty()).then_some(boot)
}

#[must_use]
pub fn service_manager() -> Option<Box<dyn ServiceManager>> {
    Some(Box::new(launchd::Launchd::default()))
}

#[must_use]
pub fn session_environment() -> Option<Box<dyn SessionEnvironment>> {
    Some(Box::new(session::Session::default()))
}

/// Where macOS keeps what we ask of it, for a shell or a service whose search path does not lead there.
#[must_use]
pub fn place_of_tool(program: &str) -> Option<&'static str> {
    match program {
        launchctl::PROGRAM => Some("/bin/launchctl"),
        network::PROGRAM => Some("/usr/sbin/networksetup"),
        network::IN_FORCE => Some("/usr/sbin/scutil"),
        trust_store::PROGRAM => Some("/usr/bin/security"),
        _ => None,
    }
}

/// Not asked: which folders hang together is told by their paths here.
#[must_use]
pub fn mounted_on(_dir: &Path) -> Option<PathBuf> {
    None
}

/// `osascript`: the texts are arguments of the script, not part of it.
#[must_use]
pub fn notification(title: &str, text: &str) -> Vec<String> {
    let show = "display notification (item 2 of argv) with title (item 1 of argv)";
    let words = ["osascript", "-e", "on run argv", "-e", show, "-e", "end run", "--", title, text];
    words.map(str::to_owned).into()
}
