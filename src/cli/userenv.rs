//! `userenv NAME=VALUE…`: what the login agent runs on macOS. The variables lead programs to the
//! edge's port, so they are set only when somebody holds it.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Context, Exit, Failure};
use crate::macos::session;

/// Agents are started in no promised order.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(200);

#[derive(Args, Debug)]
pub struct UserenvArgs {
    #[arg(value_name = "NAME=VALUE")]
    vars: Vec<String>,
}

pub fn run(ctx: &Context, args: &UserenvArgs) -> Result<Exit, Failure> {
    let edge = ctx.loaded.config.edge.addr();
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect_timeout(&edge, LOOK).is_err() {
        if Instant::now() >= deadline {
            return Err(Failure::new(
                Exit::UNAVAILABLE,
                format!("nobody accepts connections at {edge}: no variable was set"),
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
