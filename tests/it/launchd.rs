//! The services as launchd keeps them, by its stand-in: the real processes, the port in launchd's hand.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use halton_meter::platform::{PLATFORM_VAR, RECORD_VAR};
use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Stand, binary};
use crate::programs::{Program, curl_messages, show};
use crate::standins::Standins;
use crate::up::{Up, two_roots};
use crate::upgrade::{connect, count_refusals};

struct Mac {
    // Ends the jobs before the stand looks for what is left.
    tools: Standins,
    stand: Stand,
}

impl Mac {
    fn with(mode: &[&str]) -> Self {
        let stand = Stand::new();
        let tools = Standins::below(stand.scratch());
        tools.set("start", true);
        tools.set("throttle", 0);
        tools.set("environment", json!({ PLATFORM_VAR: "macos" }));
        let mac = Self { tools, stand };
        mac.must(&[&["init", "--yes", "--no-shell-rc"], mode].concat());
        mac.stand.wait_metering();
        mac
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.stand.command(args);
        command.env("PATH", self.tools.path()).env(PLATFORM_VAR, "macos").env_remove(RECORD_VAR);
        command
    }

    fn must(&self, args: &[&str]) {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}{}", show(&output), self.stand.logs());
    }

    /// The same by a program that lies elsewhere.
    fn must_by(&self, program: &Path, args: &[&str]) -> String {
        let usual = self.stand.command(args);
        let set = usual.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(set).current_dir(self.stand.scratch());
        command.env("PATH", self.tools.path()).env(PLATFORM_VAR, "macos").env_remove(RECORD_VAR);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}{}", show(&output), self.stand.logs());
        String::from_utf8(output.stderr).unwrap()
    }

    fn launchctl(&self, verb: &str, label: &str) -> bool {
        let target = format!("gui/{}/{label}", rustix::process::getuid().as_raw());
        let mut command = Command::new("launchctl");
        command.args([verb, &target]).env("PATH", self.tools.path());
        command.output().unwrap().status.success()
    }

    fn leads_here(&self) -> usize {
        let state = self.tools.state();
        let port = self.stand.edge.port();
        let services = state["network"].as_array().unwrap().iter();
        services.filter(|s| s["secure"]["on"] == true && s["secure"]["port"] == port).count()
    }
}

fn hello() -> Program {
    curl_messages("--http1.1", "hi", false)
}

#[test]
fn whatever_is_killed_no_connection_is_refused() {
    let mac = Mac::with(&[]);
    let stand = &mac.stand;
    stand.wait_metered(&hello());
    let quiet = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut tunnel = connect(stand, quiet.local_addr().unwrap());
    let (mut server, _) = quiet.accept().unwrap();

    let (stop, counting) = count_refusals(stand);
    let before = ["root", "edge", "daemon", "watchdog"].map(|p| stand.pid(p));
    let is_another = |process: &str, was: Option<u32>| {
        stand.wait(&format!("another {process}"), || {
            let now = stand.pid(process);
            now.is_some() && now != was
        });
    };
    stand.signal("root", Signal::KILL);
    is_another("root", before[0]);
    server.write_all(b"still here").unwrap();
    let mut said = [0; 10];
    tunnel.read_exact(&mut said).unwrap();
    assert_eq!(stand.pid("edge"), before[1], "the root is not its life");
    for process in ["daemon", "watchdog", "edge"] {
        let was = stand.pid(process);
        stand.signal(process, Signal::KILL);
        is_another(process, was);
    }
    stand.wait_metered(&hello());
    drop(stop);
    let (made, refused) = counting.join().unwrap();
    assert_eq!(refused, 0, "of {}", made + refused);

    mac.must(&["uninstall", "--yes"]);
    std::net::TcpStream::connect(stand.edge).unwrap_err();
    assert_eq!(mac.tools.loaded(), [""; 0]);
}

#[test]
fn a_session_ends_without_us_in_the_way_and_the_next_one_starts() {
    let mac = Mac::with(&["--full"]);
    let stand = &mac.stand;
    stand.wait("the system proxy", || mac.leads_here() == 3);
    // At logout every agent gets SIGTERM; the watchdog and the edge may be the first.
    let labels = mac.tools.loaded();
    assert_eq!(labels.len(), 4, "{labels:?}");
    for label in labels.iter().rev() {
        assert!(mac.launchctl("bootout", label));
    }
    for label in &labels {
        stand.wait("its end", || !mac.launchctl("print", label));
    }
    assert_eq!(mac.leads_here(), 0, "{:#?}", mac.tools.calls());
    assert!(["root", "edge", "daemon", "watchdog"].iter().all(|p| stand.pid(p).is_none()));
    // The session forgets what was set in it.
    mac.tools.change(|state| state["launchd"]["env"] = json!({}));

    // At login launchd loads what is in the directory, in any order.
    let agents = stand.scratch().join("Library/LaunchAgents");
    let domain = format!("gui/{}", rustix::process::getuid().as_raw());
    for label in labels.iter().rev() {
        let file = agents.join(format!("{label}.plist"));
        let mut command = Command::new("launchctl");
        command.args(["bootstrap", &domain]).arg(file).env("PATH", mac.tools.path());
        assert!(command.status().unwrap().success());
    }
    stand.wait_metered(&hello());
    stand.wait("the system proxy", || mac.leads_here() == 3);
    let edge = format!("http://{}", stand.edge);
    stand.wait("the session's variables", || {
        mac.tools.state()["launchd"]["env"]["HTTPS_PROXY"] == edge.as_str()
    });
}

/// `launchctl unsetenv` over ssh is about another session: at the screen, programs would go on to be led to a
/// port that is closed.
#[test]
fn over_ssh_what_leads_the_session_to_us_stays_and_so_does_the_edge() {
    let mac = Mac::with(&["--apps"]);
    let stand = &mac.stand;
    let edge = stand.pid("edge");
    let proxy = || mac.tools.state()["launchd"]["env"]["HTTPS_PROXY"].clone();
    assert_eq!(proxy(), format!("http://{}", stand.edge));
    let run = |args: &[&str]| {
        let output = mac.command(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };

    mac.tools.set("context", "Background");
    let before = mac.tools.settled();
    for args in [&["init", "--yes", "--no-shell-rc"][..], &["init", "--apps", "--yes"]] {
        let (code, said) = run(args);
        assert!(code == Some(69) && said.contains("in Terminal at the screen"), "{said}");
    }
    assert_eq!(mac.tools.settled(), before);

    for _ in 0..2 {
        let (code, said) = run(&["uninstall", "--purge", "--yes"]);
        assert_eq!(code, Some(0), "{said}");
        for word in
            ["the edge stays", "Background", "at the screen: halton-meter uninstall --purge"]
        {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert_eq!(proxy(), format!("http://{}", stand.edge));
        assert_eq!(stand.pid("edge"), edge);
        assert!(stand.pid("daemon").is_none() && stand.home.ledger_file().exists());
        std::net::TcpStream::connect(stand.edge).unwrap();
    }

    mac.tools.set("context", "Aqua");
    let (code, said) = run(&["uninstall", "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(proxy(), serde_json::Value::Null);
    assert_eq!(mac.tools.loaded(), [""; 0]);
    std::net::TcpStream::connect(stand.edge).unwrap_err();
    assert!(!stand.home.system_state().exists() && !said.contains("at the screen"), "{said}");
}

#[test]
fn an_init_by_a_program_that_has_moved_leaves_the_running_edge_alone() {
    let mac = Mac::with(&[]);
    let stand = &mac.stand;
    let quiet = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut tunnel = connect(stand, quiet.local_addr().unwrap());
    let (mut server, _) = quiet.accept().unwrap();
    let before = ["root", "edge", "daemon"].map(|p| stand.pid(p));
    let moved = stand.scratch().join("moved");
    std::fs::copy(binary(), &moved).unwrap();

    let (stop, counting) = count_refusals(stand);
    let said = mac.must_by(&moved, &["init", "--yes", "--no-shell-rc"]);
    drop(stop);
    let (made, refused) = counting.join().unwrap();
    assert_eq!(refused, 0, "of {}", made + refused);
    assert!(said.contains(&format!("launchd knows it as {}", binary().display())), "{said}");
    server.write_all(b"still here").unwrap();
    let mut received = [0; 10];
    tunnel.read_exact(&mut received).unwrap();
    assert_eq!([stand.pid("root"), stand.pid("edge")], [before[0], before[1]]);
    stand.wait("another daemon", || stand.pid("daemon").is_some_and(|d| Some(d) != before[2]));
    stand.wait_metered(&hello());
    assert!(mac.must_by(&moved, &["init", "--yes", "--no-shell-rc"]).contains("nothing to do"));
}

#[test]
fn up_has_launchd_start_it_and_only_shows_it() {
    let mac = Mac::with(&[]);
    let stand = &mac.stand;
    mac.must(&["edge", "stop"]);
    assert!(stand.pid("root").is_none() && stand.pid("daemon").is_none());
    let up = Up::start(stand, mac.command(&["up"]));
    up.wait_said("launchd keeps it running");
    up.wait_said("metering on");
    let root = stand.pid("root");
    let said = up.end();
    assert!(said.contains("still running") && !said.contains("can't connect"), "{said}");
    assert!(root.is_some() && stand.pid("root") == root && !two_roots(stand), "{}", stand.logs());
    stand.wait_metered(&hello());
}

/// Another user's edge, or a server for development, at our port when somebody logs in.
#[test]
fn the_sessions_variables_lead_to_our_own_edge_only() {
    let stand = Stand::new();
    let tools = Standins::below(stand.scratch());
    let foreign = TcpListener::bind(stand.edge).unwrap();
    let mut command =
        stand.command(&["userenv", "--patience", "1", "HTTPS_PROXY=http://127.0.0.1"]);
    let output = command.env("PATH", tools.path()).env(PLATFORM_VAR, "macos").output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", show(&output));
    assert_eq!(tools.calls(), [""; 0]);
    drop(foreign);
}
