//! Networks whose only way out is a proxy: it becomes our upstream, its password stays ours, and a
//! proxy that we can't log in to is left to the program itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use halton_meter::platform::{PLATFORM_VAR, RECORD_VAR};
use serde_json::json;

use crate::harness::{DEADLINE, Stand};
use crate::origin::{Origin, Root, Setup, Transport};
use crate::programs::{self, Program, TEXT, show};
use crate::proxy::{Login, Proxy};
use crate::setup::Host;
use crate::standins::Standins;

pub const PASSWORD: &str = "pa55-w0rd";
/// `me:pa55-w0rd`.
pub const AUTHORIZATION: &str = "Basic bWU6cGE1NS13MHJk";

/// Where names lead nowhere but through the proxy.
pub fn network(login: Login) -> (Stand, Proxy) {
    let stand = Stand::new();
    stand.configure_hosts(&[], "");
    let proxy = Proxy::new(login, stand.origin.addr());
    (stand, proxy)
}

fn run(stand: &Stand, url: &str, program: &Program) -> Command {
    let mut command = stand.trusting(program);
    command.env("https_proxy", url).env("HTTPS_PROXY", url);
    command
}

fn files(dir: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path(), all),
            Ok(kind) if kind.is_file() => all.push(entry.path()),
            Ok(_) | Err(_) => {}
        }
    }
}

#[test]
fn the_users_proxy_becomes_our_upstream_with_its_password_and_its_exceptions() {
    let (stand, proxy) = network(Login::Basic(AUTHORIZATION));
    let url = format!("http://me:{PASSWORD}@{}", proxy.addr);
    let program = programs::curl_messages("--http1.1", "hi", false);
    let output = run(&stand, &url, &program).output().unwrap();
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    assert!(String::from_utf8_lossy(&output.stdout).contains(TEXT), "{}", show(&output));
    stand.wait_rows(1);
    assert!(proxy.targets().iter().all(|t| t == "api.anthropic.com:443"), "{:?}", proxy.targets());
    assert!(!proxy.targets().is_empty());

    // Not the exceptions: loopback is one from the start. (NO_PROXY would keep curl from us too.)
    let before = proxy.targets();
    let direct = format!("https://{}/v1/models", stand.origin.addr());
    let raw = programs::curl(&["--insecure", "--noproxy", "none.invalid", &direct]);
    let output = run(&stand, &url, &raw).output().unwrap();
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    assert!(!proxy.targets().iter().any(|t| t.starts_with("127.0.0.1")), "{:?}", proxy.targets());
    assert!(proxy.targets().len() <= before.len() + 1, "at most the look whether it lets us in");

    // Everything that was written or is said, in every form of the secret.
    let mut said = String::new();
    let args: [&[&str]; 6] = [
        &["status"],
        &["status", "--json"],
        &["doctor"],
        &["events"],
        &["config", "show", "--origin"],
        &["report", "--since", "1d"],
    ];
    for args in args {
        said.push_str(&show(&stand.command(args).env("https_proxy", &url).output().unwrap()));
    }
    let mut all = Vec::new();
    files(stand.home.path(), &mut all);
    assert!(all.len() > 5, "{all:?}");
    for file in all {
        let content = fs::read(&file).unwrap_or_default();
        said.push_str(&String::from_utf8_lossy(&content));
    }
    for secret in [PASSWORD, AUTHORIZATION.trim_start_matches("Basic ")] {
        assert!(!said.contains(secret), "{secret} is said somewhere");
    }
}

/// The edge that was up kept what it had; the next one reads the file with the mistake in it.
#[test]
fn a_typo_elsewhere_in_the_file_does_not_cost_the_way_out() {
    let (stand, proxy) = network(Login::Nobody);
    let settings = fs::read_to_string(stand.home.config_file()).unwrap();
    let way_out = format!("[upstream]\nproxy = \"http://{}\"\n", proxy.addr);
    let settings = settings.replace("[upstream]\n", &way_out);
    fs::write(stand.home.config_file(), &settings).unwrap();
    let ask = || {
        let program = programs::curl_messages("--http1.1", "hi", false);
        let output = stand.trusting(&program).output().unwrap();
        assert!(output.status.success(), "{}{}", show(&output), stand.logs());
        assert!(String::from_utf8_lossy(&output.stdout).contains(TEXT), "{}", show(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    ask();
    stand.wait_rows(1);

    let wrong = format!("{settings}[bodies]\nenabled = flase\n");
    fs::write(stand.home.config_file(), &wrong).unwrap();
    stand.must(&["edge", "stop"]);
    let said = ask();
    let line = format!("config.toml:{}: not TOML", wrong.lines().count());
    assert!(said.contains(&line), "{said}");
    stand.wait_rows(2);
    assert!(proxy.targets().len() >= 2, "{:?}", proxy.targets());
}

/// Another shell's proxy may be the only one that has a way to where its user goes.
#[test]
fn an_edge_that_goes_through_another_shells_proxy_is_left_out() {
    let stand = Stand::new();
    let [one, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let run = |proxy: &TcpListener| {
        let mut command = stand.command(&["run", "--", "sh", "-c", "printf %s \"$https_proxy\""]);
        let own = format!("http://{}", proxy.local_addr().unwrap());
        (command.env("https_proxy", &own).output().unwrap(), own)
    };
    let edge = format!("http://{}", stand.edge);
    let (there, _) = run(&one);
    assert_eq!(there.stdout, edge.as_bytes(), "{}", show(&there));
    let (elsewhere, own) = run(&other);
    assert_eq!(elsewhere.stdout, own.as_bytes(), "{}", show(&elsewhere));
    let said = String::from_utf8_lossy(&elsewhere.stderr).into_owned();
    assert!(said.contains(&format!("your own ({own})")) && said.contains("edge stop"), "{said}");
    let (again, _) = run(&one);
    assert_eq!(again.stdout, edge.as_bytes(), "{}", show(&again));
}

#[test]
fn a_proxy_that_env_took_the_place_of_is_not_forgotten() {
    let (stand, proxy) = network(Login::Basic(AUTHORIZATION));
    let url = format!("http://me:{PASSWORD}@{}", proxy.addr);
    let vars = stand.command(&["env", "--json"]).env("https_proxy", &url).output().unwrap();
    let vars: BTreeMap<String, String> = serde_json::from_slice(&vars.stdout).unwrap();
    let program = programs::curl_messages("--http1.1", "hi", false);
    let output = stand.run_command(&program).envs(&vars).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(TEXT), "{}", show(&output));
    stand.wait_rows(1);
    assert!(!proxy.targets().is_empty());
}

#[test]
fn plain_http_goes_to_the_proxy_in_absolute_form() {
    let stand = Stand::new();
    stand.configure_hosts(&[], "");
    let setup = Setup { transport: Transport::Plain, ..Setup::default() };
    let mirror = Origin::with(&setup, &Root::new("Unused"));
    let proxy = Proxy::new(Login::Basic(AUTHORIZATION), mirror.addr());
    let url = format!("http://me:{PASSWORD}@{}", proxy.addr);
    let edge = format!("http://{}", stand.edge);
    for host in ["mirror.example", "gpu-box.example:11434"] {
        let address = format!("http://{host}/plain");
        let program = programs::curl(&["--noproxy", "", "--proxy", &edge, &address]);
        let output = run(&stand, &url, &program).env("http_proxy", &url).output().unwrap();
        assert_eq!(output.stdout, b"plain answer\n", "{}{}", show(&output), stand.logs());
        assert!(proxy.targets().contains(&address), "{:?}", proxy.targets());
    }
}

/// A cache of packages for plain HTTP refuses every tunnel; and who has a way out for `https://` only
/// reaches `http://` addresses directly.
#[test]
fn each_scheme_keeps_the_way_out_that_it_had() {
    let setup = Setup { transport: Transport::Plain, ..Setup::default() };
    let mirror = Origin::with(&setup, &Root::new("Unused"));
    // No exception covers this spelling of loopback.
    let place = format!("127.1:{}", mirror.addr().port());
    let (tunnel, plain) = (format!("CONNECT {place}"), format!("http://{place}/plain"));
    for (variable, login, asked) in
        [("http_proxy", Login::Cache, &plain), ("https_proxy", Login::Tunnels, &place)]
    {
        let stand = Stand::new();
        stand.configure_hosts(&[], "");
        let proxy = Proxy::new(login, mirror.addr());
        let mut run = stand.run_command(&Program::new(["true"]));
        let output = run.env(variable, format!("http://{}", proxy.addr)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("not metered"), "{said}");
        for request in [tunnel.clone(), format!("GET {plain}")] {
            assert_eq!(status_of(&stand, &request), "200", "{variable} {request} {}", stand.logs());
        }
        let targets = proxy.targets();
        let of_mirror: Vec<_> = targets.iter().filter(|target| target.contains("127.1")).collect();
        assert_eq!(of_mirror, [asked], "{variable}");
    }
}

#[test]
fn a_proxy_that_we_cannot_log_in_to_is_left_to_the_program() {
    let (stand, proxy) = network(Login::Domain);
    let url = format!("http://me:{PASSWORD}@{}", proxy.addr);
    let program = Program::new(["sh", "-c", "printf %s \"$https_proxy\""]);
    let output = run(&stand, &url, &program).output().unwrap();
    assert_eq!(output.stdout, url.as_bytes(), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("NTLM") && said.contains("docs/corporate.md"), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
}

#[test]
fn a_wrong_password_is_said() {
    let (stand, proxy) = network(Login::Basic(AUTHORIZATION));
    let url = format!("http://me:wrong@{}", proxy.addr);
    let output = run(&stand, &url, &Program::new(["true"])).output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("not metered") && said.contains("(Basic)"), "{said}");
}

/// How the edge answers a `CONNECT`.
fn status(stand: &Stand, target: SocketAddr) -> String {
    status_of(stand, &format!("CONNECT {target}"))
}

fn status_of(stand: &Stand, request: &str) -> String {
    let mut tcp = TcpStream::connect(stand.edge).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(tcp, "{request} HTTP/1.1\r\nHost: host.example\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    tcp.read_exact(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[9..]).into_owned()
}

/// At the office the system has a proxy, at home it would not even be asked for.
#[test]
fn the_systems_proxy_is_gone_past_in_another_network_and_one_set_by_hand_is_not() {
    let stand = Stand::new();
    let setup = Setup { transport: Transport::Plain, ..Setup::default() };
    let mirror = Origin::with(&setup, &Root::new("Unused"));
    stand.configure_hosts(&[], &format!("[meter]\nplain_hosts = [\"{}\"]\n", mirror.addr()));
    let proxy = Proxy::new(Login::Nobody, mirror.addr());
    let tools = Standins::below(stand.scratch());
    tools.set("start", true);
    tools.set("throttle", 0);
    tools.set("environment", json!({ PLATFORM_VAR: "macos" }));
    let port = proxy.addr.port().to_string();
    let mut office = Command::new("networksetup");
    office.args(["-setsecurewebproxy", "Wi-Fi", "127.0.0.1", &port]).env("PATH", tools.path());
    assert!(office.status().unwrap().success());
    let must = |args: &[&str]| {
        let mut command = stand.command(args);
        command.env("PATH", tools.path()).env(PLATFORM_VAR, "macos").env_remove(RECORD_VAR);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}{}", show(&output), stand.logs());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    must(&["init", "--yes", "--no-shell-rc"]);
    let settings = fs::read_to_string(stand.home.config_file()).unwrap();
    let url = format!("http://{}", proxy.addr);
    assert!(settings.contains(&format!("proxy = {url:?}\n")), "{settings}");
    assert!(settings.contains("proxy_from = \"system\"\n"), "{settings}");
    // Loopback stands for the internet here.
    must(&["config", "set", "upstream.no_proxy", ""]);
    stand.wait_metering();
    let quiet = TcpListener::bind("127.0.0.1:0").unwrap();
    let (target, asked) = (quiet.local_addr().unwrap(), || proxy.targets().len());
    stand.wait("the way through the proxy", || {
        assert_eq!(status(&stand, target), "200");
        asked() > 0
    });

    proxy.end();
    for _ in 0..3 {
        assert_eq!(status(&stand, target), "200", "{}", stand.logs());
    }
    // Not only through the edge: the daemon's connection too, and one that asks in absolute form.
    let edge = format!("http://{}", stand.edge);
    let model = format!("http://{}/v1/chat/completions", mirror.addr());
    let ask = r#"{"model":"llama3.2","messages":[{"role":"user","content":"hi"}]}"#;
    let common = ["--noproxy", "none.invalid", "--proxy", &edge];
    let metered = [&common[..], &["--proxytunnel", "--data", ask, &model]].concat();
    let direct =
        |args: &[&str]| programs::curl(args).direct(stand.edge, &stand.root_pem(), stand.scratch());
    let output = direct(&metered);
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    stand.wait_rows(1);
    let plain = format!("http://{}/plain", mirror.addr());
    let output = direct(&[&common[..], &[&plain]].concat());
    assert_eq!(output.stdout, b"plain answer\n", "{}{}", show(&output), stand.logs());
    let said = must(&["status"]);
    assert!(said.contains(&format!("going past {}", proxy.addr)), "{said}");

    must(&["config", "set", "upstream.proxy", &url]);
    stand.wait("a proxy that was chosen", || status(&stand, target) == "502");
    let settings = fs::read_to_string(stand.home.config_file()).unwrap();
    assert!(settings.contains("proxy_from = \"\"\n"), "{settings}");
    must(&["uninstall", "--yes"]);
}

/// Its own shell lacks it: by ssh, say, or in a terminal that was there before it was set.
#[test]
fn a_proxy_that_only_the_session_has_is_its_programs_way_out_still() {
    let host = Host::linux();
    let session = |value: &str| {
        let variable = format!("HTTPS_PROXY={value}");
        host.tool("systemctl", &["--user", "set-environment", &variable, "NO_PROXY=.corp.example"]);
    };
    session("http://me:s3cret@proxy.corp:3128");
    let shown = show(&host.run(&["init", "--apps", "--dry-run"]));
    assert!(shown.contains("+proxy = \"http://***@proxy.corp:3128\""), "{shown}");
    assert!(shown.contains("\".corp.example\""), "{shown}");
    let leads = format!("HTTPS_PROXY=http://{}", host.stand.edge);
    assert!(shown.contains(&leads), "{shown}");

    session("socks5://me:s3cret@proxy.corp:1080");
    let shown = show(&host.run(&["init", "--apps", "--dry-run"]));
    let kept =
        "programs of the session get out through socks5://proxy.corp:1080, and we don't go there";
    assert!(shown.contains(kept) && !shown.contains("s3cret"), "{shown}");
    assert!(!shown.contains("set-environment") && !shown.contains("environment.d"), "{shown}");
    // Services alone lead nobody anywhere.
    let shown = show(&host.run(&["init", "--dry-run"]));
    assert!(!shown.contains("programs of the session"), "{shown}");
}

#[test]
fn a_proxy_of_the_sessions_that_was_lost_is_found_by_the_next_init_and_by_doctor() {
    let host = Host::linux();
    let edge = format!("http://{}", host.stand.edge);
    let ours = format!("HTTPS_PROXY={edge}");
    host.tool("systemctl", &["--user", "set-environment", "LANG=C", &ours]);
    let was = json!({ "HTTPS_PROXY": "http://proxy.corp:3128" });
    let state = json!({ "edge": host.stand.edge, "session": was });
    fs::create_dir_all(host.stand.home.path()).unwrap();
    fs::write(host.stand.home.system_state(), state.to_string()).unwrap();
    let found = show(&host.run(&["doctor"]));
    assert!(
        found.contains("proxy.corp:3128 leads out of here, and we don't go through it"),
        "{found}"
    );
    let shown = show(&host.run(&["init", "--apps", "--dry-run"]));
    assert!(shown.contains("+proxy = \"http://proxy.corp:3128\""), "{shown}");
}
