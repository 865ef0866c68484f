//! What concerns the machine: the service manager, the way out, who else points at us.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{Access, access};

use super::super::super::client::Tree;
use super::super::super::{Context, env, upstream};
use super::super::facts::{Keeper, Kept, Upstream};
use super::super::inspectors;
use super::ASK;
use crate::config::{OwnPorts, UpstreamProxy};
use crate::dial::{self, DialError, dial, dial_proxy, goes_past};
use crate::home::{Home, own_program};
use crate::meter::trust::{all_roots, read_certificates};
use crate::near;
use crate::platform::{self, Service, User};
use crate::setup::{Mode, SystemState};

/// For a port of this machine.
const NEAR: Duration = Duration::from_millis(500);

pub(super) fn keeper(ctx: &Context) -> Option<Keeper> {
    let manager = platform::service_manager()?;
    let user = User::from_env()?;
    let installed = Mode::installed(&ctx.home).is_some();
    let unreachable = manager.missing();
    let service = |service: Service| {
        let name = match service {
            Service::Edge => "edge",
            Service::Daemon => "daemon",
            Service::Watchdog => "watchdog",
        };
        let state = manager.state(&user, service).unwrap_or_default();
        let there = |program: &PathBuf| access(program, Access::EXEC_OK).is_ok();
        Kept {
            name,
            program_there: state.program.as_ref().is_some_and(there),
            program: state.program,
            known_by: state.known_by.map(|program| (program.clone(), there(&program))),
            enabled: state.enabled,
            pid: state.pid,
            last_exit: state.last_exit,
            refused: state.refused,
        }
    };
    let services = match unreachable {
        Some(_) => Vec::new(),
        None => Service::ALL.into_iter().map(service).collect(),
    };
    let own = own_program().unwrap_or_default();
    Some(Keeper { name: manager.name(), installed, unreachable, services, own })
}

pub(super) fn upstream(ctx: &Context, tree: &Tree, system: &[String]) -> Upstream {
    let config = &ctx.loaded.config;
    let edge = config.edge.addr();
    let proxy = config.upstream.proxy.as_ref().map(|proxy| (proxy.place(), way_out(ctx)));
    let http = config.upstream.http_proxy.as_ref();
    let http = http.filter(|http| config.upstream.proxy.as_ref() != Some(*http));
    let http = http.map(|http| (http.place(), reached(config.upstream.own, http)));
    // Whoever started the edge may have told it by variables.
    let mut known = tree.edge_answer.as_ref().map(upstream::of_edge).unwrap_or_default();
    let place = |proxy: &Option<UpstreamProxy>| proxy.as_ref().map(UpstreamProxy::place);
    known.https = known.https.or_else(|| place(&config.upstream.proxy));
    known.http = known.http.or_else(|| place(&config.upstream.http_proxy));
    // We took the place of the session's own.
    let session = SystemState::read(&ctx.home).and_then(|state| state.session).unwrap_or_default();
    let found = [env::own(ctx), session].map(|vars| upstream::of_environment(&vars, edge));
    let configured = upstream::Configured::by(&config.upstream);
    let found = found.iter().flatten().find_map(|found| found.missing_on(&known, configured));
    let ours = [format!("127.0.0.1:{}", edge.port()), format!("localhost:{}", edge.port())];
    let of_system = || system.iter().find(|s| !ours.contains(s) && known.https.is_none()).cloned();
    let found = found.map(|(proxy, _)| proxy).or_else(of_system);
    Upstream {
        // Known by the look at the way out.
        past: config.upstream.proxy.as_ref().is_some_and(goes_past),
        ignored: found,
        proxy,
        http,
        extra_roots: config.upstream.extra_ca_file.as_deref().and_then(|file| {
            let roots = read_certificates(file);
            let now = Timestamp::now().as_second();
            let good = |root: &_| inspectors::not_after(root).is_some_and(|end| end > now);
            match roots.as_slice() {
                [] => Some(format!("no certificate in {}", file.display())),
                some if !some.iter().any(good) => {
                    Some(format!("what is in {} has expired", file.display()))
                }
                _ => None,
            }
        }),
        inspectors: inspectors::among(&all_roots(&ctx.home)),
    }
}

/// We may be in a terminal, and then nothing keeps us: so the edge says.
pub(super) fn local_network_failures(tree: &Tree) -> Option<u64> {
    let said = tree.edge_answer.as_ref()?.get("local_network_failures")?.as_u64();
    said.filter(|_| platform::why_no_way_nearby().is_some())
}

/// As edge and daemon go, to the first host that would be metered.
fn way_out(ctx: &Context) -> Result<(), String> {
    let config = &ctx.loaded.config;
    let target = config.meter.hosts.iter().find(|host| !host.covers_subdomains());
    let target = target.filter(|t| config.upstream.connect_override(t.name(), t.port()).is_none());
    let Some(target) = target else { return Ok(()) };
    if let Some(proxy) = config.upstream.proxy_for(target.name(), target.port()) {
        not_us(config.upstream.own, proxy)?;
    }
    tried(dial(&config.upstream, target.name(), target.port(), ASK))
}

/// Then edge and daemon go directly, and nobody would notice that what was meant is not what happens.
fn not_us(own: OwnPorts, proxy: &UpstreamProxy) -> Result<(), String> {
    let asked = async {
        let us = dial::is_us(own, proxy, ASK).await;
        if us { Err(DialError::ProxyIsUs) } else { Ok(()) }
    };
    tried(asked)
}

/// Whether it is there: what it lets through can't be told without a request, and few take a `CONNECT`.
fn reached(own: OwnPorts, http: &UpstreamProxy) -> Result<(), String> {
    not_us(own, http)?;
    tried(dial_proxy(own, http, &http.host, http.port, ASK))
}

fn tried<T>(dial: impl Future<Output = Result<T, DialError>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    runtime.block_on(dial).map(drop).map_err(|e| e.to_string())
}

/// Programs at a port that is ours, or was, and where nobody listens.
pub(super) fn stranded(ctx: &Context, edge_answers: bool) -> Vec<(String, SocketAddr)> {
    let now = ctx.loaded.config.edge.addr();
    let before = SystemState::read(&ctx.home).and_then(|state| state.edge);
    let ports = [Some(now).filter(|_| !edge_answers), before.filter(|addr| *addr != now)];
    let dead = |addr: &SocketAddr| near::connect_timeout(addr, NEAR).is_err();
    let at = |addr: SocketAddr| {
        platform::programs_pointing_at(addr).into_iter().map(move |p| (p.to_string(), addr))
    };
    ports.into_iter().flatten().filter(dead).flat_map(at).collect()
}

/// Seconds since 1970 of the latest thing that we have written.
pub(super) fn latest(home: &Home) -> i64 {
    let files = [home.journal_file(), home.ledger_file()];
    let written = files.iter().filter_map(|file| std::fs::metadata(file).ok()?.modified().ok());
    let written = written.filter_map(|at| Timestamp::try_from(at).ok());
    written.map(Timestamp::as_second).max().unwrap_or_default()
}
