//! `run`: a command starts and ends as it would without us.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::harness::Stand;
use crate::programs::{clean, show};

/// Ignores some signals and becomes a command. (Some shells keep what they ignore to themselves.)
const CALLER: &str = "import os, signal, sys
for name in ['SIGPIPE', 'SIGXFSZ']: signal.signal(getattr(signal, name), signal.SIG_DFL)
for name in sys.argv[1].split(): signal.signal(getattr(signal, name), signal.SIG_IGN)
os.execvp(sys.argv[2], sys.argv[2:])";

/// From a caller that ignores these signals.
fn ignoring(stand: &Stand, signals: &str, command: &[&str], by_us: bool) -> Output {
    let meter = stand.command(&["run", "--quiet", "--"]);
    let mut caller = Command::new("python3");
    clean(&mut caller, stand.scratch());
    caller.args(["-c", CALLER, signals]);
    if by_us {
        caller.envs(meter.get_envs().filter_map(|(k, v)| Some((k, v?))));
        caller.arg(meter.get_program()).args(meter.get_args());
    }
    caller.args(command).output().unwrap()
}

#[test]
fn a_caller_that_ignores_ends_learns_how_the_command_ended() {
    let stand = Stand::new();
    stand.must(&["start"]);
    for (script, code, signal) in
        [("exit 0", Some(0), None), ("exit 3", Some(3), None), ("kill -TERM $$", None, Some(15))]
    {
        let output = ignoring(&stand, "SIGCHLD", &["sh", "-c", script], true);
        let status = output.status;
        assert_eq!((status.code(), status.signal()), (code, signal), "{script} {}", show(&output));
    }
}

#[test]
fn what_the_caller_ignores_the_command_ignores() {
    let stand = Stand::new();
    stand.must(&["start"]);
    let lives = ["sh", "-c", "kill -PIPE $$; echo survived"];
    let output = ignoring(&stand, "SIGPIPE", &lives, true);
    assert_eq!(output.stdout, b"survived\n", "{}", show(&output));
    assert_eq!(ignoring(&stand, "SIGHUP", &lives, true).stdout, b"", "not ignored");
    if Path::new("/proc/self/status").exists() {
        let all = ["sed", "-n", "s/^SigIgn:\t//p", "/proc/self/status"];
        for signals in ["SIGPIPE", "SIGCHLD", "SIGPIPE SIGCHLD SIGHUP", "SIGUSR1"] {
            let [direct, ours] = [false, true].map(|us| {
                let said = String::from_utf8(ignoring(&stand, signals, &all, us).stdout).unwrap();
                // Without those of the C library's own, which it ignores in what it spawns.
                u64::from_str_radix(said.trim(), 16).unwrap() & 0x7fff_ffff
            });
            assert_eq!((direct != 0, ours), (true, direct), "{signals}");
        }
    }
}

#[test]
fn a_script_without_an_interpreter_is_the_shells() {
    let stand = Stand::new();
    stand.must(&["start"]);
    let dir = stand.scratch().join("scripts");
    fs::create_dir(&dir).unwrap();
    let script = |name: &str, content: &[u8]| {
        let file = dir.join(name);
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    };
    script("plain-script", b"echo \"$0 $1 ${HALTON_RUN:+metered}\"\nexit 3\n");
    script("no-program", b"\x7fXYZ\0\x01\n");
    let run = |name: &str| {
        let mut command = stand.command(&["run", "--quiet", "--", name, "a b"]);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", dir.display())).current_dir(&dir);
        command.output().unwrap()
    };
    for (name, called) in [
        ("./plain-script", "./plain-script".to_owned()),
        ("plain-script", format!("{}/plain-script", dir.display())),
    ] {
        let output = run(name);
        let said = format!("{called} a b metered\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{}", show(&output));
        assert_eq!(output.status.code(), Some(3));
    }
    assert_eq!(run("./no-program").status.code(), Some(126));
}
