use super::super::super::client::Settings;
use super::super::facts::{Ca, Keeper, Kept, Ledger, Process, ProxyVariable, Says, Upstream};
use super::belongings::config;
use super::processes::edge;
use super::*;
use crate::meter::ledger::LedgerError;
use crate::selftest::{Check, Report};

fn fine() -> Facts {
    let process = |pid| Process { pid: Some(pid), suspended: false };
    Facts {
        home: "/h".into(),
        home_problem: None,
        wide: Vec::new(),
        stale: Vec::new(),
        config_problems: Vec::new(),
        settings: Settings::InForce,
        strays: Vec::new(),
        own_problems: Vec::new(),
        bodies: None,
        untouched: false,
        stopped: false,
        root: process(1),
        edge: process(2),
        daemon: process(3),
        watchdog: process(4),
        edge_addr: ([127, 0, 0, 1], 8081).into(),
        api_addr: ([127, 0, 0, 1], 8765).into(),
        edge_answers: true,
        edge_elsewhere: None,
        edge_port_holder: None,
        edge_port_unheard: false,
        edge_last_exit: None,
        api_port_holder: None,
        api_port_unheard: false,
        keeper: Some(keeper()),
        upstream: Upstream::default(),
        local_network_failures: None,
        verdict: Some("healthy".into()),
        says: Says::Ok,
        control: Ok(()),
        ca: Ca {
            problem: None,
            days_left: 1000,
            bundle_holds: true,
            next_waits: false,
            other_in_daemon: false,
        },
        ledger: Ledger { problem: None, unchecked: false, bytes: 4096, free: Some(1 << 40) },
        token: None,
        bypass: Vec::new(),
        passing: Vec::new(),
        silent: Vec::new(),
        proxies: Vec::new(),
        stranded: Vec::new(),
        dangling: Vec::new(),
        system_proxies: Vec::new(),
        other_way: None,
        proxy_managed: false,
        clock: 1_790_000_000,
        latest: 1_790_000_100,
        selftest: Ok(Report::new(Vec::new())),
    }
}

fn keeper() -> Keeper {
    let kept = |name| Kept {
        name,
        program: Some("/bin/hm".into()),
        program_there: true,
        known_by: None,
        enabled: true,
        pid: Some(9),
        last_exit: None,
        refused: false,
    };
    let services = ["edge", "daemon", "watchdog"].map(kept).to_vec();
    let own = "/bin/hm".into();
    Keeper { name: "systemd", installed: true, unreachable: None, services, own }
}

fn edge_service(f: &mut Facts, change: fn(&mut Kept)) {
    f.keeper.iter_mut().flat_map(|k| k.services.first_mut()).for_each(change);
}

fn elsewhere(f: &mut Facts) {
    (f.edge_answers, f.edge_elsewhere) = (false, Some(([127, 0, 0, 1], 8080).into()));
}

fn does_not_start(f: &mut Facts, holder: &str) {
    (f.edge.pid, f.edge_answers) = (None, false);
    f.edge_port_holder = Some(holder.into());
    f.edge_last_exit = Some("/bin/hm: gone".into());
}

#[test]
fn our_own_root_is_no_other_program() {
    let mut facts = fine();
    does_not_start(&mut facts, "hm, pid 1");
    let found = edge(&facts);
    assert_eq!(found[0].what, "the edge does not start: /bin/hm: gone: requests fail");
    assert_eq!(found[0].fix, None, "nothing is started by it");
}

fn proxy(port: u16, alive: bool) -> Vec<ProxyVariable> {
    let shown = format!("127.0.0.1:{port}");
    vec![ProxyVariable { name: "HTTPS_PROXY", shown, local_port: Some(port), alive }]
}

fn check(level: Level) -> Check {
    Check { name: "json", level, ms: 1, detail: "why".into(), next: Some("do".into()) }
}

type Spoil = fn(&mut Facts);

#[test]
fn every_fault_is_found_in_its_layer_with_a_next_action() {
    use Level::{Broken, Degraded, Ok as Fine};
    let start = || Some(Fix::Start);
    #[rustfmt::skip]
    let table: &[(Spoil, &str, Level, &str, Option<Fix>)] = &[
        (|f| f.home_problem = Some("can't be written".into()), "home", Degraded, "HALTON_METER_HOME", None),
        (|f| f.wide.push("/h/run".into()), "home", Degraded, "chmod", Some(Fix::Tighten("/h/run".into()))),
        (|f| f.config_problems.push("c:1: no".into()), "config", Degraded, "config check", None),
        (|f| f.own_problems.push("p:1: no".into()), "config", Degraded, "config check", None),
        (|f| f.settings = Settings::Unread, "config", Degraded, "restart", None),
        (|f| f.settings = Settings::Refused, "config", Degraded, "edge.err.log", None),
        (|f| f.root.pid = None, "root", Degraded, "start", start()),
        (|f| f.root.suspended = true, "root", Degraded, "kill -CONT 1", None),
        (|f| (f.edge.pid, f.edge_answers) = (None, false), "edge", Broken, "start", start()),
        (|f| f.edge_answers = false, "edge", Broken, "kill 2", None),
        (|f| (f.edge_answers, f.edge.suspended) = (false, true), "edge", Broken, "kill -CONT 2", None),
        (|f| { (f.edge.pid, f.edge_answers) = (None, false); f.edge_port_holder = Some("nginx, pid 9".into()); },
            "edge", Broken, "edge.port", None),
        (|f| { (f.edge.pid, f.edge_answers) = (None, false); f.edge_port_unheard = true; },
            "edge", Broken, "wait", None),
        (|f| does_not_start(f, "hm, pid 1"), "edge", Broken, "halton-meter upgrade", None),
        (|f| { does_not_start(f, "hm, pid 1"); f.edge_port_holder = None; },
            "edge", Broken, "halton-meter upgrade", None),
        (|f| { does_not_start(f, "hm, pid 1"); f.root.suspended = true; }, "edge", Broken, "kill -CONT 1", None),
        (|f| { does_not_start(f, "systemd, pid 5"); f.root.pid = None; }, "edge", Broken, "start", start()),
        (|f| does_not_start(f, "nginx, pid 9"), "edge", Broken, "edge.port", None),
        (elsewhere, "edge", Broken, "halton-meter init", None),
        (|f| { elsewhere(f); f.keeper = None; }, "edge", Broken, "edge stop`, then `halton-meter start", None),
        (|f| { elsewhere(f); f.proxies = proxy(8081, false); }, "environment", Broken, "halton-meter init", None),
        (|f| f.verdict = Some("unhealthy".into()), "edge", Degraded, "restart", None),
        (|f| (f.says, f.daemon.pid) = (Says::Down, None), "daemon", Degraded, "start", start()),
        (|f| (f.says, f.daemon.pid, f.stopped) = (Says::Down, None, true), "daemon", Degraded, "start", None),
        (|f| f.says = Says::Silent, "daemon", Degraded, "restart", None),
        (|f| f.says = Says::Foreign, "daemon", Degraded, "daemon.api_port", None),
        (|f| f.says = Says::Degraded(vec!["ledger: disk full".into()]), "daemon", Degraded, "make room", None),
        (|f| f.says = Says::Degraded(vec!["ledger: the database is being brought up to date (schema 3 -> 8)".into()]),
            "daemon", Degraded, "wait", None),
        (|f| f.says = Says::Degraded(vec!["ledger: the ledger cannot be opened".into()]), "daemon", Degraded,
            "db.sqlite", None),
        (|f| f.says = Says::Degraded(vec![format!("ledger: {}", LedgerError::Newer { found: 9, known: 8 })]),
            "daemon", Degraded, "halton-meter upgrade", None),
        (|f| (f.says, f.daemon.suspended) = (Says::Silent, true), "daemon", Degraded, "kill -CONT 3", None),
        (|f| { does_not_start(f, "hm, pid 1"); f.edge_last_exit = Some("Too many open files (os error 24)".into()); },
            "edge", Broken, "ulimit -n", None),
        (|f| f.says = Says::Degraded(vec!["clock: 1970".into()]), "daemon", Degraded, "set the clock", None),
        (|f| f.says = Says::Degraded(vec!["ca: not valid".into()]), "daemon", Degraded, "makes another CA", None),
        (|f| f.watchdog.pid = None, "watchdog", Degraded, "start", start()),
        (|f| f.watchdog.suspended = true, "watchdog", Degraded, "kill -CONT 4", None),
        (|f| f.control = Err("refused".into()), "control", Degraded, "restart", None),
        (|f| f.ca.problem = Some("damaged".into()), "ca", Degraded, "restart", None),
        (|f| f.ca.bundle_holds = false, "ca", Broken, "--fix", Some(Fix::Bundle)),
        (|f| f.ledger.problem = Some(("newer".into(), "see".into())), "ledger", Degraded, "see", None),
        (|f| f.ledger.free = Some(1000), "ledger", Degraded, "make room", None),
        (|f| f.token = Some("answered 401".into()), "token", Degraded, "restart", None),
        (|f| f.bypass.push("curl refuses".into()), "bypass", Degraded, "SSL_CERT_FILE", None),
        (|f| f.passing.push("claude is unmetered".into()), "bypass", Degraded, "anew", None),
        (|f| f.silent.push("/mnt/nas does not answer".into()), "projects", Degraded, "mount", None),
        (|f| f.proxies = proxy(9999, false), "environment", Broken, "unset HTTPS_PROXY", None),
        (|f| f.proxies = proxy(9999, true), "environment", Degraded, "halton-meter env", None),
        (|f| f.proxies = proxy(8081, false), "environment", Broken, "start", start()),
        (|f| f.dangling.push(("SSL_CERT_FILE".into(), "/x".into())), "environment", Broken, "unset", None),
        (|f| f.dangling.push(("SSL_CERT_FILE".into(), "/h/ca/b".into())), "environment", Broken, "--fix",
            Some(Fix::Bundle)),
        (|f| { f.edge_answers = false; f.system_proxies.push("127.0.0.1:8081".into()); },
            "system-proxy", Broken, "reset-proxy", None),
        (|f| { f.proxy_managed = true; f.other_way = Some("a SOCKS proxy"); }, "system-proxy", Degraded, "switch it off", None),
        (|f| { f.other_way = Some("a PAC"); f.system_proxies.push("127.0.0.1:8081".into()); },
            "system-proxy", Degraded, "switch it off", None),
        (|f| edge_service(f, |s| (s.pid, s.refused) = (None, true)), "services", Degraded, "start", start()),
        (|f| f.clock = 0, "clock", Degraded, "set it", None),
        (|f| f.latest = f.clock + 3600, "clock", Degraded, "set it", None),
        (|f| { f.proxy_managed = true; f.system_proxies.push("proxy.corp:8080".into()); }, "system-proxy", Degraded, "--full", None),
        (|f| f.ca.other_in_daemon = true, "ca", Broken, "restart", Some(Fix::Bundle)),
        (|f| { f.says = Says::Silent; f.api_port_unheard = true; }, "daemon", Degraded, "wait", None),
        (|f| { f.says = Says::Silent; f.api_port_holder = Some("nginx, pid 9".into()); },
            "daemon", Degraded, "daemon.api_port", None),
        (|f| { f.says = Says::Foreign; f.api_port_holder = Some("nginx, pid 9".into()); },
            "daemon", Degraded, "daemon.api_port", None),
        (|f| f.stranded.push(("claude, pid 7".into(), f.edge_addr)), "environment", Broken, "start", start()),
        (|f| f.stranded.push(("claude, pid 7".into(), f.api_addr)), "environment", Broken, "end that program", None),
        (|f| f.upstream.proxy = Some(("p:1".into(), Err("no".into()))), "upstream", Broken, "config.toml", None),
        (|f| f.upstream.http = Some(("c:2".into(), Err("no".into()))), "upstream", Broken, "config.toml", None),
        (|f| f.upstream.ignored = Some("p:1".into()), "upstream", Degraded, "upstream.proxy", None),
        (|f| f.upstream.extra_roots = Some("expired".into()), "upstream", Degraded, "another file", None),
        (|f| f.keeper.as_mut().unwrap().installed = false, "services", Degraded, "uninstall", None),
        (|f| edge_service(f, |s| s.program = None), "services", Degraded, "init", None),
        (|f| edge_service(f, |s| s.program_there = false), "services", Degraded, "where it is now", None),
        (|f| edge_service(f, |s| (s.program_there, s.pid) = (false, None)), "services", Broken, "where it is now", None),
        (|f| edge_service(f, |s| s.known_by = Some(("/old/hm".into(), false))), "services", Degraded, "init", None),
        (|f| edge_service(f, |s| (s.known_by, s.pid) = (Some(("/old/hm".into(), false)), None)), "services", Broken,
            "init", None),
        (|f| edge_service(f, |s| s.known_by = Some(("/old/hm".into(), true))), "services", Fine, "leave", None),
        (|f| edge_service(f, |s| (s.known_by, s.pid) = (Some(("/old/hm".into(), true)), None)), "services", Degraded,
            "start", start()),
        (|f| f.local_network_failures = Some(3), "upstream", Degraded, "Local Network", None),
        (|f| edge_service(f, |s| s.enabled = false), "services", Degraded, "init", None),
        (|f| edge_service(f, |s| (s.pid, s.last_exit) = (None, Some("exit 75".into()))), "services", Degraded,
            "start", start()),
        (|f| f.selftest = Ok(Report::new(vec![check(Fine), check(Degraded)])), "selftest", Degraded, "do", None),
        (|f| f.selftest = Ok(Report::new(vec![check(Broken)])), "selftest", Broken, "do", None),
        (|f| f.selftest = Err("busy".into()), "selftest", Degraded, "again", None),
    ];
    for (i, (spoil, layer, level, next, fix)) in table.iter().enumerate() {
        let mut facts = fine();
        spoil(&mut facts);
        let findings = judge(&facts);
        let found = findings.iter().find(|f| f.layer == *layer && f.level == *level);
        let found = found.unwrap_or_else(|| panic!("{i} {layer}: {findings:#?}"));
        assert!(found.next.as_ref().is_some_and(|n| n.contains(next)), "{i} {found:?}");
        assert_eq!(&found.fix, fix, "{i} {found:?}");
    }
}

#[test]
fn a_machine_where_nothing_has_run_is_not_broken() {
    let mut facts = fine();
    (facts.untouched, facts.edge_answers, facts.says) = (true, false, Says::Down);
    for process in [&mut facts.root, &mut facts.edge, &mut facts.daemon, &mut facts.watchdog] {
        process.pid = None;
    }
    facts.keeper = Some(Keeper { name: "systemd", ..Keeper::default() });
    facts.ca = Ca { problem: Some("there is none yet".into()), bundle_holds: false, ..facts.ca };
    let bad = |facts: &Facts| -> Vec<Finding> {
        judge(facts).into_iter().filter(|f| f.level > Level::Ok).collect()
    };
    let found = bad(&facts);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].layer, found[0].level), ("edge", Level::Degraded));
    assert!(found[0].next.as_ref().is_some_and(|n| n.contains("halton-meter start")), "{found:?}");
    // A shell that points at us all the same is.
    facts.proxies = proxy(8081, false);
    assert_eq!(bad(&facts).iter().map(|f| f.level).max(), Some(Level::Broken));
    facts.untouched = false;
    let ca = |facts: &Facts| -> Vec<Level> {
        judge(facts).into_iter().filter(|f| f.layer == "ca").map(|f| f.level).collect()
    };
    assert_eq!(ca(&facts), [Level::Skipped], "nobody signs, as after `uninstall --graceful`");
    facts.says = Says::Silent;
    assert_eq!(ca(&facts), [Level::Degraded], "a missing CA is named once");
}

#[test]
fn what_is_well_is_said_to_be_well() {
    let table: &[Spoil] = &[
        |_| {},
        |f| f.proxies = proxy(8081, true),
        |f| f.stale.push("/h/run/selftest".into()),
        |f| f.ca.days_left = 31,
        |f| f.system_proxies.push("127.0.0.1:8081".into()),
        |f| {
            f.edge_answers = true;
            f.system_proxies.push("proxy.corp:8081".into());
        },
        |f| edge_service(f, |s| s.known_by = Some(("/old/hm".into(), true))),
        |f| f.local_network_failures = Some(0),
        |f| f.keeper = None,
        |f| f.keeper = Some(Keeper { name: "systemd", ..Keeper::default() }),
        |f| f.keeper.as_mut().unwrap().unreachable = Some("no session".into()),
        |f| f.keeper.as_mut().unwrap().own = "/home/u/hm".into(),
        |f| (f.stopped, f.keeper.as_mut().unwrap().services[1].pid) = (true, None),
        |f| f.upstream.proxy = Some(("p:1".into(), Ok(()))),
        |f| f.upstream.http = Some(("c:2".into(), Ok(()))),
        |f| (f.upstream.proxy, f.upstream.past) = (Some(("p:1".into(), Ok(()))), true),
        |f| f.upstream.inspectors.push("Zscaler"),
        |f| f.system_proxies.push("proxy.corp:8080".into()),
        |f| f.other_way = Some("a SOCKS proxy"),
        // A proxy elsewhere is the user's own business.
        |f| {
            f.proxies = proxy(3128, false);
            f.proxies.iter_mut().for_each(|v| v.local_port = None);
        },
    ];
    for (i, spoil) in table.iter().enumerate() {
        let mut facts = fine();
        spoil(&mut facts);
        let bad: Vec<_> = judge(&facts).into_iter().filter(|f| f.level > Level::Ok).collect();
        assert_eq!(bad, [], "{i}");
    }
    let mut layers: Vec<_> = judge(&fine()).iter().map(|f| f.layer).collect();
    layers.dedup();
    assert_eq!(layers.len(), LAYERS, "every layer is named: {layers:?}");
}

#[test]
fn the_way_of_plain_http_is_told_by_its_name() {
    let said = |proxy: Option<&str>, http| {
        let mut facts = fine();
        facts.upstream.proxy = proxy.map(|proxy| (proxy.to_owned(), Ok(())));
        facts.upstream.http = Some(("c:2".to_owned(), http));
        let found = judge(&facts).into_iter().find(|f| f.layer == "upstream");
        found.unwrap().what
    };
    assert_eq!(said(None, Ok(())), "direct; http:// through c:2");
    assert_eq!(said(Some("p:1"), Ok(())), "through p:1; http:// through c:2");
    assert_eq!(said(None, Err("no".to_owned())), "upstream.http_proxy c:2: no");
}

#[test]
fn a_variable_that_nobody_reads_is_named_and_does_no_harm() {
    let mut facts = fine();
    facts.strays = vec!["$HALTON_METER_EDGE_PROT is no setting".into()];
    let found = config(&facts);
    assert_eq!((found.len(), found[0].level), (1, Level::Ok));
    assert!(found[0].what.contains("EDGE_PROT") && found[0].next.is_some(), "{found:?}");
}
