//! Codex from 0.171 on is served by a process in the background, which outlives whoever started it and
//! serves all that come later: in the environment of its first start, so through the proxy of that.

use std::ffi::OsStr;
use std::path::Path;

use jiff::Timestamp;
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

use crate::platform::{Running, owner};

/// Whether that is what a command runs.
pub fn is_codex(program: &OsStr) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == "codex")
}

/// `codex app-server --listen unix:// --managed-daemon`.
fn is_server(arguments: &[String]) -> bool {
    let called = |two: &[String]| match two {
        [program, command] => is_codex(OsStr::new(program)) && command == "app-server",
        _ => false,
    };
    arguments.windows(2).any(called) && arguments.iter().any(|word| word == "--managed-daemon")
}

/// Those of this user that had been started by then.
fn servers_before(then: Timestamp) -> Vec<u32> {
    let Ok(mut system) = System::new() else { return Vec::new() };
    system.refresh_processes_specifics(
        ProcessesToUpdate::All,
        false,
        ProcessRefreshKind::nothing(),
    );
    let before = |process: &sysinfo::Process| {
        i64::try_from(process.start_time()).is_ok_and(|started| started < then.as_second())
    };
    let pids = system.processes().iter().filter(|(_, process)| before(process));
    // What another user's process is can't be seen.
    pids.map(|(pid, _)| pid.as_u32())
        .filter(|pid| is_server(&owner::arguments(*pid)) && owner::executable(*pid).is_some())
        .collect()
}

/// What to say of a run of Codex, begun then, of which nothing was seen.
pub fn served_elsewhere(began: Timestamp) -> Option<String> {
    servers_before(began).first().map(|pid| {
        format!(
            "codex is served by pid {pid}, which started without this run: \
             `codex app-server daemon restart`, or `codex --disable daemon_auto_start`"
        )
    })
}

/// How it is ended, if that program is one.
pub fn end_of(running: &Running) -> Option<&'static str> {
    is_server(&owner::arguments(running.pid)).then_some("`codex app-server daemon stop` ends it")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn only_the_server_that_outlives_its_user_is_one() {
        for (line, server) in [
            ("codex app-server --listen unix:// --managed-daemon", true),
            ("node /usr/bin/codex app-server --listen unix:// --managed-daemon", true),
            ("/opt/codex/codex app-server --managed-daemon", true),
            ("codex app-server", false),
            ("codex exec app-server --managed-daemon", false),
            ("other app-server --managed-daemon", false),
            ("codex", false),
        ] {
            let arguments: Vec<_> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(is_server(&arguments), server, "{line}");
        }
        assert!(is_codex(OsStr::new("/usr/bin/codex")) && !is_codex(OsStr::new("claude")));
    }

    #[test]
    fn one_that_was_there_before_is_found_and_none_that_came_later() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("app-server"), "read line\n").unwrap();
        let mut child = Command::new("sh")
            .arg0("codex")
            .args(["app-server", "--listen", "unix://", "--managed-daemon"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id();
        let later = Timestamp::now().saturating_add(jiff::Span::new().minutes(1)).unwrap();
        let (there, before) = (servers_before(later), servers_before(Timestamp::UNIX_EPOCH));
        let running = Running { pid, name: "codex".to_owned(), age: None };
        let end = end_of(&running);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(there.contains(&pid) && before.is_empty(), "{there:?} {before:?}");
        assert!(end.is_some_and(|end| end.contains("daemon stop")));
    }
}
