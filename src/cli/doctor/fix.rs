//! Puts right what is safe to put right.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::super::lifecycle::{self, Ready};
use super::super::{Context, client, env};
use super::judge::Fix;
use crate::home::PidLock;

const PATIENCE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(5);

/// Until all of it is there: whoever looks next is to see it.
fn start(ctx: &Context) -> Ready {
    let ready = lifecycle::ensure_all(ctx, PATIENCE);
    let missing = |process| matches!(PidLock::holder(&ctx.home.pid_file(process)), Ok(None));
    let wanted: &[&str] =
        if ctx.home.user_stopped().exists() { &["root"] } else { &["root", "watchdog"] };
    let end = Instant::now() + PATIENCE;
    while wanted.iter().any(|process| missing(process)) && Instant::now() < end {
        std::thread::sleep(TICK);
    }
    ready
}

/// What was done, in words, or why it could not be.
pub fn apply(ctx: &Context, fix: &Fix) -> Result<String, String> {
    match fix {
        Fix::Start => match start(ctx) {
            Ready::Metering => Ok("started what was not running".to_owned()),
            // That the user has stopped the daemon is no fault.
            Ready::Passing(why) if ctx.home.user_stopped().exists() => {
                Ok(format!("started what was not running; {why}"))
            }
            Ready::Passing(why) | Ready::NoEdge(why) => Err(why),
        },
        Fix::Bundle => {
            client::can_be_told(&ctx.home).map_err(|e| e.to_string())?;
            ctx.home.create().map_err(|e| e.to_string())?;
            env::prepare_ca(ctx).map_err(|e| e.to_string())?;
            // Should that have made another CA, the daemon is to sign with it.
            if let Some(pid) = PidLock::holder_here(&ctx.home.pid_file("daemon")) {
                lifecycle::signal(pid, Signal::HUP).map_err(|e| e.to_string())?;
            }
            Ok(format!("wrote {}", ctx.home.ca_bundle().display()))
        }
        Fix::Tighten(path) => {
            let mode = fs::metadata(path).map(|m| m.permissions().mode() & 0o700);
            mode.and_then(|mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
                .map(|()| format!("took the rights of others off {}", path.display()))
                .map_err(|e| format!("{}: {e}", path.display()))
        }
        Fix::Remove(path) => {
            let is_dir = path.is_dir();
            let removed = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            match removed {
                // The self-test was first.
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(format!("{}: {e}", path.display()))
                }
                Ok(()) | Err(_) => Ok(format!("removed {}", path.display())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::home::{Home, lock_exclusively};

    #[test]
    fn no_other_ca_is_made_under_a_daemon_that_is_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let path = home.pid_file("daemon");
        fs::write(&path, "1\nanother boot pid:[1]\n").unwrap();
        let held = File::options().read(true).write(true).open(path).unwrap();
        assert!(lock_exclusively(&held).unwrap());
        let loaded = crate::config::load(&home.config_file(), &[]);
        let color = super::super::super::output::Color::default();
        let ctx = Context { home, loaded, flags: Vec::new(), color };
        let why = apply(&ctx, &Fix::Bundle).unwrap_err();
        assert!(why.contains("another machine or container"), "{why}");
        assert!(!ctx.home.ca_cert().exists() && !ctx.home.ca_bundle().exists());
    }
}
