//! `halton-meter statusline`: one line for an editor or for Claude Code's status line.

use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::{Timestamp, ZonedDateTime};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde_json::Value;

use super::output::{all_input, clean, finish, money, write_json};
use super::quota::{until, used};
use super::range::RangeArgs;
use super::{Context, Exit, Failure};
use crate::home::Home;
use crate::meter::budget::Standing;
use crate::meter::ledger::{Ledger, Quota, ReportQuery, Totals};

/// Claude Code sends a few kilobytes.
const MAX_INPUT: usize = 1024 * 1024;
/// It sends them at once; whoever else leaves our input open may never send anything.
const PATIENCE: Duration = Duration::from_millis(200);

/// One line: what the session and the day cost, what is left of the plan
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  halton-meter statusline
  halton-meter statusline --json
Claude Code, in ~/.claude/settings.json:
  \"statusLine\": { \"type\": \"command\", \"command\": \"halton-meter statusline\" }
It tells its session on stdin; without one the line is about the day.")]
pub struct StatuslineArgs {
    /// The session that the line is about
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// One JSON document (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub fn run(ctx: &Context, args: &StatuslineArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let told = if args.session.is_none() { stdin() } else { Value::Null };
    let session = args.session.clone().or_else(|| session_of(&told));
    finish(show(&ctx.home, session.as_deref(), args.json, &ZonedDateTime::now(), out))
}

/// What the caller tells; nothing at a terminal.
fn stdin() -> Value {
    let stdin = std::io::stdin();
    if stdin.is_terminal() { Value::Null } else { told(stdin.as_fd(), PATIENCE) }
}

/// The JSON object that comes within this time. Its end is the end of input too.
fn told(from: BorrowedFd<'_>, patience: Duration) -> Value {
    let end = Instant::now() + patience;
    let mut text = Vec::new();
    let mut piece = [0; 16 * 1024];
    while text.len() < MAX_INPUT {
        let left = Timespec::try_from(end.saturating_duration_since(Instant::now())).ok();
        match poll(&mut [PollFd::from_borrowed_fd(from, PollFlags::IN)], left.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        match rustix::io::read(from, &mut piece) {
            Ok(0) | Err(_) => break,
            Ok(n) => text.extend_from_slice(piece.get(..n).unwrap_or_default()),
        }
        match serde_json::from_slice(&text) {
            Ok(whole @ Value::Object(_)) => return whole,
            Err(e) if e.is_eof() => {}
            Ok(_) | Err(_) => break,
        }
    }
    Value::Null
}

/// `session_id`, else the name of the transcript, which is the same.
fn session_of(told: &Value) -> Option<String> {
    let id = told.get("session_id").and_then(Value::as_str).filter(|id| !id.is_empty());
    let transcript = told.get("transcript_path").and_then(Value::as_str);
    let named = || Some(Path::new(transcript?).file_stem()?.to_str()?.to_owned());
    id.map(str::to_owned).or_else(named)
}

#[derive(Serialize)]
struct Line {
    session: Option<Totals>,
    today: Totals,
    quotas: Vec<Quota>,
    budgets: Vec<Standing>,
}

fn show(
    home: &Home,
    session: Option<&str>,
    json: bool,
    now: &ZonedDateTime,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let ledger = Ledger::open(home)?;
    let today = ReportQuery {
        window: RangeArgs::default().window("today", now)?,
        by: Vec::new(),
        project: None,
        zone: now.time_zone().clone(),
        vs_previous: false,
    };
    let line = Line {
        session: session.map(|id| ledger.totals_for_session(id)).transpose()?,
        today: ledger.report(&today)?.summary,
        quotas: ledger.quotas()?,
        budgets: crate::meter::budget::standings(home, now).unwrap_or_default(),
    };
    if json {
        return write_json(out, &line);
    }
    writeln!(out, "{}", text(&line, now.timestamp()))?;
    Ok(())
}

fn text(line: &Line, now: Timestamp) -> String {
    let mut parts = Vec::new();
    if let Some(session) = line.session.as_ref().filter(|session| session.requests > 0) {
        parts.push(format!("{} session", spent(session)));
        if let (Some(input), Some(output)) = (all_input(&session.tokens), session.tokens.output) {
            parts.push(format!("{} in {} out", short(input), short(output)));
        }
    }
    parts.push(format!("{} today", spent(&line.today)));
    // Of several accounts the one that was used last.
    let last = |provider: &str| {
        let of = line.quotas.iter().filter(|q| q.provider == provider);
        of.max_by_key(|q| q.seen_at).map(|q| &q.window.account)
    };
    let running = |quota: &&Quota| {
        quota.window.resets_at.is_some_and(|at| at > now)
            && last(&quota.provider) == Some(&quota.window.account)
    };
    for quota in line.quotas.iter().filter(running).take(3) {
        let Some(used) = used(quota) else { continue };
        let left = quota.window.resets_at.and_then(|at| until(at, now)).unwrap_or_default();
        parts.push(format!("{} {used} ({left})", clean(&quota.window.name)));
    }
    for standing in line.budgets.iter().filter(|s| s.percent() >= 80) {
        parts.push(format!("budget {} {}%", clean(&standing.budget.name), standing.percent()));
    }
    parts.join(" · ")
}

/// Money, and what a subscription covers beside it; `+?` when the cost of something is not known.
/// Never `$0.00` for what has no price.
fn spent(totals: &Totals) -> String {
    let covered = totals.subscription_nanousd.map(|cost| format!("≈{}", money(cost)));
    let paid = totals.cost_nanousd.map(money);
    let said: Vec<String> = [paid, covered].into_iter().flatten().collect();
    match (said.is_empty(), totals.unknown(), totals.requests) {
        (false, 0, _) => said.join(" + "),
        (false, _, _) => format!("{}+?", said.join(" + ")),
        (true, 0, 0) => money(0_i64),
        (true, 0, _) => "–".to_owned(),
        (true, _, _) => "unpriced".to_owned(),
    }
}

/// `950`, `12.3k`, `4.5M`.
fn short(n: u64) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{}.{}k", n / 1_000, n % 1_000 / 100),
        _ => format!("{}.{}M", n / 1_000_000, n % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::ledger::fixture::{at, home, row, store};
    use crate::meter::quota;
    use crate::meter::row::{Billing, Row};
    use crate::meter::usage::Tokens;

    #[test]
    fn session_day_and_plan_in_one_line() {
        let (_dir, home) = home();
        let mine = Row {
            session: Some("s-1".to_owned()),
            billing: Billing::Subscription,
            tokens: Tokens { input: Some(45_678), output: Some(950), ..Tokens::default() },
            cost_nanousd: Some(120_000_000),
            quota: vec![quota::Window {
                name: "5h".to_owned(),
                used_bp: Some(4200),
                resets_at: Some(at("2026-11-25T14:05:00Z")),
                ..quota::Window::default()
            }],
            ..row(1, "2026-11-25T11:00:00Z")
        };
        let other = Row { cost_nanousd: Some(1_000_000_000), ..row(2, "2026-11-25T10:00:00Z") };
        let unpriced = Row { cost_nanousd: None, ..row(3, "2026-11-25T10:30:00Z") };
        store(&home, &[mine, other, unpriced, row(4, "2026-11-24T10:00:00Z")]);
        let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
        let said = |session: Option<&str>| {
            let mut out = Vec::new();
            show(&home, session, false, &now, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            said(Some("s-1")),
            "≈$0.1200 session · 45.6k in 950 out · $1.00 + ≈$0.1200+? today · 5h 42% (2h 5m)\n"
        );
        assert_eq!(said(None), "$1.00 + ≈$0.1200+? today · 5h 42% (2h 5m)\n");
        assert_eq!(said(Some("unknown")), said(None));
    }

    #[test]
    fn what_was_not_told_is_not_free() {
        let totals = |cost_nanousd, unpriced, without_usage, requests| {
            spent(&Totals { cost_nanousd, unpriced, without_usage, requests, ..Totals::default() })
        };
        assert_eq!(totals(None, 0, 0, 0), "$0.00");
        assert_eq!(totals(None, 0, 0, 1), "–", "refused or running");
        assert_eq!(totals(None, 1, 0, 1), "unpriced");
        assert_eq!(totals(None, 0, 1, 1), "unpriced");
        assert_eq!(totals(Some(1_000_000_000), 0, 1, 2), "$1.00+?");
    }

    #[test]
    fn the_line_is_about_the_session_that_is_named() {
        use clap::Parser;
        #[derive(Debug, Parser)]
        struct Line {
            #[command(flatten)]
            args: StatuslineArgs,
        }
        let (_dir, home) = home();
        let of = |n: u128, session: &str, cost| Row {
            session: Some(session.to_owned()),
            cost_nanousd: Some(cost),
            ..row(n, "2026-11-24T00:00:00Z")
        };
        store(&home, &[of(1, "s-1", 1_000_000_000), of(2, "s-2", 2_000_000_000)]);
        let loaded = crate::config::load(&home.config_file(), &[]);
        let color = super::super::output::Color::default();
        let ctx = Context { home, loaded, flags: Vec::new(), color };
        for (session, cost) in [("s-1", "$1.00"), ("s-2", "$2.00")] {
            let line = Line::parse_from(["statusline", "--session", session]);
            let mut out = Vec::new();
            run(&ctx, &line.args, &mut out).unwrap();
            let said = String::from_utf8(out).unwrap();
            assert!(said.starts_with(&format!("{cost} session")), "{session}: {said}");
        }
    }

    #[test]
    fn an_empty_ledger_says_nothing_was_spent() {
        let (_dir, home) = home();
        let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
        let mut out = Vec::new();
        show(&home, None, false, &now, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "$0.00 today\n");
    }

    #[test]
    fn an_input_that_stays_open_is_not_waited_for() {
        use std::io::Write;
        use std::os::unix::net::UnixStream;
        let (mut caller, input) = UnixStream::pair().unwrap();
        let told = |patience| told(input.as_fd(), patience);
        assert_eq!(told(Duration::from_millis(5)), Value::Null);
        // The object is whole, so nobody waits for more.
        let said = serde_json::json!({ "session_id": "a", "text": "x".repeat(40_000) });
        caller.write_all(format!("{said}\n").as_bytes()).unwrap();
        assert_eq!(told(Duration::from_secs(600)), said);
        caller.write_all(b"{\"session_id\": ").unwrap();
        assert_eq!(told(Duration::from_millis(5)), Value::Null);
        caller.write_all(b"neither").unwrap();
        assert_eq!(told(Duration::from_secs(600)), Value::Null);
    }

    #[test]
    fn the_session_is_what_claude_code_says() {
        let told = |text| session_of(&serde_json::from_str(text).unwrap());
        assert_eq!(told(r#"{"session_id":"a","model":{}}"#).as_deref(), Some("a"));
        assert_eq!(told(r#"{"transcript_path":"/p/b.jsonl"}"#).as_deref(), Some("b"));
        assert_eq!(told("{}"), None);
        assert_eq!(
            (short(999), short(1_250), short(4_560_000)),
            ("999".into(), "1.2k".into(), "4.5M".into())
        );
    }
}
