//! Metered, passed and lost are all there is: whatever is killed, whenever.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use halton_meter::meter::ledger::{GapKind, Ledger, RequestFilter, Window};
use rustix::process::Signal;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::client::{Client, Failed, trusting};
use crate::expected::assert_row;
use crate::harness::{DEADLINE, Stand, send};
use crate::programs::CLAUDE;

const KILLS: usize = 10;
const CLIENTS: usize = 12;
const BODY: &str = r#"{"model":"claude-sonnet-5","max_tokens":9,
    "messages":[{"role":"user","content":"hi [[framing=length]]"}]}"#;

/// What the client knows of its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seen {
    /// It came to a handshake, with our certificate or with the provider's own.
    Metered,
    Passed,
    /// Its ClientHello went out, and that is all.
    Hello,
}

/// Who is accounted for, and as what: each connection has a host of its own.
fn accounted(stand: &Stand) -> BTreeMap<String, Vec<&'static str>> {
    let ledger = Ledger::open(&stand.home).expect("ledger");
    let mut found: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    let all = RequestFilter { all: true, ..RequestFilter::default() };
    for row in ledger.requests(&all).expect("rows").rows {
        let ways = found.entry(row.host).or_default();
        if !ways.contains(&"metered") {
            ways.push("metered");
        }
    }
    let window = Window { from: jiff::Timestamp::MIN, to: jiff::Timestamp::MAX };
    for gap in ledger.coverage(window).expect("coverage").gaps {
        match gap.kind {
            GapKind::Passed | GapKind::Lost => {
                let ways = found.entry(gap.host).or_default();
                (0..gap.connections).for_each(|_| ways.push(gap.kind.as_str()));
            }
            // Of those with rows.
            GapKind::Cut | GapKind::Unfollowed => {
                assert!(found.contains_key(&gap.host), "{:?} without a row", gap.kind);
            }
        }
    }
    found
}

#[test]
fn every_connection_is_accounted_for_once_whatever_is_killed() {
    let stand = Stand::new();
    stand.configure(stand.origin.addr(), "[meter]\nhosts = [\"*.llm.test\"]\n");
    stand.must(&["start"]);
    stand.wait_metering();
    let ca = fs::read_to_string(stand.home.ca_cert()).expect("our CA");
    let config = trusting(&[stand.origin.root_pem(), &ca]);
    let seed = seed();
    eprintln!("HALTON_TEST_SEED={seed}");

    let seen: Arc<Mutex<BTreeMap<String, Seen>>> = Arc::default();
    let (next, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (seen, next, over) = (Arc::clone(&seen), Arc::clone(&next), Arc::clone(&over));
            let (config, edge) = (Arc::clone(&config), stand.edge);
            let mut random = Random(seed ^ (n as u64 + 1));
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let host = format!("c{}.llm.test", next.fetch_add(1, Ordering::Relaxed));
                    let what = match Client::connect(edge, &host, &config) {
                        Ok(mut client) => {
                            let ours = is_ours(&client);
                            // An answer may be cut by a kill; the connection counts all the same.
                            for _ in 0..=random.below(3) {
                                if client.post("/v1/messages", BODY).is_err() {
                                    break;
                                }
                            }
                            if random.below(2) == 0 {
                                client.close();
                            }
                            if ours { Seen::Metered } else { Seen::Passed }
                        }
                        Err(Failed::Handshake) => Seen::Hello,
                        Err(Failed::Proxy) => continue,
                    };
                    if what != Seen::Metered {
                        // Not too many of these while the daemon comes back.
                        thread::sleep(Duration::from_millis(50));
                    }
                    seen.lock().expect("seen").insert(host, what);
                }
            })
        })
        .collect();

    // The moments are counted in connections, and the rest is the machine's own noise.
    let mut random = Random(seed);
    let metered = |seen: &Mutex<BTreeMap<String, Seen>>| {
        seen.lock().expect("seen").values().filter(|s| **s == Seen::Metered).count()
    };
    for _ in 0..KILLS {
        let before = (next.load(Ordering::Relaxed), metered(&seen));
        let wait = 1 + random.below(12);
        // In one of four rounds the daemon is killed before it has metered anything.
        let want = if random.below(4) == 0 { 0 } else { 1 + random.below(40) };
        stand.wait("connections", || {
            next.load(Ordering::Relaxed) >= before.0 + wait && metered(&seen) >= before.1 + want
        });
        let spin = Instant::now() + Duration::from_micros(random.below(6000) as u64);
        while Instant::now() < spin {
            std::hint::spin_loop();
        }
        let names: &[&str] =
            [&["daemon"][..], &["edge"], &["daemon", "edge"], &["edge", "daemon"]][random.below(4)];
        for pid in names.iter().filter_map(|name| stand.pid(name)) {
            send(pid, Signal::KILL);
        }
    }
    over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("client"));
    stand.wait_metering();
    let seen = Arc::into_inner(seen).expect("clients ended").into_inner().expect("seen");

    check(&stand, &seen, "at the end");
    // The same for a reader without a daemon, and for the next daemon, after a planned end.
    stand.must(&["stop"]);
    let stopped = check(&stand, &seen, "stopped");
    stand.must(&["start"]);
    stand.wait_metering();
    assert_eq!(check(&stand, &seen, "started again"), stopped);
    // A planned end cuts nothing and leaves no register behind.
    stand.must(&["stop"]);
    let registers = fs::read_dir(stand.home.spool_dir()).expect("spool").flatten();
    let left: Vec<_> = registers.map(|f| f.file_name()).filter(is_register).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The most that a killed daemon takes along is its last quarter of a second.
#[test]
fn an_answer_of_a_second_ago_survives_a_kill() {
    const ANSWERS: usize = 10;
    let stand = Stand::started();
    let ca = fs::read_to_string(stand.home.ca_cert()).expect("our CA");
    let config = trusting(&[stand.origin.root_pem(), &ca]);
    let mut client = Client::connect(stand.edge, "api.anthropic.com", &config).expect("handshake");
    assert!(is_ours(&client));
    let body = BODY.replace("claude-sonnet-5", CLAUDE);
    for _ in 0..ANSWERS {
        client.post("/v1/messages", &body).expect("an answer");
    }
    // The passing of time itself is what is tested.
    thread::sleep(Duration::from_secs(1));
    stand.kill("daemon");
    stand.must(&["start"]);
    stand.wait_metering();
    let rows = stand.wait_rows(ANSWERS);
    for (row, served) in rows.iter().zip(&stand.origin.served()) {
        assert_row(row, served, "h1");
    }
    let coverage = stand.coverage();
    for gap in ["lost_connections", "lost_rows"] {
        assert_eq!(coverage[gap], 0, "{coverage:#}");
    }
}

/// Returns the figures of `report --json`.
fn check(stand: &Stand, seen: &BTreeMap<String, Seen>, when: &str) -> [u64; 4] {
    let certain = |(_, what): &(&String, &Seen)| **what != Seen::Hello;
    let end = Instant::now() + DEADLINE;
    // The last rows and lines are on their way.
    let found = loop {
        let found = accounted(stand);
        let missing: Vec<_> =
            seen.iter().filter(certain).filter(|(host, _)| !found.contains_key(*host)).collect();
        if missing.is_empty() {
            break found;
        }
        assert!(Instant::now() < end, "{when}: not accounted for: {missing:?}{}", stand.logs());
        thread::sleep(Duration::from_millis(20));
    };
    for (host, ways) in &found {
        assert_eq!(ways.len(), 1, "{when}: {host} is counted as {ways:?}");
        match seen.get(host) {
            Some(Seen::Metered) => assert_ne!(ways[0], "passed", "{when}: {host}"),
            Some(Seen::Passed) => assert_eq!(ways[0], "passed", "{when}: {host}"),
            Some(Seen::Hello) => {}
            None => panic!("{when}: {host} is counted as {ways:?}, and nobody connected to it"),
        }
    }
    for request in stand.origin.requests() {
        let host = request.header("host").expect("Host").to_owned();
        assert!(found.contains_key(&host), "{when}: the origin got a request for {host}");
    }
    let coverage = stand.coverage();
    let number = |name: &str| coverage[name].as_u64().unwrap_or_else(|| panic!("{coverage:#}"));
    let (metered, passed) = (number("metered_connections"), number("passed_connections"));
    let (lost, cut) = (number("lost_connections"), number("cut_connections"));
    let hellos = found.keys().filter(|host| seen.get(*host) == Some(&Seen::Hello)).count();
    let handshakes = seen.iter().filter(certain).count();
    assert_eq!(metered + passed + lost, (handshakes + hellos) as u64, "{when}: {coverage:#}");
    assert!(metered > 0 && passed > 0 && cut + lost > 0, "{when}: nothing happened: {coverage:#}");
    eprintln!(
        "{when}: {handshakes} connections, {hellos} more ended in their handshake; \
         {metered} metered ({cut} cut), {passed} passed, {lost} lost; {} requests lost",
        number("lost_rows")
    );
    [metered, passed, cut, lost]
}

fn is_register(name: &std::ffi::OsString) -> bool {
    name.to_string_lossy().starts_with("connections.")
}

fn is_ours(client: &Client) -> bool {
    let der = client.peer_certificate();
    let (_, certificate) = X509Certificate::from_der(&der).expect("certificate");
    !certificate.issuer().to_string().contains("Test Origin Root")
}

/// `HALTON_TEST_SEED` repeats a run's choices.
fn seed() -> u64 {
    std::env::var("HALTON_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).expect("random");
        u64::from_ne_bytes(bytes)
    })
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}
