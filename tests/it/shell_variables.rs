//! Shells and programs that have our variables already: `env`, its end, and a `run` in a `run`.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{Stand, binary};
use crate::origin::{Origin, Root, Setup};
use crate::programs::{self, Program, TEXT, in_time, show};

const CORP: &str = "https://intranet.corp.example/plain";

/// A host whose root only a file of the user's has, beside the provider.
fn corporate() -> (Stand, Origin, String) {
    let stand = Stand::new();
    let root = Root::new("Corp Root");
    let corp = Origin::with(&Setup::default(), &root);
    let hosts =
        [("intranet.corp.example", corp.addr()), ("api.anthropic.com", stand.origin.addr())];
    stand.configure_hosts(&hosts, "");
    let file = stand.scratch().join("corp.pem");
    std::fs::write(&file, corp.root_pem()).unwrap();
    (stand, corp, file.display().to_string())
}

/// A script whose `halton-meter` is the program under test.
fn sh(stand: &Stand, script: &str) -> Command {
    let mut command = Command::new("sh");
    command.env_clear();
    let meter = stand.command(&[]);
    command.envs(meter.get_envs().filter_map(|(k, v)| Some((k, v?))));
    command.current_dir(stand.scratch()).arg("-c");
    command.arg(format!("halton() {{ '{}' \"$@\"; }}\n{script}", binary().display()));
    command
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_run_within_a_run_keeps_the_users_own_roots() {
    let (stand, _corp, file) = corporate();
    let curl = format!("curl --silent --show-error --max-time 60 {CORP}");
    let within = [
        format!("halton run -- {curl}"),
        format!("halton run -- '{}' run -- {curl}", binary().display()),
        format!("eval \"$(halton env)\"; halton run -- {curl}"),
        format!("eval \"$(halton env)\"; eval \"$(halton env)\"; {curl}"),
        format!("eval \"$(halton env)\"; eval \"$(halton env --if-up)\"; {curl}"),
        // As a session of the desktop has it: where the union came from is not known.
        format!(
            "eval \"$(halton env)\"; unset HALTON_EDGE HALTON_WAS_CURL_CA_BUNDLE; halton run -- {curl}"
        ),
    ];
    for script in within {
        let output = in_time(sh(&stand, &script).env("CURL_CA_BUNDLE", &file));
        assert_eq!(out(&output), "plain answer\n", "{script}{}{}", show(&output), stand.logs());
    }
    // And ours.
    let messages = programs::curl_messages("--http1.1", "hi", false);
    let mut run = stand.run_command(&Program::new([binary().display().to_string()]));
    run.args(["run", "--"]).args(&messages.argv).env("CURL_CA_BUNDLE", &file);
    let output = in_time(&mut run);
    assert!(out(&output).contains(TEXT), "{}{}", show(&output), stand.logs());
    stand.wait_rows(1);
}

#[test]
fn what_a_shell_had_before_comes_back() {
    let stand = Stand::new();
    let own = stand.root_pem().display().to_string();
    let had = [("CURL_CA_BUNDLE", own.as_str()), ("no_proxy", "corp.example")];
    let show_all = "env | grep -i -e proxy -e _CA_ -e ^SSL_CERT -e ^HALTON_ | grep -v METER | sort";
    let before = in_time(sh(&stand, show_all).envs(had));
    let script = format!("eval \"$(halton env)\"; eval \"$(halton env --unset)\"; {show_all}");
    let after = in_time(sh(&stand, &script).envs(had));
    assert_eq!(out(&after), out(&before), "{}", show(&after));
    assert!(out(&before).contains(&own));
    // What the user set is nobody else's to take away.
    let script = format!("eval \"$(halton env --unset)\"; {show_all}");
    assert_eq!(out(&in_time(sh(&stand, &script).envs(had))), out(&before));
    // A new shell, after everything is down.
    let script = format!(
        "eval \"$(halton env)\"; halton edge stop; eval \"$(halton env --if-up)\"; {show_all}"
    );
    let after = in_time(sh(&stand, &script).envs(had));
    assert_eq!(out(&after), out(&before), "{}", show(&after));
}

#[test]
fn a_shell_that_is_led_through_us_works_at_once() {
    let stand = Stand::new();
    let messages = programs::curl_messages("--http1.1", "hi", false);
    let output = in_time(
        sh(&stand, "eval \"$(halton env)\"; shift; \"$@\"").args(["sh", "-"]).args(&messages.argv),
    );
    assert!(out(&output).contains(TEXT), "{}{}", show(&output), stand.logs());
    stand.wait_rows(1);
    stand.must(&["edge", "stop"]);
    for args in [&["env", "--json"][..], &["env", "--if-up"], &["env", "--unset"]] {
        let output = stand.must(args);
        assert!(stand.pid("root").is_none(), "{args:?} started something");
        assert_eq!(said(&output).contains("nobody serves"), args[1] == "--json", "{args:?}");
    }
}

#[test]
fn where_no_edge_serves_nothing_leads_to_it() {
    let stand = Stand::new();
    let vars: Value = serde_json::from_slice(&stand.must(&["env", "--json"]).stdout).unwrap();
    let vars: Vec<_> =
        vars.as_object().unwrap().iter().map(|(k, v)| (k, v.as_str().unwrap())).collect();
    let _other = TcpListener::bind(stand.edge).unwrap();
    let print = Program::new(["sh", "-c", "echo \"$https_proxy|$SSL_CERT_FILE|$HTTP_PROXY\""]);
    let output = in_time(stand.run_command(&print).envs(vars.iter().copied()));
    assert_eq!(out(&output), "||\n", "{}", show(&output));
    assert!(said(&output).contains("running without the proxy"), "{}", show(&output));
    // What the user had is in its place.
    let was = ("HALTON_WAS_https_proxy", "http://127.0.0.1:1");
    let output = in_time(stand.run_command(&print).envs(vars.iter().copied()).envs([was]));
    assert_eq!(out(&output), "http://127.0.0.1:1||\n", "{}", show(&output));

    // `env` leads no shell there, and takes back what leads there.
    let output = stand.halton(&["env"]);
    assert_eq!(output.status.code(), Some(69), "{}", show(&output));
    assert_eq!(out(&output), "");
    assert!(said(&output).contains("edge.port"), "{}", show(&output));
    let output = in_time(stand.command(&["env"]).envs(vars.iter().copied()));
    assert!(out(&output).contains("unset https_proxy\n"), "{}", show(&output));
    assert!(!out(&output).contains("export"), "{}", show(&output));
}

#[test]
fn a_new_shell_keeps_a_proxy_that_the_edge_does_not_go_through() {
    let stand = Stand::new();
    stand.must(&["start"]);
    let if_up = |vars: &[(&str, &str)]| {
        let output = in_time(stand.command(&["env", "--if-up"]).envs(vars.iter().copied()));
        assert!(output.status.success() && output.stderr.is_empty(), "{}", show(&output));
        out(&output)
    };
    let leads = |vars: &[(&str, &str)]| if_up(vars).contains("export https_proxy=");
    // On a busy machine an edge may be silent for as long as a shell waits.
    stand.wait("a shell that is led through us", || leads(&[]));
    let ours = format!("http://{}", stand.edge);
    for (name, own) in [
        ("HTTPS_PROXY", "socks5h://127.0.0.1:1"),
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("https_proxy", "https://127.0.0.1:1"),
        ("HTTP_PROXY", "http://127.0.0.1:1"),
    ] {
        let said = if_up(&[(name, own)]);
        assert!(!said.contains("export"), "{name}: {said}");
        let said = if_up(&[("NODE_USE_ENV_PROXY", "1"), ("http_proxy", &ours), (name, own)]);
        assert!(said.contains("unset http_proxy\n") && !said.contains("export"), "{name}: {said}");
        // And whoever asks for it is told why not.
        let output = in_time(stand.command(&["env"]).env(name, own));
        assert_eq!(output.status.code(), Some(69), "{}", show(&output));
        assert!(output.stdout.is_empty() && said_proxy(&output, own), "{}", show(&output));
    }
    stand.wait("a shell that is led through us, still", || leads(&[("https_proxy", &ours)]));
    stand.must(&["edge", "stop"]);
    // An edge that goes there takes its place.
    let corp = ("https_proxy", "http://127.0.0.1:1");
    assert!(in_time(stand.command(&["start"]).envs([corp])).status.success());
    stand.wait("a shell with the edge's proxy", || leads(&[corp]));
    assert!(!leads(&[("https_proxy", "http://127.0.0.1:2")]));
}

fn said_proxy(output: &Output, own: &str) -> bool {
    said(output).contains(&format!("your own proxy ({own})"))
}

#[test]
fn a_command_runs_also_where_there_is_no_home_for_us() {
    let stand = Stand::new();
    let print = Program::new(["sh", "-c", "echo \"hi $SSL_CERT_FILE\"; exit 3"]);
    let mut command = stand.run_command(&print);
    let output = in_time(command.env_remove("HOME").env_remove("HALTON_METER_HOME"));
    assert_eq!(
        (output.status.code(), out(&output).as_str()),
        (Some(3), "hi \n"),
        "{}",
        show(&output)
    );
    assert_eq!(said(&output).lines().count(), 1, "{}", show(&output));

    // Variables can't name files in such a one.
    let home = stand.scratch().join(OsStr::from_bytes(b"m\xfcller"));
    let mut command = stand.run_command(&print);
    let output = in_time(command.env("HALTON_METER_HOME", &home));
    assert_eq!(
        (output.status.code(), out(&output).as_str()),
        (Some(3), "hi \n"),
        "{}",
        show(&output)
    );
    assert!(said(&output).contains("UTF-8"), "{}", show(&output));
    let output = in_time(stand.command(&["env"]).env("HALTON_METER_HOME", &home));
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(1), ""), "{}", show(&output));
    assert!(said(&output).contains("UTF-8"), "{}", show(&output));
}

#[test]
fn a_file_of_roots_whose_path_is_no_text_stays() {
    let stand = Stand::new();
    let file = stand.scratch().join(OsStr::from_bytes(b"m\xfcller.pem"));
    std::fs::copy(stand.root_pem(), &file).unwrap();
    let print = Program::new(["sh", "-c", "printf %s \"$CURL_CA_BUNDLE\""]);
    let output = in_time(stand.run_command(&print).env("CURL_CA_BUNDLE", &file));
    assert_eq!(output.stdout, file.as_os_str().as_bytes(), "{}", show(&output));
}

#[test]
fn an_option_that_is_none_is_no_command() {
    let stand = Stand::new();
    let output = stand.halton(&["run", "--bogus", "--", "true"]);
    assert_eq!(output.status.code(), Some(2), "{}", show(&output));
    assert!(said(&output).contains("--bogus"));
    // Behind the command everything is the command's.
    let output = stand.halton(&["run", "echo", "--bogus", "-c", "--", "-h"]);
    assert_eq!(out(&output), "--bogus -c -- -h\n", "{}", show(&output));
    let output = stand.halton(&["run", "--", "--bogus"]);
    assert_eq!(output.status.code(), Some(127), "{}", show(&output));
    assert!(said(&output).contains("--bogus: command not found"), "{}", show(&output));
}
