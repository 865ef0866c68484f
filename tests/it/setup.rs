//! `init` and `uninstall` with stand-ins for the system's tools: what they change, and that they change
//! all of it or nothing, whatever fails or dies on the way.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use halton_meter::platform::{PLATFORM_VAR, RECORD_VAR, SYSTEM_ROOT_VAR};
use serde_json::{Value, json};

use crate::harness::Stand;
use crate::programs::show;
use crate::standins::Standins;

const RC: &str = "# mine\nalias ll='ls -l'";

pub(crate) struct Host {
    /// Else Linux with systemd.
    macos: bool,
    tools: Standins,
    pub(crate) stand: Stand,
}

/// What a user could notice: files but for our own data, and what the tools have set.
#[derive(Debug, PartialEq)]
struct Snapshot {
    files: BTreeMap<PathBuf, (u32, String)>,
    tools: Value,
    open: bool,
}

impl Host {
    fn mac() -> Self {
        let mac = Self::new(true);
        // The user has a proxy on one service, and a variable in the session.
        mac.tool("networksetup", &["-setsecurewebproxy", "Wi-Fi", "10.0.0.1", "3128"]);
        mac.tool("launchctl", &["setenv", "NODE_EXTRA_CA_CERTS", "/corp.pem"]);
        fs::create_dir_all(mac.stand.scratch().join("Library/LaunchAgents")).unwrap();
        // Known already: `init` would write it into the settings, which outlive `uninstall`, and would
        // go on without it if the look at it fails.
        let config = mac.stand.home.config_file();
        let settings = fs::read_to_string(&config).unwrap();
        let known = "[upstream]\nproxy = \"http://10.0.0.1:3128\"\n";
        fs::write(&config, settings.replace("[upstream]\n", known)).unwrap();
        mac
    }

    pub(crate) fn linux() -> Self {
        let linux = Self::new(false);
        linux.tool("systemctl", &["--user", "set-environment", "LANG=C", "DENO_CERT=/corp.pem"]);
        for dir in ["systemd/user", "environment.d"] {
            fs::create_dir_all(linux.stand.scratch().join(".config").join(dir)).unwrap();
        }
        linux
    }

    fn new(macos: bool) -> Self {
        let stand = Stand::new();
        let tools = Standins::below(stand.scratch());
        tools.set("start", true);
        tools.set("throttle", 0);
        if macos {
            tools.set("environment", json!({ PLATFORM_VAR: "macos" }));
        }
        let host = Self { macos, tools, stand };
        fs::write(host.rc_file(), RC).unwrap();
        host
    }

    fn rc_file(&self) -> PathBuf {
        self.stand.scratch().join(if self.macos { ".zshrc" } else { ".bashrc" })
    }

    pub(crate) fn tool(&self, tool: &str, args: &[&str]) {
        let mut command = Command::new(tool);
        command.args(args).env("PATH", self.tools.path()).env("HOME", self.stand.scratch());
        assert!(command.status().unwrap().success(), "{tool} {args:?}");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.stand.command(args);
        command.env("PATH", self.tools.path()).env(SYSTEM_ROOT_VAR, self.stand.scratch());
        command.env("XDG_RUNTIME_DIR", self.stand.scratch().join("run"));
        if self.macos {
            command.env(PLATFORM_VAR, "macos").env_remove(RECORD_VAR).env("SHELL", "/bin/zsh");
        } else {
            command.env("SHELL", "/bin/bash");
        }
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn must(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}\n{}", show(&output), self.stand.logs());
        String::from_utf8(output.stderr).unwrap()
    }

    fn snapshot(&self) -> Snapshot {
        let home = self.stand.home.clone();
        let sentinels = [
            home.install_mode(),
            home.apps_managed(),
            home.proxy_managed(),
            home.system_state(),
            home.setup_journal(),
            home.config_file(),
        ];
        let mut files = BTreeMap::new();
        let mut open = vec![self.stand.scratch().to_path_buf()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                // `gsettings`, which is asked for the desktop's proxy, leaves its own there.
                if path.ends_with(".cache") {
                    continue;
                }
                if path.is_dir() && path.file_name().unwrap() != "macos" && path != home.path() {
                    open.push(path.clone());
                    files.insert(path, (0, String::new()));
                } else if path.is_file() {
                    files.insert(path.clone(), read(&path));
                }
            }
        }
        files.extend(sentinels.iter().filter(|p| p.exists()).map(|p| (p.clone(), read(p))));
        let mut tools = self.tools.settled();
        tools["security"] = Value::Null;
        // Where a proxy that is off would lead is nobody's business, and can't be put back.
        for service in tools["network"].as_array_mut().into_iter().flatten() {
            for kind in ["web", "secure"] {
                if service[kind]["on"] == false {
                    service[kind] = Value::Null;
                }
            }
        }
        let open = TcpStream::connect(self.stand.edge).is_ok();
        Snapshot { files, tools, open }
    }

    fn rc(&self) -> String {
        fs::read_to_string(self.rc_file()).unwrap()
    }

    fn env(&self) -> Value {
        self.tools.state()["launchd"]["env"].clone()
    }

    /// Of the service that the user had a proxy on.
    fn proxy(&self) -> (String, bool) {
        let state = self.tools.state();
        let services = state["network"].as_array().unwrap().clone();
        let wifi = services.into_iter().find(|s| s["name"] == "Wi-Fi").unwrap();
        let secure = &wifi["secure"];
        (format!("{}:{}", secure["server"].as_str().unwrap(), secure["port"]), secure["on"] == true)
    }

    fn ours(&self) -> String {
        self.stand.edge.to_string()
    }
}

fn read(path: &Path) -> (u32, String) {
    let mode = fs::metadata(path).unwrap().permissions().mode();
    (mode, String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned())
}

#[test]
fn everything_in_and_everything_out_again() {
    let mac = Host::mac();
    let before = mac.snapshot();

    let shown = mac.must(&["init", "--full", "--dry-run"]);
    assert!(shown.contains("+# >>> halton-meter >>>"), "{shown}");
    assert_eq!(mac.snapshot(), before, "a dry run changes nothing");

    let said = mac.must(&["init", "--full", "--yes"]);
    assert!(said.contains("installed as full"), "{said}");
    assert_eq!(fs::read_to_string(mac.stand.home.install_mode()).unwrap(), "full\n");
    assert!(mac.rc().starts_with(RC) && mac.rc().contains("env --if-up"), "{}", mac.rc());
    assert_eq!(mac.env()["HTTPS_PROXY"], format!("http://{}", mac.ours()));
    assert_eq!(mac.proxy(), (mac.ours(), true));
    assert_eq!(mac.stand.pid("root").is_some(), mac.stand.pid("edge").is_some());
    mac.stand.wait_metering();

    let installed = mac.snapshot();
    let said = mac.must(&["init", "--full", "--yes"]);
    assert!(said.contains("nothing to do"), "{said}");
    assert_eq!(mac.snapshot(), installed);

    let said = mac.must(&["uninstall", "--yes"]);
    assert!(said.contains("bundle.pem stays"), "{said}");
    assert_eq!(mac.snapshot(), before);
    assert!(mac.stand.home.ca_bundle().exists() && mac.stand.home.ledger_file().exists());
    let said = mac.must(&["uninstall", "--yes"]);
    assert!(said.contains("nothing to do"), "{said}");
}

#[test]
fn another_mode_undoes_what_this_one_does_not_want() {
    let mac = Host::mac();
    mac.must(&["init", "--yes"]);
    let env_only = mac.snapshot();
    assert_eq!(mac.rc(), RC);
    assert_eq!(mac.env(), json!({ "NODE_EXTRA_CA_CERTS": "/corp.pem" }));
    assert_eq!(mac.proxy(), ("10.0.0.1:3128".to_owned(), true));

    mac.must(&["init", "--apps", "--yes"]);
    assert_eq!(mac.proxy(), ("10.0.0.1:3128".to_owned(), true), "not ours to touch");
    let edge = mac.stand.pid("edge");
    mac.must(&["init", "--full", "--yes"]);
    assert_eq!(mac.proxy(), (mac.ours(), true));
    mac.must(&["init", "--apps", "--yes"]);
    assert_eq!(mac.proxy(), ("10.0.0.1:3128".to_owned(), true), "as it was found");
    mac.must(&["init", "--yes"]);
    assert_eq!(mac.stand.pid("edge"), edge, "no mode touches the edge");
    let mut back = mac.snapshot();
    let rc = mac.rc_file();
    back.files.insert(rc.clone(), env_only.files[&rc].clone());
    assert_eq!(back, env_only);
}

#[test]
fn the_system_proxy_leads_here_only_while_the_daemon_lives() {
    let mac = Host::mac();
    mac.must(&["init", "--full", "--yes"]);
    mac.must(&["stop"]);
    assert_eq!(mac.proxy(), ("10.0.0.1:3128".to_owned(), true), "as it was found");
    mac.must(&["start"]);
    mac.stand.wait("the proxy on again", || mac.proxy() == (mac.ours(), true));
    // A service that appears later, and one that a person has switched off meanwhile.
    mac.must(&["stop"]);
    mac.tools.change(|state| {
        let services = state["network"].as_array_mut().unwrap();
        let mut new = services.iter().find(|s| s["name"] == "Corp VPN (1)").unwrap().clone();
        new["name"] = json!("Hotspot");
        services.push(new);
    });
    mac.must(&["start"]);
    let hotspot = || {
        let state = mac.tools.state();
        let services = state["network"].as_array().unwrap().clone();
        services.into_iter().find(|s| s["name"] == "Hotspot").unwrap()["secure"]["on"] == true
    };
    mac.stand.wait("the proxy on the new service", hotspot);
}

#[test]
fn a_trust_store_that_keeps_our_ca_keeps_nothing_else() {
    let mac = Host::mac();
    mac.must(&["init", "--yes"]);
    mac.must(&["ca", "trust", "--yes"]);
    let refuses =
        json!([{ "tool": "security", "args": "^(remove-trusted|delete)-cert", "code": 1 }]);
    mac.tools.set("fail", refuses);
    let said = mac.must(&["uninstall", "--yes", "--purge"]);
    assert!(said.contains("still in the system's trust store"), "{said}");
    let command = "security remove-trusted-cert ";
    let (_, by_hand) = said.rsplit_once(command).unwrap();
    let file = by_hand.split(';').next().unwrap();
    assert!(Path::new(file).exists(), "{file}: the command reads it");
    assert_eq!(mac.tools.loaded(), [""; 0]);
    mac.tools.set("fail", json!([]));
    mac.must(&["uninstall", "--yes", "--purge"]);
    assert_eq!(mac.tools.state()["security"], json!({}));
    assert!(!Path::new(file).exists());
}

/// What a person or an administrator set after `init` is theirs, whatever we do.
#[test]
fn a_proxy_that_was_set_since_is_neither_led_nor_lost() {
    let mac = Host::mac();
    mac.must(&["init", "--full", "--yes"]);
    mac.must(&["stop"]);
    mac.tool("networksetup", &["-setsecurewebproxy", "Wi-Fi", "10.0.0.2", "3128"]);
    mac.tool("networksetup", &["-setsecurewebproxystate", "Corp VPN (1)", "off"]);
    mac.must(&["start"]);
    let led = || {
        let state = mac.tools.state();
        let services = state["network"].as_array().unwrap().clone();
        services.into_iter().find(|s| s["name"] == "Corp VPN (1)").unwrap()["secure"]["on"] == true
    };
    mac.stand.wait("the proxy on", led);
    assert_eq!(mac.proxy(), ("10.0.0.2:3128".to_owned(), true));
    mac.must(&["reset-proxy"]);
    mac.must(&["uninstall", "--yes"]);
    assert_eq!(mac.proxy(), ("10.0.0.2:3128".to_owned(), false), "by `reset-proxy`, not by us");
}

#[test]
fn a_port_that_another_program_holds_is_named() {
    let linux = Host::linux();
    let other = std::net::TcpListener::bind(linux.stand.edge).unwrap();
    let before = linux.snapshot();
    let output = linux.run(&["init", "--yes"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let port = linux.stand.edge.port();
    assert!(said.contains(&format!("port {port} is held by ")), "{said}");
    assert!(said.contains(&format!("pid {}", std::process::id())), "{said}");
    assert_eq!(linux.snapshot(), before);
    drop(other);
}

#[test]
fn what_services_would_not_see_is_written_down_or_refused() {
    let linux = Host::linux();
    let mut command = linux.command(&["init", "--dry-run"]);
    let output = command.env("HTTPS_PROXY", "http://me:s3cret@proxy.corp:3128").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("+proxy = \"http://***@proxy.corp:3128\""), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
    let output = linux.run(&["init", "--yes", "-c", "edge.port=18081"]);
    assert_eq!(output.status.code(), Some(78), "{}", show(&output));
    let before = linux.snapshot();
    assert_eq!(linux.run(&["init"]).status.code(), Some(2), "nobody to ask");
    assert_eq!(linux.snapshot(), before);
    assert!(linux.must(&["init", "--non-interactive"]).contains("installed as env-only"));
}

#[test]
fn without_a_service_manager_nothing_is_installed_and_nothing_is_needed() {
    let linux = Host::linux();
    let before = linux.snapshot();
    let mut command = linux.command(&["init", "--yes"]);
    let output = command.env("PATH", linux.stand.scratch().join("none")).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no systemd") && said.contains("halton-meter run"), "{said}");
    assert_eq!(linux.snapshot(), before);
}

#[test]
fn a_graceful_way_out_keeps_the_edge_and_purge_keeps_the_bundle() {
    let linux = Host::linux();
    linux.must(&["init", "--apps", "--yes"]);
    let edge = linux.stand.pid("edge");
    linux.must(&["uninstall", "--graceful", "--yes"]);
    assert!(edge.is_some() && linux.stand.pid("edge") == edge);
    assert_eq!(linux.stand.pid("daemon"), None);
    assert!(!linux.rc().contains("halton-meter"));
    let said = linux.must(&["uninstall", "--purge", "--yes"]);
    assert!(said.contains("ledger"), "{said}");
    assert_eq!(linux.stand.pid("edge"), None);
    let home = linux.stand.home.path();
    let left: Vec<_> = fs::read_dir(home).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, [linux.stand.home.ca_dir()]);
    let left: Vec<_> = fs::read_dir(&left[0]).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(left.contains(&linux.stand.home.ca_bundle()), "{left:?}");
    assert!(!left.contains(&linux.stand.home.ca_key()), "{left:?}");
}

/// Whether a call changes anything. Those that look are all alike, so some of them will do.
fn changes(call: &str) -> bool {
    let looks =
        ["print", "getenv", "-get", "-list", "scutil", "show", "find-", "verify-", "manager"];
    !looks.iter().any(|word| call.contains(word))
}

/// Runs `args` with each of its calls failing in turn; `reset` brings the old state back.
fn fail_everywhere(host: &Host, args: &[&str], kind: &Value, reset: &dyn Fn()) {
    let old = host.snapshot();
    let first = host.tools.count();
    host.must(args);
    let calls = host.tools.count() - first;
    let done: Vec<_> = host.tools.calls().into_iter().skip(first).collect();
    let points: Vec<_> = (1..=calls)
        .filter(|n| n % 8 == 1 || done.get(n - 1).is_none_or(|call| changes(call)))
        .collect();
    let new = host.snapshot();
    reset();
    assert_eq!(host.snapshot(), old, "the reset itself");
    for n in points {
        let mut rule = kind.clone();
        rule["at"] = json!(host.tools.count() + n);
        host.tools.set("fail", json!([rule]));
        let output = host.run(args);
        host.tools.set("fail", json!([]));
        if fs::exists(host.stand.home.setup_journal()).unwrap() {
            // Whoever runs next takes back what was begun, and goes on.
            let said = host.must(args);
            assert!(said.contains("taken back"), "call {n}: {said}");
            assert_eq!(host.snapshot(), new, "call {n}, run again");
            reset();
        } else if output.status.success() {
            assert_eq!(host.snapshot(), new, "call {n} does not matter: {}", show(&output));
            reset();
        }
        assert_eq!(host.snapshot(), old, "call {n} of {calls}: {}", show(&output));
    }
}

fn quiet() -> Value {
    json!({})
}

fn killed() -> Value {
    json!({ "kill": true })
}

#[test]
fn a_switch_that_fails_anywhere_changes_nothing() {
    let mac = Host::mac();
    mac.must(&["init", "--yes"]);
    let to_env_only = || drop(mac.must(&["init", "--yes"]));
    // Once there and back: the user's last line has its end from now on.
    mac.must(&["init", "--apps", "--yes"]);
    to_env_only();
    fail_everywhere(&mac, &["init", "--full", "--yes"], &quiet(), &to_env_only);
    mac.must(&["init", "--full", "--yes"]);
    let to_full = || drop(mac.must(&["init", "--full", "--yes"]));
    fail_everywhere(&mac, &["init", "--yes"], &quiet(), &to_full);
}

#[test]
fn a_switch_that_is_killed_anywhere_is_finished_or_taken_back() {
    let mac = Host::mac();
    mac.must(&["init", "--apps", "--yes"]);
    let to_apps = || drop(mac.must(&["init", "--apps", "--yes"]));
    fail_everywhere(&mac, &["init", "--full", "--yes"], &killed(), &to_apps);
}

#[test]
fn a_first_init_that_fails_anywhere_changes_nothing() {
    first_init_fails(&Host::linux());
}

#[test]
fn a_first_init_that_fails_anywhere_changes_nothing_on_a_mac() {
    first_init_fails(&Host::mac());
}

fn first_init_fails(host: &Host) {
    with_its_last_line_end(host);
    let out = || drop(host.must(&["uninstall", "--yes"]));
    fail_everywhere(host, &["init", "--apps", "--yes"], &quiet(), &out);
}

#[test]
fn an_uninstall_that_fails_anywhere_changes_nothing() {
    uninstall_fails(&Host::linux());
}

#[test]
fn an_uninstall_that_fails_anywhere_changes_nothing_on_a_mac() {
    uninstall_fails(&Host::mac());
}

fn uninstall_fails(host: &Host) {
    with_its_last_line_end(host);
    let inwards = || drop(host.must(&["init", "--full", "--yes"]));
    inwards();
    fail_everywhere(host, &["uninstall", "--yes"], &quiet(), &inwards);
}

#[test]
fn an_uninstall_that_is_killed_anywhere_is_finished_by_the_next() {
    let host = Host::linux();
    with_its_last_line_end(&host);
    let inwards = || drop(host.must(&["init", "--apps", "--yes"]));
    inwards();
    fail_everywhere(&host, &["uninstall", "--yes"], &killed(), &inwards);
}

/// The one thing of a file that is not put back.
fn with_its_last_line_end(host: &Host) {
    fs::write(host.rc_file(), format!("{RC}\n")).unwrap();
}

#[test]
fn a_start_file_goes_only_if_init_made_it() {
    for there in [true, false] {
        let host = Host::linux();
        if there {
            fs::write(host.rc_file(), "").unwrap();
        } else {
            fs::remove_file(host.rc_file()).unwrap();
        }
        for _ in 0..2 {
            host.must(&["init", "--apps", "--yes"]);
            assert!(host.rc().contains("env --if-up"), "{}", host.rc());
            let said = host.must(&["init", "--apps", "--yes"]);
            assert!(said.contains("nothing to do"), "{said}");
            host.must(&["uninstall", "--yes"]);
            let left = fs::read_to_string(host.rc_file()).ok();
            assert_eq!(left.as_deref(), there.then_some(""));
        }
    }
}
