//! What launchctl is asked, how its answers are read, and which of its failures are none. Only verbs
//! that it has had since 10.11: the old ones end with 0 whatever happened.

use std::path::Path;
use std::time::Duration;

use crate::setup::{Answer, Call};

pub const PROGRAM: &str = "launchctl";

/// Exit codes are the errno that the message names, or one of launchd's own from 100 on.
const NO_SUCH_PROCESS: i32 = 3;
/// Loaded already, still ending, not loaded, disabled, a bad plist, …: it says no more.
const INPUT_OUTPUT: i32 = 5;
/// `bootout` of something that takes its time. It does stop.
const IN_PROGRESS: i32 = 36;
/// In the middle of another request for the same agent.
const ALREADY: i32 = 37;
const NO_DOMAIN: i32 = 112;
pub const NO_SERVICE: i32 = 113;
const NOT_SUPPORTED: i32 = 125;

/// A label stays taken for some seconds after its process has ended.
const SETTLES: Duration = Duration::from_secs(15);

/// Agents of this user can't be loaded here: nobody is at the screen.
pub const NO_SESSION: [i32; 2] = [NO_DOMAIN, NOT_SUPPORTED];

#[must_use]
pub fn print(target: &str) -> Call {
    Call::new(PROGRAM, ["print", target]).tolerate(not_loaded())
}

/// Loads it, which starts it. The label may be taken for a moment by what was there before.
#[must_use]
pub fn bootstrap(domain: &str, file: &Path) -> Call {
    let file = file.display().to_string();
    let again = [INPUT_OUTPUT, ALREADY].map(Answer::Exit);
    Call::new(PROGRAM, ["bootstrap", domain, &file]).again(again, SETTLES)
}

/// Takes it out; it gets SIGTERM. Returns at once: [`gone`] waits, and tells whether it is out.
#[must_use]
pub fn bootout(target: &str) -> Call {
    let fine = [NO_SUCH_PROCESS, INPUT_OUTPUT, IN_PROGRESS].map(Answer::Exit);
    Call::new(PROGRAM, ["bootout", target]).tolerate(fine).tolerate(not_loaded())
}

/// Waits until its label is free; it may take `exit_timeout` seconds to end.
#[must_use]
pub fn gone(target: &str, exit_timeout: u32) -> Call {
    let patience = Duration::from_secs(exit_timeout.into()) + SETTLES;
    print(target).again([Answer::Exit(0)], patience)
}

/// Starts it if it does not run. Never with `-k`: that is a second start within ThrottleInterval, and
/// then launchd lets it wait.
#[must_use]
pub fn kickstart(target: &str) -> Call {
    Call::new(PROGRAM, ["kickstart", target]).again([Answer::Exit(ALREADY)], SETTLES)
}

/// Starts what was loaded just now, where launchd has put that off (it starts nothing of its own accord while the
/// session is being set up, and reports success). It runs already as a rule, and whether it does is asked
/// otherwise.
#[must_use]
pub fn start_loaded(target: &str) -> Call {
    Call::new(PROGRAM, ["kickstart", target]).tolerate([Answer::Says(String::new())])
}

/// Somebody may have switched it off, which outlives every file. `init` is the word of the same user.
#[must_use]
pub fn enable(target: &str) -> Call {
    Call::new(PROGRAM, ["enable", target])
}

#[must_use]
pub fn disable(target: &str) -> Call {
    Call::new(PROGRAM, ["disable", target])
}

#[must_use]
pub fn print_disabled(domain: &str) -> Call {
    Call::new(PROGRAM, ["print-disabled", domain]).tolerate(not_loaded())
}

/// The session that `getenv`, `setenv` and `unsetenv` are about: that of the caller, whoever else is at the
/// screen.
#[must_use]
pub fn managername() -> Call {
    Call::new(PROGRAM, ["managername"])
}

#[must_use]
pub fn getenv(name: &str) -> Call {
    Call::new(PROGRAM, ["getenv", name]).tolerate([Answer::Exit(1)])
}

#[must_use]
pub fn setenv(name: &str, value: &str) -> Call {
    Call::new(PROGRAM, ["setenv", name, value])
}

#[must_use]
pub fn unsetenv(name: &str) -> Call {
    Call::new(PROGRAM, ["unsetenv", name])
}

/// Reads what `managername` says. `None`: it is the session at the screen.
#[must_use]
pub fn not_at_the_screen(said: &str) -> Option<String> {
    let name = said.trim();
    (name != "Aqua").then(|| {
        format!("launchctl reaches the variables of its caller's session only, here {name}, not Aqua (ssh?)")
    })
}

/// What `print` says of an agent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Printed {
    pub program: Option<String>,
    pub pid: Option<u32>,
    /// `None`: it never ended.
    pub last_exit: Option<String>,
    /// It could not be started: launchd holds a job to the program that it was loaded with, and the file is
    /// another one by now. Only loading it anew helps.
    pub refused: bool,
}

/// What `print` says of a job then, somewhere; which of it depends on the release. `EX_CONFIG` is launchd's word for any
/// start that failed, and one of our own exit codes too: loading it anew does no harm then.
const REFUSED: [&str; 4] =
    ["needs LWCR update", "OS_REASON_CODESIGNING", "EX_CONFIG", "= spawn failed"];

/// Reads `key = value` lines of the outermost block. Nothing there is promised to stay: what is not
/// found is `None`.
#[must_use]
pub fn read_print(text: &str) -> Printed {
    let refused = REFUSED.iter().any(|word| text.contains(word));
    let mut printed = Printed { refused, ..Printed::default() };
    for line in text.lines() {
        // One tab is the agent's own; more are those of its parts, which have pids as well.
        let Some(own) = line.strip_prefix('\t').filter(|l| !l.starts_with('\t')) else { continue };
        let Some((key, value)) = own.split_once(" = ") else { continue };
        match key {
            "program" => printed.program = Some(value.to_owned()),
            "pid" => printed.pid = value.parse().ok(),
            "last exit code" if value != "(never exited)" => {
                printed.last_exit = Some(value.to_owned());
            }
            _ => {}
        }
    }
    // What runs is no matter of the next start.
    printed.refused &= printed.pid.is_none();
    printed
}

/// Labels that are switched off: `"LABEL" => disabled`, on older systems `=> true`.
pub fn read_disabled(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let (label, state) = line.trim().split_once(" => ")?;
        ["disabled", "true"].contains(&state).then(|| label.trim_matches('"'))
    })
}

fn not_loaded() -> impl Iterator<Item = Answer> {
    [NO_SERVICE].into_iter().chain(NO_SESSION).map(Answer::Exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_own_lines_are_read() {
        let text = "gui/501/com.haltonlabs.meter = {\n\tactive count = 1\n\t\
            path = /Users/j/Library/LaunchAgents/com.haltonlabs.meter.plist\n\tstate = running\n\n\t\
            program = /Users/j doe/halton-meter\n\targuments = {\n\t\t/Users/j doe/halton-meter\n\t\t\
            daemon\n\t}\n\n\tevent triggers = {\n\t\tx = {\n\t\t\tpid = 1\n\t\t}\n\t}\n\truns = 3\n\t\
            pid = 4242\n\timmediate reason = semaphore\n\tlast exit code = 70\n}\n";
        let printed = read_print(text);
        assert_eq!(printed.program.as_deref(), Some("/Users/j doe/halton-meter"));
        assert_eq!((printed.pid, printed.last_exit.as_deref()), (Some(4242), Some("70")));
        let text =
            "gui/501/x = {\n\tstate = spawn scheduled\n\tlast exit code = 78: EX_CONFIG\n}\n";
        assert_eq!(read_print(text).last_exit.as_deref(), Some("78: EX_CONFIG"));
        assert!(read_print(text).refused);
        let text = "gui/501/x = {\n\tlast exit code = (never exited)\n}\n";
        assert_eq!(read_print(text), Printed::default());
        assert_eq!(read_print(""), Printed::default());
    }

    #[test]
    fn what_launchd_refuses_to_start_is_told_from_what_ended() {
        let job = |lines: &str| read_print(&format!("gui/501/x = {{\n{lines}}}\n")).refused;
        let update = "\tproperties = keepalive | needs LWCR update | managed LWCR\n";
        assert!(job(update));
        assert!(job("\tjob state = spawn failed\n"));
        assert!(job("\tlast exit reason = OS_REASON_CODESIGNING\n"));
        assert!(!job("\tlast exit code = 70\n\tproperties = keepalive | managed LWCR\n"));
        assert!(!job(&format!("\tpid = 4242\n{update}")), "it runs");
    }

    #[test]
    fn only_aqua_is_the_session_at_the_screen() {
        assert_eq!(not_at_the_screen("Aqua\n"), None);
        for name in ["Background", "StandardIO", "LoginWindow", "System", ""] {
            let why = not_at_the_screen(&format!("{name}\n")).unwrap();
            assert!(why.contains(&format!("here {name}, not Aqua")), "{why}");
        }
    }

    #[test]
    fn both_ways_to_say_disabled() {
        let text = "\n\tdisabled services = {\n\t\t\"a.b\" => disabled\n\t\t\"c\" => enabled\n\t\t\
            \"d\" => true\n\t\t\"e\" => false\n\t}\n";
        assert_eq!(read_disabled(text).collect::<Vec<_>>(), ["a.b", "d"]);
    }
}
