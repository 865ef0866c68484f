//! `halton-meter requests show`: one request, and what was said, if it was kept.

use std::io::Write;

use jiff::ZonedDateTime;
use serde_json::json;

use super::{cost, model, note};
use crate::cli::output::{
    UsageError, all_input, clean, count, count_or_dash, harmless_lines, local, millis_or_dash,
    write_json,
};
use crate::home::Home;
use crate::meter::bodies::{KeptBody, Shelf};
use crate::meter::ledger::Ledger;
use crate::meter::row::{PublicRow, Row};

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  halton-meter requests show last --bodies
  halton-meter requests show 1a2b3c4d --json | jq -r .bodies.request.text")]
pub struct ShowArgs {
    /// The request's id, the last digits of it (at least 4), or `last`
    id: String,
    /// What was asked and answered, if it was kept (`bodies.enabled`)
    #[arg(long)]
    bodies: bool,
    /// One JSON document (docs/json.md), bodies included
    #[arg(long)]
    json: bool,
}

pub(super) fn show(
    args: &ShowArgs,
    home: &Home,
    keeps: bool,
    now: &ZonedDateTime,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let row = find(&Ledger::open(home)?, &args.id)?;
    let shelf = Shelf::of(home);
    let kept = shelf.read(row.id)?;
    if args.json {
        let bodies = kept.map(|kept| json!({"request": kept.request, "response": kept.response}));
        let row = PublicRow::new(row, bodies.is_some());
        return write_json(out, &json!({ "request": row, "bodies": bodies }));
    }
    out.write_all(facts(&row, now).as_bytes())?;
    match (kept, args.bodies) {
        (Some(kept), true) => {
            write_body("request", &kept.request, out)?;
            write_body("answer", &kept.response, out)?;
        }
        (Some(_), false) => writeln!(out, "  bodies     kept; --bodies shows them")?,
        (None, true) => {
            writeln!(out, "  bodies     {}", why_none(keeps))?;
        }
        (None, false) => {}
    }
    Ok(())
}

/// `keeps`: by the configuration of now.
const fn why_none(keeps: bool) -> &'static str {
    if keeps {
        "not kept: the request is of before `bodies.enabled`, or they were removed since \
         (bodies.retention_days, bodies.max_total_mb, `bodies purge`)"
    } else {
        "not kept; `halton-meter config set bodies.enabled true` keeps those to come"
    }
}

fn find(ledger: &Ledger, id: &str) -> anyhow::Result<Row> {
    let digits = id.replace('-', "").to_ascii_lowercase();
    let hex = (4..=32).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let mut rows = match (id, hex) {
        ("last", _) => ledger.last_request()?,
        (_, true) => ledger.requests_ending(&digits)?,
        (_, false) => {
            return Err(UsageError(format!("{id:?} is no id: its last digits, or `last`")).into());
        }
    };
    match (rows.pop(), rows.is_empty()) {
        (Some(row), true) => Ok(row),
        (Some(_), false) => Err(UsageError(format!("several ids end in {id}")).into()),
        (None, _) if id == "last" => Err(UsageError("no requests yet".to_owned()).into()),
        (None, _) => Err(UsageError(format!("no request {id}")).into()),
    }
}

fn facts(row: &Row, now: &ZonedDateTime) -> String {
    let mut lines = vec![
        ("id", row.id.to_string()),
        ("time", local(row.started_at, now.time_zone(), "%Y-%m-%d %H:%M:%S")),
        ("to", format!("{}{}", clean(&row.host), clean(&row.path))),
        ("model", model(row)),
        ("project", row.project.as_deref().map_or_else(|| "–".to_owned(), clean)),
        ("client", row.client.as_deref().map_or_else(|| "–".to_owned(), clean)),
        ("status", row.status.map_or_else(|| "–".to_owned(), |s| s.to_string())),
        (
            "tokens",
            format!(
                "{} in ({} cached), {} out",
                count_or_dash(all_input(&row.tokens)),
                count_or_dash(row.tokens.cache_read),
                count_or_dash(row.tokens.output)
            ),
        ),
        ("cost", cost(row)),
    ];
    lines.extend(row.cost_reason.as_deref().map(|why| ("why", clean(why))));
    lines.push(("time taken", millis_or_dash(row.duration_ms)));
    let note = note(row);
    if !note.is_empty() {
        lines.push(("note", note));
    }
    lines.into_iter().map(|(name, value)| format!("  {name:<10} {value}\n")).collect()
}

fn write_body(name: &str, body: &KeptBody, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut head = format!("── {name}: {} bytes", count(body.bytes));
    if body.cut {
        head.push_str(", cut");
    }
    if let Some(missing) = &body.missing {
        head.push_str(&format!(", not all here: {}", clean(missing)));
    }
    if !body.redacted.is_empty() {
        let found: Vec<_> =
            body.redacted.iter().map(|(class, n)| format!("{} {n}", clean(class))).collect();
        head.push_str(&format!(", taken out: {}", found.join(", ")));
    }
    writeln!(out, "{head}")?;
    if let Some(text) = &body.text {
        writeln!(out, "{}", harmless_lines(text).trim_end())?;
    }
    Ok(())
}
