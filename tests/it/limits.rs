//! What a shell forbids its programs (`ulimit`), and a disk without room: the command runs all the same.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{Stand, binary};
use crate::programs::{Program, clean, curl_messages, in_time, show};

/// Our program, in a shell that was told this before.
fn after(stand: &Stand, told: &str, args: &[&str]) -> Output {
    let meter = stand.command(&[]);
    let mut shell = Command::new("sh");
    clean(&mut shell, stand.scratch());
    shell.envs(meter.get_envs().filter_map(|(k, v)| Some((k, v?))));
    shell.current_dir(stand.scratch()).stdin(Stdio::null());
    shell.args(["-c", &format!("{told} && exec \"$0\" \"$@\"")]).arg(binary());
    in_time(shell.args(args))
}

const COMMAND: [&str; 5] = ["run", "--", "sh", "-c", "echo \"fine $HTTPS_PROXY\"; exit 3"];

fn assert_ran(output: &Output, when: &str) {
    assert_eq!(output.status.code(), Some(3), "{when} {}", show(output));
    assert!(
        String::from_utf8_lossy(&output.stdout).starts_with("fine "),
        "{when} {}",
        show(output)
    );
    assert!(!show(output).contains("panicked"), "{when} {}", show(output));
}

#[test]
fn roots_that_ours_can_t_be_added_to_stay_without_the_proxy() {
    let stand = Stand::started();
    let own = stand.root_pem().display().to_string();
    let vars = in_time(stand.command(&["env", "--json"]).env("SSL_CERT_FILE", &own));
    let vars: Value = serde_json::from_slice(&vars.stdout).unwrap();
    let union = Path::new(vars["SSL_CERT_FILE"].as_str().unwrap());
    assert!(union.starts_with(stand.home.ca_dir()), "{vars:#}");
    // As on a full disk.
    fs::remove_file(union).unwrap();
    fs::create_dir(union).unwrap();
    let show_both = Program::new(["sh", "-c", "echo \"$HTTPS_PROXY $SSL_CERT_FILE\"; exit 3"]);
    let output = in_time(stand.run_command(&show_both).env("SSL_CERT_FILE", &own));
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!(" {own}\n"), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("without the proxy") && said.contains("union"), "{said}");
    for args in [&["env"][..], &["env", "--if-up"], &["env", "--json"]] {
        let output = in_time(stand.command(args).env("SSL_CERT_FILE", &own));
        assert_eq!(output.status.code(), Some(73), "{args:?} {}", show(&output));
        assert_eq!(output.stdout, b"", "{args:?} {}", show(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains("union"), "{}", show(&output));
    }
}

#[test]
fn a_command_runs_where_there_is_hardly_a_descriptor() {
    let stand = Stand::new();
    for most in [4, 5, 6, 8, 12] {
        let told = format!("ulimit -n {most}");
        assert_ran(&after(&stand, &told, &COMMAND), &told);
    }
}

/// The stack of each new thread would be larger than any address space: as if none were left.
#[test]
fn a_command_runs_where_there_is_no_thread() {
    if !cfg!(target_pointer_width = "64") {
        return;
    }
    let stand = Stand::new();
    let mut command = stand.command(&COMMAND);
    let output = in_time(command.env("RUST_MIN_STACK", (1_u64 << 55).to_string()));
    assert_ran(&output, "no thread");
    let started =
        stand.command(&["start"]).env("RUST_MIN_STACK", (1_u64 << 55).to_string()).output();
    let started = started.unwrap();
    assert!(!show(&started).contains("panicked"), "{}", show(&started));
}

#[test]
fn a_command_runs_where_no_file_may_grow() {
    let stand = Stand::new();
    assert_ran(&after(&stand, "ulimit -f 0", &COMMAND), "nothing there yet");
    stand.must(&["start"]);
    assert_ran(&after(&stand, "ulimit -f 0", &COMMAND), "it runs");
}

#[test]
fn soft_limits_of_a_shell_are_not_the_tree_s() {
    let stand = Stand::started();
    stand.must(&["edge", "stop"]);
    let soft = "ulimit -Sf 1 && ulimit -St 3600 && ulimit -Sc \"$(ulimit -Hc)\"";
    let output = after(&stand, soft, &["start"]);
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    stand.wait_metered(&curl_messages("--http1.1", "hi", false));
    stand.wait_rows(1);
    for process in ["root", "edge", "daemon", "watchdog"] {
        let pid = stand.pid(process).unwrap();
        // Where the system tells.
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
        for limit in
            limits.lines().filter(|l| l.contains("cpu time") || l.contains("Max file size"))
        {
            let values: Vec<_> = limit.split_whitespace().rev().skip(1).take(2).collect();
            assert_eq!(values[0], values[1], "{process}: {limit}");
        }
        for limit in limits.lines().filter(|l| l.contains("core file size")) {
            assert_eq!(limit.split_whitespace().nth(4), Some("0"), "{process}: {limit}");
        }
    }
}

/// What we have in memory is nobody's to find on the disk; what the user's own programs have is theirs.
#[test]
fn a_command_may_leave_the_core_that_its_user_wants() {
    let stand = Stand::new();
    let told = "ulimit -Sc \"$(ulimit -Hc)\"";
    let asks = ["run", "--quiet", "--", "sh", "-c", "ulimit -Sc; ulimit -Hc"];
    for when in ["the command's own `run` starts the tree", "it runs"] {
        let output = after(&stand, told, &asks);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let limits: Vec<&str> = said.lines().collect();
        assert!(limits.len() == 2 && limits[0] == limits[1], "{when} {}", show(&output));
    }
}
