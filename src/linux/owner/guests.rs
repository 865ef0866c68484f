//! Whether another user's processes are those of a person who came to this machine by a login of its own.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::parent;

const MAX_ANCESTORS: usize = 64;

/// Whether that user may have been let in: a process of this user's descends from one of that user's, as with
/// `sudo -u`, or comes from no login of this user's own, as in a container, in a unit of the system's, or
/// behind `sudo -u` whose parent has ended. True as well where none can be seen.
#[must_use]
pub fn was_let_in(guest: u32, host: u32) -> bool {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    lets_in(pids, guest, host, &Proc)
}

/// What is to be seen of processes.
trait Look {
    fn user(&self, pid: u32) -> Option<u32>;
    fn parent(&self, pid: u32) -> Option<u32>;
    /// Who logged in to start it, and where it is accounted for.
    fn login(&self, pid: u32) -> (String, String);
}

struct Proc;

impl Look for Proc {
    fn user(&self, pid: u32) -> Option<u32> {
        fs::metadata(format!("/proc/{pid}")).ok().map(|meta| meta.uid())
    }

    fn parent(&self, pid: u32) -> Option<u32> {
        parent(pid)
    }

    fn login(&self, pid: u32) -> (String, String) {
        let read = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        (read("loginuid"), read("cgroup"))
    }
}

fn lets_in(pids: impl Iterator<Item = u32>, guest: u32, host: u32, look: &impl Look) -> bool {
    let of_host = |pid: u32| {
        let above = std::iter::successors(look.parent(pid), |pid| look.parent(*pid));
        above.take(MAX_ANCESTORS).any(|pid| look.user(pid) == Some(host))
    };
    let of_nobody = |pid: u32| {
        let (login, cgroup) = look.login(pid);
        // One that has just ended tells nothing, of which nothing follows.
        !is_own_login(guest, &login, &cgroup) && look.user(pid) == Some(guest)
    };
    let mut theirs = pids.filter(|pid| look.user(*pid) == Some(guest)).peekable();
    theirs.peek().is_none() || theirs.any(|pid| of_host(pid) || of_nobody(pid))
}

/// The kernel remembers who logged in, where PAM tells it, and systemd puts each user's sessions into a slice.
/// Both outlast parents and a change of the uid. The namespaces of another user's process are not ours to read.
fn is_own_login(guest: u32, login: &str, cgroup: &str) -> bool {
    let slice = format!("user-{guest}.slice");
    login.trim().parse() == Ok(guest) || cgroup.split(['/', '\n']).any(|part| part == slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: u32 = 1001;
    const HOST: u32 = 1000;
    const UNSET: &str = "4294967295";

    /// By pid: user, parent, login and cgroup.
    struct Table(Vec<(u32, u32, u32, &'static str, &'static str)>);

    impl Look for Table {
        fn user(&self, pid: u32) -> Option<u32> {
            self.0.iter().find(|row| row.0 == pid).map(|row| row.1)
        }

        fn parent(&self, pid: u32) -> Option<u32> {
            self.0.iter().find(|row| row.0 == pid).map(|row| row.2)
        }

        fn login(&self, pid: u32) -> (String, String) {
            let row = self.0.iter().find(|row| row.0 == pid).unwrap();
            (row.3.to_owned(), row.4.to_owned())
        }
    }

    fn is_let_in(pid: u32, parent: u32, login: &'static str, cgroup: &'static str) -> bool {
        let table = Table(vec![
            (1, 0, 0, UNSET, "0::/init.scope\n"),
            (50, HOST, 1, "1000", "0::/user.slice/user-1000.slice/session-1.scope\n"),
            (51, 0, 50, "1000", "0::/user.slice/user-1000.slice/session-1.scope\n"),
            (60, GUEST, 1, "1001", "0::/user.slice/user-1001.slice/session-2.scope\n"),
            (pid, GUEST, parent, login, cgroup),
        ]);
        lets_in(table.0.iter().map(|row| row.0), GUEST, HOST, &table)
    }

    #[test]
    fn a_person_with_a_login_of_its_own_is_not() {
        for (parent, login, cgroup) in [
            (60, "1001", "0::/user.slice/user-1001.slice/session-2.scope\n"),
            // In the background, and without audit.
            (1, UNSET, "0::/user.slice/user-1001.slice/user@1001.service/app.slice/x.scope\n"),
            (1, "", "4:memory:/\n1:name=systemd:/user.slice/user-1001.slice/session-2.scope\n"),
            // Without systemd.
            (1, "1001\n", "0::/\n"),
        ] {
            assert!(!is_let_in(70, parent, login, cgroup), "{login} {cgroup}");
        }
    }

    #[test]
    fn who_came_otherwise_is() {
        let hosts = "0::/user.slice/user-1000.slice/session-1.scope\n";
        for (parent, login, cgroup) in [
            // `sudo -u`, also from a service of the host's, and when its parent has ended.
            (51, "1000", hosts),
            (51, "1001", "0::/user.slice/user-1001.slice/session-2.scope\n"),
            (1, "1000", hosts),
            // A container with the network of this machine, and a unit of the system's.
            (1, UNSET, "0::/system.slice/docker-5f.scope\n"),
            (1, UNSET, "0::/../../docker/5f\n"),
            (1, UNSET, "0::/system.slice/batch.service\n"),
            // It can't be told.
            (1, UNSET, "0::/\n"),
            (1, "", ""),
            (1, "10010", "0::/user.slice/user-10010.slice/session-2.scope\n"),
        ] {
            assert!(is_let_in(70, parent, login, cgroup), "{parent} {login} {cgroup}");
        }
    }

    #[test]
    fn so_is_who_can_t_be_seen() {
        let own = rustix::process::geteuid().as_raw();
        assert!(was_let_in(4_000_000_001, own));
        // This process has a parent, of whichever user.
        let parent = Proc.user(std::os::unix::process::parent_id()).unwrap();
        assert!(was_let_in(own, parent));
    }
}
