//! What each failure may cost, as pure rules: the failure table of docs/architecture.md.

use std::time::Duration;

/// What is done to the product, or to its surroundings.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Failure {
    DaemonKilled,
    DaemonFrozen,
    DaemonTerminated,
    StopStart,
    Restart,
    Upgrade,
    EdgeKilled,
    EdgeFrozen,
    EdgeUpgraded,
    RootKilled,
    RootFrozen,
    WatchdogKilled,
    SocketRemoved,
    Impostor,
    LedgerLocked,
    LedgerCorrupt,
    LedgerUnwritable,
    ConfigBroken,
    ProviderRefuses,
    ProviderStalls,
    ProviderResets,
    ProviderTruncates,
    ProviderCertificate,
}

impl Failure {
    pub const ALL: [Self; 23] = [
        Self::DaemonKilled,
        Self::DaemonFrozen,
        Self::DaemonTerminated,
        Self::StopStart,
        Self::Restart,
        Self::Upgrade,
        Self::EdgeKilled,
        Self::EdgeFrozen,
        Self::EdgeUpgraded,
        Self::RootKilled,
        Self::RootFrozen,
        Self::WatchdogKilled,
        Self::SocketRemoved,
        Self::Impostor,
        Self::LedgerLocked,
        Self::LedgerCorrupt,
        Self::LedgerUnwritable,
        Self::ConfigBroken,
        Self::ProviderRefuses,
        Self::ProviderStalls,
        Self::ProviderResets,
        Self::ProviderTruncates,
        Self::ProviderCertificate,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::DaemonKilled => "daemon killed",
            Self::DaemonFrozen => "daemon frozen",
            Self::DaemonTerminated => "daemon terminated",
            Self::StopStart => "stop, start",
            Self::Restart => "restart",
            Self::Upgrade => "upgrade",
            Self::EdgeKilled => "edge killed",
            Self::EdgeFrozen => "edge frozen",
            Self::EdgeUpgraded => "edge upgraded",
            Self::RootKilled => "root killed",
            Self::RootFrozen => "root frozen",
            Self::WatchdogKilled => "watchdog killed",
            Self::SocketRemoved => "control socket removed",
            Self::Impostor => "impostor on the API port",
            Self::LedgerLocked => "ledger locked",
            Self::LedgerCorrupt => "ledger corrupted",
            Self::LedgerUnwritable => "ledger unwritable",
            Self::ConfigBroken => "configuration broken",
            Self::ProviderRefuses => "provider refuses",
            Self::ProviderStalls => "provider stalls",
            Self::ProviderResets => "provider resets",
            Self::ProviderTruncates => "provider truncates",
            Self::ProviderCertificate => "provider's certificate bad",
        }
    }

    fn allows(self) -> Allows {
        match self {
            Self::DaemonKilled => Allows::MeteredInFlight,
            Self::EdgeKilled => Allows::RawInFlight,
            // A drain closes connections that are kept alive between two exchanges, as a provider does.
            Self::DaemonTerminated
            | Self::StopStart
            | Self::Restart
            | Self::Upgrade
            | Self::Impostor => Allows::IdleClose,
            Self::DaemonFrozen
            | Self::EdgeFrozen
            | Self::EdgeUpgraded
            | Self::RootKilled
            | Self::RootFrozen
            | Self::WatchdogKilled
            | Self::SocketRemoved
            | Self::LedgerLocked
            | Self::LedgerCorrupt
            | Self::LedgerUnwritable
            | Self::ConfigBroken
            // It goes on later, and so do its clients.
            | Self::ProviderStalls => Allows::Nothing,
            Self::ProviderRefuses => Allows::Provider(Direct::NoConnection),
            Self::ProviderResets | Self::ProviderTruncates => Allows::Provider(Direct::Cut),
            Self::ProviderCertificate => Allows::Provider(Direct::BadCertificate),
        }
    }
}

enum Allows {
    Nothing,
    MeteredInFlight,
    RawInFlight,
    IdleClose,
    Provider(Direct),
}

/// What a client without us gets from the failing provider.
enum Direct {
    NoConnection,
    Cut,
    BadCertificate,
}

/// A failure's life; times count from the storm's start.
#[derive(Clone, Copy, Debug)]
pub struct Incident {
    pub failure: Failure,
    pub begin: Duration,
    /// It has happened: a connection opened later is a new one.
    pub struck: Duration,
    pub over: Duration,
}

/// How far a connection had come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    Connect,
    /// The proxy request is out.
    Proxy,
    Handshake,
    Exchange,
}

/// Who carries a connection: the certificate tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Route {
    Unknown,
    Metered,
    Raw,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    Refused,
    /// End of file or reset.
    Closed,
    Timeout,
    Certificate,
    Status(u16),
    /// What came is not what was sent.
    Wrong,
}

/// A request that failed.
#[derive(Clone, Copy, Debug)]
pub struct Broken {
    pub fault: Fault,
    pub stage: Stage,
    pub route: Route,
    /// Plain HTTP, to an origin that never fails.
    pub plain: bool,
    /// The first on its connection.
    pub fresh: bool,
    /// Not a byte of the answer had come.
    pub silent: bool,
    /// When the connection was opened.
    pub opened: Duration,
    pub ended: Duration,
}

/// Why a failed request is no fault of ours, or one that the design allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Excuse {
    InFlight,
    IdleClosed,
    Provider,
}

/// A client may meet the last effect of a failing provider so much later.
const ECHO: Duration = Duration::from_millis(250);
/// What is cut is noticed so soon: at once, or when it is used next.
const NOTICED: Duration = Duration::from_secs(3);
/// A drain may go on for so long after the order.
const DRAIN: Duration = Duration::from_secs(35);

pub fn excuse(incident: &Incident, broken: &Broken) -> Option<Excuse> {
    let b = broken;
    let cut = b.fault == Fault::Closed;
    let by = |last: Duration| b.ended >= incident.begin && b.ended <= last.saturating_add(NOTICED);
    let in_flight = cut && b.opened <= incident.struck && by(incident.struck);
    match incident.failure.allows() {
        Allows::Nothing => None,
        Allows::MeteredInFlight => {
            let ours = b.route == Route::Metered
                || (b.route == Route::Unknown && b.stage == Stage::Handshake);
            (in_flight && ours).then_some(Excuse::InFlight)
        }
        Allows::RawInFlight => {
            let ours = match (b.route, b.stage) {
                (Route::Raw, _) => true,
                // Accepted, and not handed over yet.
                (Route::Unknown, Stage::Proxy | Stage::Handshake) => true,
                (Route::Unknown, Stage::Connect | Stage::Exchange) | (Route::Metered, _) => false,
            };
            (in_flight && ours).then_some(Excuse::InFlight)
        }
        Allows::IdleClose => {
            let over = incident.over.saturating_add(DRAIN);
            let meanwhile = b.opened <= over && by(over);
            let idle = cut && b.stage == Stage::Exchange && !b.fresh && b.silent;
            (meanwhile && idle && b.route == Route::Metered).then_some(Excuse::IdleClosed)
        }
        Allows::Provider(direct) => {
            let meanwhile = b.opened <= incident.over + ECHO && by(incident.over);
            let unreachable =
                matches!(b.fault, Fault::Status(502 | 504)) && b.stage == Stage::Proxy;
            let same = match direct {
                // `200` is out when a metered host turns out to refuse.
                Direct::NoConnection => unreachable || (cut && b.stage == Stage::Handshake),
                Direct::Cut => unreachable || cut,
                Direct::BadCertificate => b.fault == Fault::Certificate,
            };
            (meanwhile && same && !b.plain).then_some(Excuse::Provider)
        }
    }
}

/// The same for a client that does not go through us.
pub fn direct(incident: &Incident, broken: &Broken) -> Option<Excuse> {
    let meanwhile = broken.opened <= incident.over + ECHO && broken.ended >= incident.begin;
    let providers = matches!(incident.failure.allows(), Allows::Provider(_));
    (meanwhile && providers).then_some(Excuse::Provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn incident(failure: Failure) -> Incident {
        Incident { failure, begin: s(10), struck: s(11), over: s(20) }
    }

    /// Opened before, cut while it happened.
    const CUT: Broken = Broken {
        fault: Fault::Closed,
        stage: Stage::Exchange,
        route: Route::Metered,
        plain: false,
        fresh: true,
        silent: false,
        opened: Duration::from_secs(5),
        ended: Duration::from_secs(12),
    };

    #[test]
    fn the_table() {
        use Failure as F;
        let raw = Broken { route: Route::Raw, ..CUT };
        let later = |b: Broken| Broken { opened: s(12), ended: s(13), ..b };
        let handshake = Broken { route: Route::Unknown, stage: Stage::Handshake, ..CUT };
        let head = Broken { stage: Stage::Proxy, ..handshake };
        let idle = Broken { fresh: false, silent: true, ..CUT };
        let stranger = Broken { fault: Fault::Certificate, ..handshake };
        let bad_gateway = Broken { fault: Fault::Status(502), ..head };
        // What each failure excuses of: metered, raw, handshake, head, idle, certificate, 502;
        // then of the first three on connections opened later.
        let cases = [CUT, raw, handshake, head, idle, stranger, bad_gateway];
        let news = [later(CUT), later(raw), later(handshake), later(stranger)];
        for failure in F::ALL {
            let excused = |b: &Broken| excuse(&incident(failure), b).is_some();
            let (old, new) = (cases.map(|b| excused(&b)), news.map(|b| excused(&b)));
            let expected = match failure {
                F::DaemonKilled => ("m.h.i..", "...."),
                F::EdgeKilled => (".rhp...", "...."),
                F::DaemonTerminated | F::StopStart | F::Restart | F::Upgrade | F::Impostor => {
                    ("....i..", "....")
                }
                F::ProviderRefuses => ("..h...5", "..h."),
                F::ProviderResets | F::ProviderTruncates => ("mrhpi.5", "mrh."),
                F::ProviderCertificate => (".....c.", "...c"),
                F::DaemonFrozen
                | F::EdgeFrozen
                | F::EdgeUpgraded
                | F::RootKilled
                | F::RootFrozen
                | F::WatchdogKilled
                | F::SocketRemoved
                | F::LedgerLocked
                | F::LedgerCorrupt
                | F::LedgerUnwritable
                | F::ConfigBroken
                | F::ProviderStalls => (".......", "...."),
            };
            let show = |flags: &[bool], names: &str| -> String {
                flags.iter().zip(names.chars()).map(|(f, n)| if *f { n } else { '.' }).collect()
            };
            assert_eq!(show(&old, "mrhpic5"), expected.0, "{failure:?}");
            assert_eq!(show(&new, "mrhc"), expected.1, "{failure:?}: new connections");
        }
    }

    #[test]
    fn wrong_bytes_and_hanging_are_never_excused() {
        for failure in Failure::ALL {
            for fault in [Fault::Wrong, Fault::Timeout, Fault::Status(500), Fault::Refused] {
                for stage in [Stage::Connect, Stage::Proxy, Stage::Handshake, Stage::Exchange] {
                    let broken = Broken { fault, stage, ..CUT };
                    assert_eq!(excuse(&incident(failure), &broken), None, "{failure:?} {fault:?}");
                }
            }
        }
    }

    #[test]
    fn plain_http_has_an_origin_that_never_fails() {
        let plain = Broken { plain: true, route: Route::Raw, ..CUT };
        for failure in Failure::ALL {
            let expected = (failure == Failure::EdgeKilled).then_some(Excuse::InFlight);
            assert_eq!(excuse(&incident(failure), &plain), expected, "{failure:?}");
        }
    }

    #[test]
    fn what_happened_before_or_after_is_not_excused() {
        for failure in Failure::ALL {
            let before = Broken { opened: s(1), ended: s(9), ..CUT };
            let after = Broken { opened: s(21), ended: s(22), ..CUT };
            // Open all the while, and cut long after.
            let later = Broken { ended: s(24), ..CUT };
            for route in [Route::Metered, Route::Raw] {
                for broken in [before, after, later] {
                    let broken = Broken { route, ..broken };
                    assert_eq!(excuse(&incident(failure), &broken), None, "{failure:?}");
                }
            }
        }
    }
}
