//! `systemctl --user`: its calls, with the exit codes that are as good as success, and what it prints.

use std::collections::BTreeMap;

use crate::setup::{Answer, Call};

/// Unit not loaded: there is nothing to stop.
const NOT_LOADED: Answer = Answer::Exit(5);

fn call<'a>(verb: &'a str, units: impl IntoIterator<Item = &'a str>) -> Call {
    Call::new("systemctl", ["--user", verb].into_iter().chain(units))
}

#[must_use]
pub fn reload() -> Call {
    call("daemon-reload", [])
}

#[must_use]
pub fn enable(units: &[&str]) -> Call {
    call("enable", units.iter().copied())
}

#[must_use]
pub fn disable(units: &[&str]) -> Call {
    // 1: no such unit file.
    call("disable", units.iter().copied()).tolerate([Answer::Says("does not exist".to_owned())])
}

#[must_use]
pub fn start(units: &[&str]) -> Call {
    call("start", units.iter().copied())
}

/// Waits for the end of what runs.
#[must_use]
pub fn stop(units: &[&str]) -> Call {
    call("stop", units.iter().copied()).tolerate([NOT_LOADED])
}

#[must_use]
pub fn restart(units: &[&str]) -> Call {
    call("restart", units.iter().copied())
}

/// Only what runs.
#[must_use]
pub fn try_restart(units: &[&str]) -> Call {
    call("try-restart", units.iter().copied())
}

/// Succeeds for any name: an unknown unit is `not-found`.
#[must_use]
pub fn show(unit: &str) -> Call {
    const ASKED: &str = "--property=LoadState,ActiveState,UnitFileState,MainPID,ExecMainCode,\
        ExecMainStatus,Result,NeedDaemonReload";
    call("show", [unit, ASKED])
}

#[must_use]
pub fn environment() -> Call {
    call("show-environment", [])
}

#[must_use]
pub fn set_environment(vars: &BTreeMap<String, String>) -> Call {
    let pairs: Vec<_> = vars.iter().map(|(name, value)| format!("{name}={value}")).collect();
    call("set-environment", pairs.iter().map(String::as_str))
}

#[must_use]
pub fn unset_environment<'a>(names: impl IntoIterator<Item = &'a str>) -> Call {
    call("unset-environment", names)
}

/// What `show` says of a unit.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Shown {
    /// There is a definition of it.
    pub loaded: bool,
    /// It runs or listens, or is about to.
    pub active: bool,
    pub enabled: bool,
    /// Its file was changed since the manager read it.
    pub stale: bool,
    pub pid: Option<u32>,
    /// How it ended last.
    pub last_exit: Option<String>,
}

#[must_use]
pub fn read_show(text: &str) -> Shown {
    let values: BTreeMap<_, _> = text.lines().filter_map(|l| l.split_once('=')).collect();
    let get = |name: &str| values.get(name).copied().unwrap_or_default();
    let failed = Some(get("Result")).filter(|r| !r.is_empty() && *r != "success");
    let ended = match get("ExecMainCode") {
        // CLD_EXITED
        "1" => Some(format!("exit {}", get("ExecMainStatus"))),
        // CLD_KILLED, CLD_DUMPED
        "2" | "3" => Some(format!("signal {}", get("ExecMainStatus"))),
        _ => None,
    };
    Shown {
        loaded: get("LoadState") == "loaded",
        active: matches!(get("ActiveState"), "active" | "activating" | "reloading"),
        enabled: get("UnitFileState") == "enabled",
        stale: get("NeedDaemonReload") == "yes",
        pid: get("MainPID").parse().ok().filter(|pid| *pid != 0),
        last_exit: match (ended, failed) {
            (Some(ended), Some(why)) => Some(format!("{ended} ({why})")),
            (Some(ended), None) => Some(ended),
            (None, why) => why.map(str::to_owned),
        },
    }
}

/// `NAME=value` lines, where odd values are `$'quoted'` as in a shell.
#[must_use]
pub fn read_environment(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|l| l.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), unquoted(value))).collect()
}

fn unquoted(value: &str) -> String {
    let inner = value.strip_prefix("$'").and_then(|v| v.strip_suffix('\''));
    let Some(inner) = inner else { return value.to_owned() };
    let mut out = String::new();
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => {}
            },
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_runs_one_that_ended_and_one_that_is_unknown() {
        let runs = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nMainPID=42\n\
            ExecMainCode=0\nExecMainStatus=0\nResult=success\nNeedDaemonReload=no\n";
        let runs = read_show(runs);
        assert!(runs.loaded && runs.active && runs.enabled && !runs.stale);
        assert_eq!((runs.pid, runs.last_exit), (Some(42), None));
        let killed = read_show(
            "LoadState=loaded\nActiveState=activating\nUnitFileState=disabled\nMainPID=0\n\
             ExecMainCode=2\nExecMainStatus=9\nResult=signal\nNeedDaemonReload=yes\n",
        );
        assert_eq!(killed.last_exit.as_deref(), Some("signal 9 (signal)"));
        assert!(killed.active && !killed.enabled && killed.stale && killed.pid.is_none());
        let ended =
            read_show("ActiveState=failed\nExecMainCode=1\nExecMainStatus=75\nResult=exit-code\n");
        assert_eq!(ended.last_exit.as_deref(), Some("exit 75 (exit-code)"));
        assert!(!ended.active);
        let unknown =
            read_show("LoadState=not-found\nActiveState=inactive\nUnitFileState=\nMainPID=0\n");
        assert_eq!(unknown, Shown::default());
    }

    #[test]
    fn an_environment_is_read_with_its_quotes() {
        let vars = read_environment("A=1\nB=$'it\\'s a \\\\ \\n'\nC=\nno line\nD=x=y\n");
        assert_eq!(vars["A"], "1");
        assert_eq!(vars["B"], "it's a \\ \n");
        assert_eq!((vars["C"].as_str(), vars["D"].as_str(), vars.len()), ("", "x=y", 4));
    }
}
