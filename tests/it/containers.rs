//! What `init` says of programs that hand our variables on to where our address is nobody's.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::Stand;
use crate::programs::show;
use crate::standins::Standins;

#[test]
fn init_names_podmans_setting() {
    let stand = Stand::new();
    let tools = Standins::below(stand.scratch());
    let config = stand.scratch().join(".config");
    let dry = || {
        let mut command = stand.command(&["init", "--apps", "--dry-run"]);
        command.env("PATH", tools.path()).env("XDG_CONFIG_HOME", &config);
        command.env("XDG_RUNTIME_DIR", stand.scratch().join("run"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", show(&output));
        String::from_utf8(output.stderr).unwrap()
    };
    let podman = stand.scratch().join("macos/bin/podman");
    fs::write(&podman, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&podman, fs::Permissions::from_mode(0o755)).unwrap();
    let said = dry();
    let file = config.join("containers/containers.conf");
    assert!(said.contains("http_proxy = false") && said.contains(file.to_str().unwrap()), "{said}");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "[containers]\nhttp_proxy = false\n").unwrap();
    assert!(!dry().contains("podman"));
}
