//! What a row costs: the same for the row that is being written and for one that is priced again.

use super::price::{Book, Query, Quote};
use super::row::{Completeness, Row};
use super::surface::{Kind, LOCAL};
use super::usage::{Usage, UsageState};

/// The rule of what costs nothing because the configuration says whose it is.
pub const LOCAL_RULE: &str = "local";
/// Whose models an agent of nobody's in particular may run.
const MAKERS: &[&str] = &["anthropic", "openai", "google", "xai"];
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
    let quote = with_caveat(quote, row);
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
        caveat: row.detail.caveat,
        provider_cost_nanousd: row.provider_cost_nanousd,
    }
}

/// What is not the provider's word makes an estimate.
fn with_caveat(mut quote: Quote, row: &Row) -> Quote {
    let Some(caveat) = row.detail.caveat.filter(|_| is_due(row)) else { return quote };
    quote.estimated |= quote.cost_nanousd.is_some();
    quote.reason = Some(also(quote.reason.take(), caveat.reason()));
    quote
}

fn also(reason: Option<String>, more: &str) -> String {
    reason.map_or_else(|| more.to_owned(), |reason| format!("{reason}; {more}"))
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
    if kind == Some(Kind::Cursor) && usage.state == UsageState::Absent {
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
    if row.provider == LOCAL && !book.knows(LOCAL, model) {
        return free_of_charge(&[Some(model), requested]);
    }
    let known = book.knows(&row.provider, model) || book.knows_provider(&row.provider);
    // Cursor sells the models of others under their names, and its own.
    let maker = (kind == Some(Kind::Cursor))
        .then(|| MAKERS.iter().copied().find(|maker| book.knows(maker, model)))
        .flatten();
    let family = kind.and_then(Kind::family).or(maker).filter(|_| !known);
    let provider = family.unwrap_or(&row.provider);
    let mut quote = book.quote(&Query { provider, model, at: row.started_at, usage });
    if family.is_some() && quote.cost_nanousd.is_some() {
        // A gateway's own price list is not known to us.
        let note = format!("list price of {provider}; what {} charges is not known", row.host);
        quote.reason = Some(also(quote.reason.take(), &note));
        quote.estimated = true;
    }
    quote
}

/// A model of the user's own; but not one that the server only passes on to Ollama's cloud.
fn free_of_charge(names: &[Option<&str>]) -> Quote {
    let in_cloud = |name: &&str| name.rsplit([':', '-']).next() == Some("cloud");
    if names.iter().flatten().any(in_cloud) {
        let reason = "a model of Ollama's cloud, which the local server passes on".to_owned();
        return Quote { reason: Some(reason), ..Quote::default() };
    }
    Quote { cost_nanousd: Some(0), rule: Some(LOCAL_RULE.to_owned()), ..Quote::default() }
}
