//! What is measured, and how much of it.

use std::time::Duration;

use anyhow::Result;

use crate::load::{self, Run, Subject};

/// Which part of the product the bytes go through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// A host that is not metered: raw tunnels.
    Edge,
    /// A metered host: TLS ends in the daemon, each request becomes a row.
    Tap,
}

/// Who carries the bytes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Target {
    Direct,
    Copy,
    Splice,
    Intercept,
    Meter,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Tap => "tap",
        }
    }

    /// What the product is compared with.
    pub fn baselines(self) -> &'static [Target] {
        match self {
            Self::Edge => &[Target::Copy, Target::Splice],
            Self::Tap => &[Target::Intercept],
        }
    }

    pub fn targets(self) -> Vec<Target> {
        [&[Target::Direct], self.baselines(), &[Target::Meter]].concat()
    }
}

impl Target {
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Copy => "copy",
            Self::Splice => "splice",
            Self::Intercept => "intercept",
            Self::Meter => "meter",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Load {
    KeepAlive(usize),
    Fresh,
    Down,
    Up,
    /// So many, paced as a model writes.
    Streams(u64),
    /// One stream, as fast as it goes.
    Flood,
    Http2,
}

#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub side: Side,
    pub name: &'static str,
    /// What CPU time is divided by.
    pub unit: &'static str,
    pub load: Load,
}

impl Case {
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.side.name(), self.name)
    }

    pub async fn run(&self, subject: &Subject, scale: &Scale) -> Result<Run> {
        let mib = match self.side {
            Side::Edge => scale.raw_mib,
            Side::Tap => scale.tls_mib,
        };
        match self.load {
            Load::KeepAlive(n) => load::keep_alive(subject, n, scale.cell).await,
            Load::Fresh => load::fresh(subject, scale.fresh, scale.cell).await,
            Load::Down => load::down(subject, mib).await,
            Load::Up => load::up(subject, mib).await,
            Load::Streams(n) => {
                let gap = if n > MANY { LONG_GAP } else { GAP };
                load::streams(subject, n, scale.events, gap).await
            }
            Load::Flood => {
                let run = load::streams(subject, 1, scale.flood, Duration::ZERO).await?;
                // How long an event waits behind those before it is no delay of anyone's making.
                Ok(Run { samples: Vec::new(), firsts: Vec::new(), ..run })
            }
            Load::Http2 => load::h2(subject, 16, scale.cell).await,
        }
    }
}

/// More streams than that write slower: all of them together must not be too much for one machine.
const MANY: u64 = 64;
const GAP: Duration = Duration::from_millis(40);
const LONG_GAP: Duration = Duration::from_millis(100);

pub const CASES: [Case; 17] = [
    case(Side::Edge, "keep-alive-1", "request", Load::KeepAlive(1)),
    case(Side::Edge, "keep-alive-16", "request", Load::KeepAlive(16)),
    case(Side::Edge, "keep-alive-64", "request", Load::KeepAlive(64)),
    case(Side::Edge, "new-connection", "connection", Load::Fresh),
    case(Side::Edge, "down", "MiB", Load::Down),
    case(Side::Edge, "up", "MiB", Load::Up),
    case(Side::Edge, "sse-64", "event", Load::Streams(64)),
    case(Side::Tap, "keep-alive-1", "request", Load::KeepAlive(1)),
    case(Side::Tap, "keep-alive-16", "request", Load::KeepAlive(16)),
    case(Side::Tap, "keep-alive-64", "request", Load::KeepAlive(64)),
    case(Side::Tap, "http2-16", "request", Load::Http2),
    case(Side::Tap, "new-connection", "connection", Load::Fresh),
    case(Side::Tap, "down", "MiB", Load::Down),
    case(Side::Tap, "up", "MiB", Load::Up),
    case(Side::Tap, "sse-64", "event", Load::Streams(64)),
    case(Side::Tap, "sse-512", "event", Load::Streams(512)),
    case(Side::Tap, "sse-flood", "event", Load::Flood),
];

const fn case(side: Side, name: &'static str, unit: &'static str, load: Load) -> Case {
    Case { side, name, unit, load }
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub rounds: usize,
    /// How long a load that is bounded by time goes on.
    pub cell: Duration,
    pub fresh: usize,
    pub raw_mib: u64,
    pub tls_mib: u64,
    pub events: u64,
    pub flood: u64,
    pub idle_raw: usize,
    pub idle_tls: usize,
    pub idle_watch: Duration,
    /// How long the product has for giving memory back: it looks every 10 s. The baselines don't.
    pub idle_settle: Duration,
    pub fault: Duration,
    pub starts: usize,
}

impl Scale {
    pub const FULL: Self = Self {
        rounds: 7,
        cell: Duration::from_millis(600),
        fresh: 1000,
        raw_mib: 512,
        tls_mib: 192,
        events: 25,
        flood: 20_000,
        idle_raw: 9_900,
        idle_tls: 1_000,
        idle_watch: Duration::from_secs(2),
        idle_settle: Duration::from_secs(22),
        fault: Duration::from_secs(9),
        starts: 7,
    };

    pub const SMOKE: Self = Self {
        rounds: 2,
        cell: Duration::from_millis(120),
        fresh: 50,
        raw_mib: 64,
        tls_mib: 32,
        events: 5,
        flood: 5_000,
        idle_raw: 200,
        idle_tls: 100,
        idle_watch: Duration::from_millis(500),
        idle_settle: Duration::ZERO,
        fault: Duration::from_secs(3),
        starts: 2,
    };
}
