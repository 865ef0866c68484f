use std::collections::BTreeMap;

use super::*;
use crate::platform::User;

fn installation() -> Installation {
    Installation {
        program: "/bin/halton-meter".into(),
        home: Home::at("/h"),
        environment: BTreeMap::new(),
        edge: ([127, 0, 0, 1], 8081).into(),
        user: User { uid: 1, home: "/u".into(), config: "/u/.config".into() },
    }
}

fn marker(name: &str) -> Vec<Step> {
    vec![Step::Run(Call::new(name, [""; 0]))]
}

fn platform() -> FromPlatform {
    FromPlatform {
        services: marker("services"),
        session: marker("session"),
        proxy: marker("proxy"),
    }
}

fn lines(parts: &[Part]) -> Vec<String> {
    parts.iter().flat_map(|p| &p.steps).map(ToString::to_string).collect()
}

fn before(lines: &[String], first: &str, second: &str) -> bool {
    let at = |text: &str| {
        lines.iter().position(|l| l.contains(text)).unwrap_or_else(|| panic!("{text}: {lines:?}"))
    };
    at(first) < at(second)
}

#[test]
fn nothing_leads_to_the_edge_before_it_is_there_nor_after_it_is_gone() {
    let rc = [(PathBuf::from("/u/.zshrc"), "body".to_owned())];
    let found = Found { tree: true, ..Found::default() };
    let state = SystemState::default();
    let inwards = lines(&init(&installation(), Mode::Full, &found, platform(), &rc, &state, None));
    for later in [".zshrc", "session", "proxy-managed", "system-state.json"] {
        assert!(before(&inwards, "start --quiet", later), "{later}");
    }
    assert!(before(&inwards, "edge stop", "services"));
    assert!(before(&inwards, "system-state.json", "session"), "{inwards:?}");
    assert!(inwards.ends_with(&["proxy".to_owned(), "write /h/proxy-managed".to_owned()]));

    let files = ["install-mode", "proxy-managed", "apps-managed", "system-state.json"];
    let found = Found {
        sections: vec![("/u/.zshrc".into(), Some("body".into()))],
        files: files.map(|n| (Path::new("/h").join(n), Vec::new())).to_vec(),
        tree: true,
        state: None,
    };
    let outwards = lines(&uninstall(&installation(), &found, platform(), WayOut::All));
    for earlier in [".zshrc", "session", "proxy", "edge stop"] {
        assert!(before(&outwards, earlier, "install-mode"), "{earlier}");
    }
    assert_eq!(outwards[..2], ["rm -f /h/proxy-managed", "proxy"]);
    assert!(before(&outwards, "proxy", "session") && before(&outwards, "session", "services"));
    assert!(before(&outwards, "services", "edge stop"));
    let graceful = lines(&uninstall(&installation(), &found, platform(), WayOut::KeepEdge));
    assert!(graceful.contains(&"/bin/halton-meter stop".to_owned()), "{graceful:?}");

    let later = lines(&uninstall(&installation(), &found, platform(), WayOut::KeepSession));
    assert!(later.contains(&"/bin/halton-meter stop".to_owned()), "{later:?}");
    for kept in ["session", "apps-managed", "system-state.json"] {
        assert!(!later.iter().any(|line| line.contains(kept)), "{kept}: {later:?}");
    }
}

#[test]
fn the_port_is_closed_only_where_nothing_leads_there_any_more() {
    for graceful in [false, true] {
        let plain = if graceful { WayOut::KeepEdge } else { WayOut::All };
        for (leads, reached) in [(false, false), (false, true), (true, true)] {
            assert_eq!(WayOut::of(graceful, leads, reached), plain);
        }
        assert_eq!(WayOut::of(graceful, true, false), WayOut::KeepSession);
    }
}

#[test]
fn what_is_so_already_takes_no_steps() {
    let state = SystemState { session: Some(BTreeMap::new()), ..SystemState::default() };
    let rc = [(PathBuf::from("/u/.bashrc"), "body".to_owned())];
    let found = Found {
        sections: vec![("/u/.bashrc".into(), Some("body".into())), ("/u/.zshrc".into(), None)],
        files: vec![
            ("/h/install-mode".into(), b"apps\n".to_vec()),
            ("/h/apps-managed".into(), Vec::new()),
            ("/h/system-state.json".into(), state.to_json()),
            ("/h/user-stopped".into(), Vec::new()),
        ],
        ..Found::default()
    };
    let plan = |mode, rc: &[(PathBuf, String)]| {
        lines(&init(&installation(), mode, &found, FromPlatform::default(), rc, &state, None))
    };
    assert_eq!(plan(Mode::Apps, &rc), Vec::<String>::new());
    // Another mode undoes what this one does not want.
    let lines = plan(Mode::EnvOnly, &[]);
    assert_eq!(
        lines,
        ["write /h/install-mode", "# our section out of /u/.bashrc", "rm -f /h/apps-managed"]
    );
    let nothing =
        uninstall(&installation(), &Found::default(), FromPlatform::default(), WayOut::All);
    assert_eq!(nothing, []);
}

#[test]
fn a_stop_from_before_the_first_install_does_not_outlive_it() {
    let stopped = (PathBuf::from("/h/user-stopped"), Vec::new());
    let mut found = Found { files: vec![stopped], ..Found::default() };
    let plan = |found: &Found| {
        let state = SystemState::default();
        lines(&init(&installation(), Mode::EnvOnly, found, platform(), &[], &state, None))
    };
    assert!(plan(&found).contains(&"rm -f /h/user-stopped".to_owned()));
    found.files.push(("/h/install-mode".into(), b"env-only\n".to_vec()));
    let again = plan(&found);
    assert!(!again.contains(&"rm -f /h/user-stopped".to_owned()));
    assert!(!again.iter().any(|line| line.contains("start --quiet")), "{again:?}");
}
