//! What a person reads.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::stats::{best, median};

/// A Markdown table; all but the first `texts` columns are figures.
pub fn table(texts: usize, head: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(head);
    table.add_rows(rows);
    for (at, column) in table.column_iter_mut().enumerate() {
        if at >= texts {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Median, and the best round in brackets.
pub fn spread<'a>(values: impl IntoIterator<Item = &'a f64> + Clone) -> String {
    let middle = median(values.clone().into_iter().copied());
    let least = best(values.into_iter().copied());
    match (middle, least) {
        (Some(middle), Some(least)) => format!("{} [{}]", figure(middle), figure(least)),
        _ => "–".to_owned(),
    }
}

pub fn maybe(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), figure)
}

/// Two decimals: a ratio says no more.
pub fn times(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{v:.2}"))
}

/// Three significant digits, whole above a thousand.
pub fn figure(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if size >= 99.95 => 0,
        _ if size >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    if size < 999.5 {
        return text;
    }
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |d| ("-", d));
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    format!("{sign}{}", groups.join(","))
}
