//! `halton-meter statusline`: one line for an editor or for Claude Code's status line.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;

use jiff::{Timestamp, ZonedDateTime};
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
const MAX_INPUT: u64 = 1024 * 1024;

/// One line: what the session and the day cost, what is left of the plan
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Claude Code, in ~/.claude/settings.json:
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
    let mut text = String::new();
    if stdin.is_terminal() || stdin.take(MAX_INPUT).read_to_string(&mut text).is_err() {
        return Value::Null;
    }
    serde_json::from_str(&text).unwrap_or_default()
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
        budgets: crate::meter::budget::standings(home, now)?,
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
    let running = |quota: &&Quota| quota.window.resets_at.is_some_and(|at| at > now);
    for quota in line.quotas.iter().filter(running).take(3) {
        let Some(used) = used(quota, now) else { continue };
        let left = quota.window.resets_at.and_then(|at| until(at, now)).unwrap_or_default();
        parts.push(format!("{} {used} ({left})", clean(&quota.window.name)));
    }
    for standing in line.budgets.iter().filter(|s| s.percent() >= 80) {
        parts.push(format!("budget {} {}%", clean(&standing.budget.name), standing.percent()));
    }
    parts.join(" · ")
}

/// Money, and what a subscription covers beside it; `+?` when something has no price.
fn spent(totals: &Totals) -> String {
    let covered = totals.subscription_nanousd.map(|cost| format!("≈{}", money(cost)));
    let paid = totals.cost_nanousd.map(money);
    let unknown = if totals.unpriced > 0 { "+?" } else { "" };
    let said: Vec<String> = [paid, covered].into_iter().flatten().collect();
    let said = if said.is_empty() { money(0_i64) } else { said.join(" + ") };
    format!("{said}{unknown}")
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
    fn an_empty_ledger_says_nothing_was_spent() {
        let (_dir, home) = home();
        let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
        let mut out = Vec::new();
        show(&home, None, false, &now, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "$0.00 today\n");
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
