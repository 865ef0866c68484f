//! How the starts of the edge have gone: what is tried next, and when nobody is to wait for it any
//! longer.

/// Failed starts of the file in a row until the program that runs is preferred every other time: what
/// took the file's place may start and not live.
const DOUBT: u32 = 2;
/// Failed starts in a row, within half a second if nothing can be started, until whoever connects is
/// refused: connections that wait for an edge that doesn't come wait for ever.
pub const HOPELESS: u32 = 5;

/// What an edge is started from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Program {
    /// Our file as it is now.
    File,
    /// What this process runs, whatever has become of its file.
    Running,
}

impl Program {
    /// The order in which they are tried.
    pub(super) const FILE_FIRST: [Self; 2] = [Self::File, Self::Running];
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Starts {
    /// In a row.
    failed: u32,
    /// The latest one served.
    served: bool,
}

impl Starts {
    /// Takes in what the journal says of the edge.
    pub(super) fn heard(&mut self, event: &str) {
        match event {
            "ready" => *self = Self { failed: 0, served: true },
            "exited" if self.served => self.served = false,
            "exited" => self.failed = self.failed.saturating_add(1),
            _ => {}
        }
    }

    pub(super) fn order(self) -> [Program; 2] {
        if self.failed >= DOUBT && self.failed.is_multiple_of(2) {
            [Program::Running, Program::File]
        } else {
            Program::FILE_FIRST
        }
    }

    pub(super) fn hopeless(self) -> bool {
        self.failed >= HOPELESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(events: &[&str]) -> Starts {
        let mut starts = Starts::default();
        events.iter().for_each(|event| starts.heard(event));
        starts
    }

    #[test]
    fn a_program_that_starts_and_does_not_live_is_passed_over() {
        let own_first = [Program::Running, Program::File];
        assert_eq!(after(&[]).order(), Program::FILE_FIRST);
        assert_eq!(after(&["exited"]).order(), Program::FILE_FIRST);
        assert_eq!(after(&["exited"; 2]).order(), own_first);
        assert_eq!(after(&["exited"; 3]).order(), Program::FILE_FIRST, "it may be mended by now");
        assert_eq!(after(&["exited"; 4]).order(), own_first);
    }

    #[test]
    fn only_edges_that_never_served_count() {
        assert!(!after(&["starting", "exited", "restart_due"].repeat(4)).hopeless());
        assert!(after(&["starting", "exited"].repeat(5)).hopeless());
        let lived = after(&["starting", "ready", "exited"].repeat(9));
        assert!(!lived.hopeless() && lived.order() == Program::FILE_FIRST);
        let mut starts = after(&["exited"; 9]);
        starts.heard("ready");
        assert!(!starts.hopeless(), "one that serves is the end of it");
    }
}
