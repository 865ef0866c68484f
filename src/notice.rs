//! The note that a running self-test leaves for edge and daemon: where its origin is.
//!
//! It holds for one host name that exists nowhere else, leads to loopback only, and only while the
//! process that wrote it lives and holds the lock: a stale one is nobody's.

use std::fs;
use std::io;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::is_selftest;
use crate::home::{Home, PidLock, write_atomic};
use crate::threads;

/// A longer file is not ours.
const MAX: u64 = 64 * 1024;

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Notice {
    /// Names the run.
    pub id: Uuid,
    /// Who runs it; it holds the lock `run/selftest.pid`.
    pub pid: u32,
    pub origin: SocketAddr,
    /// The only root that the origin is judged by.
    pub root_pem: String,
    pub until: Timestamp,
}

impl Notice {
    /// Where the lock of the one self-test at a time is.
    pub fn lock(home: &Home) -> io::Result<Option<PidLock>> {
        PidLock::acquire(&home.pid_file("selftest"))
    }

    pub fn write(&self, home: &Home) -> io::Result<()> {
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        write_atomic(&home.selftest().notice_file(), &text)
    }

    /// The notice in force, if there is one. Reads files.
    #[must_use]
    pub fn current(home: &Home) -> Option<Self> {
        let path = home.selftest().notice_file();
        fs::metadata(&path).ok().filter(|m| m.is_file() && m.len() <= MAX)?;
        let notice: Self = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        let runner = PidLock::holder(&home.pid_file("selftest")).ok().flatten();
        notice.holds(runner, Timestamp::now()).then_some(notice)
    }

    fn holds(&self, runner: Option<u32>, now: Timestamp) -> bool {
        runner == Some(self.pid) && now < self.until && self.origin.ip().is_loopback()
    }
}

/// The same for whoever is about to connect to `host`, off the caller's thread.
pub async fn current_for(home: &Home, host: &str) -> Option<Notice> {
    if !is_selftest(host) {
        return None;
    }
    let home = home.clone();
    threads::blocking(move || Notice::current(&home)).await.ok().flatten()
}

/// Only the address.
pub async fn origin_for(home: &Home, host: &str) -> Option<SocketAddr> {
    current_for(home, host).await.map(|notice| notice.origin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SELFTEST_HOST;

    fn notice() -> Notice {
        Notice {
            id: Uuid::nil(),
            pid: std::process::id(),
            origin: ([127, 0, 0, 1], 4444).into(),
            root_pem: String::new(),
            until: Timestamp::MAX,
        }
    }

    #[test]
    fn only_a_living_run_on_loopback_counts() {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let me = Some(std::process::id());
        let good = notice();
        assert!(good.holds(me, now));
        assert!(!good.holds(None, now), "its process is gone");
        assert!(!good.holds(Some(1), now), "another run");
        assert!(!Notice { until: now, ..notice() }.holds(me, now), "too old");
        let away = Notice { origin: ([192, 0, 2, 1], 443).into(), ..notice() };
        assert!(!away.holds(me, now), "not on this machine");
    }

    #[tokio::test]
    async fn a_stale_file_or_another_host_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        fs::create_dir(home.selftest().path()).unwrap();
        assert_eq!(Notice::current(&home), None);
        notice().write(&home).unwrap();
        assert_eq!(Notice::current(&home), None, "nobody holds the lock");
        let lock = Notice::lock(&home).unwrap().unwrap();
        assert_eq!(Notice::current(&home), Some(notice()));
        assert_eq!(origin_for(&home, SELFTEST_HOST).await, Some(notice().origin));
        assert_eq!(origin_for(&home, "api.anthropic.com").await, None);
        fs::write(home.selftest().notice_file(), "{").unwrap();
        assert_eq!(Notice::current(&home), None);
        drop(lock);
    }
}
