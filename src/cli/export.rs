//! `halton-meter export`: what is in the ledger, for spreadsheets, scripts and FinOps tools. Rows go
//! out as they are read, so that memory does not depend on how many there are.

mod focus;
mod split;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::ZonedDateTime;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::output::{csv_count, csv_text, csv_usd, finish, json_line, write_csv};
use super::range::RangeArgs;
use super::{Context, Exit, Failure, client};
use crate::home::{Home, through_links, unfinished};
use crate::meter::bodies::Shelf;
use crate::meter::ledger::{Ledger, RequestFilter};
use crate::meter::price::{Book, read_own};
use crate::meter::row::{PublicRow, Row};
use focus::Focus;

/// Rows that are in memory at a time.
const PAGE: usize = 1000;

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// A line for each request to a model
    Csv,
    /// One document with the rows of `requests --json`
    Json,
    /// CSV with the columns of FOCUS 1.2: a line for each UTC day, project, model and kind of token
    Focus,
}

/// Requests out of the ledger, newest first
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  halton-meter export csv --since 30d -o requests.csv
  halton-meter export focus --from 2026-11-01 --to 2026-11-30 > focus.csv
  halton-meter export json --project my-app | jq '.requests[].cost_usd'

There is no Parquet; most tools make it of CSV. A text that a spreadsheet would take for a formula
has a ' put before it in CSV.")]
pub struct ExportArgs {
    #[arg(value_enum)]
    format: Format,
    #[command(flatten)]
    range: RangeArgs,
    /// Only this project
    #[arg(long)]
    project: Option<String>,
    /// Into this file, which only you can read, not to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(ctx: &Context, args: &ExportArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    client::settle_ledger(ctx);
    let now = ZonedDateTime::now();
    match &args.output {
        Some(path) => into_file(args, &ctx.home, &now, path),
        None => finish(export(args, &ctx.home, &now, &mut BufWriter::new(out))),
    }
}

/// Into a file that nobody else can read. What was there stays until all of it is written.
fn into_file(
    args: &ExportArgs,
    home: &Home,
    now: &ZonedDateTime,
    path: &Path,
) -> Result<Exit, Failure> {
    let cannot = |e: io::Error| Failure::cannot_write(path, &e);
    // A pipe or a device can't be replaced, and is not ours to close to others.
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        let file = OpenOptions::new().write(true).open(path).map_err(cannot)?;
        return finish(export(args, home, now, &mut BufWriter::new(file)));
    }
    // Who links to it keeps the link, also to what is not there yet.
    let target = through_links(path).map_err(cannot)?;
    let unfinished = unfinished(&target);
    let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished);
    let file = match open {
        Ok(file) => file,
        Err(e) if is_full(&e) => return Err(cannot(e)),
        // One may write a file and not its directory.
        Err(_) => {
            let file = in_place(&target).map_err(cannot)?;
            // What fails is to fail before the old content is lost.
            finish(export(args, home, now, &mut io::sink()))?;
            file.set_len(0).map_err(cannot)?;
            return finish(export(args, home, now, &mut BufWriter::new(file)));
        }
    };
    removed_by_signals(&unfinished);
    let done = finish(export(args, home, now, &mut BufWriter::new(file)))
        .and_then(|exit| replace(&unfinished, &target).map(|()| exit).map_err(cannot));
    if done.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    done
}

/// Who ends us before it is whole leaves nothing of it. Without a thread it stays, as after SIGKILL.
fn removed_by_signals(unfinished: &Path) {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    let unfinished = unfinished.to_path_buf();
    let ended = move || {
        for signal in signals.forever() {
            let _ = fs::remove_file(&unfinished);
            let _ = emulate_default_handler(signal);
        }
    };
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(ended);
}

/// A file that nobody else can read, with what is in it.
fn in_place(target: &Path) -> io::Result<File> {
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(target);
    let file = open?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// A file that is mounted can't be replaced, only written.
fn replace(whole: &Path, target: &Path) -> io::Result<()> {
    match fs::rename(whole, target) {
        Err(e)
            if matches!(e.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices) =>
        {
            let (mut from, mut to) = (File::open(whole)?, in_place(target)?);
            to.set_len(0)?;
            io::copy(&mut from, &mut to)?;
            fs::remove_file(whole)
        }
        done @ (Ok(()) | Err(_)) => done,
    }
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn export(
    args: &ExportArgs,
    home: &Home,
    now: &ZonedDateTime,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let window = args.range.window("99999d", now)?;
    let ledger = Ledger::open(home)?;
    let mut filter = RequestFilter {
        since: Some(window.from),
        until: Some(window.to),
        project: args.project.clone(),
        limit: Some(PAGE),
        ..RequestFilter::default()
    };
    let mut writer = Writer::begin(args.format, home, out)?;
    loop {
        let page = ledger.requests(&filter)?;
        for row in page.rows {
            writer.row(row, out)?;
        }
        match page.next {
            Some(next) => filter.before = Some(next),
            None => break,
        }
    }
    writer.end(out)?;
    Ok(out.flush()?)
}

enum Writer {
    Csv,
    Json { shelf: Shelf, first: bool },
    Focus(Focus),
}

impl Writer {
    fn begin(format: Format, home: &Home, out: &mut dyn Write) -> anyhow::Result<Self> {
        Ok(match format {
            Format::Csv => {
                write_csv(out, &COLUMNS.map(|(name, _)| name.to_owned()))?;
                Self::Csv
            }
            Format::Json => {
                out.write_all(b"{\"requests\":[")?;
                Self::Json { shelf: Shelf::of(home), first: true }
            }
            Format::Focus => {
                focus::header(out)?;
                // A mistake in them has been told.
                let own = read_own(&home.prices_file()).unwrap_or_default();
                Self::Focus(Focus::new(Book::builtin().with_own(&own)))
            }
        })
    }

    fn row(&mut self, row: Row, out: &mut dyn Write) -> anyhow::Result<()> {
        match self {
            Self::Csv => write_csv(out, &COLUMNS.map(|(_, field)| field(&row)))?,
            Self::Json { shelf, first } => {
                out.write_all(if std::mem::take(first) { b"\n" } else { b",\n" })?;
                let bodies = shelf.has(row.id);
                out.write_all(json_line(&PublicRow::new(row, bodies))?.as_bytes())?;
            }
            Self::Focus(days) => days.row(&row, out)?,
        }
        Ok(())
    }

    fn end(self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Csv => Ok(()),
            Self::Json { .. } => out.write_all(b"\n]}\n"),
            Self::Focus(mut days) => days.flush(out),
        }
    }
}

type Field = fn(&Row) -> String;

fn text(text: Option<&String>) -> String {
    text.map(|text| csv_text(text)).unwrap_or_default()
}

fn shown(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Named as in `requests --json`, money in dollars.
const COLUMNS: [(&str, Field); 46] = [
    ("id", |r| r.id.to_string()),
    ("started_at", |r| r.started_at.to_string()),
    ("ended_at", |r| shown(r.ended_at)),
    ("provider", |r| csv_text(&r.provider)),
    ("surface", |r| text(r.surface.as_ref())),
    ("model_requested", |r| text(r.model_requested.as_ref())),
    ("model", |r| text(r.model.as_ref())),
    ("project", |r| text(r.project.as_ref())),
    ("project_source", |r| text(r.project_source.as_ref())),
    ("client", |r| text(r.client.as_ref())),
    ("session", |r| text(r.session.as_ref())),
    ("agent", |r| text(r.agent.as_ref())),
    ("branch", |r| text(r.branch.as_ref())),
    ("cwd", |r| text(r.cwd.as_ref())),
    ("status", |r| shown(r.status)),
    ("error_class", |r| text(r.error_class.as_ref())),
    ("stream", |r| shown(r.stream)),
    ("usage", |r| r.usage.as_str().to_owned()),
    ("input_tokens", |r| csv_count(r.tokens.input)),
    ("cache_read_tokens", |r| csv_count(r.tokens.cache_read)),
    ("cache_write_5m_tokens", |r| csv_count(r.tokens.cache_write_5m)),
    ("cache_write_1h_tokens", |r| csv_count(r.tokens.cache_write_1h)),
    ("cache_write_other_tokens", |r| csv_count(r.tokens.cache_write_other)),
    ("output_tokens", |r| csv_count(r.tokens.output)),
    ("reasoning_tokens", |r| csv_count(r.tokens.reasoning)),
    ("audio_input_tokens", |r| csv_count(r.tokens.audio_input)),
    ("audio_output_tokens", |r| csv_count(r.tokens.audio_output)),
    ("image_input_tokens", |r| csv_count(r.tokens.image_input)),
    ("image_output_tokens", |r| csv_count(r.tokens.image_output)),
    ("web_searches", |r| csv_count(r.web_searches)),
    ("tier", |r| text(r.tier.as_ref())),
    ("speed", |r| text(r.speed.as_ref())),
    ("geo", |r| text(r.geo.as_ref())),
    ("cost_usd", |r| csv_usd(r.cost_nanousd)),
    ("cost_estimated", |r| r.cost_estimated.to_string()),
    ("cost_reason", |r| text(r.cost_reason.as_ref())),
    ("price_rule", |r| text(r.price_rule.as_ref())),
    ("provider_cost_usd", |r| csv_usd(r.provider_cost_nanousd)),
    ("list_usd", |r| csv_usd(r.list_nanousd)),
    ("billing", |r| r.billing.as_str().to_owned()),
    ("completeness", |r| r.completeness.as_str().to_owned()),
    ("ttfb_ms", |r| csv_count(r.ttfb_ms)),
    ("duration_ms", |r| csv_count(r.duration_ms)),
    ("host", |r| csv_text(&r.host)),
    ("path", |r| csv_text(&r.path)),
    ("provider_request_id", |r| text(r.provider_request_id.as_ref())),
];

#[cfg(test)]
mod tests;
