//! The section in the start files of shells, run by the shells themselves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use halton_meter::home::HOME_VAR;
use halton_meter::platform::{Installation, User};
use halton_meter::setup::shell::{self, Shell};

use crate::harness::{Stand, binary};
use crate::programs::{not_checked, on_path, show};

/// What `HTTPS_PROXY` and `SSL_CERT_FILE` are in a new shell.
fn new_shell(
    stand: &Stand,
    program: &Path,
    kind: Shell,
    vars: &[(&str, &str)],
) -> (String, String) {
    let home = stand.home.path().display().to_string();
    let installation = Installation {
        program: binary(),
        home: stand.home.clone(),
        environment: BTreeMap::from([(HOME_VAR.to_owned(), home)]),
        edge: stand.edge,
        user: User { uid: 0, home: "/".into(), config: "/".into() },
    };
    let body = shell::body(kind, &installation);
    let script = format!("{body}\necho \"$HTTPS_PROXY|$SSL_CERT_FILE\"");
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", stand.scratch());
    let output =
        command.envs(vars.iter().copied()).args(["-c", &script]).output().expect("the shell runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", show(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let (proxy, bundle) = text.trim_end().split_once('|').expect("two values");
    (proxy.to_owned(), bundle.to_owned())
}

/// It may lie where the search path of a new shell here does not lead.
fn there(program: &str) -> Option<PathBuf> {
    let found = on_path(program);
    if found.is_none() {
        not_checked(format_args!("the shells' section in {program}, which is not installed"));
    }
    found
}

#[test]
fn a_new_shell_leads_to_the_edge_only_while_it_answers() {
    let stand = Stand::new();
    let proxy = format!("http://{}", stand.edge);
    let bundle = stand.home.ca_bundle().display().to_string();
    let inherited = [("HTTPS_PROXY", proxy.as_str()), ("SSL_CERT_FILE", "/corp.pem")];
    let nothing = (String::new(), String::new());
    let shells = [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)];
    let shells: Vec<_> =
        shells.into_iter().filter_map(|(program, kind)| Some((there(program)?, kind))).collect();
    for (program, kind) in &shells {
        assert_eq!(new_shell(&stand, program, *kind, &[]), nothing, "{program:?}: nothing runs");
        // What the session handed on leads nowhere now; what is the user's own stays.
        let seen = new_shell(&stand, program, *kind, &inherited);
        assert_eq!(seen, (String::new(), "/corp.pem".to_owned()), "{program:?}");
    }
    stand.must(&["start"]);
    let leads_here = |program: &Path, kind| {
        // On a busy machine an edge may be silent for as long as a shell waits.
        stand.wait(&format!("{} to lead to the edge", program.display()), || {
            new_shell(&stand, program, kind, &[]) == (proxy.clone(), bundle.clone())
        });
    };
    for (program, kind) in &shells {
        leads_here(program, *kind);
    }
    // Metering is stopped: the edge still answers.
    stand.must(&["stop"]);
    for (program, kind) in &shells {
        leads_here(program, *kind);
    }
    stand.must(&["edge", "stop"]);
    for (program, kind) in &shells {
        assert_eq!(new_shell(&stand, program, *kind, &[]), nothing, "{program:?}: all is down");
    }
}
