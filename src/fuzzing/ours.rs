//! What we wrote ourselves, and a disk, another version or an editor may have changed since.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use jiff::ZonedDateTime;
use serde_json::Value;

use crate::cli::doctor::inspectors;
use crate::config::{HostPattern, base64};
use crate::edge::takeover;
use crate::meter::budget::Channel;
use crate::meter::ledger::{Totals, rolled_up_again};
use crate::meter::{budget, ca, projects, trust};

/// Descriptors that a state is given; those of more connections are lost.
const DESCRIPTORS: usize = 64;
/// Seconds since 1970.
const NOW: u64 = 1_795_521_600;
/// Ordinary ones, and a day that has no midnight.
const MOMENTS: [&str; 3] = [
    "2026-11-25T12:00:00+01:00[Europe/Berlin]",
    "2024-02-29T23:59:59Z[UTC]",
    "2018-11-04T12:00:00-02:00[America/Sao_Paulo]",
];

/// A CA's two files: how long the key's is (two bytes), that, and the certificate's. If the first byte
/// is odd, the latter is the certificate itself: chance would not come by its base64.
pub fn certificates(data: &[u8]) {
    let Some((&[kind, high, low], data)) = data.split_first_chunk() else { return };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (key, cert) = data.split_at_checked(length).unwrap_or((data, &[]));
    let mut cert = cert.to_vec();
    if kind & 1 == 1 {
        let text = base64(&cert);
        cert = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n").into();
    }
    let all = trust::certificates(&cert);
    assert!(inspectors::among(&all).len() <= all.len());
    let ends: Vec<_> = all.iter().map(inspectors::not_after).collect();
    let hosts =
        ["api.example", "*.models.example"].map(|host| HostPattern::parse(host).expect("a host"));
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    if let Some(found) = ca::inspect_files(&cert, key, &hosts, now) {
        assert_eq!(ends.first(), Some(&Some(found.not_after)));
        assert!(found.unfit.is_some() || found.not_after > NOW.cast_signed(), "{found:?}");
    }
}

/// The state that an edge's image leaves to the next one.
pub fn takeover(data: &[u8]) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| {
        let _inside = runtime.enter();
        let Some(first) = taken_over(data) else { return };
        let second = taken_over(&first).expect("our own");
        assert_eq!(compared(&second), compared(&first));
    });
}

fn taken_over(content: &[u8]) -> Option<Vec<u8>> {
    let mut peers = Vec::new();
    let written = takeover::again(content, &mut |_| {
        if peers.len() == DESCRIPTORS {
            return Err(io::ErrorKind::Other.into());
        }
        let (ours, peer) = UnixStream::pair()?;
        peers.push(peer);
        Ok(OwnedFd::from(ours))
    });
    written.ok()
}

/// Without what differs from one image to the next.
fn compared(state: &[u8]) -> (Value, &[u8]) {
    let (length, rest) = state.split_first_chunk().expect("a length");
    let length = usize::try_from(u64::from_le_bytes(*length)).expect("short");
    let (document, blobs) = rest.split_at(length);
    let mut document = serde_json::from_slice(document).expect("JSON");
    strip(&mut document);
    (document, blobs)
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| {
                !["client", "server", "age_us", "version"].contains(&name.as_str())
            });
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A roll-up of the ledger: what was understood is written as what is understood the same.
pub fn rollups(data: &[u8]) {
    if let Some(first) = rolled_up_again(data) {
        assert_eq!(rolled_up_again(&first).as_ref(), Some(&first));
    }
}

/// `budgets.toml`, and behind the first zero byte `budgets-told.json`.
pub fn budgets(data: &[u8]) {
    let mut parts = data.splitn(2, |b| *b == 0);
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let told = serde_json::from_slice::<budget::Told>(parts.next().unwrap_or_default());
    let mut told = told.unwrap_or_default();
    let Ok(all) = budget::parse(&text) else { return };
    let written = budget::print(&all).expect("as it was read");
    assert_eq!(budget::parse(&written).expect("our own"), all);
    for (budget, now) in all.iter().take(8).flat_map(|budget| MOMENTS.map(|now| (budget, now))) {
        let now: ZonedDateTime = now.parse().expect("a moment");
        let window = budget.per.window(&now);
        assert!(window.from <= now.timestamp() && now.timestamp() < window.to, "{window:?}");
        for cost in [None, Some(i64::MIN), Some(5_000_000_000), Some(i64::MAX)] {
            let totals =
                Totals { cost_nanousd: cost, subscription_nanousd: cost, ..Totals::default() };
            let standing = budget.stands(window, &[totals]);
            let line = standing.line();
            assert!(line.chars().count() < 240 && !line.contains(char::is_control), "{line:?}");
            let news = told.news(Channel::Run, &standing, &now);
            assert!(!news || standing.passed().is_some());
            assert!(!told.news(Channel::Run, &standing, &now), "twice");
        }
    }
    let text = serde_json::to_string(&told).expect("as it was read");
    assert_eq!(serde_json::from_str::<budget::Told>(&text).expect("our own"), told);
}

/// `projects.toml`: whatever somebody wrote, no name leads further than one step.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(names) = projects::parse(&text) else { return };
    let written = projects::print(&names).expect("as it was read");
    assert_eq!(projects::parse(&written).expect("our own"), names);
    one_step(&names);
    for (from, to) in names.rules().take(16) {
        assert_eq!(names.recorded(from), names.recorded(to));
        let mut changed = names.clone();
        changed.show_as(to, from);
        one_step(&changed);
        assert_eq!(changed.shown(to), from);
        assert!(changed.restore(from), "there is a rule of it");
        assert_eq!(changed.shown(to), to);
    }
}

fn one_step(names: &projects::Names) {
    for (from, to) in names.rules() {
        assert_ne!(from, to);
        assert_eq!(names.shown(to), to);
    }
}
