//! `https://` addresses in absolute form, as axios before 1.17 asks a proxy for them: served whatever
//! befalls us, and metered where the host is.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use crate::expected::assert_row;
use crate::harness::{DEADLINE, Stand};
use crate::origin::{Leaf, Origin, Proto, Root, Setup};
use crate::programs::{self, CLAUDE, TEXT, answer, show};
use crate::proxy::{Login, Proxy};

const METERED: &str = "api.anthropic.com";
const OTHER: &str = "files.example";

fn send(stand: &Stand, line: &str, fields: &str, body: &[u8]) -> TcpStream {
    let mut tcp = TcpStream::connect(stand.edge).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!(
        "{line} HTTP/1.1\r\nProxy-Connection: keep-alive\r\nHost: {METERED}\r\n{fields}\r\n"
    );
    // It may be refused before all of it is taken.
    let _ = tcp.write_all(head.as_bytes()).and_then(|()| tcp.write_all(body));
    tcp
}

fn get(stand: &Stand, url: &str) -> (String, Vec<u8>) {
    whole(send(stand, &format!("GET {url}"), "", b"")).unwrap()
}

fn post(stand: &Stand, url: &str, body: &[u8]) -> TcpStream {
    let fields = format!(
        "Content-Type: application/json\r\nX-Api-Key: dummy-key\r\nContent-Length: {}\r\n",
        body.len()
    );
    send(stand, &format!("POST {url}"), &fields, body)
}

fn message(prompt: &str, stream: bool) -> String {
    format!(
        r#"{{"model":"{CLAUDE}","max_tokens":64,"stream":{stream},"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
    )
}

/// Head and body: one exchange is a connection.
fn whole(mut tcp: TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut all = Vec::new();
    tcp.read_to_end(&mut all)?;
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let body = all.split_off(end);
    Ok((String::from_utf8_lossy(&all).into_owned(), body))
}

/// Reads until `text` is there, and says all that was read.
fn until(tcp: &mut TcpStream, text: &str) -> String {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&all).contains(text) {
        let count = tcp.read(&mut buffer).unwrap();
        assert!(count > 0, "no {text} in {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn dechunked(mut body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Ok(httparse::Status::Complete((skip, size))) = httparse::parse_chunk_size(body) {
        let size = usize::try_from(size).unwrap();
        all.extend_from_slice(&body[skip..skip + size]);
        body = &body[skip + size + 2..];
        if size == 0 {
            return all;
        }
    }
    panic!("no last chunk");
}

/// A body each way, framed in both ways, larger than any buffer on the way.
fn assert_echoes(stand: &Stand, host: &str) {
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(31) ^ (i >> 9)) as u8).collect();
    let url = format!("https://{host}/echo");
    let (head, got) = whole(post(stand, &url, &sent)).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && got == sent, "{head}{}", stand.logs());
    let mut chunked = Vec::new();
    for chunk in sent.chunks(70_001) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let fields = "Transfer-Encoding: chunked\r\nX-Origin: [[framing=chunked]]\r\n";
    let (head, got) = whole(send(stand, &format!("POST {url}"), fields, &chunked)).unwrap();
    let got = if head.contains("chunked") { dechunked(&got) } else { got };
    assert!(head.starts_with("HTTP/1.1 200 ") && got == sent, "{head}{}", stand.logs());
}

/// The first half of an answer is there while the second one waits.
fn assert_streams(stand: &Stand, host: &str, nth: usize) {
    let body = message("[[gate]]", true);
    let mut tcp = post(stand, &format!("https://{host}/v1/messages"), body.as_bytes());
    stand.origin.wait_at_gate(nth, DEADLINE);
    let first = until(&mut tcp, "message_start");
    assert!(!first.contains("message_stop"));
    stand.origin.open_gate();
    let mut rest = String::new();
    tcp.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("message_stop"), "{rest}");
}

#[test]
fn it_is_served_and_metered_as_a_tunnel_is_and_without_a_daemon_too() {
    let stand = Stand::started();
    let url = format!("https://{METERED}/v1/messages");
    let body = message("hi", false);
    let (head, got) = whole(post(&stand, &url, body.as_bytes())).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}{}", stand.logs());
    assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    assert!(String::from_utf8_lossy(&got).contains(TEXT));
    let metered = stand.origin.requests();
    assert_eq!((&*metered[0].target, metered[0].proto), ("/v1/messages", Proto::H1));
    assert_eq!(metered[0].header("host"), Some(METERED));
    let row = &stand.wait_rows(1)[0];
    assert_row(row, &stand.origin.served()[0], "h1");

    // What is not metered: another host, and a place of our own.
    let (head, got) = get(&stand, &format!("https://{OTHER}/plain"));
    assert_eq!(got, b"plain answer\n", "{head}{}", stand.logs());
    assert_eq!(stand.origin.requests()[1].header("host"), Some(OTHER), "not what the client said");
    for own in [stand.edge, stand.api] {
        let (head, _) = get(&stand, &format!("https://localhost:{}/", own.port()));
        assert!(head.starts_with("HTTP/1.1 508 "), "{head}");
    }
    for host in [METERED, OTHER] {
        assert_echoes(&stand, host);
    }
    assert_streams(&stand, METERED, 1);
    assert_streams(&stand, OTHER, 2);
    stand.wait_rows(2);
    assert_eq!(stand.coverage()["passed_connections"], 0);

    stand.origin.forget();
    stand.kill("root");
    stand.kill("daemon");
    let (head, got) = whole(post(&stand, &url, body.as_bytes())).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}{}", stand.logs());
    assert!(String::from_utf8_lossy(&got).contains(TEXT));
    let passed = stand.origin.requests();
    assert_eq!(
        String::from_utf8_lossy(&passed[0].raw),
        String::from_utf8_lossy(&metered[0].raw),
        "the same bytes"
    );
    for host in [METERED, OTHER] {
        assert_echoes(&stand, host);
    }
    assert_streams(&stand, METERED, 1);
    assert_streams(&stand, OTHER, 2);
    // The message, two bodies, a stream.
    stand.wait("coverage", || stand.coverage()["passed_connections"] == 4);

    // A client that leaves in the middle ends its request at the server.
    let body = message("[[gate]]", true);
    let mut tcp = post(&stand, &url, body.as_bytes());
    until(&mut tcp, "message_start");
    drop(tcp);
    stand.origin.wait_aborted(1, DEADLINE);
}

#[test]
fn a_server_that_cannot_be_verified_is_a_502_that_says_so() {
    for leaf in [Leaf::Foreign, Leaf::Expired] {
        let setup = Setup { leaf, ..Setup::default() };
        let stand = Stand::before(Origin::with(&setup, &Root::new("Test Origin Root")));
        stand.must(&["start"]);
        stand.wait_metering();
        for host in [METERED, OTHER, METERED] {
            let (head, body) = get(&stand, &format!("https://{host}/plain"));
            let body = String::from_utf8_lossy(&body).into_owned();
            assert!(head.starts_with("HTTP/1.1 502 "), "{leaf:?} {host}: {head}{body}");
            assert!(body.contains("certificate cannot be verified"), "{leaf:?} {host}: {body}");
        }
        assert!(stand.origin.requests().is_empty(), "nothing was said to it");
        stand.origin.change(&Setup::default());
        let (head, body) = get(&stand, &format!("https://{OTHER}/plain"));
        assert_eq!(body, b"plain answer\n", "{head}");
    }
}

#[test]
fn roots_that_came_after_the_first_request_count() {
    let stand = Stand::new();
    let later = Origin::with(&Setup::default(), &Root::new("A Later Root"));
    stand.configure_hosts(&[("*", stand.origin.addr()), ("later.example", later.addr())], "");
    stand.must(&["start"]);
    assert_eq!(get(&stand, &format!("https://{OTHER}/plain")).1, b"plain answer\n");
    let roots = [stand.origin.root_pem(), later.root_pem()].concat();
    std::fs::write(stand.root_pem(), roots).unwrap();
    let (head, body) = get(&stand, "https://later.example/plain");
    assert_eq!(body, b"plain answer\n", "{head}");
}

#[test]
fn it_goes_through_the_upstream_proxy_by_connect() {
    let stand = Stand::new();
    stand.configure_hosts(&[], "");
    let proxy = Proxy::new(Login::Nobody, stand.origin.addr());
    let settings = std::fs::read_to_string(stand.home.config_file()).unwrap();
    let way_out = format!("[upstream]\nproxy = \"http://{}\"\n", proxy.addr);
    std::fs::write(stand.home.config_file(), settings.replace("[upstream]\n", &way_out)).unwrap();
    stand.must(&["start"]);
    stand.wait_metering();
    for host in [METERED, OTHER] {
        let (head, body) = get(&stand, &format!("https://{host}/plain"));
        assert_eq!(body, b"plain answer\n", "{head}{}", stand.logs());
        assert!(proxy.targets().contains(&format!("{host}:443")), "{:?}", proxy.targets());
    }
}

/// The edge moves such bytes itself, and could not hand them on to its next image.
#[test]
fn an_upgrade_waits_for_another_time() {
    let stand = Stand::started();
    let body = message("[[gate]]", true);
    let url = format!("https://{OTHER}/v1/messages");
    let mut tcp = post(&stand, &url, body.as_bytes());
    stand.origin.wait_at_gate(1, DEADLINE);
    until(&mut tcp, "message_start");
    let upgrade = stand.halton(&["upgrade"]);
    let said = show(&upgrade);
    assert!(!upgrade.status.success() && said.contains("in absolute form"), "{said}");
    stand.origin.open_gate();
    let mut rest = String::new();
    tcp.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("message_stop"), "{rest}");
    // Though the client has not closed.
    stand.wait("an upgrade", || stand.halton(&["upgrade"]).status.success());
    drop(tcp);
}

#[test]
fn axios() {
    let Some(packages) = programs::full("axios.json", "node_modules") else { return };
    let stand = Stand::new();
    let run = |host: &str| {
        let url = format!("https://{host}/v1/messages");
        let program = programs::node_with(packages.clone(), "axios.mjs", &[&url, CLAUDE, "hi"]);
        let output = stand.run_command(&program).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{host}: {}{}", show(&output), stand.logs());
        assert_eq!(answer(&output)["text"], TEXT, "{host}: {}", show(&output));
    };
    run(METERED);
    let rows = stand.wait_rows(1);
    assert_row(&rows[0], &stand.origin.served()[0], "h1");
    assert!(rows[0]["run"].is_string(), "whose it is was known in time: {rows:#?}");
    run(OTHER);
    stand.wait_rows(1);
}
