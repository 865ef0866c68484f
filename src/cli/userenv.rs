//! `userenv NAME=VALUE…`: what the login agent runs on macOS. The variables lead programs to the
//! edge's port, so they are set only when our edge answers there: another user's, or a server that
//! happens to listen, would take the whole session's requests.

use std::time::{Duration, Instant};

use clap::Args;

use super::{Context, Exit, Failure, client};
use crate::home::PidLock;
use crate::macos::session;

const LOOK: Duration = Duration::from_millis(200);
/// A login is a busy time.
const ASK: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
pub struct UserenvArgs {
    #[arg(value_name = "NAME=VALUE")]
    vars: Vec<String>,
    /// Agents are started in no promised order.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
}

pub fn run(ctx: &Context, args: &UserenvArgs) -> Result<Exit, Failure> {
    let edge = ctx.loaded.config.edge.addr();
    let (start, patience) = (Instant::now(), Duration::from_secs(args.patience));
    while !answers(ctx) {
        if start.elapsed() >= patience {
            return Err(Failure::new(
                Exit::UNAVAILABLE,
                format!("no edge of ours answers at {edge}: no variable was set"),
            )
            .hint("`halton-meter doctor` says why; tools go to their providers directly"));
        }
        std::thread::sleep(LOOK);
    }
    match session::apply(&args.vars) {
        Ok(failed) if failed.is_empty() => Ok(Exit::OK),
        Ok(failed) => {
            Err(Failure::new(Exit::FAILED, format!("could not be set: {}", failed.join(", "))))
        }
        Err(e) => Err(Failure::new(Exit::FAILED, e)),
    }
}

fn answers(ctx: &Context) -> bool {
    let pid = PidLock::holder(&ctx.home.pid_file("edge")).ok().flatten();
    pid.is_some_and(|pid| client::edge_status(ctx, pid, ASK).is_some())
}
