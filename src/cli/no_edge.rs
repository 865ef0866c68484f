//! What is said of an edge that isn't there: its port is another program's, or its root can't start
//! one.

use jiff::Timestamp;

use crate::home::Home;
use crate::root::HOPELESS;
use crate::supervisor::{JournalEntry, journal};

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

    /// What helps a root that can't start an edge.
    pub fn next(self) -> &'static str {
        let cause = self.last_exit.unwrap_or_default();
        // Of the process, or of the whole system.
        if cause.contains("Too many open files") {
            "raise the limit of open files (`ulimit -n`), then `halton-meter edge stop` and `start`"
        } else if cause.starts_with("process ended") {
            "logs/edge.err.log in our home says why (a limit of memory or threads, say: raise it, then \
             `halton-meter edge stop` and `start`)"
        } else {
            "install halton-meter anew, then `halton-meter upgrade`"
        }
    }
}

/// The root has tried once more since, and lets nobody wait for an edge any longer.
pub fn is_hopeless(home: &Home, since: Timestamp) -> bool {
    journal::read_all(&home.journal_file()).is_ok_and(|entries| has_given_up(&entries, since))
}

fn has_given_up(entries: &[JournalEntry], since: Timestamp) -> bool {
    let unserved = entries.iter().rev().filter(of_edge).take_while(|e| e.event != "ready");
    let mut exits = unserved.filter(|e| e.event == "exited");
    let Some(last) = exits.next().filter(|last| last.at >= since) else { return false };
    exits.filter(|e| e.instance == last.instance).count() + 1 >= HOPELESS as usize
}

fn of_edge(entry: &&JournalEntry) -> bool {
    entry.process == "root" && entry.child.as_deref() == Some("edge")
}

/// Why the root's latest edge ended, if none served since.
pub fn last_exit(home: &Home) -> Option<String> {
    last_exit_of(&journal::read_all(&home.journal_file()).ok()?)
}

fn last_exit_of(entries: &[JournalEntry]) -> Option<String> {
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
        assert!(signs.next().starts_with("install"));
        let next = Signs { last_exit: Some("process ended: exit status: 1"), ..signs }.next();
        assert!(next.contains("edge.err.log"), "its program is there: {next}");
        let error = std::io::Error::from(rustix::io::Errno::MFILE).to_string();
        let next = Signs { last_exit: Some(&error), ..signs }.next();
        assert!(next.contains("ulimit -n"), "{error}: {next}");
    }

    fn entry(child: &str, event: &str, cause: &str) -> JournalEntry {
        serde_json::from_value(serde_json::json!({
            "seq": 1, "at": "2026-01-01T00:00:00Z", "process": "root", "instance": "i",
            "child": child, "event": event, "cause": cause,
        }))
        .unwrap()
    }

    #[test]
    fn a_root_is_given_up_once_it_has_tried_often_and_again() {
        let second = |n: i64| Timestamp::from_second(1_790_000_000 + n).unwrap();
        let failed = |instance: &str, n| JournalEntry {
            instance: instance.to_owned(),
            at: second(n),
            ..entry("edge", "exited", "failed: x")
        };
        let starting = || entry("edge", "starting", "");
        let mut entries = Vec::new();
        for n in 0..4 {
            entries.extend([starting(), failed("i", n), entry("daemon", "exited", "")]);
        }
        assert!(!has_given_up(&entries, second(0)), "it still has hope");
        entries.push(failed("i", 4));
        assert!(has_given_up(&entries, second(4)));
        assert!(!has_given_up(&entries, second(5)), "the next may serve");
        entries.push(failed("j", 5));
        assert!(!has_given_up(&entries, second(5)), "another root");
        entries.extend([entry("edge", "ready", ""), failed("i", 6)]);
        assert!(!has_given_up(&entries, second(5)));
        assert!(!has_given_up(&[], second(0)));
    }

    #[test]
    fn the_latest_end_counts_until_an_edge_serves() {
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
