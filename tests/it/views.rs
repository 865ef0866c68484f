//! `top` and the dashboard: what people look at, of the real process tree.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Stand, binary};
use crate::programs::{self, clean, script, show};

/// Metering, with one request behind it.
fn used() -> Stand {
    let stand = Stand::started();
    let hello = programs::curl_messages("--http1.1", "hi", false);
    let output = stand.run(&hello);
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    stand.wait_rows(1);
    stand.wait_metering();
    stand
}

#[test]
fn top_shows_what_runs_and_what_it_came_to() {
    let stand = used();
    let document = stand.json(&["top"]);
    assert_eq!(document["state"], "metering", "{document:#}");
    assert_eq!(document["today"]["requests"], 1, "{document:#}");
    assert_eq!(document["last"].as_array().map(Vec::len), Some(1), "{document:#}");
    assert_eq!(document["metered_connections"], 0, "{document:#}");
    assert!(document["last_minute"]["output_tokens_per_second"].is_u64(), "{document:#}");

    // One that runs.
    let mut child = stand
        .run_command(&programs::curl_messages("--http1.1", "[[gate]]", true))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut document = Value::Null;
    stand.wait("a running request", || {
        document = stand.json(&["top"]);
        document["running"].as_array().is_some_and(|list| list.len() == 1)
    });
    assert_eq!(document["running"][0]["completeness"], "open", "{document:#}");
    assert_eq!(document["metered_connections"], 1, "{document:#}");
    assert!(document["open_connections"].as_u64() >= Some(1), "{document:#}");
    let text = String::from_utf8(stand.must(&["top", "--once"]).stdout).unwrap();
    assert!(text.contains("RUNNING") && text.contains("METERING"), "{text}");
    stand.origin.open_gate();
    child.wait().unwrap();
    stand.wait_rows(2);

    // Without a terminal it is one frame; without a daemon the ledger still tells.
    for process in ["root", "watchdog", "daemon", "edge"] {
        stand.kill(process);
    }
    let text = String::from_utf8(stand.must(&["top"]).stdout).unwrap();
    assert!(text.contains("DOWN") && text.contains("2 requests"), "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
    assert!(stand.pid("root").is_none(), "looking started something");
}

#[test]
fn events_are_followed_from_the_latest_ones_on() {
    let stand = used();
    let mut command = stand.command(&["events", "--follow", "--limit", "2", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    let (told, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Some(Ok(line)) = stdout.next() {
            let _ = told.send(serde_json::from_str::<Value>(&line).unwrap());
        }
    });
    let next = || lines.recv_timeout(crate::harness::DEADLINE).ok();
    let mut seen: Vec<Value> = (0..2).filter_map(|_| next()).collect();
    let daemon = stand.pid("daemon");
    stand.kill("daemon");
    let another = |e: &Value| e["process"] == "daemon" && e["event"] == "ready";
    while let Some(event) = next() {
        seen.push(event);
        if seen.last().is_some_and(another) {
            break;
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    assert!(seen.last().is_some_and(another) && seen.len() > 3, "{seen:#?}{}", stand.logs());
    assert!(stand.pid("daemon") != daemon);
    // Each of them, once and in order.
    let text = fs::read_to_string(stand.home.journal_file()).unwrap();
    let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(all.windows(seen.len()).any(|part| part == seen), "{seen:#?}{all:#?}");
}

fn on_a_terminal(stand: &Stand, keys: &str, args: &[&str]) -> Value {
    let top = stand.command(args);
    let mut command = Command::new("python3");
    clean(&mut command, stand.scratch());
    command.envs(top.get_envs().filter_map(|(k, v)| Some((k, v?)))).env("TERM", "xterm");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/on_terminal.py");
    // Shown last: Ctrl-C has the terminal forget what nobody has read of it.
    command.args([script, "q ends", keys]).arg(binary()).args(args);
    let output = command.output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", show(&output)))
}

#[test]
fn top_gives_the_terminal_back() {
    let stand = used();
    for (keys, status) in [("q", 0), ("\x1b", 0), ("^C", 0)] {
        let end = on_a_terminal(&stand, keys, &["top"]);
        assert_eq!((&end["status"], &end["restored"]), (&status.into(), &true.into()), "{end:#}");
        let shown = end["shown"].as_str().unwrap();
        let (enter, leave) = (shown.find("\x1b[?1049h"), shown.rfind("\x1b[?1049l"));
        assert!(enter.is_some() && enter < leave && shown.contains("q ends"), "{shown:?}");
        assert!(shown.contains("\x1b[?25h"), "the cursor is back: {shown:?}");
    }
    let once = on_a_terminal(&stand, "", &["top", "--once"]);
    assert!(!once["shown"].as_str().unwrap().contains("1049"), "{once:#}");
}

/// Curl to the admin API; status and body.
fn ask(stand: &Stand, path: &str, args: &[&str]) -> (String, String) {
    let mut command = Command::new("curl");
    clean(&mut command, stand.scratch());
    command.args(["--silent", "--write-out", "\n%{http_code}"]).args(args);
    let output = command.arg(format!("http://{}{path}", stand.api)).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

#[test]
fn the_dashboard_shows_the_ledger_and_no_markup_of_others() {
    let stand = used();
    // Names from the wire that would be markup.
    const NASTY: &str = "<script>alert(1)</script>";
    const PROJECT: &str = "<img src=x onerror=alert(1)>";
    let body = format!(r#"{{"model":"{NASTY}","max_tokens":9,"messages":[]}}"#);
    let mut program = programs::curl_messages("--http1.1", "hi", false);
    *program.argv.last_mut().unwrap() = body;
    stand.run(&program.env("HALTON_PROJECT", PROJECT));
    let rows = stand.wait_rows(2);
    assert!(
        rows[1].to_string().contains("<script>"),
        "nothing nasty: nothing was tested {rows:#?}"
    );
    // Limits that have reset long ago, as they were seen before.
    let ledger = Connection::open(stand.home.ledger_file()).unwrap();
    for (name, used) in [("past", "9000"), ("bygone", "NULL")] {
        let quota = format!(
            "INSERT INTO quotas (provider, account, name, used_bp, resets_at, status, seen_at) \
             VALUES ('anthropic', '', '{name}', {used}, 2, 'rejected', 1)"
        );
        ledger.execute(&quota, []).unwrap();
    }
    drop(ledger);

    let url = stand.json(&["dashboard"])["url"].as_str().unwrap().to_owned();
    let mut command = Command::new("node");
    clean(&mut command, stand.scratch());
    let mut node = command
        .args([script("dashboard.mjs"), url.clone()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(node.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let fail = |node: &mut std::process::Child, said: &str| -> ! {
        let _ = node.kill();
        let mut why = String::new();
        let _ = node.stderr.take().unwrap().read_to_string(&mut why);
        panic!("{said}{why}{}", stand.logs());
    };
    if line != "READY\n" {
        fail(&mut node, &line);
    }
    // An event, until the page has seen one: its stream may just be beginning.
    let (told, shown) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = told.send(stdout.read_to_string(&mut text).map(|_| text));
    });
    let mut text = None;
    stand.wait("the page's end", || {
        stand.signal("daemon", Signal::HUP);
        text = shown.recv_timeout(std::time::Duration::from_millis(200)).ok();
        text.is_some()
    });
    let text = text.unwrap().unwrap();
    let seen: Value = serde_json::from_str(&text).unwrap_or_else(|_| fail(&mut node, &text));
    assert!(node.wait().unwrap().success());
    let all = seen["text"].to_string();
    for said in
        ["metering", "Today|$", "claude-sonnet-4-5", "curl", "ledger", "everything was metered"]
    {
        assert!(all.contains(said), "{said}: {seen:#}");
    }
    assert!(seen["text"]["requests"].as_str().unwrap().contains(NASTY), "{seen:#}");
    assert!(seen["text"]["by-project"].as_str().unwrap().contains(PROJECT), "{seen:#}");
    let limits = seen["text"]["quotas"].as_str().unwrap();
    assert!(limits.contains("past|0%") && !limits.contains("bygone"), "{seen:#}");
    for wrong in ["undefined", "NaN", "[object", "rejected"] {
        assert!(!all.contains(wrong), "{wrong}: {seen:#}");
    }
    let names = seen["names"].as_array().unwrap();
    assert!(!names.iter().any(|name| name == "script" || name == "img"), "{seen:#}");
    let cookie = seen["cookie"].as_str().unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert_eq!(seen["hash"], "", "the code leaves the address");
    assert!(seen["after"]["cookie"].as_str().unwrap().contains("Max-Age=0"), "{seen:#}");
    assert!(seen["after"]["trouble"].as_str().unwrap().contains("Not logged in"), "{seen:#}");

    // The code was good once, and the cookie is worth nothing any more.
    let code = url.split_once("#login=").unwrap().1;
    let body = format!(r#"{{"code":"{code}"}}"#);
    let origin = format!("Origin: http://{}", stand.api);
    let again = ask(
        &stand,
        "/v1/session",
        &["-d", &body, "-H", "content-type: application/json", "-H", &origin],
    );
    assert_eq!(again.0, "401", "{}", again.1);
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(ask(&stand, "/v1/status", &["-H", &format!("Cookie: {cookie}")]).0, "401");
}

#[test]
fn the_dashboard_says_what_it_could_not_read() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/src/actors/admin/dashboard/dashboard.js");
    let output =
        Command::new("node").arg(script("dashboard_turns.mjs")).arg(page).output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
}

#[test]
fn the_dashboard_is_opened_where_there_is_a_display_and_needs_a_daemon() {
    let stand = Stand::new();
    let output = stand.halton(&["dashboard"]);
    assert_eq!(output.status.code(), Some(69), "{}", show(&output));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("halton-meter start"),
        "{}",
        show(&output)
    );
    stand.must(&["start"]);
    stand.wait_metering();

    let tools = stand.scratch().join("tools");
    fs::create_dir(&tools).unwrap();
    let opener = tools.join("xdg-open");
    let opened = stand.scratch().join("opened");
    let install = |exit: u8| {
        let text = format!("#!/bin/sh\necho \"$1\" >{}\nexit {exit}\n", opened.display());
        fs::write(&opener, text).unwrap();
        fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let run = |display: bool, args: &[&str]| {
        let _ = fs::remove_file(&opened);
        let mut command = stand.command(&[&["dashboard"], args].concat());
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", tools.display()));
        if display {
            command.env("DISPLAY", ":99");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", show(&output));
        (String::from_utf8(output.stdout).unwrap(), fs::read_to_string(&opened).ok())
    };
    let is_url = |text: &str| {
        let code = text.trim().strip_prefix(&format!("http://{}/#login=", stand.api));
        code.is_some_and(|code| code.len() == 64)
    };
    install(0);
    let (printed, opened) = run(true, &[]);
    assert!(printed.is_empty() && is_url(&opened.unwrap_or_default()), "{printed}");
    let (printed, opened) = run(true, &["--no-open"]);
    assert!(is_url(&printed) && opened.is_none(), "{printed}");
    let (printed, opened) = run(false, &[]);
    assert!(is_url(&printed) && opened.is_none(), "{printed}");
    install(3);
    let (printed, opened) = run(true, &[]);
    assert!(is_url(&printed) && opened.is_some(), "a browser that can't be opened: {printed}");

    // The page itself is nobody's secret, and says from where it may load what.
    let (status, page) = ask(&stand, "/", &["--include"]);
    assert_eq!(status, "200");
    assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");
    assert!(page.contains("<title>Halton Meter</title>"), "{page}");
    assert_eq!(ask(&stand, "/v1/stats", &[]).0, "401");
}
