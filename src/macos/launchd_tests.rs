use std::collections::BTreeMap;

use serde_json::json;

use super::super::agents::USERENV;
use super::super::session::Session;
use super::super::standins::Standins;
use super::*;
use crate::home::Home;
use crate::platform::SessionEnvironment;

/// A user of a Mac, with everything in a directory.
struct Mac {
    tools: Standins,
    dir: tempfile::TempDir,
    wanted: Installation,
}

impl Mac {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("Users/j doe");
        let wanted = Installation {
            program: home.join("halton-meter"),
            home: Home::at(home.join(".halton-meter")),
            environment: BTreeMap::new(),
            edge: ([127, 0, 0, 1], 8081).into(),
            user: User {
                uid: rustix::process::getuid().as_raw(),
                config: home.join(".config"),
                home,
            },
        };
        Self { tools: Standins::below(dir.path()), dir, wanted }
    }

    fn launchd(&self) -> Launchd {
        Launchd::with_path(self.tools.path())
    }

    fn session(&self) -> Session {
        Session::with_path(self.tools.path())
    }

    fn apply(&self, steps: &[Step]) -> Result<(), setup::Failed> {
        let mut os = Os { path: Some(self.tools.path()), ..Os::default() };
        setup::execute(&mut os, &self.dir.path().join("journal"), steps)
    }

    fn install(&self) -> Vec<Step> {
        self.launchd().install(&self.wanted).unwrap()
    }

    /// One of them.
    fn install_edge(&self) -> Vec<Step> {
        let definition = agents::service(&self.wanted, Service::Edge).unwrap();
        let agent = Agent {
            label: label(Service::Edge),
            program: &self.wanted.program,
            text: plist::render(&definition).unwrap(),
            exit_timeout: exit_timeout(Service::Edge),
            holds_port: true,
            lasts: true,
        };
        self.launchd().install_agent(&self.wanted.user, &agent).unwrap()
    }

    /// What launchd has and what lies in its directory.
    fn seen(&self) -> (serde_json::Value, BTreeMap<String, Vec<u8>>) {
        let agents = fs::read_dir(self.wanted.user.home.join("Library/LaunchAgents"));
        let files = agents.into_iter().flatten().flatten();
        let files = files
            .map(|f| (f.file_name().to_string_lossy().into_owned(), fs::read(f.path()).unwrap()));
        (self.tools.settled()["launchd"].clone(), files.collect())
    }
}

fn labels() -> Vec<&'static str> {
    vec!["com.haltonlabs.meter", "com.haltonlabs.meter.edge", "com.haltonlabs.meter.watchdog"]
}

#[test]
fn in_and_out() {
    let mac = Mac::new();
    mac.apply(&mac.install()).unwrap();
    assert_eq!(mac.tools.loaded(), labels());
    assert_eq!(mac.install(), [], "nothing to do twice");
    let state = mac.launchd().state(&mac.wanted.user, Service::Daemon).unwrap();
    assert_eq!(state.program.as_ref(), Some(&mac.wanted.program));
    assert!(state.enabled && state.pid.is_some() && state.last_exit.is_none(), "{state:?}");
    assert_eq!(state.known_by, None);

    let user = &mac.wanted.user;
    mac.apply(&mac.launchd().uninstall(user, true).unwrap()).unwrap();
    assert_eq!(mac.tools.loaded(), ["com.haltonlabs.meter.edge"], "it runs on");
    assert!(mac.seen().1.is_empty(), "till the next login");
    mac.apply(&mac.launchd().uninstall(user, false).unwrap()).unwrap();
    assert_eq!(mac.tools.loaded(), [""; 0]);
    assert_eq!(mac.launchd().uninstall(user, false).unwrap(), []);
    assert_eq!(mac.launchd().state(user, Service::Edge).unwrap(), ServiceState::default());
    assert!(mac.tools.calls().iter().all(|c| !c.contains(" load") && !c.contains("unload")));
}

#[test]
fn stop_and_start_are_about_what_they_name() {
    let mac = Mac::new();
    let (launchd, user) = (mac.launchd(), &mac.wanted.user);
    mac.apply(&mac.install()).unwrap();
    mac.tools.set("drain", 3);
    mac.apply(&launchd.stop(user, &Service::METERING)).unwrap();
    assert_eq!(mac.tools.loaded(), ["com.haltonlabs.meter.edge"]);
    let stopped = launchd.state(user, Service::Daemon).unwrap();
    assert!(stopped.enabled && stopped.pid.is_none(), "until the next login");
    mac.apply(&launchd.stop(user, &Service::METERING)).unwrap();
    mac.apply(&launchd.start(user, &Service::METERING)).unwrap();
    assert_eq!(mac.tools.loaded(), labels());
    let before = mac.seen();
    mac.apply(&launchd.start(user, &Service::ALL)).unwrap();
    assert_eq!(mac.seen(), before);
    mac.apply(&launchd.restart(user, &Service::METERING)).unwrap();
    assert_eq!(mac.tools.loaded(), labels());
}

/// It holds a job to the program that it was loaded with.
#[test]
fn what_launchd_refuses_to_start_is_loaded_anew_unless_it_runs() {
    let mac = Mac::new();
    let (launchd, user) = (mac.launchd(), &mac.wanted.user);
    mac.apply(&mac.install()).unwrap();
    mac.tools.change(|state| {
        for (label, job) in state["launchd"]["loaded"].as_object_mut().unwrap() {
            job["replaced"] = json!(true);
            if !label.ends_with(".edge") {
                (job["pid"], job["last"]) = (json!(null), json!(78));
            }
        }
    });
    let state = |service| launchd.state(user, service).unwrap();
    assert!(state(Service::Daemon).refused && !state(Service::Edge).refused);
    let reloads = mac.install();
    assert!(!reloads.is_empty(), "`init` mends it too");
    mac.apply(&launchd.start(user, &Service::ALL)).unwrap();
    for service in Service::ALL {
        assert!(state(service).pid.is_some() && !state(service).refused, "{service:?}");
    }
    let edge = target(user, label(Service::Edge));
    assert!(!mac.tools.calls().iter().any(|c| c.contains("bootout") && c.contains(&edge)));
    assert_eq!(mac.install(), []);
}

/// While the session is being set up, and of a job that is busy.
#[test]
fn what_launchd_says_of_loading_is_not_trusted() {
    let mac = Mac::new();
    mac.tools.set("on_demand", true);
    mac.apply(&mac.install()).unwrap();
    let (launchd, user) = (mac.launchd(), &mac.wanted.user);
    let running = |s: &Service| launchd.state(user, *s).unwrap().pid.is_some();
    assert!(Service::ALL.iter().all(running));
    mac.tools.set("bootout_code", 5);
    mac.tools.set("drain", 3);
    mac.apply(&launchd.restart(user, &Service::METERING)).unwrap();
    assert!(Service::ALL.iter().all(running));
}

#[test]
fn a_label_that_is_still_taken_is_waited_for() {
    let mut mac = Mac::new();
    mac.apply(&mac.install()).unwrap();
    mac.tools.set("drain", 4);
    mac.tools.set("bootout_code", 36);
    mac.wanted.edge.set_port(8082);
    mac.wanted.program.set_extension("new");
    let steps = mac.install();
    mac.apply(&steps).unwrap();
    assert_eq!(mac.tools.loaded(), labels());
    assert_eq!(mac.install(), []);
    // What launchd has in memory is not what the file says: loaded again.
    let stale = "/somewhere/else/halton-meter";
    mac.tools.change(|state| {
        let arguments = "/launchd/loaded/com.haltonlabs.meter/plist/ProgramArguments/0";
        *state.pointer_mut(arguments).unwrap() = json!(stale);
    });
    let steps = mac.install();
    assert!(!steps.iter().any(|s| matches!(s, Step::Write { .. })) && !steps.is_empty());
    mac.apply(&steps).unwrap();
    assert_eq!(mac.install(), []);
}

/// Else every connection through it ends, and new ones are refused until it is back.
#[test]
fn a_running_edge_that_can_serve_on_stays() {
    let mut mac = Mac::new();
    let old = mac.wanted.program.clone();
    fs::create_dir_all(old.parent().unwrap()).unwrap();
    fs::write(&old, "").unwrap();
    mac.apply(&mac.install()).unwrap();
    let advice = mac.launchd().advice(&mac.wanted.user);
    assert_eq!(advice.len(), 2);
    assert!(advice[1].contains("Local Network"), "{advice:?}");

    mac.wanted.program.set_extension("new");
    let edge = target(&mac.wanted.user, label(Service::Edge));
    let closes = |steps: &[Step]| steps.contains(&Step::Run(launchctl::gone(&edge, 40)));
    let steps = mac.install();
    assert!(!closes(&steps), "{steps:#?}");
    mac.apply(&steps).unwrap();
    let calls = mac.tools.calls();
    assert!(!calls.iter().any(|call| call.contains("bootout") && call.contains(&edge)));
    let state = mac.launchd().state(&mac.wanted.user, Service::Edge).unwrap();
    assert_eq!(state.program.as_ref(), Some(&mac.wanted.program), "from the next login on");
    assert_eq!(state.known_by.as_ref(), Some(&old), "until then");
    assert_eq!(mac.install(), [], "nothing to do twice");
    let advice = mac.launchd().advice(&mac.wanted.user);
    assert!(advice[2].contains(old.to_str().unwrap()), "{advice:?}");

    mac.launchd().ask(&launchctl::disable(&edge)).unwrap();
    mac.apply(&mac.install()).unwrap();
    assert_eq!(mac.tools.state()["launchd"]["disabled"], json!([]));
    assert!(!mac.tools.calls().iter().any(|c| c.contains("bootout") && c.contains(&edge)));

    // Another port or another home is another edge; what can't be started again would end for good.
    let mut other = mac.wanted.clone();
    other.edge.set_port(8082);
    assert!(closes(&mac.launchd().install(&other).unwrap()));
    let mut other = mac.wanted.clone();
    other.environment.insert("HALTON_METER_HOME".to_owned(), "/elsewhere".to_owned());
    assert!(closes(&mac.launchd().install(&other).unwrap()));
    fs::remove_file(old).unwrap();
    assert!(closes(&mac.install()));
}

#[test]
fn what_was_switched_off_is_switched_on_and_off_again_when_taken_back() {
    let mac = Mac::new();
    mac.launchd().ask(&launchctl::disable(&target(&mac.wanted.user, labels()[0]))).unwrap();
    let mut steps = mac.install();
    mac.apply(&steps).unwrap();
    assert_eq!(mac.tools.state()["launchd"]["disabled"], json!([]));
    mac.apply(&mac.launchd().uninstall(&mac.wanted.user, false).unwrap()).unwrap();
    mac.launchd().ask(&launchctl::disable(&target(&mac.wanted.user, labels()[0]))).unwrap();
    steps.push(Step::Run(Call::new("false", [""; 0])));
    mac.apply(&steps).unwrap_err();
    assert_eq!(mac.tools.state()["launchd"]["disabled"], json!([labels()[0]]));
}

/// A failure at each call: afterwards it is as before or as wanted, and never between.
#[test]
fn a_failure_anywhere_leaves_the_old_or_the_new() {
    for upgrade in [false, true] {
        for effect in [false, true] {
            for n in 1.. {
                let mut mac = Mac::new();
                mac.launchd().ask(&launchctl::setenv("OTHER", "1")).unwrap();
                if upgrade {
                    mac.apply(&mac.install_edge()).unwrap();
                    mac.wanted.edge.set_port(8082);
                    mac.wanted.program.set_extension("new");
                }
                let (before, steps) = (mac.seen(), mac.install_edge());
                // No answer that a race gives: those pass by themselves.
                let at = mac.tools.count() + n;
                mac.tools.set("fail", json!([{ "at": at, "code": 77, "effect": effect }]));
                let result = mac.apply(&steps);
                if mac.tools.count() < at {
                    result.unwrap();
                    assert_eq!(n, if upgrade { 6 } else { 4 }, "all calls were tried");
                    break;
                }
                if result.is_ok() {
                    let last = mac.tools.calls().pop().unwrap();
                    assert!(last.contains("kickstart"), "only to be sure: {last}");
                    continue;
                }
                let failed = result.expect_err("a failure");
                assert_eq!(failed.left, [""; 0], "call {n}");
                assert_eq!(mac.seen(), before, "call {n}: {:#?}", mac.tools.calls());
            }
        }
    }
}

#[test]
fn the_sessions_variables_come_and_go() {
    let mac = Mac::new();
    let (session, user) = (mac.session(), &mac.wanted.user);
    let ask = |call: Call| mac.launchd().ask(&call).unwrap();
    ask(launchctl::setenv("NO_PROXY", "corp"));
    ask(launchctl::setenv("OTHER", "x"));
    let names = ["HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"];
    let was = session.read(user, &names).unwrap();
    assert_eq!(was, BTreeMap::from([("NO_PROXY".to_owned(), "corp".to_owned())]));
    let vars = [("HTTPS_PROXY", "http://127.0.0.1:8081"), ("NO_PROXY", "corp,localhost")];
    let vars: BTreeMap<_, _> = vars.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    mac.apply(&session.set(&mac.wanted, &vars).unwrap()).unwrap();
    assert_eq!(session.read(user, &names).unwrap(), vars);
    assert_eq!(mac.tools.loaded(), [USERENV]);
    assert_eq!(session.set(&mac.wanted, &vars).unwrap(), []);
    // Somebody else's word counts.
    ask(launchctl::setenv("HTTPS_PROXY", "http://other:1"));
    mac.apply(&session.unset(user, &names, &was).unwrap()).unwrap();
    let expected = json!({ "HTTPS_PROXY": "http://other:1", "NO_PROXY": "corp", "OTHER": "x" });
    assert_eq!(mac.tools.state()["launchd"]["env"], expected);
    assert_eq!(mac.tools.loaded(), [""; 0]);
    assert_eq!(session.unset(user, &names, &was).unwrap(), []);
    // All or nothing.
    let before = mac.seen();
    let mut steps = session.set(&mac.wanted, &vars).unwrap();
    steps.push(Step::Run(Call::new("false", [""; 0])));
    mac.apply(&steps).unwrap_err();
    assert_eq!(mac.seen(), before);
}

/// As by ssh, while the same user sits at the screen.
#[test]
fn from_another_session_the_variables_of_the_one_at_the_screen_are_out_of_reach() {
    let mac = Mac::new();
    let (session, user) = (mac.session(), &mac.wanted.user);
    mac.launchd().ask(&launchctl::setenv("HTTPS_PROXY", "http://127.0.0.1:8081")).unwrap();
    assert_eq!(session.out_of_reach(user).unwrap(), None);
    mac.tools.set("context", "Background");
    assert_eq!(session.read(user, &["HTTPS_PROXY"]).unwrap(), BTreeMap::new());
    let why = session.out_of_reach(user).unwrap().unwrap();
    assert!(why.contains("Background"), "{why}");
    mac.tools.set("gui", false);
    assert_eq!(session.out_of_reach(user).unwrap(), None, "no session holds any");
}

#[test]
fn without_a_session_it_says_so() {
    let mac = Mac::new();
    assert_eq!(mac.launchd().missing(), None);
    mac.tools.set("gui", false);
    let why = mac.launchd().missing().unwrap();
    assert!(why.contains("login at the screen"), "{why}");
    assert_eq!(mac.launchd().find(&mac.wanted.user, labels()[0]).unwrap(), Found::default());
}
