//! Gathers the facts: asks the processes, looks at files, sockets and this shell's environment.

mod machine;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use sysinfo::{ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System};
use tokio::time::timeout;

use super::super::client::{self, Health, Tree};
use super::super::{
    Context, bodies, env, intruder, lifecycle, no_edge, passing, selftest, status, unused,
};
use super::facts::{Ca, Facts, Ledger, Process, ProxyVariable, Says};
use crate::config::{self, UpstreamProxy};
use crate::handover::channel::EdgeChannel;
use crate::handover::{ToDaemon, ToEdge, VERSION};
use crate::home::{Home, PidLock};
use crate::meter::ledger::{Checked, LedgerError};
use crate::meter::trust::read_certificates;
use crate::meter::{ca, ledger, own_file};
use crate::near;
use crate::platform;
use crate::trust_store::Authority;

const ASK: Duration = Duration::from_secs(2);
const DAY: i64 = 24 * 3600;
/// How long all of the ledger is read.
const CHECK: Duration = Duration::from_secs(5);

pub fn gather(ctx: &Context) -> Facts {
    let tree = lifecycle::tell_edited(ctx, Tree::look(ctx, ASK));
    let config = &ctx.loaded.config;
    let edge_addr = config.edge.addr();
    let edge_answers = tree.edge_answer.is_some();
    let bypass = client::api(ctx, "/v1/bypass", ASK);
    let actors = bodies::of_daemon(ctx);
    let system_proxies = platform::system_proxy().leads_to();
    let verdict = tree.edge_answer.as_ref().and_then(|a| a.get("verdict"));
    Facts {
        home: ctx.home.path().to_path_buf(),
        home_problem: home_problem(&ctx.home),
        wide: wide(&ctx.home),
        stale: stale(&ctx.home, tree.daemon),
        config_problems: ctx.loaded.problems.iter().map(ToString::to_string).collect(),
        settings: tree.settings(ctx),
        strays: config::strays(),
        own_problems: own_file::problems(&ctx.home).iter().map(unused).collect(),
        passing: if tree.metering() {
            passing::programs(ctx).iter().map(ToString::to_string).collect()
        } else {
            Vec::new()
        },
        silent: status::silent_directories(actors.as_ref()),
        bodies: Some(bodies::Standing::look(ctx, actors))
            .filter(bodies::Standing::is_worth_a_word)
            .map(|standing| standing.line()),
        untouched: untouched(ctx, &tree),
        stopped: ctx.home.user_stopped().exists(),
        root: process(tree.root),
        edge: process(tree.edge),
        daemon: process(tree.daemon),
        watchdog: process(tree.watchdog),
        edge_addr,
        api_addr: config.daemon.api_addr(),
        edge_answers,
        edge_elsewhere: tree.edge_elsewhere(ctx),
        edge_port_holder: holder(edge_addr, tree.edge),
        edge_port_unheard: intruder::is_unheard(edge_addr),
        edge_last_exit: (tree.root.is_some() && tree.edge.is_none())
            .then(|| no_edge::last_exit(&ctx.home))
            .flatten(),
        api_port_holder: client::other_listener(config.daemon.api_addr(), tree.daemon),
        api_port_unheard: intruder::is_unheard(config.daemon.api_addr()),
        keeper: machine::keeper(ctx),
        upstream: machine::upstream(ctx, &tree, &system_proxies),
        local_network_failures: machine::local_network_failures(&tree),
        verdict: verdict.and_then(Value::as_str).map(str::to_owned),
        control: control(&ctx.home),
        ca: authority(ctx, &tree.health),
        ledger: database(&ctx.home),
        token: bypass.as_ref().err().filter(|_| says_anything(&tree.health)).cloned(),
        bypass: bypassed(bypass.ok().as_ref()),
        proxies: proxies(&|name| std::env::var(name).ok()),
        dangling: dangling(&|name| std::env::var(name).ok()),
        stranded: machine::stranded(ctx, edge_answers),
        system_proxies,
        other_way: platform::system_proxy().other_way(),
        proxy_managed: ctx.home.proxy_managed().exists(),
        clock: Timestamp::now().as_second(),
        latest: machine::latest(&ctx.home),
        selftest: if edge_answers {
            selftest::examine(ctx, &mut |_| {}).map_err(|e| e.to_string())
        } else {
            Err("no edge".to_owned())
        },
        says: says(tree.health),
    }
}

/// Nothing runs, and there is not even a CA that something could have run with.
fn untouched(ctx: &Context, tree: &Tree) -> bool {
    let none = [tree.root, tree.edge, tree.daemon, tree.watchdog].iter().all(Option::is_none);
    none && tree.edge_answer.is_none() && !ctx.home.ca_dir().exists()
}

fn says_anything(health: &Health) -> bool {
    matches!(health, Health::Ok(_) | Health::Degraded(_))
}

fn says(health: Health) -> Says {
    match health {
        Health::Ok(_) => Says::Ok,
        Health::Degraded(body) => {
            let reasons = body.get("reasons").and_then(Value::as_array).into_iter().flatten();
            Says::Degraded(reasons.filter_map(|r| r.as_str().map(str::to_owned)).collect())
        }
        Health::Foreign => Says::Foreign,
        Health::Silent => Says::Silent,
        Health::Down => Says::Down,
    }
}

fn process(pid: Option<u32>) -> Process {
    let suspended = pid.is_some_and(|pid| {
        let pid = sysinfo::Pid::from_u32(pid);
        let Ok(mut system) = System::new() else { return false };
        let one = ProcessesToUpdate::Some(&[pid]);
        system.refresh_processes_specifics(one, false, ProcessRefreshKind::nothing());
        system.process(pid).is_some_and(|p| p.status() == ProcessStatus::Stop)
    });
    Process { pid, suspended }
}

fn holder(addr: SocketAddr, edge: Option<u32>) -> Option<String> {
    let taken = edge.is_none() && near::connect_timeout(&addr, ASK).is_ok();
    taken.then(|| platform::listener_on(addr).unwrap_or_else(|| "another program".to_owned()))
}

fn home_problem(home: &Home) -> Option<String> {
    if let Err(e) = home.holds_sockets() {
        return Some(e.to_string());
    }
    if let Some(e) = home.in_the_way() {
        return Some(e.to_string());
    }
    if !home.run_dir().exists() {
        // It is made by what is started first, which looks itself whether it can.
        let above = home.path().ancestors().find(|dir| dir.exists())?;
        let shut = rustix::fs::access(above, rustix::fs::Access::WRITE_OK).is_err();
        return shut.then(|| format!("{} can't be written", above.display()));
    }
    let probe = home.run_dir().join(format!("doctor.{}", std::process::id()));
    let written = fs::write(&probe, b"");
    let _ = fs::remove_file(&probe);
    written.err().map(|e| format!("{} can't be written: {e}", home.run_dir().display()))
}

/// What others may get at, of the files that matter.
fn wide(home: &Home) -> Vec<PathBuf> {
    let dirs = [
        home.path().to_path_buf(),
        home.ca_dir(),
        home.run_dir(),
        home.spool_dir(),
        home.log_dir(),
        home.bodies_dir(),
    ];
    let files = [
        home.ca_key(),
        home.token_file(),
        home.config_file(),
        home.ledger_file(),
        home.journal_file(),
    ];
    let is_wide = |path: &PathBuf| {
        // The configuration may hold a proxy's password, but the user may have put it there as it is.
        let mask = if *path == home.config_file() { 0o022 } else { 0o077 };
        fs::metadata(path).is_ok_and(|m| m.permissions().mode() & mask != 0)
    };
    // What is something else in a directory's place is said of the home.
    let dirs = dirs.into_iter().filter(|path| path.is_dir());
    dirs.chain(files).filter(is_wide).collect()
}

fn stale(home: &Home, daemon: Option<u32>) -> Vec<PathBuf> {
    let lives = |process: &str| PidLock::holder(&home.pid_file(process)).ok().flatten().is_some();
    let left = [
        (home.selftest().path().to_path_buf(), !lives("selftest")),
        (home.control_socket(), daemon.is_none()),
    ];
    left.into_iter().filter(|(path, gone)| *gone && path.exists()).map(|(path, _)| path).collect()
}

/// As an edge would.
fn control(home: &Home) -> Result<(), String> {
    let path = home.control_socket();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let hello = async {
        let mut channel = EdgeChannel::connect(&path).await?;
        let hello = ToDaemon::Hello { version: VERSION, pid: std::process::id() };
        channel.send(&hello, None).await?;
        channel.recv().await
    };
    let answer = runtime.map_err(|e| e.to_string())?.block_on(async { timeout(ASK, hello).await });
    match answer {
        Err(_) => Err("the control socket takes connections, but nobody answers".to_owned()),
        Ok(Err(e)) => Err(e.to_string()),
        Ok(Ok(Some((ToEdge::Hello { version: VERSION, .. }, _)))) => Ok(()),
        Ok(Ok(Some((ToEdge::Hello { version, .. }, _)))) => Err(format!(
            "the daemon speaks version {version} of the control channel, this {VERSION}"
        )),
        Ok(Ok(_)) => Err("the control socket was answered with something else".to_owned()),
    }
}

fn authority(ctx: &Context, health: &Health) -> Ca {
    let in_use = says_anything(health).then(|| client::api(ctx, "/v1/status", ASK).ok()).flatten();
    let in_use = in_use.as_ref().and_then(|s| s.get("authority")).and_then(Value::as_str);
    let other = |certificate: &CertificateDer<'static>| {
        let ours = Authority { file: ctx.home.ca_cert(), certificate: certificate.clone() };
        in_use.is_some_and(|in_use| in_use != ours.fingerprint())
    };
    let in_bundle =
        |certificate: &_| read_certificates(&ctx.home.ca_bundle()).contains(certificate);
    match ca::inspect(&ctx.home, &ctx.loaded.config.meter.hosts) {
        Ok(Ok(found)) => Ca {
            bundle_holds: in_bundle(&found.certificate)
                && found.next.as_ref().is_none_or(in_bundle),
            next_waits: found.next.is_some(),
            other_in_daemon: other(&found.certificate),
            days_left: (found.not_after - Timestamp::now().as_second()) / DAY,
            problem: found.unfit,
        },
        Ok(Err(why)) => unusable(why),
        Err(e) => unusable(e.to_string()),
    }
}

fn unusable(why: String) -> Ca {
    Ca {
        problem: Some(why),
        days_left: 0,
        bundle_holds: false,
        next_waits: false,
        other_in_daemon: false,
    }
}

fn database(home: &Home) -> Ledger {
    let path = home.ledger_file();
    let checked = ledger::Ledger::open(home).and_then(|ledger| {
        let one = ledger::RequestFilter { limit: Some(1), ..ledger::RequestFilter::default() };
        ledger.requests(&one)?;
        ledger.check(CHECK)
    });
    let next = |e: &LedgerError| match e.is_damage() {
        true => ledger::recovery(&path),
        false => "see the message; nothing is deleted".to_owned(),
    };
    Ledger {
        problem: checked.as_ref().err().map(|e| (e.to_string(), next(e))),
        unchecked: matches!(checked, Ok(Checked::InPart)),
        bytes: fs::metadata(&path).map_or(0, |m| m.len()),
        free: home.room(),
    }
}

fn bypassed(answer: Option<&Value>) -> Vec<String> {
    let entries = answer.and_then(|a| a.get("bypass")).and_then(Value::as_array);
    let raw = entries.into_iter().flatten().filter_map(|entry| {
        let text = |key: &str| entry.get(key).and_then(Value::as_str);
        let program = text("program").unwrap_or("an unknown program");
        let does = match entry.get("refused").and_then(Value::as_bool) {
            Some(false) => "breaks off, and may refuse our certificate",
            Some(true) | None => "refuses our certificate",
        };
        Some(format!("{program} {does} for {}: raw until {}", text("host")?, text("until")?))
    });
    raw.collect()
}

fn proxies(get: &dyn Fn(&str) -> Option<String>) -> Vec<ProxyVariable> {
    let set = env::PROXY_VARS.into_iter().filter_map(|name| Some((name, get(name)?)));
    set.filter_map(|(name, value)| {
        let proxy = UpstreamProxy::parse(&value)?;
        let local = crate::config::is_loopback(&proxy.host);
        let addr = SocketAddr::from(([127, 0, 0, 1], proxy.port));
        Some(ProxyVariable {
            name,
            shown: format!("{}:{}", proxy.host, proxy.port),
            local_port: local.then_some(proxy.port),
            alive: local && near::connect_timeout(&addr, ASK).is_ok(),
        })
    })
    .collect()
}

fn dangling(get: &dyn Fn(&str) -> Option<String>) -> Vec<(String, PathBuf)> {
    let set =
        env::CA_VARS.iter().chain(&env::FORMER_VARS).filter_map(|name| Some((*name, get(name)?)));
    set.filter(|(_, value)| !value.is_empty() && !Path::new(value).exists())
        .map(|(name, value)| (name.to_owned(), PathBuf::from(value)))
        .collect()
}
