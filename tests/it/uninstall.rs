//! What `uninstall` says of programs that still point at us.

use std::path::Path;
use std::process::Command;

use crate::programs;
use crate::setup::Host;

#[test]
fn running_programs_that_point_at_it_are_named() {
    if !Path::new("/proc/self").exists() {
        // macOS shows nobody the environment of its own programs.
        programs::not_checked("programs named by uninstall");
        return;
    }
    for (args, then) in [
        (&["uninstall", "--yes"][..], "they can't connect any more: restart them"),
        (&["uninstall", "--graceful", "--yes"], "restart them before the reboot"),
    ] {
        let host = Host::linux();
        host.must(&["init", "--yes"]);
        let edge = host.stand.edge;
        let mut sleeper = Command::new("sleep")
            .arg("600")
            .env("HTTPS_PROXY", format!("http://{edge}"))
            .spawn()
            .unwrap();
        let said = host.must(args);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        let sentence = format!("these running programs have {edge} in their environment; {then}");
        assert!(said.contains(&sentence), "{said}");
        let named = format!("sleep, pid {}\n", sleeper.id());
        assert!(said.contains(&named), "{named}: {said}");
    }
}
