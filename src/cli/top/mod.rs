//! `top`: what runs now, and what today has come to. On a terminal it goes on; else it is one frame.

mod draw;
mod frame;

use std::io::Write;
use std::time::Duration;

use clap::Args;
use jiff::ZonedDateTime;

use super::live::{Ended, Screen};
use super::output::{Style, finish, write_json};
use super::{Context, Exit, Failure};
use frame::Frame;

/// What runs now, and what today has come to
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  halton-meter top               live; q or Ctrl-C ends it
  halton-meter top --once        one frame, also without a terminal
  halton-meter top --json        the same as one JSON document (docs/json.md)")]
pub struct TopArgs {
    /// One frame
    #[arg(long)]
    once: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    interval: u64,
    /// One JSON document (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub fn run(ctx: &Context, args: &TopArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    finish(show(ctx, args, out))
}

fn show(ctx: &Context, args: &TopArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    if args.json {
        return write_json(out, &Frame::look(ctx, &ZonedDateTime::now())?);
    }
    let ended = Ended::on_signals()?;
    let screen = if args.once { None } else { Screen::enter()? };
    let Some(screen) = screen else {
        let now = ZonedDateTime::now();
        let lines = draw::lines(&Frame::look(ctx, &now)?, &now, Style::detect(ctx.color), None);
        for line in lines {
            writeln!(out, "{line}")?;
        }
        return Ok(());
    };
    loop {
        let now = ZonedDateTime::now();
        let frame = Frame::look(ctx, &now)?;
        let style = Style::detect(ctx.color);
        screen.show(&draw::lines(&frame, &now, style, Some(Screen::height())))?;
        if screen.wait(Duration::from_secs(args.interval), &ended)? {
            return Ok(());
        }
    }
}
