//! `dashboard`: a login for one browser, and the browser.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::output::write_json;
use super::{Context, Exit, Failure, client, say};
use crate::platform;

const ASK: Duration = Duration::from_secs(3);
/// A tool that opens a browser either fails at once, or goes on as long as the browser does.
const OPENS: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// Open the dashboard in your browser
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  halton-meter dashboard              opens it
  halton-meter dashboard --no-open    prints the address, for a browser elsewhere on this machine

The address holds a code that is good once, for a minute. The session that it begins can only read; it ends
with `Log out`, after 12 hours or with the daemon.")]
pub struct DashboardArgs {
    /// Print the address and open nothing
    #[arg(long)]
    no_open: bool,
    /// One JSON document (docs/json.md); opens nothing
    #[arg(long)]
    json: bool,
}

pub fn run(ctx: &Context, args: &DashboardArgs, out: &mut impl Write) -> Result<Exit, Failure> {
    let code = client::login_code(ctx, ASK).map_err(|e| {
        Failure::new(Exit::UNAVAILABLE, format!("no login: {e}"))
            .hint("`halton-meter start` starts the daemon; `halton-meter top` works without one")
    })?;
    let url = format!("http://{}{}", ctx.loaded.config.daemon.api_addr(), code.path);
    if args.json {
        let document = json!({ "url": url, "expires_in_s": code.expires_in_s });
        return super::output::finish(write_json(out, &document));
    }
    let opener = if args.no_open { None } else { platform::browser_opener() };
    let good = format!("the login in it is good once, for {} seconds", code.expires_in_s);
    if opener.is_some_and(|opener| open(opener, &url)) {
        say(format_args!("opened the dashboard in your browser; {good}"));
    } else {
        writeln!(out, "{url}")?;
        say(format_args!("open this address in a browser on this machine; {good}"));
    }
    Ok(Exit::OK)
}

/// Whether it did not fail.
fn open(opener: &str, url: &str) -> bool {
    let spawned = Command::new(opener)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A browser that it becomes is not to end with this terminal's Ctrl-C.
        .process_group(0)
        .spawn();
    let Ok(mut child) = spawned else { return false };
    let end = Instant::now() + OPENS;
    while Instant::now() < end {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => std::thread::sleep(LOOK),
            Err(_) => return false,
        }
    }
    true
}
