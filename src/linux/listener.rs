//! Which program listens on a port: `/proc/net/tcp` for the socket, `/proc/PID/fd` for its owner.

use std::fs;
use std::net::SocketAddr;

/// `name, pid N`, if the owner can be seen.
#[must_use]
pub fn on(addr: SocketAddr) -> Option<String> {
    let inodes: Vec<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening(&table, addr.port()).collect::<Vec<_>>())
        .collect();
    let links: Vec<_> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let holds = fs::read_dir(process.path().join("fd")).ok()?.flatten().any(|fd| {
            fs::read_link(fd.path())
                .is_ok_and(|to| links.iter().any(|link| to.as_os_str() == link.as_str()))
        });
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        holds.then(|| format!("{}, pid {pid}", name.trim()))
    })
}

/// Inodes of the sockets of a `/proc/net/tcp` table that listen on `port`.
fn listening(table: &str, port: u16) -> impl Iterator<Item = u64> {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?;
        let local_port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (state == "0A" && local_port == port).then(|| inode.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_our_own_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let who = on(socket.local_addr().unwrap()).unwrap();
        assert!(who.ends_with(&format!("pid {}", std::process::id())), "{who}");
    }

    #[test]
    fn tables_are_read_by_column() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0\n   \
            1: 0100007F:1F91 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4343 1 0 20 4 30 10 -1\n";
        assert_eq!(listening(table, 0x1f91).collect::<Vec<_>>(), [4242]);
        assert_eq!(listening(table, 80).count(), 0);
    }
}
