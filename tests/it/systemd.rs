//! Under a real `systemd --user` (`tools/user-systemd.sh`): each test runs itself once more in there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{self, Client};
use crate::harness::{DEADLINE, Stand, binary, send};
use crate::programs::{curl_messages, not_checked, show};

const INSIDE: &str = "HALTON_TEST_UNDER_SYSTEMD";
/// What the tool says where it can't.
const NOT_CHECKED: i32 = 3;
const UNITS: [&str; 4] = [
    "halton-meter-edge.socket",
    "halton-meter-edge.service",
    "halton-meter.service",
    "halton-meter-watchdog.service",
];

/// Runs `test`, which is this very one, where `systemctl --user` answers.
fn under_systemd(name: &str, test: impl FnOnce(&Session)) {
    if std::env::var_os(INSIDE).is_some() {
        return test(&Session::new());
    }
    let bind = |file: &Path, to: &str| {
        ["--bind".to_owned(), format!("{}={to}", fs::canonicalize(file).unwrap().display())]
    };
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/user-systemd.sh"))
        .args(bind(&std::env::current_exe().unwrap(), "/run/it"))
        .args(bind(&binary(), "/run/halton-meter"))
        .args(["env", "HALTON_METER_TEST_BINARY=/run/halton-meter", "RUST_BACKTRACE=1"])
        .args([&format!("{INSIDE}=1"), "/run/it", "--exact", name, "--nocapture"])
        .output()
        .unwrap();
    if output.status.code() == Some(NOT_CHECKED) {
        let said = String::from_utf8_lossy(&output.stderr);
        not_checked(said.trim().trim_start_matches("NOT CHECKED: "));
        return;
    }
    let said = show(&output);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// A login of a user who has systemd.
struct Session {
    stand: Stand,
    /// Where the program lies: it can be replaced.
    program: PathBuf,
}

impl Session {
    fn new() -> Self {
        let program = home().join("bin/halton-meter");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::copy(binary(), &program).unwrap();
        Self { stand: Stand::new(), program }
    }

    fn command(&self, args: &[&str]) -> Command {
        let own = self.stand.command(args);
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(self.stand.scratch());
        for (name, value) in own.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        for name in ["HOME", "USER", "XDG_RUNTIME_DIR"] {
            command.env(name, std::env::var_os(name).unwrap());
        }
        command
    }

    fn halton(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn must(&self, args: &[&str]) -> String {
        let output = self.halton(args);
        assert!(output.status.success(), "halton-meter {args:?}: {}{}", show(&output), self.logs());
        show(&output)
    }

    fn init(&self) {
        self.must(&["init", "--yes"]);
        self.stand.wait_metering();
    }

    fn logs(&self) -> String {
        let (_, units) = systemctl(&["status", "--no-pager", "--lines=30", "halton-meter*"]);
        format!("{}\n--- units\n{units}", self.stand.logs())
    }

    /// Works, and is metered.
    fn request(&self) {
        // Not their number: after much traffic the newest thousand are always a thousand.
        let ids = || self.stand.rows().into_iter().map(|row| row["id"].to_string());
        let before: BTreeSet<_> = ids().collect();
        let mut command = self.command(&["run", "--"]);
        command.args(curl_messages("--http1.1", "hi", false).argv);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}{}", show(&output), self.logs());
        self.stand.wait("a row", || ids().any(|id| !before.contains(&id)));
    }

    fn pid(&self, process: &str) -> Option<u32> {
        self.stand.pid(process)
    }

    fn kill(&self, process: &str) {
        let pid = self.pid(process).unwrap_or_else(|| panic!("no {process}{}", self.logs()));
        send(pid, Signal::KILL);
        self.stand.wait(&format!("another {process}"), || {
            self.pid(process).is_some_and(|now| now != pid)
        });
    }
}

fn home() -> PathBuf {
    PathBuf::from(std::env::var_os("HOME").unwrap())
}

fn systemctl(args: &[&str]) -> (i32, String) {
    let output = Command::new("systemctl").arg("--user").args(args).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn active(unit: &str) -> bool {
    systemctl(&["is-active", "--quiet", unit]).0 == 0
}

/// Every file that a user would call theirs, with its content.
fn configuration() -> BTreeMap<PathBuf, Vec<u8>> {
    fn look(dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                look(&path, into);
            } else {
                let content = fs::read(&path).unwrap_or_default();
                into.insert(path, content);
            }
        }
    }
    let mut all = BTreeMap::new();
    look(&home().join(".config"), &mut all);
    for file in [".profile", ".bashrc", ".zshrc"] {
        fs::read(home().join(file)).into_iter().for_each(|c| drop(all.insert(file.into(), c)));
    }
    all
}

/// Connects to the edge over and over, and asks the origin through it, while `during` happens.
fn under_traffic(session: &Session, during: impl FnOnce(&Traffic)) -> Traffic {
    let stand = &session.stand;
    let ca = fs::read_to_string(stand.home.ca_cert()).unwrap();
    let config = client::trusting(&[stand.origin.root_pem(), &ca]);
    let traffic = Traffic::default();
    let (edge, end) = (stand.edge, AtomicBool::new(false));
    let body = r#"{"model":"claude-sonnet-4-5-20250929","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}"#;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    match TcpStream::connect(edge) {
                        Ok(_) => &traffic.connected,
                        Err(_) => &traffic.refused,
                    }
                    .fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    let done = Client::connect(edge, "api.anthropic.com", &config)
                        .ok()
                        .and_then(|mut c| c.post("/v1/messages", body).ok());
                    match done {
                        Some(_) => &traffic.answered,
                        None => &traffic.cut,
                    }
                    .fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // A panic must end the others too.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| during(&traffic)));
        end.store(true, Ordering::Relaxed);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
    traffic
}

#[derive(Debug, Default)]
struct Traffic {
    connected: AtomicUsize,
    refused: AtomicUsize,
    answered: AtomicUsize,
    /// Without an answer: what a process that was killed had in hand.
    cut: AtomicUsize,
}

impl Traffic {
    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }
}

#[test]
fn installed_metered_stopped_started_and_gone_without_a_trace_twice() {
    under_systemd(
        "systemd::installed_metered_stopped_started_and_gone_without_a_trace_twice",
        |s| {
            let before = configuration();
            for _ in 0..2 {
                s.init();
                for unit in UNITS {
                    assert!(active(unit), "{unit}{}", s.logs());
                    assert_eq!(systemctl(&["is-enabled", "--quiet", unit]).0, 0, "{unit}");
                    assert_eq!(
                        systemctl(&["show", "-P", "NeedDaemonReload", unit]).1,
                        "no\n",
                        "{unit}"
                    );
                }
                let verify: Vec<_> =
                    UNITS.iter().map(|u| home().join(".config/systemd/user").join(u)).collect();
                let verified = Command::new("systemd-analyze")
                    .args(["--user", "verify"])
                    .args(verify)
                    .output();
                let said = show(&verified.unwrap());
                assert!(!said.contains("halton-meter"), "{said}");
                s.request();
                assert!(s.must(&["init", "--yes"]).contains("nothing to do"));

                s.must(&["stop"]);
                assert!(!active(UNITS[2]) && !active(UNITS[3]) && active(UNITS[1]), "{}", s.logs());
                assert!(s.pid("daemon").is_none() && s.pid("edge").is_some());
                // Also at the next login.
                assert_eq!(systemctl(&["start", UNITS[2]]).0, 0);
                assert!(!active(UNITS[2]), "stopped is stopped{}", s.logs());
                s.must(&["start"]);
                s.request();

                s.must(&["uninstall", "--yes"]);
                for unit in UNITS {
                    assert_eq!(
                        systemctl(&["show", "-P", "LoadState", unit]).1,
                        "not-found\n",
                        "{unit}"
                    );
                }
                for process in ["root", "edge", "daemon", "watchdog"] {
                    assert_eq!(s.pid(process), None, "{process}{}", s.logs());
                }
                assert!(TcpStream::connect(s.stand.edge).is_err());
                assert_eq!(configuration(), before);
            }
        },
    );
}

#[test]
fn nobody_is_refused_whoever_is_killed() {
    under_systemd("systemd::nobody_is_refused_whoever_is_killed", |s| {
        s.init();
        let traffic = under_traffic(s, |traffic| {
            for round in 0..3 {
                for victim in ["edge", "daemon", "root", "watchdog"] {
                    s.kill(victim);
                    let answered = traffic.answered();
                    s.stand.wait(&format!("an answer after {victim} {round}"), || {
                        traffic.answered() > answered + 1
                    });
                }
                // Both at once: only systemd holds the port now.
                let edge = s.pid("edge");
                send(s.pid("root").unwrap(), Signal::KILL);
                send(edge.unwrap(), Signal::KILL);
                s.stand.wait("another edge", || s.pid("edge").is_some_and(|pid| Some(pid) != edge));
            }
        });
        eprintln!("{traffic:?}");
        assert_eq!(traffic.refused.load(Ordering::Relaxed), 0, "{traffic:?}");
        assert!(
            traffic.answered() > 15 && traffic.connected.load(Ordering::Relaxed) > 100,
            "{traffic:?}"
        );
        s.stand.wait_metering();
        s.request();
        s.must(&["uninstall", "--yes"]);
    });
}

#[test]
fn a_connection_starts_the_edge() {
    under_systemd("systemd::a_connection_starts_the_edge", |s| {
        s.init();
        assert_eq!(systemctl(&["stop", UNITS[1]]).0, 0);
        assert!(s.pid("edge").is_none() && s.pid("root").is_none());
        let quiet = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut tunnel, _server) = tunnel(s, &quiet);
        assert!(active(UNITS[1]) && s.pid("edge").is_some());
        tunnel.write_all(b"hello").unwrap();
        s.must(&["uninstall", "--yes"]);
    });
}

#[test]
fn a_program_that_is_gone_leaves_no_port_that_hangs() {
    under_systemd("systemd::a_program_that_is_gone_leaves_no_port_that_hangs", |s| {
        s.init();
        let pids = ["root", "edge"].map(|process| s.pid(process).unwrap());
        fs::remove_file(&s.program).unwrap();
        pids.into_iter().for_each(|pid| send(pid, Signal::KILL));
        let refused = || TcpStream::connect(s.stand.edge).is_err();
        s.stand.wait("a refusal", refused);
        // As a login does it.
        systemctl(&["stop", UNITS[0], UNITS[1], UNITS[2], UNITS[3]]);
        systemctl(&["start", UNITS[0], UNITS[1], UNITS[2], UNITS[3]]);
        assert!(refused() && !active(UNITS[0]) && !active(UNITS[1]));
        // Back again, it serves again.
        fs::copy(binary(), &s.program).unwrap();
        s.must(&["start"]);
        s.request();
        assert!(s.must(&["init", "--yes"]).contains("nothing to do"));
        s.must(&["uninstall", "--yes"]);
    });
}

#[test]
fn a_service_that_is_down_is_started_though_metering_does_not_need_it() {
    under_systemd(
        "systemd::a_service_that_is_down_is_started_though_metering_does_not_need_it",
        |s| {
            s.init();
            for command in [&["start"][..], &["doctor", "--fix"]] {
                assert_eq!(systemctl(&["stop", UNITS[3]]).0, 0);
                assert!(s.pid("watchdog").is_none());
                s.must(command);
                s.stand.wait("the watchdog", || s.pid("watchdog").is_some() && active(UNITS[3]));
            }
            s.must(&["uninstall", "--yes"]);
        },
    );
}

#[test]
fn a_port_that_is_taken_at_login_is_served_once_it_is_free() {
    under_systemd("systemd::a_port_that_is_taken_at_login_is_served_once_it_is_free", |s| {
        s.init();
        systemctl(&["stop", UNITS[3], UNITS[2], UNITS[1], UNITS[0]]);
        let other = TcpListener::bind(s.stand.edge).unwrap();
        systemctl(&["start", UNITS[0], UNITS[1], UNITS[2], UNITS[3]]);
        s.stand.wait("the daemon", || s.pid("daemon").is_some());
        assert!(s.pid("edge").is_none() && !active(UNITS[0]));
        let said = show(&s.halton(&["start"]));
        assert!(said.contains("is held by another program"), "{said}");
        drop(other);
        s.stand.wait_metering();
        assert!(active(UNITS[0]), "the port outlives the root again{}", s.logs());
        s.request();
        assert!(s.must(&["init", "--yes"]).contains("nothing to do"));
        s.must(&["uninstall", "--yes"]);
        assert!(TcpStream::connect(s.stand.edge).is_err());
    });
}

/// A raw tunnel through the edge, and its far end.
fn tunnel(s: &Session, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let target = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(s.stand.edge).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(client, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").unwrap();
    let mut answer = [0; 39];
    client.read_exact(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    (client, server)
}

fn say(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"through").unwrap();
    let mut heard = [0; 7];
    to.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"through");
}

#[test]
fn an_upgrade_keeps_port_and_tunnels_and_a_killed_root_does_too() {
    under_systemd("systemd::an_upgrade_keeps_port_and_tunnels_and_a_killed_root_does_too", |s| {
        s.init();
        let quiet = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut client, mut server) = tunnel(s, &quiet);
        let pids = ["root", "edge"].map(|p| s.pid(p));
        let daemon = s.pid("daemon");
        // A new program in the same place, as a package manager puts it there.
        let fresh = s.program.with_extension("new");
        fs::copy(&s.program, &fresh).unwrap();
        fs::rename(&fresh, &s.program).unwrap();
        let traffic = under_traffic(s, |_| drop(s.must(&["upgrade"])));
        assert_eq!(traffic.refused.load(Ordering::Relaxed), 0, "{traffic:?}");
        assert_eq!(["root", "edge"].map(|p| s.pid(p)), pids, "changed in place{}", s.logs());
        assert!(s.pid("daemon").is_some() && s.pid("daemon") != daemon, "{}", s.logs());
        let (_, main) = systemctl(&["show", "-P", "MainPID", UNITS[1]]);
        assert_eq!(main.trim().parse().ok(), pids[0]);
        say(&mut client, &mut server);
        s.kill("root");
        assert_eq!(s.pid("edge"), pids[1], "adopted{}", s.logs());
        say(&mut server, &mut client);
        s.request();
        s.must(&["uninstall", "--yes"]);
    });
}

#[test]
fn a_restart_of_the_edges_service_keeps_nobody_waiting() {
    under_systemd("systemd::a_restart_of_the_edges_service_keeps_nobody_waiting", |s| {
        s.init();
        let quiet = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut client, mut server) = tunnel(s, &quiet);
        let edge = s.pid("edge");
        let traffic = under_traffic(s, |_| {
            let begun = Instant::now();
            let restarted = systemctl(&["restart", UNITS[1]]);
            assert_eq!(restarted.0, 0, "{}", restarted.1);
            // What the tunnel may take is 30 s.
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}{}", begun.elapsed(), s.logs());
        });
        assert_eq!(traffic.refused.load(Ordering::Relaxed), 0, "{traffic:?}");
        s.stand.wait("another edge", || s.pid("edge").is_some_and(|now| Some(now) != edge));
        say(&mut client, &mut server);
        say(&mut server, &mut client);
        s.request();
        s.must(&["uninstall", "--yes"]);
    });
}

#[test]
fn a_graceful_uninstall_leaves_the_edge_until_the_session_ends() {
    under_systemd("systemd::a_graceful_uninstall_leaves_the_edge_until_the_session_ends", |s| {
        let before = configuration();
        s.init();
        s.must(&["uninstall", "--graceful", "--yes"]);
        assert!(s.pid("daemon").is_none() && s.pid("watchdog").is_none(), "{}", s.logs());
        assert_eq!(configuration(), before);
        let quiet = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut client, mut server) = tunnel(s, &quiet);
        say(&mut client, &mut server);
        // Whatever makes the manager read its files again, the port stays.
        assert_eq!(systemctl(&["daemon-reload"]).0, 0);
        s.kill("edge");
        s.kill("root");
        let _ = tunnel(s, &quiet);
        s.must(&["uninstall", "--yes"]);
        assert!(s.pid("edge").is_none(), "{}", s.logs());
        assert!(TcpStream::connect(s.stand.edge).is_err());
    });
}
