//! `dashboard`: a login for one browser, and the browser.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::output::write_json;
use super::{Context, Exit, Failure, client, say};
use crate::home::{Home, write_atomic};
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
    let what = if platform::is_macos() {
        // Nobody there tells the daemon whose connection it is: the code must not be seen at all.
        opener.and_then(|_| page(&ctx.home, &url).ok())
    } else {
        Some(OsString::from(&url))
    };
    if opener.zip(what).is_some_and(|(opener, what)| open(opener, &what)) {
        say(format_args!("opened the dashboard in your browser; {good}"));
    } else {
        writeln!(out, "{url}")?;
        say(format_args!("open this address in a browser on this machine; {good}"));
    }
    Ok(Exit::OK)
}

/// A page of the user's alone that leads to `url`: every user can read what a program is started with.
fn page(home: &Home, url: &str) -> io::Result<OsString> {
    let path = home.login_page();
    let text = format!(
        "<!doctype html><meta charset=\"utf-8\"><meta name=\"referrer\" content=\"no-referrer\">\
         <meta http-equiv=\"refresh\" content=\"0; url={url}\"><title>Halton Meter</title>\n"
    );
    write_atomic(&path, text.as_bytes())?;
    Ok(path.into_os_string())
}

/// Whether it did not fail.
fn open(opener: &str, what: &OsStr) -> bool {
    let spawned = Command::new(opener)
        .arg(what)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use std::collections::BTreeMap;
    use std::io::Write;

    use super::*;
    use crate::cli::{output, summary};
    use crate::meter::ledger::{Coverage, Totals};

    /// What an expression of the page's own script comes to.
    fn on_the_page(expression: &str) -> serde_json::Value {
        let page = include_str!("../actors/admin/dashboard/dashboard.js");
        let page = page.strip_suffix("\nstart();\n").expect("its start");
        let mut node = Command::new("node")
            .args(["--input-type=module", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let script = format!("{page}\nconsole.log(JSON.stringify({expression}));\n");
        node.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = node.wait_with_output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[test]
    fn the_page_says_what_is_missing_as_the_commands_do() {
        let one = || Coverage {
            passed_connections: 1,
            passed_by_reason: BTreeMap::from([
                ("deadline".to_owned(), 1),
                ("down".to_owned(), 1200),
            ]),
            ..Coverage::default()
        };
        let all = Coverage {
            passed_lines_lost: 2,
            cut_connections: 1,
            unfollowed_connections: 2,
            lost_connections: 1234,
            lost_rows: 1,
            set_aside: vec!["db.corrupt".to_owned()],
            ledgers_gone: 2,
            ..one()
        };
        for coverage in [Coverage::default(), one(), all] {
            let document = serde_json::to_string(&coverage).unwrap();
            let said = on_the_page(&format!("gaps({document})"));
            assert_eq!(said, serde_json::json!(summary::gaps(&coverage)));
        }
    }

    #[test]
    fn the_page_writes_money_as_the_commands_do() {
        let amounts: Vec<i64> = vec![
            0,
            1,
            99,
            12_345,
            99_999,
            100_000,
            999_950,
            1_234_567,
            4_095_000,
            9_999_999,
            10_000_000,
            12_300_000,
            999_999_999,
            1_000_000_000,
            1_234_565_000_000,
            -12_300_000,
        ];
        let said = on_the_page(&format!("{amounts:?}.map(money)"));
        let told: Vec<_> = amounts.iter().map(|nano| output::money(*nano)).collect();
        assert_eq!(said, serde_json::json!(told));
        for (paid, covered, unpriced, without_usage) in [
            (None, None, 0, 0),
            (Some(5), None, 0, 1),
            (Some(1_110_000_000), Some(119_400_000), 2, 1),
            (None, None, 1, 0),
        ] {
            let totals = Totals {
                cost_nanousd: paid,
                subscription_nanousd: covered,
                unpriced,
                without_usage,
                ..Totals::default()
            };
            let said = on_the_page(&format!("spent({})", serde_json::to_string(&totals).unwrap()));
            assert_eq!(said, output::spent(paid, covered, totals.unknown()));
        }
    }

    #[test]
    fn the_page_shows_no_text_that_turns_another_around() {
        let texts = ["a\u{202e}b\u{2066}c\u{200f}", "a\nb\u{9b}\u{1b}", "日本 é"];
        let document = serde_json::to_string(&texts).unwrap();
        let said = on_the_page(&format!("{document}.map(harmless)"));
        assert_eq!(said, serde_json::json!(texts.map(output::harmless)));
    }

    #[test]
    fn the_page_is_the_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        home.create().unwrap();
        let url = "http://127.0.0.1:8765/#login=0a1b";
        let path = page(&home, url).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("content=\"0; url={url}\"")), "{text}");
    }
}
