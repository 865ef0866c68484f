//! What the system tells of its processes and of its network.

use std::net::SocketAddr;

use super::same;
use crate::linux::gnome;
use crate::macos::{launchctl, listener, network, plist, procinfo, route};
use crate::platform::{is_proxy_to, read_owners};

/// `/proc` and netlink (on Linux), environments, `gsettings`.
pub fn processes(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    read_owners(data, &text);
    for line in text.lines() {
        let _ = is_proxy_to(line, SocketAddr::from(([127, 0, 0, 1], 8081)));
    }
    for item in gnome::list(&text) {
        assert!(!item.is_empty() && text.contains(&item));
    }
}

/// `networksetup`, `scutil`, `launchctl`, `lsof`, property lists, libproc, the routing socket.
pub fn macos(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for (service, _) in network::services(&text) {
        assert!(!service.contains('\n') && text.contains(service));
    }
    let _ = network::read_proxy(&text);
    for domain in network::read_bypass(&text) {
        assert!(!domain.contains(' '));
    }
    let _ = network::read_auto(&text);
    assert!(network::effective(&text).len() <= 2);
    let _ = network::other_way(&text);
    let _ = launchctl::read_print(&text);
    assert!(launchctl::read_disabled(&text).all(|label| text.contains(label)));
    let _ = listener::owner(&text, ([127, 0, 0, 1], 8081).into());
    // What we write is what we read.
    let own: Vec<plist::Value> = text.split('\n').map(plist::Value::from).collect();
    let root = plist::Value::Dict(vec![("ProgramArguments", plist::Value::Array(own))]);
    if let Some(file) = plist::render(&root) {
        assert!(
            plist::strings(&file, "ProgramArguments")
                .iter()
                .map(String::as_str)
                .eq(text.split('\n'))
        );
    }
    let _ = plist::strings(&text, "ProgramArguments");
    // Structures of the system, and pieces of them.
    same(|_| {
        let sockets: Vec<i32> = procinfo::sockets(data).collect();
        let with = procinfo::started_with(data).unwrap_or_default();
        let words = with.arguments.len() + with.environment.len();
        assert!(words <= data.len() + 1);
        (sockets, procinfo::pids(data), procinfo::ends(data), words)
    });
    let _ = procinfo::started(data);
    let _ = procinfo::parent(data);
    assert!(procinfo::working_directory(data).is_none_or(|path| path.len() <= 1024));
    let _ = route::is_change(data);
}
