//! Past a proxy that the system gave for another network.
//!
//! The system's setting belongs to one service or place; ours goes along wherever the machine goes. Where
//! nobody answers at the proxy's address, the system itself would not have gone there.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::{Instant as Moment, timeout, timeout_at};

use super::{DialError, direct, names, to_proxy};
use crate::config::{OwnPorts, UpstreamProxy};

/// A proxy is near. One that is silent for longer is still waited for, but not alone.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one that could not be reached is taken for that. Then somebody looks; no connection waits.
const AGAIN: Duration = Duration::from_secs(15);

static GONE: Mutex<Option<Gone>> = Mutex::new(None);

/// The proxy that was gone past last.
struct Gone {
    host: Box<str>,
    port: u16,
    looked: Instant,
}

impl Gone {
    fn is(&self, proxy: &UpstreamProxy) -> bool {
        *self.host == *proxy.host && self.port == proxy.port
    }
}

/// Which way a connection came about.
pub(super) enum Way {
    Proxy(TcpStream),
    Past(TcpStream),
}

/// Whether a target may be reached without this proxy, to which no connection came about for `error`. What
/// a proxy says, be it a refusal, is never a reason.
pub(super) fn may_go_past(proxy: &UpstreamProxy, error: &DialError) -> bool {
    let unreachable = match error {
        DialError::Proxy(_) | DialError::NoAddress | DialError::Timeout | DialError::ProxyIsUs => {
            true
        }
        DialError::Resolve(_)
        | DialError::Connect(_)
        | DialError::NoWayNearby(_)
        | DialError::ProxyStatus(_)
        | DialError::ProxyLogin(_)
        | DialError::ProxyAnswer => false,
    };
    proxy.from_system && unreachable && !error.is_shortage()
}

/// Whether connections go past this proxy now.
pub fn goes_past(proxy: &UpstreamProxy) -> bool {
    lock().as_ref().is_some_and(|gone| gone.is(proxy))
}

/// Connects to the proxy, or past it to the target; first to the one that is likely to answer.
///
/// # Errors
/// The proxy's, if neither can be reached by `end`.
pub(super) async fn reach(
    own: OwnPorts,
    proxy: &UpstreamProxy,
    host: &str,
    port: u16,
    end: Moment,
) -> Result<Way, DialError> {
    let left = end.saturating_duration_since(Moment::now());
    let (likely, patience) = (!goes_past(proxy), PATIENCE.min(left / 3));
    let reached = if likely {
        let may = |e: &DialError| may_go_past(proxy, e);
        match either(to_proxy(own, proxy), direct(host, port), patience, end, may).await {
            Ok((stream, true)) => Ok(Way::Proxy(stream)),
            Ok((stream, false)) => Ok(Way::Past(stream)),
            Err((of_proxy, _)) => Err(of_proxy),
        }
    } else {
        look_again(own, proxy);
        match either(direct(host, port), to_proxy(own, proxy), patience, end, |_| true).await {
            Ok((stream, true)) => Ok(Way::Past(stream)),
            Ok((stream, false)) => Ok(Way::Proxy(stream)),
            Err((_, of_proxy)) => Err(of_proxy.unwrap_or(DialError::Timeout)),
        }
    };
    match &reached {
        Ok(Way::Proxy(_)) => answered(&mut lock(), proxy),
        // Not each time: the look is what counts.
        Ok(Way::Past(_)) if likely => passed(&mut lock(), proxy, Instant::now()),
        Ok(Way::Past(_)) => {}
        Err(_) => names::forget(host),
    }
    reached
}

/// The first that connects, and whether it is `first`. `second` begins when `first` has failed so that
/// `goes_on`, or beside it when it is silent for `patience`.
pub(super) async fn either(
    first: impl Future<Output = Result<TcpStream, DialError>>,
    second: impl Future<Output = Result<TcpStream, DialError>>,
    patience: Duration,
    end: Moment,
    goes_on: impl Fn(&DialError) -> bool,
) -> Result<(TcpStream, bool), (DialError, Option<DialError>)> {
    let mut first = Box::pin(first);
    let failed = match timeout(patience, &mut first).await {
        Ok(Ok(stream)) => return Ok((stream, true)),
        Ok(Err(e)) if !goes_on(&e) => return Err((e, None)),
        Ok(Err(e)) => Some(e),
        Err(_) => None,
    };
    let mut second = Box::pin(second);
    let in_time = |done: Result<Result<TcpStream, DialError>, _>| {
        done.unwrap_or_else(|_: tokio::time::error::Elapsed| Err(DialError::Timeout))
    };
    if let Some(e) = failed {
        let done = in_time(timeout_at(end, &mut second).await);
        return done.map(|stream| (stream, false)).map_err(|other| (e, Some(other)));
    }
    tokio::select! {
        done = timeout_at(end, &mut first) => match in_time(done) {
            Ok(stream) => Ok((stream, true)),
            Err(e) => in_time(timeout_at(end, &mut second).await)
                .map(|stream| (stream, false))
                .map_err(|other| (e, Some(other))),
        },
        done = timeout_at(end, &mut second) => match in_time(done) {
            Ok(stream) => Ok((stream, false)),
            Err(other) => in_time(timeout_at(end, &mut first).await)
                .map(|stream| (stream, true))
                .map_err(|e| (e, Some(other))),
        },
    }
}

/// Looks whether the proxy is there again, if nobody has for a while; nobody waits for it.
fn look_again(own: OwnPorts, proxy: &UpstreamProxy) {
    if !due(&mut lock(), proxy, Instant::now()) {
        return;
    }
    let proxy = proxy.clone();
    tokio::spawn(async move {
        if let Ok(Ok(_)) = timeout(PATIENCE, to_proxy(own, &proxy)).await {
            answered(&mut lock(), &proxy);
        }
    });
}

fn due(gone: &mut Option<Gone>, proxy: &UpstreamProxy, now: Instant) -> bool {
    let Some(gone) = gone.as_mut().filter(|gone| gone.is(proxy)) else { return false };
    let due = now.saturating_duration_since(gone.looked) >= AGAIN;
    if due {
        gone.looked = now;
    }
    due
}

fn passed(gone: &mut Option<Gone>, proxy: &UpstreamProxy, now: Instant) {
    *gone = Some(Gone { host: proxy.host.as_str().into(), port: proxy.port, looked: now });
}

fn answered(gone: &mut Option<Gone>, proxy: &UpstreamProxy) {
    if gone.as_ref().is_some_and(|gone| gone.is(proxy)) {
        *gone = None;
    }
}

fn lock() -> MutexGuard<'static, Option<Gone>> {
    GONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn proxy(url: &str, from_system: bool) -> UpstreamProxy {
        UpstreamProxy { from_system, ..UpstreamProxy::parse(url).unwrap() }
    }

    #[test]
    fn only_a_systems_proxy_that_does_not_answer_may_be_gone_past() {
        let error = |kind: io::ErrorKind| DialError::Proxy(kind.into());
        for (error, expected) in [
            (error(io::ErrorKind::ConnectionRefused), true),
            (error(io::ErrorKind::HostUnreachable), true),
            (error(io::ErrorKind::NetworkUnreachable), true),
            (DialError::Proxy(io::Error::other("name not found")), true),
            (DialError::NoAddress, true),
            (DialError::Timeout, true),
            (DialError::ProxyIsUs, true),
            (DialError::ProxyStatus(403), false),
            (DialError::ProxyStatus(502), false),
            (DialError::ProxyLogin("Basic".into()), false),
            (DialError::ProxyAnswer, false),
            (DialError::Proxy(rustix::io::Errno::MFILE.into()), false),
        ] {
            assert_eq!(may_go_past(&proxy("p:1", true), &error), expected, "{error:?}");
            assert!(!may_go_past(&proxy("p:1", false), &error), "{error:?}: set by hand");
        }
    }

    #[test]
    fn it_is_remembered_and_looked_at_now_and_then() {
        let (mut gone, t0) = (None, Instant::now());
        let (one, other) = (proxy("p:1", true), proxy("q:1", true));
        assert!(!due(&mut gone, &one, t0));
        passed(&mut gone, &one, t0);
        assert!(gone.as_ref().unwrap().is(&one) && !gone.as_ref().unwrap().is(&other));
        assert!(!due(&mut gone, &one, t0 + AGAIN / 2));
        assert!(!due(&mut gone, &other, t0 + AGAIN));
        assert!(due(&mut gone, &one, t0 + AGAIN));
        assert!(!due(&mut gone, &one, t0 + AGAIN), "one look at a time");
        answered(&mut gone, &other);
        assert!(gone.is_some());
        answered(&mut gone, &one);
        assert!(gone.is_none());
    }
}
