//! What a row costs: the same for the row that is being written and for one that is priced again.

use std::borrow::Cow;

use super::price::{Book, Item, Query, Quote};
use super::row::{Completeness, Row, is_cut_short, is_redirect};
use super::surface::{Kind, LOCAL};
use super::usage::{Usage, UsageState};

/// The rule of what costs nothing because the configuration says whose it is.
pub const LOCAL_RULE: &str = "local";
/// The rule of what a model declined before it said anything, where that is not billed.
pub const REFUSED_RULE: &str = "refused";
/// Who says that such a refusal costs nothing, whatever its usage tells.
const FREE_REFUSALS: &[&str] = &["anthropic", "bedrock"];
/// Whose models an agent of nobody's in particular may run.
const MAKERS: &[&str] = &["anthropic", "openai", "google", "xai"];
/// Clouds that sell the models of others under the names that these gave them.
const RESELLERS: &[&str] = &["azure", "vertex"];
/// The rule of a cost that the provider itself named.
pub const PROVIDER_REPORTED: &str = "provider-reported";

/// Fills in everything that the row says of money.
pub fn charge(row: &mut Row, book: &Book) {
    let list = list_price(row, book).0;
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

/// What the list says of a row, and what that is made of.
#[must_use]
pub fn itemised(row: &Row, book: &Book) -> (Option<i64>, Vec<Item>) {
    let (quote, items) = list_price(row, book);
    (quote.cost_nanousd, items)
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
        cached: row.detail.cached,
        written_12h: row.detail.written_12h,
        geo: row.geo.clone(),
        web_searches: row.web_searches,
        counts: row.detail.counts.clone(),
        refused: row.detail.refused,
        caveat: row.detail.caveat,
        provider_cost_nanousd: row.provider_cost_nanousd,
    }
    // Rows of an earlier version may hold what is not.
    .within()
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
/// a reason; an answer that was cut may cost something all the same.
fn list_price(row: &Row, book: &Book) -> (Quote, Vec<Item>) {
    let mut usage = usage(row);
    let absent = usage.state == UsageState::Absent;
    let cut = is_cut_short(row.completeness, row.status, row.error_class.as_deref());
    let failed = row.error_class.is_some() || is_redirect(row.status);
    let unusable = absent && failed && !cut;
    if !is_due(row) || unusable {
        return (Quote::default(), Vec::new());
    }
    if usage.refused && FREE_REFUSALS.contains(&&*row.provider) {
        return (free(REFUSED_RULE), Vec::new());
    }
    let reason =
        |why: &str| (Quote { reason: Some(why.to_owned()), ..Quote::default() }, Vec::new());
    let kind = row.surface.as_deref().and_then(Kind::named);
    if kind == Some(Kind::Cursor) && absent {
        return reason("Cursor does not say what it uses in a form that is published");
    }
    // What is counted by the request is known; what is the user's own costs nothing.
    if absent && cut && usage.caveat.is_none() && row.provider != LOCAL {
        return reason("cut before the provider told its usage; it may bill all the same");
    }
    let requested = row.model_requested.as_deref();
    // Bedrock's price hangs on the profile that was asked for; the answer names the bare model. So it
    // does behind Copilot, whose own names are spelt otherwise.
    let answered = || row.model.as_deref().is_some_and(|name| book.knows("copilot", name));
    let profile = requested.and_then(|name| match row.provider.as_str() {
        "bedrock" => profile(row, name, book),
        "copilot" => (!answered() && book.knows("copilot", name)).then_some(Cow::Borrowed(name)),
        _ => None,
    });
    let each_model_named = !usage.parts.is_empty() && usage.parts.iter().all(|p| p.model.is_some());
    let model = profile.as_deref().or(row.model.as_deref()).or(requested);
    let Some(model) = model.or(each_model_named.then_some("")) else {
        return reason("the model is not known");
    };
    if row.provider == LOCAL && !book.knows(LOCAL, model) {
        return (free_of_charge(&[Some(model), requested]), Vec::new());
    }
    let (model, unlisted) = match row.provider.as_str() {
        "bedrock" => in_region(&row.host, model, book),
        // Its endpoint in OpenAI's shape wants the maker before the name.
        "vertex" if !book.knows("vertex", model) => {
            (Cow::Borrowed(model.strip_prefix("google/").unwrap_or(model)), None)
        }
        _ => (Cow::Borrowed(model), None),
    };
    let model = model.as_ref();
    if row.provider == "bedrock" {
        as_asked(&mut usage, model, row.model.as_deref(), book);
    }
    let listed = book.knows(&row.provider, model);
    let unknown = !book.knows_provider(&row.provider);
    let resells = RESELLERS.contains(&&*row.provider);
    // Cursor sells the models of others under their names, and its own.
    let maker = (kind == Some(Kind::Cursor))
        .then(|| MAKERS.iter().copied().find(|maker| book.knows(maker, model)))
        .flatten();
    let family = kind
        .and_then(Kind::family)
        .or(maker)
        .filter(|family| !listed && (unknown || (resells && book.knows(family, model))));
    let provider = family.unwrap_or(&row.provider);
    let (at, ended) = (row.started_at, row.ended_at.unwrap_or(row.started_at));
    let (mut quote, items) = book.itemised(&Query { provider, model, at, ended, usage: &usage });
    if let Some(region) = unlisted
        && quote.cost_nanousd.is_some()
    {
        let note = format!("no price for {region}: that of the United States is used");
        quote.reason = Some(also(quote.reason.take(), &note));
        quote.estimated = true;
    }
    if usage.refused && quote.cost_nanousd.is_some() {
        let note = format!("refused before any output: {} may not charge it", row.host);
        quote.reason = Some(also(quote.reason.take(), &note));
        quote.estimated = true;
    }
    if kind == Some(Kind::Decisions) && quote.cost_nanousd.is_some() {
        let note = "no price for decisions: that of the model's answers is used";
        quote.reason = Some(also(quote.reason.take(), note));
        quote.estimated = true;
    }
    if family.is_some() && quote.cost_nanousd.is_some() {
        // A gateway's own price list is not known to us.
        let note = format!("list price of {provider}; what {} charges is not known", row.host);
        quote.reason = Some(also(quote.reason.take(), &note));
        quote.estimated = true;
    }
    (quote, items)
}

/// What Bedrock's model is called in the list, in the region of this host; and the region, if the list
/// has no price for it. What a profile over regions costs is in its own name.
fn in_region<'a>(host: &'a str, model: &'a str, book: &Book) -> (Cow<'a, str>, Option<&'a str>) {
    let general = (Cow::Borrowed(model), None);
    let mut labels = host.split('.').skip(1);
    let Some(region) = labels.next().filter(|label| label.contains('-')) else { return general };
    let own = book.is_own("bedrock", model);
    // `us.`, `global.` … stand before the maker's name.
    let over_regions = model.matches('.').count() > 1
        && model.split('.').next().is_some_and(|area| PROFILES.contains(&area));
    if own || (over_regions && (book.knows("bedrock", model) || !model.starts_with(GOVERNMENT))) {
        return general;
    }
    let here = format!("{region}/{}", model.strip_prefix(GOVERNMENT).unwrap_or(model));
    if book.knows("bedrock", &here) {
        return (Cow::Owned(here), None);
    }
    (Cow::Borrowed(model), (!LIST_REGIONS.contains(&region)).then_some(region))
}

/// What was asked of Bedrock, as the list has it. The Messages API takes Claude's short name, where the
/// list has the snapshot's, which the answer tells: there it is that, in the profile that was asked for.
fn profile<'a>(row: &Row, asked: &'a str, book: &Book) -> Option<Cow<'a, str>> {
    let listed = |id: &str| book.knows("bedrock", &in_region(&row.host, id, book).0);
    if listed(asked) {
        return Some(Cow::Borrowed(asked));
    }
    let ((place, _), answered) = (asked.split_once(MAKER)?, row.model.as_deref()?);
    in_bedrocks_spelling(place, answered).into_iter().find(|id| listed(id)).map(Cow::Owned)
}

/// The names that a model of Anthropic's may have there.
fn in_bedrocks_spelling(place: &str, name: &str) -> [String; 3] {
    ["", "-v1", "-v1:0"].map(|version| format!("{place}{MAKER}{name}{version}"))
}

const MAKER: &str = "anthropic.";

/// Names the models of a message's parts as Bedrock does. They have the names that Anthropic gave them, and
/// cost what they do in the profile or the region of `model`, which was asked for. A profile of one's own
/// hides what it is: there it is what `answered`.
fn as_asked(usage: &mut Usage, model: &str, answered: Option<&str>, book: &Book) {
    for part in &mut usage.parts {
        let Some(name) = part.model.as_deref() else { continue };
        part.model = match model.split_once(MAKER) {
            Some((place, _)) => in_bedrocks_spelling(place, name)
                .into_iter()
                .find(|id| id == model || book.knows("bedrock", id))
                .or(part.model.take()),
            None => part.model.take().filter(|name| Some(name.as_str()) != answered),
        };
    }
}

/// Areas of inference profiles.
const PROFILES: &[&str] = &["us", "eu", "apac", "jp", "au", "ca", "global", "us-gov"];
const GOVERNMENT: &str = "us-gov.";
/// Where the list's own prices hold.
const LIST_REGIONS: &[&str] = &["us-east-1", "us-east-2", "us-west-2"];

/// A model of the user's own; but not one that the server only passes on to Ollama's cloud.
fn free_of_charge(names: &[Option<&str>]) -> Quote {
    let in_cloud = |name: &&str| name.rsplit([':', '-']).next() == Some("cloud");
    if names.iter().flatten().any(in_cloud) {
        let reason = "a model of Ollama's cloud, which the local server passes on".to_owned();
        return Quote { reason: Some(reason), ..Quote::default() };
    }
    free(LOCAL_RULE)
}

fn free(rule: &str) -> Quote {
    Quote { cost_nanousd: Some(0), rule: Some(rule.to_owned()), ..Quote::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::ledger::fixture::row;
    use crate::meter::price::OwnPrice;
    use crate::meter::usage::Tokens;

    fn bedrock(region: &str, model: &str, book: &Book) -> Row {
        let mut row = Row {
            host: format!("bedrock-runtime.{region}.amazonaws.com"),
            provider: "bedrock".to_owned(),
            model_requested: Some(model.to_owned()),
            model: None,
            tokens: Tokens { input: Some(1_000_000), ..Tokens::default() },
            ..row(1, "2026-11-24T12:00:00Z")
        };
        charge(&mut row, book);
        row
    }

    #[test]
    fn bedrocks_prices_are_those_of_the_region() {
        let book = Book::builtin();
        let priced = |region: &str, model: &str| {
            let row = bedrock(region, model, &book);
            (row.cost_nanousd.unwrap() / 10_000_000, row.cost_estimated)
        };
        // In cents for a million tokens.
        assert_eq!(priced("us-east-1", "anthropic.claude-sonnet-5"), (200, false));
        assert_eq!(priced("us-gov-west-1", "anthropic.claude-sonnet-5"), (240, false));
        assert_eq!(priced("us-gov-east-1", "us-gov.anthropic.claude-sonnet-5"), (240, false));
        let haiku = "anthropic.claude-haiku-4-5-20251001-v1:0";
        assert_eq!(priced("us-gov-west-1", &format!("us-gov.{haiku}")), (120, false));
        assert_eq!(priced("eu-west-2", "qwen.qwen3-coder-next"), (78, false));
        // Not in the list: said, and what a profile costs is in its name.
        assert_eq!(priced("eu-west-2", "anthropic.claude-sonnet-5"), (200, true));
        let unknown = bedrock("eu-west-2", "anthropic.claude-sonnet-5", &book);
        assert!(unknown.cost_reason.unwrap().contains("no price for eu-west-2"));
        assert_eq!(priced("eu-west-2", "global.anthropic.claude-sonnet-5"), (200, false));
        let eu = priced("eu-west-2", "eu.anthropic.claude-sonnet-5");
        assert_eq!(eu, (220, false));
    }

    #[test]
    fn claude_on_bedrock_may_be_asked_for_by_a_shorter_name_than_the_lists() {
        let book = Book::builtin();
        let priced = |region: &str, asked: &str, answered: &str| {
            let mut row = bedrock(region, asked, &book);
            row.model = Some(answered.to_owned());
            charge(&mut row, &book);
            (row.cost_nanousd.map(|cost| cost / 10_000_000), row.cost_estimated)
        };
        let (haiku, of_october) = ("anthropic.claude-haiku-4-5", "claude-haiku-4-5-20251001");
        // In cents for a million tokens.
        assert_eq!(priced("us-east-1", haiku, of_october), (Some(100), false));
        assert_eq!(priced("us-east-1", &format!("us.{haiku}"), of_october), (Some(110), false));
        assert_eq!(
            priced("us-gov-west-1", &format!("us-gov.{haiku}"), of_october),
            (Some(120), false)
        );
        // Who answers to a name of another's may be anyone.
        assert_eq!(priced("us-east-1", haiku, "claude-that-nobody-knows"), (None, false));
        assert_eq!(
            priced("us-east-1", "application-inference-profile/x", of_october),
            (None, false)
        );
    }

    #[test]
    fn what_a_cloud_resells_is_an_estimate_by_the_makers_list() {
        let book = Book::builtin();
        let priced = |host: &str, provider: &str, kind: Kind, model: &str| {
            let mut row = Row {
                host: host.to_owned(),
                provider: provider.to_owned(),
                surface: kind.name().map(str::to_owned),
                model: Some(model.to_owned()),
                tokens: Tokens { input: Some(100_000), ..Tokens::default() },
                ..row(1, "2026-11-24T12:00:00Z")
            };
            charge(&mut row, &book);
            (row.cost_nanousd.map(|cost| cost / 1_000_000), row.cost_estimated, row.cost_reason)
        };
        let foundry = "corp.services.ai.azure.com";
        let (cost, estimated, reason) =
            priced(foundry, "azure", Kind::Messages, "claude-sonnet-4-5-20250929");
        assert_eq!((cost, estimated), (Some(300), true));
        let reason = reason.unwrap();
        assert!(reason.contains("list price of anthropic; what corp.services"), "{reason}");
        for (provider, model) in [
            ("azure", "claude-that-nobody-knows"),
            // Who answers to a name of another's may be anyone.
            ("deepseek", "claude-sonnet-4-5-20250929"),
        ] {
            let (cost, _, reason) = priced("h", provider, Kind::Messages, model);
            assert_eq!(cost, None);
            assert!(reason.unwrap().contains("is not in the price book"), "{provider}");
        }
        // A name in Vertex's other spelling is the same model, at Vertex's own price.
        let host = "us-central1-aiplatform.googleapis.com";
        for model in ["gemini-2.5-flash", "google/gemini-2.5-flash"] {
            assert_eq!(priced(host, "vertex", Kind::Chat, model), (Some(30), false, None));
        }
    }

    #[test]
    fn a_price_of_the_users_own_holds_in_every_region() {
        let mut own: OwnPrice = OwnPrice {
            provider: "bedrock".to_owned(),
            model: "anthropic.claude-sonnet-5".to_owned(),
            ..OwnPrice::default()
        };
        own.rates.input = "1.5".parse().ok();
        let book = Book::builtin().with_own(&[own]);
        let row = bedrock("us-gov-west-1", "anthropic.claude-sonnet-5", &book);
        assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(1_500_000_000), false));
    }
}
