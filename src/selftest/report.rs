//! What a self-test found.

use serde::Serialize;

/// How bad. In order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Not looked at, because of something that is named elsewhere.
    Skipped,
    Ok,
    /// Requests pass, but something is not metered, or not as it should be.
    Degraded,
    /// Requests would fail.
    Broken,
}

impl Level {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Broken => "broken",
        }
    }

    /// The exit code of a command that found this.
    #[must_use]
    pub fn exit(self) -> u8 {
        match self {
            Self::Skipped | Self::Ok => 0,
            Self::Degraded => 1,
            Self::Broken => 2,
        }
    }
}

/// One thing that was tried.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub level: Level,
    pub ms: u64,
    pub detail: String,
    /// What to do about it.
    pub next: Option<String>,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Report {
    pub level: Level,
    pub duration_ms: u64,
    pub checks: Vec<Check>,
}

impl Report {
    #[must_use]
    pub fn new(checks: Vec<Check>) -> Self {
        let level = checks.iter().map(|c| c.level).max().unwrap_or(Level::Ok).max(Level::Ok);
        let duration_ms = checks.iter().map(|c| c.ms).sum();
        Self { level, duration_ms, checks }
    }

    /// What to do first.
    #[must_use]
    pub fn next(&self) -> Option<&str> {
        self.checks.iter().filter(|c| c.level == self.level).find_map(|c| c.next.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_decides() {
        use Level::{Broken, Degraded, Ok, Skipped};
        let table: [(&[Level], Level, u8); 5] = [
            (&[], Ok, 0),
            (&[Ok, Skipped], Ok, 0),
            (&[Skipped], Ok, 0),
            (&[Ok, Degraded, Ok], Degraded, 1),
            (&[Broken, Degraded, Skipped], Broken, 2),
        ];
        for (levels, want, exit) in table {
            let check = |level: &Level| Check {
                name: "x",
                level: *level,
                ms: 1,
                detail: String::new(),
                next: Some(level.name().to_owned()),
            };
            let report = Report::new(levels.iter().map(check).collect());
            assert_eq!((report.level, report.level.exit()), (want, exit), "{levels:?}");
            assert_eq!(report.next(), levels.contains(&want).then(|| want.name()));
        }
    }
}
