//! A tree without traffic: it hardly wakes up, and it is there at once when something comes.

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::Stand;
use crate::programs::{self, TEXT, show};

/// How long it is left alone. The passing of time itself is what is tested.
const REST: Duration = Duration::from_secs(10);
/// Some 12 a second were measured, 50 before anybody looked. On a slow machine they are fewer.
const WAKEUPS_PER_SECOND: u64 = 25;

/// How often the threads of these processes gave up a processor to wait for something.
fn wakeups(pids: &[u32]) -> Option<u64> {
    let mut sum = 0;
    for pid in pids {
        for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
            let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"))?;
            sum += line.trim().parse::<u64>().ok()?;
        }
    }
    Some(sum)
}

#[test]
fn a_tree_at_rest_rests_and_is_there_at_once() {
    let stand = Stand::started();
    let request = programs::curl_messages("--http1.1", "hi", false);
    let served = |when: &str| {
        let output = stand.run_trusting(&request);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains(TEXT), "{when}: {}", show(&output));
    };
    served("before");
    stand.wait_rows(1);
    let pids: Vec<u32> =
        ["root", "edge", "daemon", "watchdog"].iter().filter_map(|name| stand.pid(name)).collect();
    assert_eq!(pids.len(), 4);
    let (before, began) = (wakeups(&pids), Instant::now());
    std::thread::sleep(REST);
    match (before, wakeups(&pids)) {
        (Some(before), Some(after)) => {
            let (woken, seconds) = (after.saturating_sub(before), began.elapsed().as_secs());
            let most = WAKEUPS_PER_SECOND * seconds;
            assert!(woken <= most, "{woken} wakeups in {seconds} s{}", stand.logs());
        }
        (_, _) => programs::not_checked("wakeups (no /proc that counts them)"),
    }
    // The edge's verdict is long stale, nobody has asked the tap for a second or two. The daemon has a
    // quarter of a second, which a busy machine may not give it.
    let passed = |n: u64| {
        served("after");
        stand.wait("where it went", || {
            let coverage = stand.coverage();
            coverage["passed_connections"] == n || coverage["metered_requests"] == 2
        });
        stand.coverage()["passed_connections"] == n
    };
    assert!((1..=3).find(|n| !passed(*n)).is_some(), "none was metered{}", stand.logs());
    let rows = stand.wait_rows(2);
    assert!(rows.iter().all(|row| row["completeness"] == "complete"), "{rows:#?}");
}
