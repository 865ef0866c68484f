//! What the clients met.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::oracle::{Broken, Fault, Route, Stage};

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// A connection per request.
    New,
    KeepAlive,
    /// A stream of events, slowly.
    Slow,
    Upload,
    Download,
    WebSocket,
    Http2,
    /// Plain HTTP in absolute form.
    Plain,
    /// Past the product, to see what the provider does.
    Direct,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::New,
        Self::KeepAlive,
        Self::Slow,
        Self::Upload,
        Self::Download,
        Self::WebSocket,
        Self::Http2,
        Self::Plain,
        Self::Direct,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new connection",
            Self::KeepAlive => "keep-alive",
            Self::Slow => "slow SSE",
            Self::Upload => "upload",
            Self::Download => "download",
            Self::WebSocket => "WebSocket",
            Self::Http2 => "HTTP/2",
            Self::Plain => "plain HTTP",
            Self::Direct => "direct",
        }
    }
}

/// How something failed, and how far it had come.
#[derive(Clone, Debug)]
pub struct Failed {
    pub stage: Stage,
    pub fault: Fault,
    pub silent: bool,
    pub text: String,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Try {
    pub kind: Kind,
    /// To a host on the metered list.
    pub metered_host: bool,
    pub route: Route,
    pub connection: u64,
    /// The first on its connection.
    pub fresh: bool,
    pub opened: Duration,
    pub started: Duration,
    pub ended: Duration,
    pub bytes: u64,
    /// The provider's name for it.
    pub request_id: Option<String>,
    pub failed: Option<Failed>,
}

impl Try {
    pub fn broken(&self) -> Option<Broken> {
        let failed = self.failed.as_ref()?;
        Some(Broken {
            fault: failed.fault,
            stage: failed.stage,
            route: self.route,
            plain: self.kind == Kind::Plain,
            fresh: self.fresh,
            silent: failed.silent,
            opened: self.opened,
            ended: self.ended,
        })
    }

    /// From the dial, for the first request on a connection.
    pub fn took(&self) -> Duration {
        self.ended - if self.fresh { self.opened } else { self.started }
    }
}

/// All of it, with the storm's clock.
#[derive(Debug)]
pub struct Record {
    start: Instant,
    tries: Mutex<Vec<Try>>,
}

impl Record {
    pub fn new() -> Self {
        Self { start: Instant::now(), tries: Mutex::default() }
    }

    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn push(&self, one: Try) {
        self.lock().push(one);
    }

    pub fn lock(&self) -> MutexGuard<'_, Vec<Try>> {
        self.tries.lock().expect("tries")
    }

    /// End of the first metered request of those begun after `since` on a new connection.
    pub fn metered_since(&self, since: Duration) -> Option<Duration> {
        let tries = self.lock();
        let metered = |t: &&Try| {
            t.kind == Kind::New
                && t.route == Route::Metered
                && t.failed.is_none()
                && t.opened >= since
        };
        tries.iter().filter(metered).map(|t| t.ended).min()
    }
}
