use super::*;
use crate::home::Home;

fn wanted() -> Installation {
    Installation {
        program: "/opt/hm/halton-meter".into(),
        home: Home::at("/nowhere/.halton-meter"),
        environment: BTreeMap::new(),
        edge: ([127, 0, 0, 1], 8081).into(),
        user: User { uid: 1000, home: "/nowhere".into(), config: "/nowhere/.config".into() },
    }
}

fn texts(wanted: &Installation) -> [(&'static str, String); 4] {
    units::render(wanted).unwrap()
}

/// All of it as `install` leaves it.
fn installed() -> AllFound {
    let shown =
        Shown { loaded: true, active: true, enabled: true, pid: Some(7), ..Shown::default() };
    let all = texts(&wanted()).into_iter();
    all.map(|(unit, text)| (unit, Found { file: Some(text), shown: shown.clone() })).collect()
}

fn lines(steps: &[Step]) -> Vec<String> {
    let short = |text: String| {
        text.replace("systemctl --user ", "")
            .replace("/nowhere/.config/systemd/user/", "")
            .replace("halton-meter", "hm")
    };
    steps.iter().map(|s| short(s.to_string())).collect()
}

#[test]
fn from_nothing_and_then_nothing() {
    let steps = install(&wanted(), &texts(&wanted()), &AllFound::new());
    assert_eq!(
        lines(&steps),
        [
            "daemon-reload",
            "write hm-edge.socket",
            "write hm-edge.service",
            "write hm.service",
            "write hm-watchdog.service",
            "daemon-reload",
            "enable hm-edge.socket hm-edge.service hm.service hm-watchdog.service",
            "start hm-edge.socket hm-edge.service hm.service hm-watchdog.service",
        ]
    );
    assert_eq!(install(&wanted(), &texts(&wanted()), &installed()), []);
}

#[test]
fn a_moved_binary_restarts_what_loses_nothing_by_it() {
    let mut moved = wanted();
    moved.program = "/new/halton-meter".into();
    let steps = lines(&install(&moved, &texts(&moved), &installed()));
    assert_eq!(steps.last().unwrap(), "try-restart hm.service hm-watchdog.service");
    assert!(!steps.iter().any(|s| s.contains("restart") && s.contains("edge")), "{steps:?}");
}

#[test]
fn another_port_takes_socket_and_edge_down_and_up() {
    let mut other = wanted();
    other.edge.set_port(9000);
    let steps = lines(&install(&other, &texts(&other), &installed()));
    let end = ["stop hm-edge.service hm-edge.socket", "start hm-edge.socket hm-edge.service"];
    assert!(steps.ends_with(&end.map(str::to_owned)), "{steps:?}");
    // A socket unit that differs otherwise keeps its connections.
    let mut found = installed();
    found.get_mut(SOCKET).unwrap().file = Some("ListenStream=127.0.0.1:8081\n".to_owned());
    let steps = lines(&install(&wanted(), &texts(&wanted()), &found));
    assert_eq!(steps, ["daemon-reload", "write hm-edge.socket", "daemon-reload"]);
}

/// systemd refuses to start the socket of a service that runs.
#[test]
fn a_port_that_the_service_itself_has_is_left_to_it() {
    let mut found = installed();
    found.get_mut(SOCKET).unwrap().shown.active = false;
    assert_eq!(install(&wanted(), &texts(&wanted()), &found), []);
    let mut other = wanted();
    other.edge.set_port(9000);
    let steps = lines(&install(&other, &texts(&other), &found));
    let end = ["stop hm-edge.service hm-edge.socket", "start hm-edge.socket hm-edge.service"];
    assert!(steps.ends_with(&end.map(str::to_owned)), "{steps:?}");
}

#[test]
fn what_is_down_or_not_enabled_is_mended_and_what_was_stopped_stays() {
    let mut found = installed();
    found.get_mut(EDGE).unwrap().shown.active = false;
    found.get_mut(units::DAEMON).unwrap().shown.enabled = false;
    let steps = lines(&install(&wanted(), &texts(&wanted()), &found));
    assert_eq!(steps, ["enable hm.service", "start hm-edge.service"]);

    let dir = tempfile::tempdir().unwrap();
    let mut stopped = wanted();
    stopped.home = Home::at(dir.path());
    fs::write(stopped.home.user_stopped(), "").unwrap();
    let mut found = installed();
    for (unit, text) in texts(&stopped) {
        let found = found.get_mut(unit).unwrap();
        found.file = Some(text);
        found.shown.active = [SOCKET, EDGE].contains(&unit);
    }
    assert_eq!(install(&stopped, &texts(&stopped), &found), []);
}

#[test]
fn out_again_with_or_without_the_edge() {
    let user = wanted().user;
    assert_eq!(
        lines(&uninstall(&user, &installed(), false)),
        [
            "stop hm-watchdog.service hm.service",
            "disable hm-watchdog.service hm.service",
            "stop hm-edge.service hm-edge.socket",
            "disable hm-edge.service hm-edge.socket",
            "daemon-reload",
            "rm -f hm-edge.service",
            "rm -f hm-edge.socket",
            "rm -f hm-watchdog.service",
            "rm -f hm.service",
            "daemon-reload",
        ]
    );
    let graceful = lines(&uninstall(&user, &installed(), true));
    assert!(!graceful.iter().any(|s| s.starts_with("stop hm-edge")), "{graceful:?}");
    assert!(
        graceful
            .iter()
            .any(|s| s.ends_with("systemd/user/hm-edge.socket") && s.starts_with("write /"))
    );
    assert_eq!(uninstall(&user, &AllFound::new(), false), []);
}

#[test]
fn every_change_can_be_taken_back() {
    let all = [
        install(&wanted(), &texts(&wanted()), &AllFound::new()),
        uninstall(&wanted().user, &installed(), false),
        uninstall(&wanted().user, &installed(), true),
    ];
    for step in all.concat() {
        if let Step::Run(call) = step {
            let only_reads = call.args.contains(&"daemon-reload".to_owned());
            assert!(!call.undo.is_empty() || only_reads, "{}", call.line());
        }
    }
}

#[test]
fn a_machine_without_systemd_is_told_apart_from_a_login_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Systemd { path: Some(dir.path().as_os_str().to_owned()) };
    assert_eq!(manager.missing().as_deref(), Some("this machine has no systemd"));
    let tool = dir.path().join("systemctl");
    fs::write(&tool, "#!/bin/sh\necho 'Failed to connect to bus: No medium found' >&2\nexit 1\n")
        .unwrap();
    fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:/bin:/usr/bin", dir.path().display());
    let manager = Systemd { path: Some(path.into()) };
    assert!(manager.missing().unwrap().contains("No medium found"));

    // There, the way out is free unless units of ours lie about.
    let user = User { config: dir.path().join("config"), ..wanted().user };
    assert_eq!(manager.uninstall(&user, false).unwrap(), []);
    let unit = file(&user, EDGE);
    fs::create_dir_all(unit.parent().unwrap()).unwrap();
    fs::write(unit, "").unwrap();
    manager.uninstall(&user, false).unwrap_err();
}
