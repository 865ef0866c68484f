//! Budgets tell: at the end of `run`, on the desktop, at a URL; each threshold once, and a failure of
//! theirs is nobody else's.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::corporate::{AUTHORIZATION, PASSWORD, network};
use crate::harness::Stand;
use crate::programs::{self, show};
use crate::proxy::Login;

/// Takes posts and answers them with a status, in turn; the last one stays. Ends with the process.
fn hook(statuses: &[u16]) -> (SocketAddr, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let posts: Arc<Mutex<Vec<Value>>> = Arc::default();
    let (seen, statuses) = (Arc::clone(&posts), statuses.to_vec());
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut length, mut line) = (0, String::new());
            while stream.read_line(&mut line).unwrap() > 2 {
                let value =
                    line.strip_prefix("content-length: ").map(|n| n.trim().parse().unwrap());
                length = value.unwrap_or(length);
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            seen.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            let status = statuses.get(n).or(statuses.last()).unwrap();
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (addr, posts)
}

/// A `notify-send` that writes down what it was called with, a line for each argument, and fails if told.
fn desktop(stand: &Stand, exit: u8) -> (String, PathBuf) {
    let bin = stand.scratch().join("bin");
    fs::create_dir(&bin).unwrap();
    let log = stand.scratch().join("shown");
    let tool = bin.join("notify-send");
    let script = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >> {}\nexit {exit}\n", log.display());
    fs::write(&tool, script).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    (format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()), log)
}

fn configure(stand: &Stand, hook: SocketAddr) {
    let more = format!("[budgets]\ndesktop = true\nwebhook = \"http://{hook}/h?key=s3cr3t\"\n");
    stand.configure(stand.origin.addr(), &more);
}

/// A request that costs something; what `run` said at its end.
fn spend(stand: &Stand) -> String {
    let output = stand.run(&programs::curl_messages("--http1.1", "hi", true));
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn of(posts: &Mutex<Vec<Value>>, budget: &str) -> usize {
    posts.lock().unwrap().iter().filter(|post| post["budget"] == budget).count()
}

fn events(stand: &Stand, event: &str) -> Vec<String> {
    let text = fs::read_to_string(stand.home.journal_file()).unwrap();
    let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter(|e| e["event"] == event).map(|e| e["cause"].to_string()).collect()
}

#[test]
fn each_threshold_is_told_once_on_each_channel() {
    let stand = Stand::new();
    // The first attempt meets a server in trouble.
    let (hook, posts) = hook(&[503, 200]);
    let (path, shown) = desktop(&stand, 0);
    configure(&stand, hook);
    stand.must(&["budget", "set", "$(all)", "--limit", "0.000001"]);
    assert!(stand.command(&["start"]).env("PATH", path).status().unwrap().success());
    stand.wait_metering();
    let mut first = spend(&stand);
    if !first.contains("has passed") {
        // Its row was late for the end of its own run.
        first = spend(&stand);
    }
    assert!(first.contains("budget $(all) has passed 100%"), "{first}");
    stand.wait("two posts", || posts.lock().unwrap().len() == 2);
    let post = posts.lock().unwrap()[1].clone();
    assert_eq!(post["event"], "budget_threshold");
    assert_eq!((&post["threshold"], &post["limit_usd"]), (&100.into(), &"0.000001".into()));
    stand.wait("both told", || events(&stand, "budget_told").len() == 2);

    // Another life of the daemon, another limit, another request.
    stand.kill("daemon");
    stand.must(&["budget", "set", "$(all)", "--limit", "0.000002"]);
    stand.wait_metering();
    let second = spend(&stand);
    assert!(!second.contains("has passed"), "{second}");
    // A later budget's word says that the earlier one's would have come by now.
    stand.must(&["budget", "set", "later", "--limit", "0.000001", "--per", "day"]);
    stand.wait("word of the later one", || of(&posts, "later") == 1);
    stand.wait("its notification", || fs::read_to_string(&shown).unwrap().contains("later"));
    assert_eq!(of(&posts, "$(all)"), 2, "the one that was not taken, and the one that was");
    let shown = fs::read_to_string(&shown).unwrap();
    let lines: Vec<&str> = shown.lines().filter(|line| line.contains("$(all)")).collect();
    assert_eq!(lines.len(), 1, "{shown}");
    assert!(lines[0].starts_with("budget $(all) has passed 100%: $"), "{shown}");
    assert!(!stand.logs().contains("s3cr3t"));
    let config = String::from_utf8(stand.must(&["config", "show"]).stdout).unwrap();
    assert!(config.contains("budgets.webhook") && !config.contains("s3cr3t"), "{config}");
}

#[test]
fn what_can_not_be_told_is_an_event_and_nothing_else() {
    let stand = Stand::new();
    let (hook, posts) = hook(&[404]);
    let (path, _) = desktop(&stand, 1);
    configure(&stand, hook);
    stand.must(&["budget", "set", "all", "--limit", "0.000001"]);
    assert!(stand.command(&["start"]).env("PATH", path).status().unwrap().success());
    stand.wait_metering();
    spend(&stand);
    stand.wait("both failures", || events(&stand, "budget_not_told").len() == 2);
    let causes = events(&stand, "budget_not_told").join(" ");
    assert!(
        causes.contains("the webhook answered 404") && causes.contains("notify-send"),
        "{causes}"
    );
    assert_eq!(posts.lock().unwrap().len(), 1, "what was refused is not tried again");
    spend(&stand);
    stand.wait_rows(2);
    assert_eq!(stand.json(&["status"])["state"], "metering");
}

const HOOK: &str = "hooks.corp.example";

/// Metering, with a budget that the first request uses up, and a webhook over TLS whose root is
/// trusted by `upstream.extra_ca_file`.
fn with_secure_hook(stand: &Stand, path: &str) {
    let webhook = format!("https://{HOOK}{path}?key=s3cr3t");
    stand.must(&["config", "set", "budgets.webhook", &webhook]);
    stand.must(&["budget", "set", "all", "--limit", "0.000001"]);
    stand.must(&["start"]);
    stand.wait_metering();
    spend(stand);
}

fn assert_posted(stand: &Stand, path: &str) {
    let posts = stand.origin.requests_to(path);
    assert_eq!(posts.len(), 1, "{posts:?}");
    assert_eq!((posts[0].method.as_str(), posts[0].host()), ("POST", HOOK));
    assert_eq!(posts[0].target, format!("{path}?key=s3cr3t"));
    let document: Value = serde_json::from_slice(&posts[0].body).unwrap();
    assert_eq!(
        (&document["event"], &document["budget"]),
        (&"budget_threshold".into(), &"all".into())
    );
    assert!(!stand.logs().contains("s3cr3t"));
}

#[test]
fn a_webhook_over_tls_is_trusted_by_the_configuration() {
    let stand = Stand::new();
    stand.configure(stand.origin.addr(), "");
    with_secure_hook(&stand, "/echo");
    stand.wait("it was told", || events(&stand, "budget_told").len() == 1);
    assert_posted(&stand, "/echo");
    assert!(events(&stand, "budget_not_told").is_empty());
}

#[test]
fn a_webhook_over_tls_goes_through_the_upstream_proxy() {
    let (stand, proxy) = network(Login::Basic(AUTHORIZATION));
    let url = format!("http://me:{PASSWORD}@{}", proxy.addr);
    stand.must(&["config", "set", "upstream.proxy", &url]);
    with_secure_hook(&stand, "/echo");
    stand.wait("it was told", || events(&stand, "budget_told").len() == 1);
    assert_posted(&stand, "/echo");
    assert!(proxy.targets().contains(&format!("{HOOK}:443")), "{:?}", proxy.targets());
    assert!(!stand.logs().contains(PASSWORD));
}

#[test]
fn a_webhook_over_tls_that_refuses_is_one_event() {
    let stand = Stand::new();
    stand.configure(stand.origin.addr(), "");
    with_secure_hook(&stand, "/nowhere");
    stand.wait("the failure", || !events(&stand, "budget_not_told").is_empty());
    // Another life of the daemon, and rows: what was told once, if in vain, is not told again.
    stand.must(&["restart"]);
    stand.wait_metering();
    spend(&stand);
    stand.must(&["config", "set", "budgets.webhook", &format!("https://{HOOK}/echo")]);
    stand.wait("the new address", || !events(&stand, "config_taken").is_empty());
    stand.must(&["budget", "set", "later", "--limit", "0.000001", "--per", "day"]);
    stand.wait("word of the later one", || events(&stand, "budget_told").len() == 1);
    let failures = events(&stand, "budget_not_told");
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains("all: webhook: the webhook answered 404"), "{failures:?}");
    assert_eq!(stand.origin.requests_to("/nowhere").len(), 1);
    assert!(!failures[0].contains("s3cr3t"));
}
