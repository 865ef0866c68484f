//! What is said of an edge that isn't there: its port is another program's, or its root can't start
//! one.

use crate::home::Home;
use crate::supervisor::{JournalEntry, journal};

/// What helps a root that can't start an edge.
pub const NEXT: &str = "install halton-meter anew, then `halton-meter upgrade`";

/// Why no edge is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// Another program has its port.
    Taken,
    /// It ends before it serves, or can't be started at all.
    DoesNotStart,
    NotRunning,
}

/// What is known when no edge holds its lock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signs<'a> {
    /// Who listens on its port, as `name, pid N` if that can be told.
    pub holder: Option<&'a str>,
    pub root: Option<u32>,
    /// The service manager, if it keeps our socket.
    pub manager: Option<&'a str>,
    /// How the root's latest edge ended.
    pub last_exit: Option<&'a str>,
}

impl Signs<'_> {
    pub fn why(self) -> Why {
        match self.holder {
            Some(holder) if self.is_ours(holder) => Why::DoesNotStart,
            Some(_) => Why::Taken,
            None if self.root.is_some() && self.last_exit.is_some() => Why::DoesNotStart,
            None => Why::NotRunning,
        }
    }

    /// The root holds the port over the lives of the edge, and the service manager over its own.
    fn is_ours(self, holder: &str) -> bool {
        let by = |root| holder.ends_with(&format!(", pid {root}"));
        self.root.is_some_and(by)
            || self.manager.is_some_and(|name| holder.starts_with(&format!("{name}, pid ")))
    }

    pub fn does_not_start(self) -> String {
        let cause = self.last_exit.map(|cause| format!(": {cause}"));
        format!("the edge does not start{}", cause.unwrap_or_default())
    }
}

/// Why the root's latest edge ended, if none served since.
pub fn last_exit(home: &Home) -> Option<String> {
    last_exit_of(&journal::read_all(&home.journal_file()).ok()?)
}

fn last_exit_of(entries: &[JournalEntry]) -> Option<String> {
    let of_edge = |e: &&JournalEntry| e.process == "root" && e.child.as_deref() == Some("edge");
    let mut ends = entries.iter().rev().filter(of_edge);
    let last = ends.find(|e| e.event == "ready" || e.event == "exited")?;
    let cause = last.cause.as_deref().filter(|_| last.event == "exited")?;
    let cause = cause.strip_prefix("failed: ").unwrap_or(cause);
    Some(cause.strip_prefix("could not be started: ").unwrap_or(cause).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_root_and_its_service_manager_are_no_other_programs() {
        let signs = Signs { root: Some(7), ..Signs::default() };
        let held = |holder, signs| Signs { holder: Some(holder), ..signs }.why();
        assert_eq!(held("halton-meter, pid 7", signs), Why::DoesNotStart);
        assert_eq!(held("exe, pid 7", signs), Why::DoesNotStart, "started after its file was gone");
        assert_eq!(held("nginx, pid 77", signs), Why::Taken);
        assert_eq!(held("halton-meter, pid 7", Signs::default()), Why::Taken, "of another home");
        assert_eq!(held("systemd, pid 5", signs), Why::Taken, "not for us");
        let kept = Signs { manager: Some("systemd"), ..Signs::default() };
        assert_eq!(held("systemd, pid 5", kept), Why::DoesNotStart);
    }

    #[test]
    fn a_root_that_refuses_connections_tells_why() {
        let signs = Signs { root: Some(7), ..Signs::default() };
        assert_eq!(signs.why(), Why::NotRunning, "it has only begun");
        let signs = Signs { last_exit: Some("/bin/hm: not there"), ..signs };
        assert_eq!(signs.why(), Why::DoesNotStart);
        assert_eq!(signs.does_not_start(), "the edge does not start: /bin/hm: not there");
        assert_eq!(Signs { root: None, ..signs }.why(), Why::NotRunning, "long ago");
    }

    #[test]
    fn the_latest_end_counts_until_an_edge_serves() {
        let entry = |child: &str, event: &str, cause: &str| -> JournalEntry {
            serde_json::from_value(serde_json::json!({
                "seq": 1, "at": "2026-01-01T00:00:00Z", "process": "root", "instance": "i",
                "child": child, "event": event, "cause": cause,
            }))
            .unwrap()
        };
        let gone = entry("edge", "exited", "failed: could not be started: /bin/hm: not there");
        let mut entries = vec![
            entry("edge", "exited", "killed"),
            gone,
            entry("edge", "starting", ""),
            entry("daemon", "exited", "failed: process ended"),
        ];
        assert_eq!(last_exit_of(&entries).as_deref(), Some("/bin/hm: not there"));
        entries.push(entry("edge", "ready", ""));
        assert_eq!(last_exit_of(&entries), None);
        assert_eq!(last_exit_of(&[]), None);
    }
}
