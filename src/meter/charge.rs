//! What a row costs: the same for the row that is being written and for one that is priced again.

use super::price::{Book, Query, Quote};
use super::row::{Completeness, Row};
use super::surface::Kind;
use super::usage::{Usage, UsageState};

/// The rule of a cost that the provider itself named.
pub const PROVIDER_REPORTED: &str = "provider-reported";

/// Fills in everything that the row says of money.
pub fn charge(row: &mut Row, book: &Book) {
    let usage = usage(row);
    let list = list_price(row, &usage, book);
    // What the provider says that it charged beats the list, which is kept beside it.
    let charged = row.provider_cost_nanousd.filter(|_| is_due(row));
    row.list_nanousd = charged.and(list.cost_nanousd);
    let quote = match charged {
        Some(cost) => Quote {
            cost_nanousd: Some(cost),
            rule: Some(PROVIDER_REPORTED.to_owned()),
            ..Quote::default()
        },
        None => list,
    };
    row.cost_nanousd = quote.cost_nanousd;
    row.price_rule = quote.rule;
    row.cost_estimated = quote.estimated;
    row.cost_reason = quote.reason;
}

/// What can be priced at all.
fn is_due(row: &Row) -> bool {
    row.billable && row.completeness != Completeness::Open
}

/// What the row knows of its usage.
fn usage(row: &Row) -> Usage {
    Usage {
        state: row.usage,
        tokens: row.tokens,
        parts: row.detail.parts.clone(),
        tier: row.tier.clone(),
        speed: row.speed.clone(),
        cache_ttl: row.detail.cache_ttl.clone(),
        geo: row.geo.clone(),
        web_searches: row.web_searches,
        counts: row.detail.counts.clone(),
        provider_cost_nanousd: row.provider_cost_nanousd,
    }
}

/// By the book. An error without usage costs nothing that we know of, which is no riddle that needs
/// a reason.
fn list_price(row: &Row, usage: &Usage, book: &Book) -> Quote {
    let unusable = usage.state == UsageState::Absent && row.error_class.is_some();
    if !is_due(row) || unusable {
        return Quote::default();
    }
    let reason = |why: &str| Quote { reason: Some(why.to_owned()), ..Quote::default() };
    let kind = row.surface.as_deref().and_then(Kind::named);
    if kind == Some(Kind::Cursor) {
        return reason("Cursor does not say what it uses in a form that is published");
    }
    let requested = row.model_requested.as_deref();
    // Bedrock's price hangs on the profile that was asked for; the answer names the bare model. So it
    // does behind Copilot, whose own names are spelt otherwise.
    let answered = row.model.as_deref().is_some_and(|name| book.knows(&row.provider, name));
    let profile = requested.filter(|name| match row.provider.as_str() {
        "bedrock" => book.knows("bedrock", name),
        "copilot" => !answered && book.knows("copilot", name),
        _ => false,
    });
    let each_model_named = !usage.parts.is_empty() && usage.parts.iter().all(|p| p.model.is_some());
    let model = profile.or(row.model.as_deref()).or(requested);
    let Some(model) = model.or(each_model_named.then_some("")) else {
        return reason("the model is not known");
    };
    let known = book.knows(&row.provider, model) || book.knows_provider(&row.provider);
    let family = kind.and_then(Kind::family).filter(|_| !known);
    let provider = family.unwrap_or(&row.provider);
    let mut quote = book.quote(&Query { provider, model, at: row.started_at, usage });
    if family.is_some() && quote.cost_nanousd.is_some() {
        // A gateway's own price list is not known to us.
        let note = format!("list price of {provider}; what {} charges is not known", row.host);
        quote.reason = Some(match quote.reason.take() {
            Some(reason) => format!("{reason}; {note}"),
            None => note,
        });
        quote.estimated = true;
    }
    quote
}
