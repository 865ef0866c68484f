//! The system proxy by `networksetup`, the one tool that an admin user may run without a prompt.
//!
//! The setting is each network service's own, and the first one in use counts: so every active one is
//! set, and one that fails does not keep the others from it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::local_network::{self, EXCEPTIONS};
use super::network::{self, Kind, PROGRAM};
use crate::platform::{NetworkService, ProxySetting, SystemProxy, SystemProxyError};
use crate::setup::{Call, Step};

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
        self.switch_off(|_, _| true).map(Some)
    }

    fn off_where_it_leads_to(
        &self,
        edge: SocketAddr,
        blind: bool,
    ) -> Result<Vec<String>, SystemProxyError> {
        self.switch_off(|kind, service| match self.ask(&kind.get(service)) {
            Ok(said) => network::read_proxy(&said).is(edge),
            // It went away since it was listed.
            Err(SystemProxyError::Refused { code: network::UNKNOWN, .. }) => false,
            Err(_) => blind,
        })
    }

    fn leads_to(&self) -> Vec<String> {
        let output = self.run("scutil", &["--proxy"]);
        output.map(|o| network::effective(&String::from_utf8_lossy(&o.stdout))).unwrap_or_default()
    }

    fn read_those(
        &self,
        wanted: &dyn Fn(&str, &str) -> bool,
    ) -> Result<Option<Vec<NetworkService>>, SystemProxyError> {
        let place = self.ask(&["-getcurrentlocation"])?.trim().to_owned();
        let mut found = Vec::new();
        for name in self.services()?.into_iter().filter(|name| wanted(&place, name)) {
            match self.service(place.clone(), name) {
                Ok(service) => found.push(service),
                // It went away since it was listed.
                Err(SystemProxyError::Refused { code: network::UNKNOWN, .. }) => {}
                // What is planned on half of it would be half done.
                Err(e) => return Err(e),
            }
        }
        Ok(Some(found))
    }

    fn set(
        &self,
        edge: SocketAddr,
        direct: &[&str],
        was: &[NetworkService],
        found: &[NetworkService],
    ) -> Vec<Step> {
        let direct = local_network::exceptions(direct);
        let lead = |service: &NetworkService| {
            lead(edge, &direct, service.find_in(was).unwrap_or(service), service)
        };
        found.iter().flat_map(lead).collect()
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

impl NetworkSetup {
    fn services(&self) -> Result<Vec<String>, SystemProxyError> {
        Ok(network::active_services(&self.ask(&["-listallnetworkservices"])?))
    }

    /// Each that is `meant`, even if one fails; the names of what was switched.
    fn switch_off(
        &self,
        meant: impl Fn(Kind, &str) -> bool,
    ) -> Result<Vec<String>, SystemProxyError> {
        let mut services = self.services()?;
        let mut failure = None;
        services.retain(|service| {
            let kinds: Vec<_> = Kind::ALL.into_iter().filter(|k| meant(*k, service)).collect();
            for kind in &kinds {
                if let Err(e) = self.ask(&kind.switch(service, false).args) {
                    failure.get_or_insert(e);
                }
            }
            !kinds.is_empty()
        });
        failure.map_or(Ok(services), Err)
    }

    fn service(&self, place: String, name: String) -> Result<NetworkService, SystemProxyError> {
        let http = network::read_proxy(&self.ask(&Kind::Http.get(&name))?);
        let https = network::read_proxy(&self.ask(&Kind::Https.get(&name))?);
        let bypass = network::read_bypass(&self.ask(&["-getproxybypassdomains", &name])?);
        let auto = network::read_auto(&self.ask(&["-getautoproxyurl", &name])?);
        Ok(NetworkService { place, name, http, https, bypass, auto })
    }

    fn ask<S: AsRef<str>>(&self, args: &[S]) -> Result<String, SystemProxyError> {
        let args: Vec<_> = args.iter().map(AsRef::as_ref).collect();
        let output = self
            .run(PROGRAM, &args)
            .map_err(|source| SystemProxyError::Spawn { program: PROGRAM, source })?;
        let said = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            return Ok(said.into_owned());
        }
        // It reports its errors on stdout.
        Err(SystemProxyError::Refused {
            program: PROGRAM,
            call: args.join(" "),
            said: said.split_whitespace().collect::<Vec<_>>().join(" "),
            code: output.status.code().unwrap_or(-1),
        })
    }

    fn run(&self, program: &str, args: &[&str]) -> std::io::Result<std::process::Output> {
        let run = |program: &str| {
            let mut command = Command::new(program);
            if let Some(path) = &self.path {
                command.env("PATH", path);
            }
            command.args(args).stdin(Stdio::null()).output()
        };
        // The escape hatch works in a shell whose search path is odd.
        run(program).or_else(|_| run(&format!("/usr/sbin/{program}")))
    }
}

/// The service's proxies lead to the edge then.
fn lead(
    edge: SocketAddr,
    direct: &[&str],
    was: &NetworkService,
    service: &NetworkService,
) -> Vec<Step> {
    if Kind::ALL.iter().any(|kind| kind.of(service).on && kind.of(service).authenticated) {
        // Its password can't be read, so it could never be put back.
        return Vec::new();
    }
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
    if service.auto.is_none() && Kind::ALL.into_iter().all(free) {
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
