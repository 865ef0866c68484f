//! How results look: tables, colour, money, and the writing of JSON and CSV. stdout is data.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use clap::Args;
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ContentArrangement};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::harmless::json_text;
pub use super::harmless::{clean, csv_text, harmless, harmless_lines};
use super::{Exit, Failure};
use crate::meter::row::usd_decimal;
use crate::meter::usage::Tokens;

/// `--color`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// What stdout can show.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Style {
    /// `None`: no limit, stdout is not a terminal.
    pub width: Option<u16>,
    pub color: bool,
}

impl Style {
    /// Looks at stdout and the environment (`NO_COLOR`, `CLICOLOR_FORCE`, `FORCE_COLOR`, `TERM`).
    #[must_use]
    pub fn detect(choice: Color) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let width =
            terminal.then(|| rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| size.ws_col));
        let var = |name| std::env::var(name).ok();
        Self {
            width: width.map(|columns| if columns == 0 { 80 } else { columns }),
            color: wants_color(choice, terminal, var),
        }
    }

    /// Bold, where colour is on.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// For what the reader should not overlook.
    #[must_use]
    pub fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn wants_color(
    choice: Color,
    terminal: bool,
    var: impl Fn(&'static str) -> Option<String>,
) -> bool {
    let set = |name| var(name).is_some_and(|v| !v.is_empty() && v != "0");
    match choice {
        Color::Always => true,
        Color::Never => false,
        // NO_COLOR counts with any value but the empty one, "0" included.
        Color::Auto if var("NO_COLOR").is_some_and(|v| !v.is_empty()) => false,
        Color::Auto if set("CLICOLOR_FORCE") || set("FORCE_COLOR") => true,
        Color::Auto => terminal && var("TERM").is_none_or(|t| t != "dumb"),
    }
}

/// Arguments that parse but can't be meant (exit 2).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The end of a reading command.
pub fn finish(result: anyhow::Result<()>) -> Result<Exit, Failure> {
    match result {
        Ok(()) => Ok(Exit::OK),
        Err(e) if e.is::<UsageError>() => Err(Failure::new(Exit::USAGE, e)),
        Err(e) => Err(e.into()),
    }
}

/// One JSON document and a newline.
pub fn write_json(out: &mut dyn Write, value: &impl Serialize) -> anyhow::Result<()> {
    Ok(writeln!(out, "{}", json_text(serde_json::to_string_pretty(value)?))?)
}

/// The same on one line, with nothing behind it.
pub fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(json_text)
}

/// All that some reading commands take.
#[derive(Args, Clone, Copy, Debug)]
pub struct AsJson {
    /// One JSON document (docs/json.md)
    #[arg(long)]
    pub json: bool,
}

/// What a command answers that says where a file is.
pub fn path(path: &Path, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if json {
        return write_json(out, &serde_json::json!({ "path": path.to_string_lossy() }));
    }
    writeln!(out, "{}", path.display())?;
    Ok(())
}

/// One CSV record (RFC 4180), of one line. A terminal may be what reads it.
pub fn write_csv(out: &mut dyn Write, fields: &[String]) -> io::Result<()> {
    for (i, field) in fields.iter().enumerate() {
        if i > 0 {
            out.write_all(b",")?;
        }
        let field = field.replace(|c: char| c.is_control() && c != '\t', "\u{fffd}");
        if field.contains(['"', ',']) {
            write!(out, "\"{}\"", field.replace('"', "\"\""))?;
        } else {
            out.write_all(field.as_bytes())?;
        }
    }
    out.write_all(b"\n")
}

/// What was paid, what a plan covers and how many have no price ([`Totals::unknown`]), apart. Never
/// `$0.00` for what has no price.
///
/// [`Totals::unknown`]: crate::meter::ledger::Totals::unknown
#[must_use]
pub fn spent(paid: Option<i64>, covered: Option<i64>, unpriced: u64) -> String {
    let covered = covered.map(|cost| format!("≈{} covered", money(cost)));
    let unpriced = (unpriced > 0).then(|| format!("{} unpriced", count(unpriced)));
    let said: Vec<String> = [paid.map(money), covered, unpriced].into_iter().flatten().collect();
    if said.is_empty() { "–".to_owned() } else { said.join(" + ") }
}

/// Dollars for people: cents get four decimals, less than a cent four digits that count.
#[must_use]
pub fn money(nanousd: impl Into<i128>) -> String {
    let nanousd = nanousd.into();
    let sign = if nanousd < 0 { "-" } else { "" };
    let magnitude = u64::try_from(nanousd.unsigned_abs()).unwrap_or(u64::MAX);
    let decimals = match magnitude {
        0 | 1_000_000_000.. => 2,
        10_000_000.. => 4,
        // 9,999,999 has seven digits: 9 - 7 zeros and 4 digits make 6 decimals.
        less => 12u32.saturating_sub(less.ilog10()).clamp(4, 9),
    };
    let unit = 10u64.pow(9 - decimals);
    let rounded = magnitude.saturating_add(unit / 2) / unit;
    let scale = 10u64.pow(decimals);
    let mut fraction = format!("{:0width$}", rounded % scale, width = decimals as usize);
    while fraction.len() > 4 && fraction.ends_with('0') {
        fraction.pop();
    }
    format!("{sign}${}.{fraction}", count(rounded / scale))
}

/// An amount that may be absent: `–`, never $0.00.
#[must_use]
pub fn money_or_dash(nanousd: Option<i64>) -> String {
    nanousd.map_or_else(|| "–".to_owned(), money)
}

/// A moment as the user's clock shows it.
#[must_use]
pub fn local(at: Timestamp, zone: &TimeZone, format: &str) -> String {
    at.to_zoned_datetime(zone.clone()).strftime(format).to_string()
}

/// `12 KB`, `3.4 MB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    match n {
        0..1_000_000 => format!("{} KB", n.div_ceil(1000)),
        _ => format!("{}.{} MB", n / 1_000_000, n % 1_000_000 / 100_000),
    }
}

/// `1,234,567`.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count that may be absent: `–`, never 0.
#[must_use]
pub fn count_or_dash(n: Option<u64>) -> String {
    n.map_or_else(|| "–".to_owned(), count)
}

/// All input, cached or not; `None` when the provider told none of it.
#[must_use]
pub fn all_input(t: &Tokens) -> Option<u64> {
    let told = [t.input, t.cache_read, t.cache_write_5m, t.cache_write_1h, t.cache_write_other];
    told.iter().any(Option::is_some).then(|| t.total_input())
}

/// `1 request`, `2 requests`.
#[must_use]
pub fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", count(n), if n == 1 { "" } else { "s" })
}

/// `340 ms`, `1.2 s`, `2m 05s`.
#[must_use]
pub fn millis(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{}m {:02}s", ms / 60_000, ms % 60_000 / 1000),
    }
}

#[must_use]
pub fn millis_or_dash(ms: Option<u64>) -> String {
    ms.map_or_else(|| "–".to_owned(), millis)
}

/// For readers that want a number: exact, or empty when absent.
#[must_use]
pub fn csv_usd(nanousd: Option<i64>) -> String {
    nanousd.map(usd_decimal).unwrap_or_default()
}

#[must_use]
pub fn csv_count(n: Option<u64>) -> String {
    n.map(|n| n.to_string()).unwrap_or_default()
}

/// A column of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub title: &'static str,
    /// Numbers stand at the right.
    pub right: bool,
    /// Where there is no room the column of the highest rank goes first; rank 0 stays.
    pub rank: u8,
}

impl Column {
    #[must_use]
    pub const fn text(title: &'static str, rank: u8) -> Self {
        Self { title, right: false, rank }
    }

    #[must_use]
    pub const fn number(title: &'static str, rank: u8) -> Self {
        Self { title, right: true, rank }
    }
}

/// A table that drops columns rather than wrap.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    #[must_use]
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells.into_iter().map(|cell| harmless(&cell)).collect());
    }

    #[must_use]
    pub fn render(&self, style: Style) -> String {
        // A column without a value in any row says nothing.
        let mut shown: Vec<usize> = (0..self.columns.len())
            .filter(|i| self.rank(*i) == 0 || self.rows.iter().any(|r| has_value(r.get(*i))))
            .collect();
        loop {
            let lines = self.lines(&shown, None);
            let natural = lines.iter().map(|l| l.trim_end().width()).max().unwrap_or(0);
            let limit = style.width.map_or(usize::MAX, usize::from);
            if natural <= limit {
                return decorate(&lines, style);
            }
            let widest = shown.iter().copied().filter(|i| self.rank(*i) > 0);
            match widest.max_by_key(|i| self.rank(*i)) {
                Some(drop) => shown.retain(|i| *i != drop),
                None => return decorate(&self.lines(&shown, style.width), style),
            }
        }
    }

    fn rank(&self, column: usize) -> u8 {
        self.columns.get(column).map_or(0, |c| c.rank)
    }

    fn lines(&self, shown: &[usize], width: Option<u16>) -> Vec<String> {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING);
        match width {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width)
            }
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        let cell = |column: &usize, text: String| {
            let right = self.columns.get(*column).is_some_and(|c| c.right);
            let alignment = if right { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(text).set_alignment(alignment)
        };
        let title = |i: &usize| self.columns.get(*i).map_or("", |c| c.title).to_owned();
        table.set_header(shown.iter().map(|i| cell(i, title(i))).collect::<Vec<_>>());
        for row in &self.rows {
            let text = |i: &usize| row.get(*i).cloned().unwrap_or_default();
            table.add_row(shown.iter().map(|i| cell(i, text(i))).collect::<Vec<_>>());
        }
        table.lines().map(|line| line.trim_end().to_owned()).collect()
    }
}

fn has_value(cell: Option<&String>) -> bool {
    cell.is_some_and(|c| !c.is_empty() && c != "–")
}

fn decorate(lines: &[String], style: Style) -> String {
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        out.push_str(&if i == 0 { style.bold(line) } else { line.clone() });
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_keeps_what_counts() {
        for (nanousd, shown) in [
            (0, "$0.00"),
            (1, "$0.000000001"),
            (1_234_567, "$0.001235"),
            (9_999_999, "$0.0100"),
            (100_000, "$0.0001"),
            (12_345, "$0.00001235"),
            (10_000_000, "$0.0100"),
            (12_300_000, "$0.0123"),
            (999_999_999, "$1.0000"),
            (1_000_000_000, "$1.00"),
            (1_234_565_000_000, "$1,234.57"),
            (-12_300_000, "-$0.0123"),
            (i64::MAX, "$9,223,372,036.85"),
        ] {
            assert_eq!(money(nanousd), shown, "{nanousd}");
        }
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [7, 999, 1000, 1250, 59_999, 125_000].map(millis),
            ["7 ms", "999 ms", "1.0 s", "1.2 s", "59.9 s", "2m 05s"]
        );
    }

    #[test]
    fn colour_follows_the_flag_then_the_environment() {
        let env = |set: &'static [(&str, &str)]| {
            move |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        };
        assert!(wants_color(Color::Always, false, env(&[("NO_COLOR", "1")])));
        assert!(!wants_color(Color::Never, true, env(&[("FORCE_COLOR", "1")])));
        assert!(!wants_color(Color::Auto, true, env(&[("NO_COLOR", "0")])));
        assert!(wants_color(Color::Auto, true, env(&[("NO_COLOR", "")])));
        assert!(wants_color(Color::Auto, false, env(&[("CLICOLOR_FORCE", "1")])));
        assert!(!wants_color(Color::Auto, true, env(&[("TERM", "dumb")])));
    }

    #[test]
    fn a_narrow_table_loses_the_least_important_columns() {
        let mut table =
            Table::new(&[Column::text("NAME", 0), Column::number("A", 2), Column::number("B", 1)]);
        table.row(vec!["some-project\u{9b}".into(), "123456".into(), "42".into()]);
        let wide = table.render(Style::default());
        assert!(wide.contains("123456") && wide.contains("42"));
        assert!(wide.contains("some-project\u{fffd}"), "{wide}");
        let narrow = table.render(Style { width: Some(22), color: false });
        assert!(!narrow.contains("123456") && narrow.contains("42"), "{narrow}");
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let mut out = Vec::new();
        write_csv(&mut out, &["a".into(), "b,\"c\"".into(), String::new()]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a,\"b,\"\"c\"\"\",\n");
        let mut out = Vec::new();
        write_csv(&mut out, &["a\u{1b}\u{9b}\tb\n".into()]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a\u{fffd}\u{fffd}\tb\u{fffd}\n");
    }
}
