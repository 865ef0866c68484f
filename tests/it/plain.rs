//! Models of one's own, over plain HTTP: metered, free, and byte for byte what it is without us.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::harness::Stand;
use crate::programs::{self, Program, show};

const CHAT: &str = "{\"model\":\"llama3.2\",\"message\":{\"content\":\"Hel\"},\"done\":false}\n\
    {\"model\":\"llama3.2\",\"message\":{\"content\":\"lo\"},\"done\":false}\n\
    {\"model\":\"llama3.2\",\"done\":true,\"prompt_eval_count\":26,\"eval_count\":7}\n";
const COMPLETION: &str = "{\"id\":\"c\",\"model\":\"llama3.2\",\"choices\":[],\
    \"usage\":{\"prompt_tokens\":11,\"completion_tokens\":3,\"total_tokens\":14}}";

/// Ollama, as far as needed: one request per connection or several, chunked like the real one.
struct Ollama {
    addr: SocketAddr,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Ollama {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(stream, &seen));
            }
        });
        Self { addr, requests }
    }

    fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Vec<u8>>>) {
    let mut pending = Vec::new();
    loop {
        let Some(request) = request(&mut stream, &mut pending) else { return };
        let text = String::from_utf8_lossy(&request).into_owned();
        seen.lock().unwrap().push(request);
        let _ = if text.contains("/v1/") {
            let length = COMPLETION.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{COMPLETION}"
            )
        } else {
            let chunks: String =
                CHAT.split_inclusive('\n').map(|l| format!("{:x}\r\n{l}\r\n", l.len())).collect();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\
                 Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
            )
        };
        if text.contains("Connection: close") {
            return;
        }
    }
}

fn request(stream: &mut TcpStream, pending: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        let text = String::from_utf8_lossy(pending).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0);
            let end = head.len() + 4 + length;
            if pending.len() >= end {
                return Some(pending.drain(..end).collect());
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(n @ 1..) => pending.extend_from_slice(&buffer[..n]),
            Ok(0) | Err(_) => return None,
        }
    }
}

fn post(tunnel: bool, urls: &[&str], body: &str) -> Program {
    let mut args = vec!["--fail", "--no-progress-meter"];
    if tunnel {
        args.push("--proxytunnel");
    }
    args.extend(["-H", "Authorization: Bearer sk-secret", "-d", body]);
    args.extend(urls);
    programs::curl(&args)
}

fn setup() -> (Stand, Ollama) {
    let (stand, ollama) = (Stand::new(), Ollama::new());
    stand.configure_hosts(&[("gpu-box:11434", ollama.addr)], "");
    (stand, ollama)
}

fn counted(row: &Value) -> (&str, &str, u64, u64) {
    (
        row["provider"].as_str().unwrap(),
        row["surface"].as_str().unwrap(),
        row["tokens"]["input"].as_u64().unwrap(),
        row["tokens"]["output"].as_u64().unwrap(),
    )
}

#[test]
fn a_request_asked_of_the_proxy_is_metered_and_costs_nothing() {
    let (stand, ollama) = setup();
    let chat = post(false, &["http://gpu-box:11434/api/chat?x=1"], r#"{"model":"llama3.2"}"#);
    let output = stand.run(&chat);
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    assert_eq!(String::from_utf8_lossy(&output.stdout), CHAT);
    let rows = stand.wait_rows(1);
    let metered = ollama.take();
    assert_eq!(counted(&rows[0]), ("local", "ollama.chat", 26, 7), "{rows:#?}");
    assert_eq!((&rows[0]["cost_usd"], &rows[0]["price_rule"]), (&"0.00".into(), &"local".into()));
    assert_eq!((&rows[0]["path"], &rows[0]["host"]), (&"/api/chat".into(), &"gpu-box".into()));
    assert_eq!(rows[0]["cost_estimated"], false);
    assert!(rows[0]["run"].is_string(), "whose it is was known in time: {rows:#?}");
    let report = stand.json(&["report"]).to_string();
    assert!(!report.contains("sk-secret") && !stand.logs().contains("sk-secret"));

    // The same without a daemon: the same bytes.
    stand.kill("root");
    stand.kill("daemon");
    let output = chat.direct(stand.edge, &stand.root_pem(), stand.scratch());
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    assert_eq!(String::from_utf8_lossy(&output.stdout), CHAT);
    let passed = ollama.take();
    assert_eq!(metered.len(), 1);
    assert_eq!(
        passed.iter().map(|r| String::from_utf8_lossy(r)).collect::<Vec<_>>(),
        metered.iter().map(|r| String::from_utf8_lossy(r)).collect::<Vec<_>>(),
    );
}

#[test]
fn through_a_tunnel_each_request_of_a_connection_is_a_row() {
    let (stand, ollama) = setup();
    let url = "http://gpu-box:11434/v1/chat/completions";
    let output = stand.run(&post(true, &[url, url], r#"{"model":"gpt-oss:120b-cloud"}"#));
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    let rows = stand.wait_rows(2);
    for row in &rows {
        assert_eq!(counted(row), ("local", "openai.chat", 11, 3), "{row:#}");
        assert_eq!(row["connection"], rows[0]["connection"]);
        assert!(row["run"].is_string(), "whose it is was known in time: {row:#}");
        assert!(row["cost_usd"].is_null(), "what the cloud charges is not known: {row:#}");
        assert!(row["cost_reason"].as_str().unwrap().contains("cloud"), "{row:#}");
    }
    let requests = ollama.take();
    assert_eq!(requests.len(), 2);
    assert!(requests[0].starts_with(b"POST /v1/chat/completions HTTP/1.1\r\nHost: gpu-box:11434"));
    assert_eq!(requests[0], requests[1]);
}
