//! Few descriptors, many clients.

use std::io;
use std::process::Command;
use std::sync::Barrier;

use halton_meter::descriptors::raise;

use crate::harness::{Stand, binary};
use crate::ladder::{can_limit, descriptors, limit};
use crate::programs::{clean, in_time, show};
use crate::wire::Wire;

/// Both ends of each connection are this process's.
const CLIENTS: usize = 200;

/// All at once; each one stays until the last is served.
fn burst(stand: &Stand, clients: usize) -> Vec<io::Result<Wire>> {
    let (begin, end) = (Barrier::new(clients), Barrier::new(clients));
    let client = || {
        begin.wait();
        let wire = Wire::connect(stand).map(|mut wire| {
            wire.get();
            wire
        });
        end.wait();
        wire
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn a_caller_s_low_limit_is_not_the_daemon_s() {
    raise();
    let stand = Stand::new();
    let mut start = Command::new("sh");
    clean(&mut start, stand.scratch());
    for (name, value) in stand.command(&[]).get_envs() {
        start.env(name, value.unwrap_or_default());
    }
    start.args(["-c", "ulimit -Sn 256 && exec \"$0\" start"]).arg(binary());
    let output = in_time(start.current_dir(stand.scratch()));
    assert!(output.status.success(), "{}", show(&output));
    stand.wait_metering();
    let mut held: Vec<Wire> = Vec::new();
    for _ in 0..CLIENTS {
        let mut wire = Wire::connect(&stand).unwrap();
        wire.get();
        held.push(wire);
    }
    // With 256 it has room for fewer than half of them; one or another meets a daemon that is busy.
    let metered = held.iter().filter(|wire| wire.is_metered()).count();
    assert!(metered > CLIENTS * 3 / 4, "{metered}{}", stand.logs());
}

#[test]
fn a_daemon_that_runs_out_of_descriptors_in_a_burst_fails_nobody() {
    if !can_limit() {
        return;
    }
    raise();
    let stand = Stand::started();
    let daemon = stand.pid("daemon").unwrap();
    for room in [30, 60, 90] {
        limit(daemon, "nofile", &(descriptors(daemon) + room).to_string());
        for (n, wire) in burst(&stand, CLIENTS).into_iter().enumerate() {
            wire.unwrap_or_else(|e| panic!("room for {room}, client {n}: {e}{}", stand.logs()));
        }
        limit(daemon, "nofile", "1024");
        stand.wait_metering();
    }
    assert_eq!(stand.pid("daemon"), Some(daemon), "it lived through that");
}
