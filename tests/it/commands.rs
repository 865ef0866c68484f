//! The commands that read, and the admin API's door.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{DEADLINE, Stand};
use crate::programs::{self, Program, show};

/// `start` was told to `start`.
#[test]
fn a_stop_that_cannot_be_noted_or_forgotten_is_named() {
    let stand = Stand::new();
    stand.must(&["start"]);
    // Nothing can be written over it, or taken away, as in a home that is read-only.
    let file = stand.home.user_stopped();
    fs::create_dir(&file).unwrap();
    for command in ["stop", "start", "restart"] {
        let output = stand.halton(&[command]);
        let said = show(&output);
        let named = format!("cannot write {}", file.display());
        assert!(!output.status.success() && said.contains(&named), "{command}: {said}");
    }
}

#[test]
fn reading_needs_nothing_running() {
    let stand = Stand::new();
    assert_eq!(stand.rows(), Vec::<Value>::new());
    let report = stand.json(&["report"]);
    assert_eq!(report["summary"]["requests"], 0);
    assert!(report["summary"]["cost_nanousd"].is_null());
    let status = stand.halton(&["status", "--json"]);
    assert_eq!(status.status.code(), Some(1));
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["state"], "down");
    assert!(stand.must(&["events"]).stdout.is_empty());
    assert!(stand.pid("root").is_none(), "a reading command started something");
}

#[test]
fn env_points_at_the_edge_and_keeps_what_the_user_had() {
    let stand = Stand::new();
    let output =
        stand.command(&["env", "--json"]).env("no_proxy", "corp.example").output().unwrap();
    let vars: Value = serde_json::from_slice(&output.stdout).unwrap();
    let proxy = format!("http://{}", stand.edge);
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
        assert_eq!(vars[name], proxy);
    }
    assert_eq!(vars["NO_PROXY"], "corp.example,localhost,127.0.0.1,::1,127.0.0.0/8,0.0.0.0,::");
    let bundle = std::fs::read_to_string(vars["SSL_CERT_FILE"].as_str().unwrap()).unwrap();
    let ours = std::fs::read_to_string(stand.home.ca_cert()).unwrap();
    assert!(bundle.contains(ours.trim()));
    assert!(bundle.matches("BEGIN CERTIFICATE").count() > 50, "the system's roots are in it");
    // An older version set this one; it would win over `http.sslCAInfo`.
    assert!(vars.get("GIT_SSL_CAINFO").is_none());
    let git = |args: &[&str], value: &std::path::Path| {
        let output = stand.command(args).env("GIT_SSL_CAINFO", value).output().unwrap();
        String::from_utf8(output.stdout).unwrap().contains("unset GIT_SSL_CAINFO\n")
    };
    for args in [&["env"][..], &["env", "--unset"], &["env", "--if-up"]] {
        assert!(git(args, &stand.home.ca_bundle()), "{args:?}");
        assert!(!git(args, "/corp.pem".as_ref()), "{args:?}: not ours");
    }
    // What a shell makes of it.
    let script = String::from_utf8(stand.must(&["env"]).stdout).unwrap();
    let shell = std::process::Command::new("sh")
        .env_clear()
        .args(["-c", &format!("{script}\nprintf %s \"$https_proxy\"")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&shell.stdout), proxy);
}

/// Else every other program would refuse all hosts but those of that file.
#[test]
fn one_shells_roots_are_not_everybodys() {
    let stand = Stand::new();
    stand.must(&["env"]);
    let before = fs::read(stand.home.ca_bundle()).unwrap();
    let corp = stand.scratch().join("corp.pem");
    let theirs = fs::read_to_string(stand.root_pem()).unwrap();
    fs::write(&corp, format!("# of Corp\n{theirs}")).unwrap();
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        let output = stand.command(&["env", "--json"]).env(name, &corp).output().unwrap();
        assert!(output.status.success(), "{}", show(&output));
        assert!(fs::read(stand.home.ca_bundle()).unwrap() == before, "{name}");
        let vars: Value = serde_json::from_slice(&output.stdout).unwrap();
        let union = fs::read_to_string(vars["SSL_CERT_FILE"].as_str().unwrap()).unwrap();
        assert_eq!(union.contains("# of Corp"), name == "SSL_CERT_FILE");
    }
}

#[test]
fn a_proxy_of_the_users_own_is_never_lost() {
    let stand = Stand::new();
    stand.must(&["start"]);
    let mut command = stand.command(&["run", "--", "sh", "-c", "printf %s \"$https_proxy\""]);
    let output = command.env("https_proxy", "http://me:secret@127.0.0.1:1").output().unwrap();
    assert_eq!(output.stdout, b"http://me:secret@127.0.0.1:1", "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("127.0.0.1:1") && !said.contains("secret"), "{said}");

    // The only way out of a network may have this name only, and speak what we don't.
    let mut command = stand.command(&["run", "--", "sh", "-c", "printf %s \"$https_proxy\""]);
    let output = command.env("ALL_PROXY", "socks5://127.0.0.1:1").output().unwrap();
    assert_eq!(output.stdout, b"", "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("socks5://127.0.0.1:1"));
}

#[test]
fn an_edge_that_goes_through_the_proxy_of_another_network_is_left_out() {
    let stand = Stand::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = || stand.command(&["run", "--", "sh", "-c", "printf %s \"$https_proxy\""]);
    let there = run().env("https_proxy", format!("http://{closed}")).output().unwrap();
    let edge = format!("http://{}", stand.edge);
    assert_eq!(there.stdout, edge.as_bytes(), "where it is the user's own: {}", show(&there));
    let elsewhere = run().output().unwrap();
    assert_eq!(elsewhere.stdout, b"", "{}", show(&elsewhere));
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("edge stop"));
}

#[test]
fn what_the_caller_left_to_the_command_reaches_it() {
    let stand = Stand::new();
    stand.must(&["start"]);
    let mut command = stand.command(&["run", "--", "true"]);
    let latin = OsStr::from_bytes(b"/home/m\xfcller");
    let output = command.env("OLDPWD", latin).output().unwrap();
    assert!(output.status.success(), "no text: {}", show(&output));

    // As `nohup` has it.
    let meter = stand.command(&["run", "--", "sh", "-c", "kill -HUP $$; echo alive"]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(meter.get_program());
    command.args(meter.get_args()).envs(meter.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let output = command.output().unwrap();
    assert_eq!(output.stdout, b"alive\n", "{}", show(&output));
}

#[test]
fn what_can_mean_nothing_is_refused() {
    let stand = Stand::new();
    for args in
        [&["requests", "--limit", "0"][..], &["budget", "set", "", "--limit", "5", "--per", "day"]]
    {
        let output = stand.halton(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", show(&output));
    }
    assert!(!stand.home.budgets_file().exists());
}

/// Whatever of ours is missing or broken, the escape hatch works.
#[test]
fn reset_proxy_needs_nothing_of_ours() {
    let stand = Stand::new();
    let mut offs = 0;
    let mut takes_it_off = |what: &str, command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{what}: {}", show(&output));
        offs += 1;
        assert_eq!(stand.proxy_offs(), offs, "{what}: {}", show(&output));
    };
    let plain = || stand.command(&["reset-proxy"]);
    takes_it_off("no home", plain().env_remove("HOME").env_remove("HALTON_METER_HOME"));
    takes_it_off("a setting that is none", plain().env("HALTON_METER_EDGE_PORT", "abc"));
    takes_it_off("an option that is none", &mut stand.command(&["reset-proxy", "-c", "nonsense"]));
    fs::write(stand.home.config_file(), b"[edge\nport = \xff").unwrap();
    takes_it_off("garbage for a configuration", &mut plain());
    stand.cuts_journal();
    fs::remove_dir_all(stand.home.path()).unwrap();
    fs::write(stand.home.path(), "no directory").unwrap();
    takes_it_off("a file for a home", &mut plain());
}

#[test]
fn events_tell_of_a_crash_and_a_restart() {
    let stand = Stand::new();
    stand.must(&["start"]);
    stand.kill("daemon");
    stand.wait("a new daemon", || stand.pid("daemon").is_some());
    stand.wait_metering();
    let text = String::from_utf8(stand.must(&["events", "--json"]).stdout).unwrap();
    let events: Vec<Value> = match serde_json::from_str::<Value>(&text) {
        Ok(Value::Array(list)) => list,
        Ok(Value::Object(map)) => map["events"].as_array().unwrap().clone(),
        _ => text.lines().map(|l| serde_json::from_str(l).unwrap()).collect(),
    };
    let of_daemon: Vec<_> =
        events.iter().filter(|e| e["process"] == "root" && e["child"] == "daemon").collect();
    assert!(of_daemon.len() >= 3, "started, ended, started: {text}");
    let last = of_daemon.iter().filter_map(|e| e["generation"].as_u64()).max();
    assert!(last >= Some(2), "{text}");
}

/// A request as any local program might send it; the whole answer.
fn ask(stand: &Stand, head: &str) -> String {
    let mut tcp = TcpStream::connect(stand.api).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(tcp, "{head}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_admin_api_has_a_door() {
    let stand = Stand::new();
    stand.must(&["start"]);
    let token = std::fs::read_to_string(stand.home.token_file()).unwrap();
    let token = token.trim();
    let host = format!("Host: {}\r\n", stand.api);
    let auth = format!("Authorization: Bearer {token}\r\n");
    let status = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    let get = |path: &str, headers: &str| ask(&stand, &format!("GET {path} HTTP/1.1\r\n{headers}"));

    assert_eq!(status(&get("/health", &host)), "200");
    assert_eq!(status(&get("/v1/status", &format!("{host}{auth}"))), "200");
    assert_eq!(status(&get("/v1/status", &host)), "401");
    let wrong = "Authorization: Bearer 0123456789abcdef\r\n";
    assert_eq!(status(&get("/v1/requests", &format!("{host}{wrong}"))), "401");
    // DNS rebinding: a web page's own name leads here.
    let rebound = status(&get("/health", "Host: evil.example\r\n"));
    assert!(["403", "421"].contains(&rebound.as_str()), "{rebound}");
    let foreign = format!("{host}{auth}Origin: https://evil.example\r\n");
    assert_eq!(status(&get("/v1/status", &foreign)), "403");
    let problem = get("/v1/no-such-thing", &format!("{host}{auth}"));
    assert_eq!(status(&problem), "404");
    assert!(problem.to_ascii_lowercase().contains("application/problem+json"), "{problem}");
    assert!(!problem.to_ascii_lowercase().contains("access-control-allow"), "{problem}");
}

#[test]
fn nothing_secret_is_written_anywhere() {
    let stand = Stand::started();
    let marker = "tell-nobody-51c8";
    let prompt = format!("{marker} [[status=429]]");
    let key = format!("X-Api-Key: sk-ant-{marker}");
    for prompt in [marker, &prompt] {
        let program = programs::curl_messages("--http1.1", prompt, true)
            .arg("-H")
            .arg(&key)
            .arg("-H")
            .arg(format!("Cookie: session={marker}"))
            .arg("-H")
            .arg(format!("X-Claude-Code-Session-Id: sk-ant-{marker}"));
        assert!(stand.run(&program).status.success());
    }
    let url = format!("https://api.anthropic.com/v1/{marker}?key={marker}-2");
    stand.run(&programs::curl(&[url.replace(&format!("/{marker}"), "/x").as_str()]));
    let within = url.replace(&format!("/{marker}"), &format!("/x-sk-ant-{marker}/x"));
    stand.run(&programs::curl(&[within.as_str()]));
    stand.wait_rows(2);
    stand.must(&["stop"]);
    let mut open = vec![stand.home.path().to_path_buf()];
    let mut files = 0;
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else if let Ok(content) = std::fs::read(entry.path()) {
                files += 1;
                let found = content.windows(marker.len()).any(|w| w == marker.as_bytes());
                assert!(!found, "{} holds what it must not", entry.path().display());
            }
        }
    }
    assert!(files > 5);
}

#[test]
fn a_stop_waits_for_the_answer_in_flight() {
    let stand = Stand::started();
    let program = programs::curl_messages("--http1.1", "[[gate]]", true);
    let child = stand
        .run_command(&program)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    stand.origin.wait_at_gate(1, DEADLINE);
    let mut stop = stand.command(&["stop"]).spawn().unwrap();
    // New requests go raw while the old one is still being served.
    stand.wait("raw tunnels", || {
        let output = stand.run_trusting(&programs::curl_messages("--http1.1", "hi", false));
        assert!(output.status.success(), "{}{}", show(&output), stand.logs());
        stand.coverage()["passed_connections"].as_u64() >= Some(3)
    });
    let status = stand.json(&["status"]);
    assert_eq!(status["daemon"]["health"], "draining", "{status:#}");
    let reasons = stand.coverage()["passed_by_reason"].clone();
    assert!(reasons.get("daemon_degraded").is_none(), "it ends, and nothing is wrong: {reasons}");
    stand.origin.open_gate();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    assert!(String::from_utf8_lossy(&output.stdout).contains("message_stop"));
    assert!(stop.wait().unwrap().success());
}

#[test]
fn a_host_more_makes_a_next_authority_and_nobody_notices() {
    let stand = Stand::started();
    let hello = programs::curl_messages("--http1.1", "hi", false);
    assert!(stand.run(&hello).status.success());
    stand.wait_rows(1);
    let before = fs::read(stand.home.ca_cert()).unwrap();
    let early = fs::read(stand.home.ca_bundle()).unwrap();
    // As a program that reads its roots when it starts, and asks the new host later.
    let bundle = stand.scratch().join("early.pem");
    fs::write(&bundle, early).unwrap();
    let at_new_host = {
        let mut program = hello.clone();
        for argument in &mut program.argv {
            *argument = argument.replace("api.anthropic.com", "llm.example.org");
        }
        program
    };
    let mut waits = ["sh", "-c", "echo; read _; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    waits.extend(at_new_host.argv.clone());
    waits.extend(["--cacert".to_owned(), bundle.display().to_string()]);
    let mut waiting = stand.run_command(&Program::new(waits));
    let mut waiting = waiting.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    waiting.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    stand.configure(stand.origin.addr(), "[meter]\nextra_hosts = [\"llm.example.org\"]\n");
    let output = stand.run(&hello);
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    stand.wait_rows(2);
    // A program of before has another bundle, and is metered on.
    assert!(stand.home.next_ca_cert().exists(), "no next one: nothing was tested");
    assert_eq!(fs::read(stand.home.ca_cert()).unwrap(), before);
    let mut program = hello;
    program.argv.extend(["--cacert".to_owned(), bundle.display().to_string()]);
    let output = stand.run(&program);
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    stand.wait_rows(3);
    // At the new host it would refuse who signs, and passes; a program that starts now does not.
    let output = stand.run(&at_new_host);
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    stand.wait_rows(4);
    waiting.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = waiting.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    stand.wait("the one that passed", || stand.coverage()["passed_connections"] == 1);
    assert_eq!(stand.coverage()["passed_by_reason"]["declined_unknown_authority"], 1);
}

#[test]
fn what_we_start_keeps_no_descriptor_of_whoever_called() {
    use command_fds::{CommandFdExt, FdMapping};
    let stand = Stand::new();
    let (mut ours, theirs) = std::io::pipe().unwrap();
    let mut command = stand.command(&["start"]);
    command.fd_mappings(vec![FdMapping { parent_fd: theirs.into(), child_fd: 9 }]).unwrap();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    drop(command);
    // Nobody holds the other end any more, although everything of ours runs. A reader of its own, so
    // that a failure is no hang.
    let (told, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = told.send(std::io::Read::read(&mut ours, &mut [0]).map_err(|e| e.kind()));
    });
    assert_eq!(ended.recv_timeout(crate::harness::DEADLINE), Ok(Ok(0)));
    assert!(stand.pid("root").is_some() && stand.pid("daemon").is_some());
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_mistake_in_a_file_of_ones_own_is_named_and_stops_nothing_that_reads() {
    let stand = Stand::new();
    let refused: [(&str, &[&str]); 4] = [
        ("prices.toml", &["recompute-costs"]),
        ("budgets.toml", &["budget", "set", "all", "--limit", "5"]),
        ("projects.toml", &["project", "restore", "a"]),
        ("projects.toml", &["project", "retag", "--from", "a", "--to", "b"]),
    ];
    for (file, command) in refused {
        let path = stand.home.path().join(file);
        fs::write(&path, "nope = 1\n").unwrap();
        let line = format!("{file}:1: ");
        let reading: [&[&str]; 5] = [
            &["report"],
            &["requests"],
            &["export", "csv"],
            &["export", "focus"],
            &["project", "list"],
        ];
        for command in reading {
            let output = stand.must(command);
            assert_eq!(said(&output).matches(&line).count(), 1, "{}", show(&output));
        }
        assert_eq!(stand.must(&["statusline"]).stdout, b"$0.00 today\n");
        let status = stand.halton(&["status"]);
        assert!(String::from_utf8_lossy(&status.stdout).contains(&line), "{}", show(&status));
        let doctor: Value =
            serde_json::from_slice(&stand.halton(&["doctor", "--json"]).stdout).unwrap();
        let findings = doctor["findings"].as_array().unwrap();
        let named = |f: &&Value| f["layer"] == "config" && f["what"].to_string().contains(&line);
        assert_eq!(findings.iter().find(named).unwrap()["level"], "degraded");

        for refusing in [&["config", "check"][..], command] {
            let output = stand.halton(refusing);
            assert_eq!(output.status.code(), Some(78), "{refusing:?} {}", show(&output));
            assert_eq!(said(&output).matches(&line).count(), 1, "{}", show(&output));
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "nope = 1\n");
        let run = stand.halton(&["run", "--", "true"]);
        assert!(run.status.success() && said(&run).contains(&line), "{}", show(&run));
        stand.must(&["edge", "stop"]);
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_reader_that_leaves_is_told_nothing() {
    let stand = Stand::new();
    let commands: [&[&str]; 6] = [
        &["status"],
        &["env"],
        &["config", "show"],
        &["man"],
        &["completions", "bash"],
        &["requests", "--json"],
    ];
    for command in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = stand.command(command).stdout(writer).output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{command:?} {}",
            show(&output)
        );
    }
}

#[test]
fn a_home_whose_sockets_would_have_too_long_a_path_costs_the_metering() {
    let stand = Stand::new();
    let home = stand.scratch().join("h".repeat(100));
    let mut command = stand.command(&["run", "--", "sh", "-c", "echo \"it ran$https_proxy\""]);
    let output = command.env(halton_meter::home::HOME_VAR, home).output().unwrap();
    assert!(output.status.success() && output.stdout == b"it ran\n", "{}", show(&output));
    assert!(said(&output).contains("too long a path for a socket"), "{}", show(&output));
}

#[test]
fn a_path_that_is_set_is_meant_from_where_its_user_works() {
    let stand = Stand::new();
    stand.must(&["config", "set", "upstream.extra_ca_file", "corp.pem"]);
    let shown = String::from_utf8(stand.must(&["config", "show"]).stdout).unwrap();
    let path = stand.scratch().canonicalize().unwrap().join("corp.pem");
    assert!(shown.contains(&format!("upstream.extra_ca_file = {path:?}\n")), "{shown}");
}
