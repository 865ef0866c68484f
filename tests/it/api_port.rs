//! Another program on the daemon's port: it is not taken for the daemon, gets nothing that is the daemon's,
//! is named, and costs nobody time.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use crate::harness::{DEADLINE, Stand, free_port};
use crate::programs::{self, Program, TEXT, show};
use crate::wire::Wire;

/// Answers everything alike, and keeps what it was asked.
struct Impostor {
    heads: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<String>>,
}

impl Impostor {
    fn on(stand: &Stand) -> Self {
        let listener = TcpListener::bind(stand.api).unwrap();
        let one = Self { heads: Arc::default(), answer: Arc::default() };
        one.says("text/html", "<html>Directory listing</html>");
        let (heads, answer) = (Arc::clone(&one.heads), Arc::clone(&one.answer));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.set_read_timeout(Some(DEADLINE));
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                    head.push(byte[0]);
                }
                heads.lock().unwrap().push(String::from_utf8_lossy(&head).to_ascii_lowercase());
                let _ = stream.write_all(answer.lock().unwrap().as_bytes());
            }
        });
        one
    }

    fn says(&self, kind: &str, body: &str) {
        *self.answer.lock().unwrap() = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
    }

    /// As the daemon, with what else could be believed of it.
    fn claims(&self, pid: u32, instance: &str) {
        let body = serde_json::json!({
            "status": "ok", "process": "daemon", "pid": pid, "instance": instance,
            "path": "@evil.example/", "expires_in_s": 60,
        });
        self.says("application/json", &body.to_string());
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// Commands have a user agent, and the watchdog another question.
    fn looks_of_the_edge(&self) -> usize {
        let its = |head: &&String| head.starts_with("get /health ") && !head.contains("user-agent");
        self.heads().iter().filter(its).count()
    }
}

const NOT_OURS: &str = "7d7c0b3e-0000-4000-8000-000000000000";

fn asks_the_daemon(stand: &Stand) {
    for words in [
        &["run", "--", "true"][..],
        &["status"],
        &["top", "--once"],
        &["doctor"],
        &["bodies", "status"],
        &["selftest"],
    ] {
        stand.halton(words);
    }
    let output = stand.halton(&["dashboard", "--no-open"]);
    assert_eq!(output.status.code(), Some(69), "{}", show(&output));
    assert!(!show(&output).contains("evil.example"), "{}", show(&output));
}

#[test]
fn the_token_is_for_the_daemon_alone() {
    let stand = Stand::started();
    let former = stand.pid("daemon").unwrap();
    let instance = std::fs::read_to_string(stand.home.instance_file()).unwrap();
    stand.must(&["stop"]);
    assert!(stand.home.token_file().exists(), "it outlives the daemon");
    let impostor = Impostor::on(&stand);
    // What the daemon that is gone said of itself, anybody could have asked.
    impostor.claims(former, instance.trim());
    asks_the_daemon(&stand);
    // One that lives, without its port: its pid is no secret.
    assert_eq!(stand.halton(&["start"]).status.code(), Some(69));
    impostor.claims(stand.pid("daemon").unwrap(), NOT_OURS);
    let before = impostor.heads().len();
    asks_the_daemon(&stand);
    let heads = impostor.heads();
    assert!(heads.len() > before, "nobody asked it anything");
    let told: Vec<_> = heads.iter().filter(|head| head.contains("authorization")).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[test]
fn another_program_on_the_api_port() {
    let stand = Stand::new();
    let impostor = Impostor::on(&stand);
    assert_eq!(stand.halton(&["start"]).status.code(), Some(69));
    let (pid, own) = (stand.pid("daemon").unwrap(), || {
        std::fs::read_to_string(stand.home.instance_file()).unwrap()
    });
    let foreign = |stand: &Stand| {
        // It has the edge look, too.
        let status = stand.json(&["status"]);
        assert_eq!(status["daemon"]["health"], "another program answers on its port", "{status:#}");
        assert_ne!(status["state"], "metering", "{status:#}");
        status["edge"]["status"]["verdict"].clone()
    };
    impostor.claims(pid, NOT_OURS);
    // No verdict of before: it is by this answer that the edge judges.
    let looked = impostor.looks_of_the_edge();
    stand.wait("the edge's look", || {
        assert_ne!(foreign(&stand), "healthy", "the edge took it for the daemon");
        impostor.looks_of_the_edge() > looked
    });
    let mut wire = Wire::connect(&stand).unwrap();
    assert!(!wire.is_metered(), "the edge took it for the daemon");
    wire.get();
    // The instance alone does not make it the daemon either.
    impostor.claims(pid + 1, own().trim());
    foreign(&stand);
    Wire::connect(&stand).unwrap().get();
    let hello = programs::curl_messages("--http1.1", "hi", false);
    let output = stand.run_trusting(&hello);
    assert!(String::from_utf8_lossy(&output.stdout).contains(TEXT), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not metered"), "{}", show(&output));
}

/// How `start` ends while this process has the port.
fn assert_named(stand: &Stand, words: &[&str], code: i32) {
    let output = stand.halton(words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?} {}", show(&output));
    let own = format!("pid {})", std::process::id());
    assert!(said.contains(&own), "{words:?} does not name {own}: {said}");
    assert!(said.contains("config set daemon.api_port"), "{words:?} {said}");
    assert!(!said.contains("json:"), "{said}");
}

#[test]
fn a_web_server_on_the_api_port_is_named_and_soon_left_alone() {
    let stand = Stand::new();
    let impostor = Impostor::on(&stand);
    assert_named(&stand, &["start"], 69);
    // By us, by the edge that we ask and by the watchdog: in 30 s it were thousands.
    let asked = impostor.heads().len();
    assert!((1..150).contains(&asked), "{asked} requests");
    // It has been there for as long as anybody would wait.
    assert_named(&stand, &["run", "--", "true"], 0);
    let more = impostor.heads().len() - asked;
    assert!(more < 30, "{more} requests for one `run`");
    assert_named(&stand, &["dashboard", "--no-open"], 69);
    let status = stand.json(&["status"]);
    assert_eq!(status["daemon"]["health"], "another program answers on its port", "{status:#}");
    // What is said helps.
    stand.must(&["config", "set", "daemon.api_port", &free_port().port().to_string()]);
    stand.must(&["restart"]);
    stand.wait_metering();
    let output = stand.run(&Program::new(["true"]));
    assert!(!show(&output).contains("not metered"), "{}", show(&output));
}

#[test]
fn a_program_that_says_nothing_on_the_api_port_is_named() {
    let stand = Stand::new();
    let _silent = TcpListener::bind(stand.api).unwrap();
    assert_named(&stand, &["start"], 69);
    assert_named(&stand, &["run", "--", "true"], 0);
}

#[test]
fn a_socket_that_does_not_listen_on_the_api_port_is_told_soon() {
    use rustix::net::{self, AddressFamily, SocketType};
    let stand = Stand::new();
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    net::bind(&socket, &stand.api).unwrap();
    for (words, code) in [(&["start"][..], 69), (&["run", "--", "true"], 0)] {
        let begun = std::time::Instant::now();
        let output = stand.halton(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?} {}", show(&output));
        assert!(said.contains("is held by a socket that does not listen"), "{words:?} {said}");
        assert!(said.contains("config set daemon.api_port"), "{words:?} {said}");
        // Waited out, it takes 30 s.
        assert!(begun.elapsed().as_secs() < 15, "{words:?} {:?}", begun.elapsed());
    }
    let doctor = show(&stand.halton(&["doctor"]));
    assert!(doctor.contains("is held by a socket that does not listen"), "{doctor}");
    // What is in its way has gone: it has the port with its next try.
    drop(socket);
    stand.wait_metering();
}
