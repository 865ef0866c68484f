//! `events`: the supervision journal.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::{Context, Exit, Failure, output};
use crate::supervisor::journal::{self, JournalEntry};

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  halton-meter events --limit 20\n  halton-meter events --follow"
)]
pub struct EventsArgs {
    /// How many of the latest events to show.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Go on with each new event until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

pub fn run(ctx: &Context, args: &EventsArgs, out: &mut impl Write) -> Result<Exit, Failure> {
    let path = ctx.home.journal_file();
    // Before the look at what is there: what comes meanwhile is seen by both.
    let tail = args.follow.then(|| journal::Tail::at_end(&path));
    let entries = journal::read_all(&path)?;
    for entry in entries.iter().skip(entries.len().saturating_sub(args.limit)) {
        print(entry, args.json, out)?;
    }
    if let Some(mut tail) = tail {
        let mut new = tail.poll();
        new.retain(|entry| !entries.contains(entry));
        loop {
            for entry in &new {
                print(entry, args.json, out)?;
            }
            out.flush()?;
            std::thread::sleep(Duration::from_millis(200));
            new = tail.poll();
        }
    }
    Ok(Exit::OK)
}

fn print(entry: &JournalEntry, json: bool, out: &mut impl Write) -> std::io::Result<()> {
    if json {
        writeln!(out, "{}", output::json_line(entry).map_err(std::io::Error::other)?)
    } else {
        writeln!(out, "{}", output::harmless(&entry.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_does_not_drive_the_terminal_and_is_in_json_as_it_is() {
        let text = r#"{"seq":1,"at":"2026-11-24T12:00:00Z","process":"edge","instance":"i",
            "event":"failed","cause":"a\u009b31m\u202eb"}"#;
        let entry: JournalEntry = serde_json::from_str(text).unwrap();
        let shown = |json| {
            let mut out = Vec::new();
            print(&entry, json, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(shown(false).contains("(a\u{fffd}31m\u{fffd}b)"), "{}", shown(false));
        assert!(shown(true).contains(r"a\u009b31m\u202eb"), "{}", shown(true));
        let again: JournalEntry = serde_json::from_str(&shown(true)).unwrap();
        assert_eq!(again.cause, entry.cause);
    }
}
