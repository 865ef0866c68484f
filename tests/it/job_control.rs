//! `run` in an interactive shell: a job like the command itself.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use rustix::process::Signal;

use crate::harness::{DEADLINE, Stand, binary, send};
use crate::programs::{self, Program, clean, in_time, show};

const PROMPT: &str = "PROMPT> ";

/// What a shell shows; each text is waited for before the keys beside it are typed. (What is typed is
/// shown too: texts to wait for are written with quotes in them.)
fn shell(stand: &Stand, steps: &[(&str, &str)]) -> String {
    let meter = stand.command(&[]);
    let mut command = Command::new("python3");
    clean(&mut command, stand.scratch());
    command.envs(meter.get_envs().filter_map(|(k, v)| Some((k, v?))));
    command.env("METER", binary()).current_dir(stand.scratch());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/in_a_shell.py");
    let output = in_time(command.args([script, &json!(steps).to_string()]));
    let end: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", show(&output)));
    assert!(end["missing"].is_null(), "{end:#}");
    end["shown"].as_str().unwrap().to_owned()
}

#[test]
fn a_command_that_stops_itself_gives_the_terminal_back() {
    let stand = Stand::new();
    stand.must(&["start"]);
    let stops = "$METER run --quiet -- python3 -c 'import os, signal; \
                 os.kill(os.getpid(), signal.SIGSTOP); print(\"resu\" \"med\")'\n";
    // The same in a process group that the shell knows nothing of.
    let apart = stops.replace("os.kill", "os.setpgid(0, 0); os.kill");
    for stops in [stops, &apart] {
        shell(
            &stand,
            &[
                (PROMPT, stops),
                ("Stopped", ""),
                (PROMPT, "echo a\"\"live\n"),
                ("alive", ""),
                (PROMPT, "fg\n"),
                ("resumed", ""),
                (PROMPT, "echo e\"\"nd=$?\n"),
                ("end=0", ""),
            ],
        );
    }
}

#[test]
fn ctrl_z_stops_and_fg_goes_on_as_often_as_wanted() {
    let stand = Stand::new();
    stand.must(&["start"]);
    // It reads nothing: as long as it is about to stop, it could take what is for the shell.
    let waits = "$METER run --quiet -- sh -c 'trap \"echo on\"ward CONT; echo rea\"\"dy; \
                 until test -e go; do sleep 0.05; done; echo do\"\"ne'\n";
    let mut steps = vec![(PROMPT, waits), ("ready", "\x1a")];
    for _ in 0..3 {
        steps.extend([("Stopped", ""), (PROMPT, "fg\n"), ("onward", "\x1a")]);
    }
    steps.extend([("Stopped", ""), (PROMPT, "touch go; fg\n"), ("done", "")]);
    steps.extend([(PROMPT, "echo e\"\"nd=$?\n"), ("end=0", "")]);
    shell(&stand, &steps);
}

#[test]
fn ctrl_c_ends_a_loop_of_runs() {
    let stand = Stand::new();
    stand.must(&["start"]);
    let repeats = "for i in 1 2 3; do $METER run -- sh -c 'echo beg\"\"un; exec sleep 60'; done\n";
    let shown = shell(
        &stand,
        &[(PROMPT, repeats), ("begun", "\x03"), (PROMPT, "echo e\"\"nd=$?\n"), ("end=130", "")],
    );
    assert_eq!(shown.matches("begun").count(), 1, "{shown}");
}

#[test]
fn what_ends_the_command_ends_run() {
    let stand = Stand::new();
    for signal in [1, 2, 3, 15] {
        let killed = Program::new(["sh".to_owned(), "-c".to_owned(), format!("kill -{signal} $$")]);
        let output = stand.run(&killed);
        assert_eq!(output.status.signal(), Some(signal), "{}", show(&output));
        assert!(!output.status.core_dumped());
    }
}

#[test]
fn a_report_right_after_a_run_has_all_of_it() {
    let stand = Stand::new();
    stand.must(&["start"]);
    stand.wait_metering();
    for n in 0..4 {
        let project = format!("q{n}");
        let mut command = stand.command(&["run", "--quiet", "--project", &project, "--"]);
        command.args(programs::curl_messages("--http1.1", "hi", n % 2 == 1).argv);
        assert!(command.stdout(Stdio::null()).status().unwrap().success());
        let report = stand.json(&["report", "--project", &project]);
        let summary = &report["summary"];
        assert_eq!((&summary["requests"], &summary["open"]), (&1.into(), &0.into()), "{report:#}");
        assert!(summary["cost_nanousd"].is_u64(), "{report:#}");
    }
}

#[test]
fn what_a_command_had_in_hand_is_over_when_it_was_ended() {
    let stand = Stand::new();
    stand.must(&["start"]);
    stand.wait_metering();
    let pid = stand.scratch().join("pid");
    let script = format!("echo $$ > {}; exec \"$@\"", pid.display());
    let mut command = stand.command(&["run", "--", "sh", "-c", &script, "sh"]);
    command.args(programs::curl_messages("--http1.1", "[[gate]]", true).argv);
    let run = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    stand.origin.wait_at_gate(1, DEADLINE);
    stand.wait("the row", || stand.rows().len() == 1);
    send(std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap(), Signal::KILL);
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("1 request") && !said.contains("still running"), "{said}");
    stand.origin.open_gate();
}
