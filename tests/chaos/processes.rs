//! What the processes hold, from /proc; where there is none, nothing is measured, and that is said.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use halton_meter::home::HOME_VAR;

use crate::harness::Stand;

pub const PROCESSES: [&str; 4] = ["root", "edge", "daemon", "watchdog"];

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Held {
    pub pid: u32,
    pub rss_kib: u64,
    pub descriptors: usize,
    pub threads: u64,
}

/// Of each process that lives.
pub fn held(stand: &Stand) -> BTreeMap<&'static str, Held> {
    PROCESSES.iter().filter_map(|name| Some((*name, look(stand.pid(name)?)?))).collect()
}

fn look(pid: u32) -> Option<Held> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |key: &str| -> Option<u64> {
        let line = status.lines().find_map(|l| l.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some(Held {
        pid,
        rss_kib: number("VmRSS:")?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
        threads: number("Threads:")?,
    })
}

/// Processes of this home: whatever holds no lock any more would show here too.
pub fn leftovers(stand: &Stand) -> Vec<String> {
    let own = format!("{HOME_VAR}={}", stand.home.path().display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let dir = entry.path();
        let environ = fs::read(dir.join("environ")).unwrap_or_default();
        if environ.split(|b| *b == 0).any(|v| v == own.as_bytes()) {
            let line = fs::read(dir.join("cmdline")).unwrap_or_default();
            found.push(format!(
                "{} {}",
                entry.file_name().to_string_lossy(),
                String::from_utf8_lossy(&line).replace('\0', " ")
            ));
        }
    }
    found
}

/// What they hold over time.
#[derive(Debug)]
pub struct Usage {
    pub idle: BTreeMap<&'static str, Held>,
    /// The most of everything that was seen, whichever process it was.
    pub most: BTreeMap<&'static str, Held>,
    pub rest: BTreeMap<&'static str, Held>,
}

/// How many more descriptors a process may hold at rest than before the storm: SQLite's files and a
/// connection of ours that has not timed out.
const MORE_DESCRIPTORS: usize = 10;
/// Allocators keep some of what was used.
const MORE_RSS_KIB: u64 = 96 * 1024;
const REST: Duration = Duration::from_secs(40);

impl Usage {
    pub fn new(stand: &Stand) -> Self {
        let idle = held(stand);
        Self { most: idle.clone(), rest: BTreeMap::new(), idle }
    }

    pub fn look(&mut self, stand: &Stand) {
        for (name, now) in held(stand) {
            let most = self.most.entry(name).or_default();
            most.rss_kib = most.rss_kib.max(now.rss_kib);
            most.descriptors = most.descriptors.max(now.descriptors);
            most.threads = most.threads.max(now.threads);
        }
    }

    /// Waits until the processes have let go of what the traffic took; says what they keep.
    pub fn rest(&mut self, stand: &Stand) -> Vec<String> {
        let end = Instant::now() + REST;
        loop {
            self.rest = held(stand);
            let kept = self.kept();
            if kept.is_empty() || Instant::now() > end {
                return kept;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kept(&self) -> Vec<String> {
        let mut kept = Vec::new();
        for (name, idle) in &self.idle {
            let Some(now) = self.rest.get(name) else {
                kept.push(format!("no {name} after the storm"));
                continue;
            };
            if now.descriptors > idle.descriptors + MORE_DESCRIPTORS {
                kept.push(format!(
                    "the {name} holds {} descriptors at rest, {} before the storm",
                    now.descriptors, idle.descriptors
                ));
            }
            if now.rss_kib > idle.rss_kib + MORE_RSS_KIB {
                kept.push(format!(
                    "the {name} holds {} KiB at rest, {} before the storm",
                    now.rss_kib, idle.rss_kib
                ));
            }
        }
        kept
    }
}
