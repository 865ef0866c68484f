//! The system proxy by `networksetup`, the one tool that an admin user may run without a prompt.
//!
//! The setting is each network service's own, and the first one in use counts: so every active one is
//! set, and one that fails does not keep the others from it. What is taken back is so on disabled ones too.

use std::cell::Cell;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::local_network::{self, EXCEPTIONS};
use super::network::{self, Kind};
use crate::platform::{NetworkService, ProxySetting, SystemProxy, SystemProxyError};
use crate::setup::{self, Call, Os, Step};

/// What never goes through a proxy.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The real one.
#[derive(Clone, Debug, Default)]
pub struct NetworkSetup {
    /// Where the tools are looked for; `None`: by the search path.
    path: Option<OsString>,
}

impl SystemProxy for NetworkSetup {
    fn off(&self) -> Result<Option<Vec<String>>, SystemProxyError> {
        Run::of(self).switch_off(|_, _| true).map(Some)
    }

    fn off_where_it_leads_to(
        &self,
        edge: SocketAddr,
        blind: bool,
    ) -> Result<Vec<String>, SystemProxyError> {
        let run = Run::of(self);
        run.switch_off(|kind, service| match run.proxy(&kind.get(service)) {
            Ok(Some(setting)) => setting.is(edge),
            // It went away since it was listed.
            Ok(None) => false,
            Err(_) => blind,
        })
    }

    fn leads_to(&self) -> Vec<String> {
        network::effective(&Run::of(self).in_force())
    }

    fn other_way(&self) -> Option<&'static str> {
        network::other_way(&Run::of(self).in_force())
    }

    fn read(&self) -> Result<Option<Vec<NetworkService>>, SystemProxyError> {
        Run::of(self).read_all(&|_, _, _| true, None).map(Some)
    }

    fn read_in_part(&self) -> Result<(Vec<NetworkService>, Vec<String>), SystemProxyError> {
        let mut unread = Vec::new();
        let found = Run::of(self).read_all(&|_, _, _| true, Some(&mut unread))?;
        Ok((found, unread))
    }

    fn read_those(
        &self,
        wanted: &dyn Fn(&str, &str) -> bool,
    ) -> Result<Option<Vec<NetworkService>>, SystemProxyError> {
        let wanted = |place: &str, name: &str, active| active && wanted(place, name);
        Run::of(self).read_all(&wanted, None).map(Some)
    }

    fn set(
        &self,
        edge: SocketAddr,
        direct: &[&str],
        was: &[NetworkService],
        found: &[NetworkService],
    ) -> Vec<Step> {
        let direct = local_network::exceptions(direct);
        let nothing = NetworkService::default();
        let set = |service: &NetworkService| {
            let was = service.find_in(was);
            if service.own_way().is_some() {
                return release(edge, was.unwrap_or(&nothing), service);
            }
            lead(edge, &direct, was.unwrap_or(service), service)
        };
        found.iter().filter(|service| !service.disabled).flat_map(set).collect()
    }

    fn restore(
        &self,
        edge: SocketAddr,
        was: &[NetworkService],
        found: &[NetworkService],
    ) -> Vec<Step> {
        let nothing = NetworkService::default();
        let back = |service: &NetworkService| {
            release(edge, service.find_in(was).unwrap_or(&nothing), service)
        };
        found.iter().flat_map(back).collect()
    }
}

/// What is asked in one go, by somebody who waits: a network that is not ready is waited for once in all, not for
/// each of its services.
struct Run<'a> {
    tools: &'a NetworkSetup,
    /// What is left of its patience.
    left: Cell<Duration>,
}

impl<'a> Run<'a> {
    fn of(tools: &'a NetworkSetup) -> Self {
        Self { tools, left: Cell::new(network::SETTLES) }
    }

    /// `unread`: takes the names of active services that can't be read; without it one is a failure.
    fn read_all(
        &self,
        wanted: &dyn Fn(&str, &str, bool) -> bool,
        mut unread: Option<&mut Vec<String>>,
    ) -> Result<Vec<NetworkService>, SystemProxyError> {
        let place = self.said(&network::location())?.unwrap_or_default().trim().to_owned();
        let listing = self.said(&network::list())?.unwrap_or_default();
        let mut found = Vec::new();
        for (name, active) in network::services(&listing) {
            if wanted(&place, name, active) {
                let (place, disabled) = (place.clone(), !active);
                let service = match (self.service(name), &mut unread) {
                    // It is not in force, and keeps no other from being led or put back.
                    (Err(_), _) if disabled => None,
                    (Err(_), Some(unread)) => {
                        unread.push(name.to_owned());
                        None
                    }
                    // What is planned on half of it would be half done.
                    (read, _) => read?,
                };
                found.extend(service.map(|s| NetworkService { place, disabled, ..s }));
            }
        }
        Ok(found)
    }

    /// Each that is `meant`, even if one fails; the names of what was switched.
    fn switch_off(
        &self,
        meant: impl Fn(Kind, &str) -> bool,
    ) -> Result<Vec<String>, SystemProxyError> {
        let listing = self.said(&network::list())?.unwrap_or_default();
        let mut off = Vec::new();
        let mut failure = None;
        for (service, _) in network::services(&listing) {
            let kinds: Vec<_> = Kind::ALL.into_iter().filter(|k| meant(*k, service)).collect();
            for kind in &kinds {
                if let Err(e) = self.said(&kind.switch(service, false)) {
                    failure.get_or_insert(e);
                }
            }
            off.extend((!kinds.is_empty()).then(|| service.to_owned()));
        }
        failure.map_or(Ok(off), Err)
    }

    /// `None`: it went away since it was listed.
    fn service(&self, name: &str) -> Result<Option<NetworkService>, SystemProxyError> {
        let Some(http) = self.proxy(&Kind::Http.get(name))? else { return Ok(None) };
        let Some(https) = self.proxy(&Kind::Https.get(name))? else { return Ok(None) };
        let Some(socks) = self.proxy(&network::get_socks(name))? else { return Ok(None) };
        let Some(bypass) = self.said(&network::get_bypass(name))? else { return Ok(None) };
        let auto = network::get_auto(name);
        let Some(said) = self.said(&auto)? else { return Ok(None) };
        Ok(Some(NetworkService {
            name: name.to_owned(),
            http,
            https,
            bypass: network::read_bypass(&bypass),
            auto: network::read_auto(&said).ok_or_else(|| unclear(&auto, &said))?,
            socks: socks.on,
            ..NetworkService::default()
        }))
    }

    fn proxy(&self, call: &Call) -> Result<Option<ProxySetting>, SystemProxyError> {
        let Some(said) = self.said(call)? else { return Ok(None) };
        network::read_proxy(&said).ok_or_else(|| unclear(call, &said)).map(Some)
    }

    /// `None`: what it is about is gone.
    fn said(&self, call: &Call) -> Result<Option<String>, SystemProxyError> {
        let (began, call) = (Instant::now(), call.clone().within(self.left.get()));
        let said = setup::call(&mut Os { path: self.tools.path.clone(), patience: None }, &call);
        // Who has waited for nothing leaves the others less.
        if said.as_ref().map_or(true, |said| said.code != 0) {
            self.left.set(self.left.get().saturating_sub(began.elapsed()));
        }
        let said = said?;
        Ok((said.code == 0).then_some(said.out))
    }

    /// Nothing where that can't be told.
    fn in_force(&self) -> String {
        self.said(&network::in_force()).ok().flatten().unwrap_or_default()
    }
}

fn unclear(call: &Call, said: &str) -> SystemProxyError {
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    SystemProxyError::Unclear { call: call.line(), said }
}

/// The service's proxies lead to the edge then.
fn lead(
    edge: SocketAddr,
    direct: &[&str],
    was: &NetworkService,
    service: &NetworkService,
) -> Vec<Step> {
    let host = edge.ip().to_string();
    let mut steps = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| !kind.of(service).is(edge)) {
        let set = kind.set(&service.name, &host, edge.port());
        steps.push(Step::Run(set.undo(put(kind, &service.name, kind.of(service)))));
    }
    // Where another proxy is the way out, it may be the way to the local network's addresses too. What was
    // there before ours may be such a one, if that is not known.
    let free = |kind: Kind| !kind.of(was).on && !kind.of(was).names(edge);
    let mut bypass = with_local(&service.bypass);
    if Kind::ALL.into_iter().all(free) {
        bypass = with(&bypass, direct);
    }
    if bypass != service.bypass {
        let set = network::set_bypass(&service.name, &bypass);
        let back = network::set_bypass(&service.name, &service.bypass);
        steps.push(Step::Run(set.undo([back])));
    }
    steps
}

/// What of it leads to the edge, or would if it were on, does so no more. The rest is somebody else's by
/// now.
fn release(edge: SocketAddr, was: &NetworkService, service: &NetworkService) -> Vec<Step> {
    let name = &service.name;
    let mut steps = Vec::new();
    let ours = || Kind::ALL.into_iter().filter(|kind| kind.of(service).names(edge));
    for kind in ours() {
        let (was, now) = (kind.of(was), kind.of(service));
        // Ours was never the user's.
        let off = ProxySetting::default();
        let was = if was.names(edge) { &off } else { was };
        if !now.on && was.host.is_empty() {
            // All that can be done: a host can't be taken out.
            continue;
        }
        let back = put(kind, name, was).into_iter();
        steps.extend(back.map(|call| Step::Run(call.undo(put(kind, name, now)))));
    }
    if ours().next().is_some()
        && is_with_ours(&service.bypass, &was.bypass)
        && service.bypass != was.bypass
    {
        let set = network::set_bypass(name, &was.bypass);
        steps.push(Step::Run(set.undo([network::set_bypass(name, &service.bypass)])));
    }
    steps
}

/// As it was. Host and port of one that was off can be put back only by switching it on first.
fn put(kind: Kind, service: &str, was: &ProxySetting) -> Vec<Call> {
    let mut calls = Vec::new();
    if !was.host.is_empty() {
        calls.push(kind.set(service, &was.host, was.port));
    }
    if !was.on {
        calls.push(kind.switch(service, false));
    }
    calls
}

fn with_local(bypass: &[String]) -> Vec<String> {
    with(bypass, &LOCAL)
}

fn with(bypass: &[String], more: &[&str]) -> Vec<String> {
    let missing = more.iter().filter(|l| !bypass.iter().any(|b| b == *l));
    bypass.iter().cloned().chain(missing.map(|l| (*l).to_owned())).collect()
}

/// Whether a list is that one with ours behind it. Earlier versions knew fewer of them.
fn is_with_ours(bypass: &[String], was: &[String]) -> bool {
    let more = bypass.strip_prefix(with_local(was).as_slice());
    more.is_some_and(|more| more.iter().all(|rule| EXCEPTIONS.contains(&rule.as_str())))
}

#[cfg(test)]
#[path = "system_proxy_tests.rs"]
mod tests;
