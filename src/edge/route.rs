//! Where a connection goes. Pure.

use serde::Serialize;

use super::connect::Target;
use super::health::{Cause, Reading, Verdict};
use crate::config::Config;
pub use crate::config::{OwnPorts, is_loopback};
use crate::handover::Decline;

/// How a target was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Asked {
    /// `CONNECT`: what goes through it shows later.
    Tunnel,
    /// A plain HTTP request that we send on.
    Forward,
    /// The same, to a server that speaks TLS.
    Secure,
}

/// The first decision, from the target alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Route {
    /// Straight to the target; with a reason if it is a metered one.
    Raw(Option<Reason>),
    /// Through the daemon, if it can.
    Metered,
    /// It is us.
    Own,
}

/// The second decision, when a metered connection has its first byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Chain {
    Offer,
    /// A fresh verdict may be there in an instant: wait for it, but not beyond the limit.
    Wait,
    Raw(Reason),
}

/// Why a metered host's connection was not metered.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// The daemon was not well.
    Daemon(Cause),
    /// The offer found no room in the channel.
    ChannelFull,
    /// The daemon works, but said nothing about this connection.
    NoAnswer,
    Declined(Decline),
    /// Plain HTTP to a host that is metered over TLS only, or that an upstream proxy gets in absolute
    /// form; a head too long to hand over.
    PlainHttp,
}

#[must_use]
pub fn route(config: &Config, own: OwnPorts, target: &Target, asked: Asked) -> Route {
    let (host, port) = (&*target.host, target.port);
    if own.is_us(host, port) {
        return Route::Own;
    }
    match (config.meter.is_plain(host, port), config.meter.is_metered(host, port), asked) {
        (true, _, Asked::Forward) if config.upstream.forwards_to(host, port).is_some() => {
            Route::Raw(Some(Reason::PlainHttp))
        }
        (true, _, Asked::Tunnel | Asked::Forward) | (_, true, Asked::Tunnel | Asked::Secure) => {
            Route::Metered
        }
        (false, true, Asked::Forward) => Route::Raw(Some(Reason::PlainHttp)),
        (false, false, Asked::Tunnel | Asked::Forward) | (_, false, Asked::Secure) => {
            Route::Raw(None)
        }
    }
}

#[must_use]
pub fn chain(reading: Reading) -> Chain {
    match reading.verdict {
        // Stale or not: a wrong guess costs this one offer's deadline, waiting costs everyone.
        Verdict::Healthy => Chain::Offer,
        Verdict::Unhealthy(cause) if reading.fresh || !cause.is_quick() => {
            Chain::Raw(Reason::Daemon(cause))
        }
        Verdict::Unhealthy(_) => Chain::Wait,
    }
}

impl Reason {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Daemon(cause) => cause.as_str(),
            Self::ChannelFull => "channel_full",
            Self::NoAnswer => "no_answer",
            Self::PlainHttp => "plain_http",
            Self::Declined(decline) => match decline {
                Decline::NotTls => "declined_not_tls",
                Decline::NotMetered => "declined_not_metered",
                Decline::Bypassed => "declined_bypassed",
                Decline::UnknownAuthority => "declined_unknown_authority",
                Decline::DialFailed => "declined_dial_failed",
                Decline::UpstreamTls => "declined_upstream_tls",
                Decline::UpstreamSlow => "declined_upstream_slow",
                Decline::ClientCertificate => "declined_client_certificate",
                Decline::Overloaded => "declined_overloaded",
                Decline::Degraded => "declined_degraded",
                Decline::Draining => "declined_draining",
                Decline::Internal => "declined_internal",
                Decline::Unknown => "declined_unknown",
            },
        }
    }
}

impl Reason {
    /// It lay in the moment: the next connection may be metered.
    #[must_use]
    pub fn is_passing(self) -> bool {
        match self {
            Self::Daemon(_) | Self::ChannelFull | Self::NoAnswer => true,
            Self::PlainHttp => false,
            Self::Declined(decline) => match decline {
                Decline::UpstreamSlow
                | Decline::Overloaded
                | Decline::Degraded
                | Decline::Draining
                | Decline::Internal => true,
                Decline::NotTls
                | Decline::NotMetered
                | Decline::Bypassed
                | Decline::UnknownAuthority
                | Decline::DialFailed
                | Decline::UpstreamTls
                | Decline::ClientCertificate
                | Decline::Unknown => false,
            },
        }
    }

    /// The reason that [`Reason::as_str`] names so.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let causes = Cause::ALL.map(Self::Daemon);
        let declines = Decline::ALL.map(Self::Declined);
        let own = [Self::ChannelFull, Self::NoAnswer, Self::PlainHttp];
        causes.into_iter().chain(declines).chain(own).find(|reason| reason.as_str() == name)
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NoProxy, UpstreamProxy, load_from};

    const OWN: OwnPorts = OwnPorts { edge: 8081, api: 8765 };

    fn asked(host: &str, port: u16, asked: Asked) -> Route {
        let config = load_from(None, |_| None, &[]).config;
        route(&config, OWN, &Target { host: host.into(), port }, asked)
    }

    fn routed(host: &str, port: u16) -> Route {
        asked(host, port, Asked::Tunnel)
    }

    #[test]
    fn the_list_decides() {
        assert_eq!(routed("api.anthropic.com", 443), Route::Metered);
        assert_eq!(routed("api.anthropic.com.", 443), Route::Metered);
        assert_eq!(routed("api.anthropic.com", 8443), Route::Raw(None));
        assert_eq!(routed("example.com", 443), Route::Raw(None));
    }

    #[test]
    fn plain_http_is_metered_where_the_list_says_so() {
        for host in ["gpu-box", "192.168.1.7", "localhost"] {
            assert_eq!(routed(host, 11434), Route::Metered);
            assert_eq!(asked(host, 11434, Asked::Forward), Route::Metered);
            assert_eq!(asked(host, 80, Asked::Forward), Route::Raw(None));
        }
        let passed = Route::Raw(Some(Reason::PlainHttp));
        assert_eq!(asked("api.anthropic.com", 443, Asked::Forward), passed);
        assert_eq!(asked("api.anthropic.com", 80, Asked::Forward), Route::Raw(None));
        assert_eq!(asked("localhost", 8081, Asked::Forward), Route::Own);
    }

    #[test]
    fn what_is_asked_for_over_tls_is_metered_as_a_tunnel_is() {
        assert_eq!(asked("api.anthropic.com", 443, Asked::Secure), Route::Metered);
        assert_eq!(asked("api.anthropic.com", 8443, Asked::Secure), Route::Raw(None));
        assert_eq!(asked("gpu-box", 11434, Asked::Secure), Route::Raw(None));
        assert_eq!(asked("localhost", 8765, Asked::Secure), Route::Own);
    }

    #[test]
    fn a_proxys_request_in_absolute_form_is_not_offered() {
        let mut config = load_from(None, |_| None, &[]).config;
        config.upstream.http_proxy = UpstreamProxy::parse("http://proxy.corp.example:3128");
        config.upstream.no_proxy = NoProxy::new(["near".to_owned()]);
        let asked = |config: &Config, host: &str, how| {
            route(config, OWN, &Target { host: host.into(), port: 11434 }, how)
        };
        assert_eq!(asked(&config, "far", Asked::Forward), Route::Raw(Some(Reason::PlainHttp)));
        assert_eq!(asked(&config, "far", Asked::Tunnel), Route::Metered);
        assert_eq!(asked(&config, "near", Asked::Forward), Route::Metered);
        // One that is for `https://` addresses only gets none.
        config.upstream.proxy = config.upstream.http_proxy.take();
        assert_eq!(asked(&config, "far", Asked::Forward), Route::Metered);
    }

    #[test]
    fn we_are_recognised_in_every_spelling() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::1%lo",
            "::",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "0",
            "127.1",
            "127.0.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
        ] {
            assert_eq!(routed(host, 8081), Route::Own, "{host}");
            assert_eq!(routed(host, 8765), Route::Own, "{host}");
            assert_eq!(routed(host, 9000), Route::Raw(None), "{host}");
        }
        for host in ["10.0.0.1", "1.2.3.4.5", "127.0.0.1.example", "256.1", "::2", "localhost.x"] {
            assert_eq!(routed(host, 8081), Route::Raw(None), "{host}");
        }
        assert!(OWN.leads_back("127.0.0.2:8081".parse().unwrap()));
        assert!(!OWN.leads_back("127.0.0.2:80".parse().unwrap()));
    }

    #[test]
    fn every_reason_is_in_the_document() {
        let document = include_str!("../../docs/doctor.md");
        let reasons = Cause::ALL.map(Reason::Daemon).into_iter();
        let reasons = reasons.chain(Decline::ALL.map(Reason::Declined));
        for reason in reasons.chain([Reason::ChannelFull, Reason::NoAnswer, Reason::PlainHttp]) {
            let name = reason.as_str();
            assert!(document.contains(&format!("`{name}`")), "{name} is not in docs/doctor.md");
        }
    }

    #[test]
    fn every_reason_is_found_by_its_name() {
        let reasons = Cause::ALL.map(Reason::Daemon).into_iter();
        let reasons = reasons.chain(Decline::ALL.map(Reason::Declined));
        for reason in reasons.chain([Reason::ChannelFull, Reason::NoAnswer, Reason::PlainHttp]) {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::parse("x"), None);
    }

    #[test]
    fn the_verdict_decides() {
        let reading = |verdict, fresh| Reading { verdict, fresh };
        assert_eq!(chain(reading(Verdict::Healthy, true)), Chain::Offer);
        assert_eq!(chain(reading(Verdict::Healthy, false)), Chain::Offer);
        for cause in Cause::ALL {
            let verdict = Verdict::Unhealthy(cause);
            let raw = Chain::Raw(Reason::Daemon(cause));
            assert_eq!(chain(reading(verdict, true)), raw);
            let stale = if cause.is_quick() { Chain::Wait } else { raw };
            assert_eq!(chain(reading(verdict, false)), stale, "{cause:?}");
        }
    }
}
