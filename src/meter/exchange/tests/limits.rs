//! What is told of a plan's limits on a WebSocket, and which row takes it along.

use serde_json::{Value, json};

use super::sockets::{CLIENT, SERVER, Socket, completed, create, created};
use super::*;

fn frame(percent: u64) -> Value {
    json!({"type": "codex.rate_limits", "plan_type": "plus",
        "rate_limits": {"primary": {"used_percent": percent, "window_minutes": 300, "reset_at": 1}}})
}

fn figures(row: &Row) -> Vec<(&str, Option<u32>)> {
    row.quota.iter().map(|window| (window.name.as_str(), window.used_bp)).collect()
}

#[test]
fn a_quota_goes_with_the_next_row() {
    let mut socket = Socket::responses();
    let mut first = frame(12);
    first["credits"] = json!({"has_credits": true, "balance": "3"});
    socket.say(&first);
    // A model's own limits are no news of the plan's.
    socket.say(&json!({"type": "codex.rate_limits", "metered_limit_name": "codex_bengalfox",
        "rate_limits": {"primary": {"used_percent": 2, "window_minutes": 300}, "secondary": null}}));
    for id in ["r1", "r2"] {
        socket.ask(&create("gpt-5")).say(&created(id)).say(&completed(id, 20, 5));
    }
    // Its end comes without a word.
    socket.ask(&create("gpt-5")).say(&frame(90));
    let rows = socket.end(None);
    let told = &rows[0].quota[0];
    assert_eq!((told.name.as_str(), told.used_bp), ("5h", Some(1200)));
    assert_eq!(told.plan.as_deref(), Some("plus"));
    let names: Vec<&str> = rows[0].quota.iter().map(|window| window.name.as_str()).collect();
    assert_eq!(names, ["5h", "credits", "codex_bengalfox_5h"]);
    assert_eq!(rows[1].quota, [], "once");
    assert_eq!(rows[2].error_class.as_deref(), Some("upstream_cut"));
    assert_eq!(figures(&rows[2]), [("5h", Some(9000))]);
}

/// Over HTTP its header fields would have told; in the frame they are an object.
#[test]
fn a_refusal_tells_what_is_used_up() {
    let refused = json!({"type": "error", "status": 429,
        "error": {"type": "usage_limit_reached", "message": "m"},
        "headers": {"X-Codex-Primary-Used-Percent": "100", "x-codex-primary-window-minutes": 300,
            "x-codex-plan-type": "plus", "x-codex-secondary-used-percent": ["2"], "set-cookie": "s"}});
    let mut socket = Socket::responses();
    socket.ask(&create("gpt-5")).say(&refused);
    assert_eq!(figures(&socket.rows[0]), [("5h", Some(10_000))]);
    let told = &socket.rows[0].quota[0];
    assert_eq!((told.plan.as_deref(), told.seen_at), (Some("plus"), Some(at(30))));
    // About nothing that is open: the next row has it.
    socket.say(&refused).ask(&create("gpt-5")).say(&created("r1"));
    let rows = socket.end(Some(CLIENT));
    assert_eq!(figures(&rows[1]), [("5h", Some(10_000))]);
    assert!(rows[1].quota[0].seen_at < rows[1].ended_at);
}

#[test]
fn each_end_of_a_response_takes_it_along() {
    let mut socket = Socket::responses();
    // Failed in the middle, and settled as the client goes on.
    let error = json!({"type": "error", "error": {"type": "server_error"}});
    socket.ask(&create("gpt-5")).say(&created("r1")).say(&error).say(&frame(10));
    socket.ask(&create("gpt-5")).say(&frame(20)).feed(SERVER, &[0xff; 20]);
    assert_eq!(socket.rows[1].completeness, Completeness::Lossy);
    let rows = socket.end(None);
    assert_eq!(figures(&rows[0]), [("5h", Some(1000))]);
    assert_eq!(figures(&rows[1]), [("5h", Some(2000))]);
}

/// The handshake's row is written again when the socket ends.
#[test]
fn what_the_handshake_told_stays_as_old_as_it_is() {
    let headers = [
        ("x-codex-primary-used-percent", "10"),
        ("x-codex-primary-window-minutes", "300"),
        ("sec-websocket-extensions", ""),
    ];
    let mut socket = Socket::answered("chatgpt.com", "/backend-api/codex/responses", &headers);
    socket.ask(&create("gpt-5")).say(&frame(50));
    socket.say(&created("r1")).say(&completed("r1", 20, 5));
    let (rows, handshake) = socket.closed(Some(CLIENT));
    assert_eq!(figures(&handshake), [("5h", Some(1000))]);
    assert_eq!(figures(&rows[0]), [("5h", Some(5000))]);
    let seen = |row: &Row| row.quota[0].seen_at;
    assert_eq!(seen(&handshake), Some(at(5)));
    assert!(seen(&handshake) < seen(&rows[0]) && seen(&rows[0]) < handshake.ended_at);
}

/// Of the last response's row nothing more is said, so the socket's own has it.
#[test]
fn what_comes_behind_the_last_response_goes_with_the_socket() {
    let mut socket = Socket::responses();
    socket.ask(&create("gpt-5")).say(&created("r1")).say(&completed("r1", 20, 5)).say(&frame(30));
    let (rows, handshake) = socket.closed(Some(CLIENT));
    assert_eq!(rows[0].quota, []);
    assert_eq!(figures(&handshake), [("5h", Some(3000))]);

    // While another may come it is that one's.
    let mut socket = Socket::responses();
    socket.say(&frame(30)).ask(&create("gpt-5")).say(&created("r1")).say(&completed("r1", 20, 5));
    let (rows, handshake) = socket.closed(Some(CLIENT));
    assert_eq!(figures(&rows[0]), [("5h", Some(3000))]);
    assert_eq!(handshake.quota, []);

    // Nor is there another once it can't be read any more.
    let mut socket = Socket::responses();
    socket.say(&frame(40)).feed(SERVER, &[0xff; 20]);
    assert_eq!(figures(&socket.closed(None).1), [("5h", Some(4000))]);
}
