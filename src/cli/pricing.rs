//! `halton-meter pricing`: the prices that count, the user's own among them.

mod check;

use std::io::Write;

use clap::{Args, Subcommand};
use jiff::civil::Date;
use jiff::{Timestamp, ZonedDateTime};
use serde::Serialize;

use super::output::{Column, Style, Table, UsageError, clean, counted, finish, write_json};
use super::{Context, Exit, Failure, client, say};
use crate::home::Home;
use crate::meter::ledger::{Ledger, Window};
use crate::meter::price::{Book, ListPrice, OwnPrice, OwnRates, read_own, write_own};
use crate::meter::surface::LOCAL;
use crate::meter::usage::is_plain;

#[derive(Debug, Subcommand)]
pub enum PricingCommand {
    /// The prices in force, in dollars per million tokens.
    List(ListArgs),
    /// Set a price of your own, also for the past.
    Set(Box<SetArgs>),
    /// Take prices of your own back.
    Reset(ResetArgs),
    /// Whether what was used has a price, the provider's bill agrees with the list, and the list's
    /// sources with each other.
    Check(check::CheckArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  halton-meter pricing list sonnet
  halton-meter pricing list openai/ --at 2026-06-01 --json")]
pub struct ListArgs {
    /// Only models whose `provider/name` contains this
    filter: Option<String>,
    /// On which day (UTC); default: today
    #[arg(long, value_name = "DATE")]
    at: Option<Date>,
    /// Only prices of your own
    #[arg(long)]
    own: bool,
    /// One JSON document (docs/json.md)
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  halton-meter pricing set openai/gpt-6-astra --input 4 --output 20 --from 2026-11-01
  halton-meter pricing set llm.corp.example/house-7b --input 0.10 --output 0.30
  halton-meter recompute-costs --since 2026-11-01 --dry-run    what that changes in the ledger")]
pub struct SetArgs {
    /// PROVIDER/MODEL; a host that is nobody's we know is its own provider
    model: String,
    #[command(flatten)]
    rates: OwnRates,
    /// From this day on (UTC); default: always
    #[arg(long, value_name = "DATE")]
    from: Option<Date>,
    /// For this tier: batch, flex, priority, fast …
    #[arg(long)]
    tier: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  halton-meter pricing reset openai/gpt-6-astra --from 2026-11-01
  halton-meter pricing reset --all")]
pub struct ResetArgs {
    /// PROVIDER/MODEL
    #[arg(required_unless_present = "all")]
    model: Option<String>,
    /// Only the one from this day on; default: all of the model's
    #[arg(long, value_name = "DATE", requires = "model")]
    from: Option<Date>,
    /// All of them
    #[arg(long, conflicts_with = "model")]
    all: bool,
}

pub fn run(ctx: &Context, command: &PricingCommand, out: &mut dyn Write) -> Result<Exit, Failure> {
    let style = Style::detect(ctx.color);
    match command {
        PricingCommand::List(args) => finish(list(args, &ctx.home, style, out)),
        PricingCommand::Set(args) => finish(set(args, &ctx.home, out)).inspect(|_| taken(ctx)),
        PricingCommand::Reset(args) => finish(reset(args, &ctx.home, out)).inspect(|_| taken(ctx)),
        PricingCommand::Check(args) => {
            let mut sound = true;
            finish(check::check(args, &ctx.home, &ZonedDateTime::now(), out).map(|ok| sound = ok))?;
            Ok(if sound { Exit::OK } else { Exit::FAILED })
        }
    }
}

/// A running daemon uses the file as it is now when this is over: so the next request is priced by it.
fn taken(ctx: &Context) {
    if let Some(Err(why)) = client::take_prices(ctx) {
        say(format_args!("the daemon takes it over within seconds, not at once: {why}"));
    }
}

/// The list prices with the user's own in front.
pub fn book(home: &Home) -> anyhow::Result<Book> {
    Ok(Book::builtin().with_own(&read_own(&home.prices_file())?))
}

fn list(args: &ListArgs, home: &Home, style: Style, out: &mut dyn Write) -> anyhow::Result<()> {
    let book = book(home)?;
    let at = match args.at {
        Some(day) => day.to_zoned_datetime(jiff::tz::TimeZone::UTC)?.timestamp(),
        None => Timestamp::now(),
    };
    let wanted = args.filter.as_deref().unwrap_or_default().to_ascii_lowercase();
    let prices: Vec<ListPrice> = book
        .prices(at)
        .into_iter()
        .filter(|p| (!args.own || p.own) && p.name().contains(&wanted))
        .collect();
    if args.json {
        #[derive(Serialize)]
        struct Document<'a> {
            book: &'a str,
            prices: Vec<ListPrice>,
        }
        return write_json(out, &Document { book: book.date(), prices });
    }
    if prices.is_empty() {
        writeln!(out, "No price matches.")?;
        return Ok(());
    }
    let mut table = Table::new(&[
        Column::text("MODEL", 0),
        Column::text("TIER", 1),
        Column::text("SINCE", 5),
        Column::number("INPUT", 0),
        Column::number("FROM CACHE", 3),
        Column::number("TO CACHE", 3),
        Column::number("1 HOUR", 4),
        Column::number("OUTPUT", 0),
        Column::text("NOTE", 2),
    ]);
    for price in &prices {
        let dollars = |rate: &Option<String>| rate.clone().unwrap_or_else(|| "–".to_owned());
        table.row(vec![
            price.name(),
            price.tier.clone().unwrap_or_default(),
            price.from.map(|day| day.to_string()).unwrap_or_default(),
            dollars(&price.input),
            dollars(&price.cache_read),
            dollars(&price.cache_write_5m),
            dollars(&price.cache_write_1h),
            dollars(&price.output),
            price.note(),
        ]);
    }
    out.write_all(table.render(style).as_bytes())?;
    writeln!(out, "Dollars per million tokens. The list is of {}.", book.date())?;
    Ok(())
}

fn set(args: &SetArgs, home: &Home, out: &mut dyn Write) -> anyhow::Result<()> {
    let (provider, model) = provider_and_model(&args.model)?;
    if args.model.contains(char::is_control) {
        let name = &args.model;
        return Err(UsageError(format!("{name:?} has a control character in it")).into());
    }
    if args.rates.is_empty() {
        return Err(UsageError("no price given; name one, like --input 1.25".to_owned()).into());
    }
    let price = OwnPrice {
        provider,
        model,
        // Who names the plain one means none.
        tier: args.tier.as_ref().map(|tier| tier.to_ascii_lowercase()).filter(|t| !is_plain(t)),
        from: args.from,
        rates: args.rates,
    };
    home.create()?;
    let _alone = home.change_one_by_one();
    let path = home.prices_file();
    let mut prices = read_own(&path)?;
    prices.retain(|other| !other.same_place(&price));
    let unknown = of_nobody(home, &price.provider);
    prices.push(price);
    write_own(&path, &prices)?;
    writeln!(
        out,
        "Set. The daemon uses it for what ends from now on; `halton-meter recompute-costs` applies it \
         to what is in the ledger."
    )?;
    unknown.map_or(Ok(()), |said| writeln!(out, "{said}"))?;
    Ok(())
}

/// Says so if nobody knows the provider: its name may be mistyped.
fn of_nobody(home: &Home, provider: &str) -> Option<String> {
    if provider == LOCAL || Book::builtin().knows_provider(provider) {
        return None;
    }
    let ever = Window { from: Timestamp::UNIX_EPOCH, to: Timestamp::MAX };
    // A ledger that can't be read is no reason to doubt the name.
    let groups = Ledger::open(home).and_then(|ledger| ledger.by_provider(ever)).ok()?;
    let known = groups.iter().any(|group| group.key.as_deref() == Some(provider));
    let said = format!(
        "Neither the list nor the ledger has anything of a provider {} yet; `halton-meter pricing list` and \
         `halton-meter report --by provider` show the names.",
        clean(provider)
    );
    (!known).then_some(said)
}

fn reset(args: &ResetArgs, home: &Home, out: &mut dyn Write) -> anyhow::Result<()> {
    let _alone = home.change_one_by_one();
    let path = home.prices_file();
    let mut prices = read_own(&path)?;
    let before = prices.len();
    match &args.model {
        Some(name) => {
            let (provider, model) = provider_and_model(name)?;
            let meant = |price: &OwnPrice| args.from.is_none() || args.from == price.from;
            prices.retain(|price| !(price.is_for(&provider, &model) && meant(price)));
        }
        None => prices.clear(),
    }
    let gone = before - prices.len();
    if gone > 0 {
        write_own(&path, &prices)?;
    }
    let what = counted(gone as u64, "price");
    writeln!(out, "{what} taken back; `halton-meter recompute-costs` applies the list again.")?;
    Ok(())
}

/// `openrouter/anthropic/claude-x` is a model of openrouter.
fn provider_and_model(name: &str) -> Result<(String, String), UsageError> {
    let parts = name.split_once('/').filter(|(p, m)| !p.is_empty() && !m.is_empty());
    let (provider, model) = parts.ok_or_else(|| {
        UsageError(format!("{name:?} names no provider; write openai/gpt-4o (`pricing list`)"))
    })?;
    Ok((provider.to_ascii_lowercase(), model.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::meter::ledger::fixture::{home, row, store};
    use crate::meter::row::Row;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: PricingCommand,
    }

    fn said(home: &Home, words: &[&str]) -> anyhow::Result<(bool, String)> {
        let cli = Cli::try_parse_from([&["pricing"], words].concat())?;
        let mut out = Vec::new();
        let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
        let sound = match &cli.command {
            PricingCommand::List(args) => {
                list(args, home, Style::default(), &mut out).map(|()| true)
            }
            PricingCommand::Set(args) => set(args, home, &mut out).map(|()| true),
            PricingCommand::Reset(args) => reset(args, home, &mut out).map(|()| true),
            PricingCommand::Check(args) => check::check(args, home, &now, &mut out),
        }?;
        Ok((sound, String::from_utf8(out).unwrap()))
    }

    #[test]
    fn set_list_and_reset() {
        let (_dir, home) = home();
        let listed = |words: &[&str]| said(&home, words).unwrap().1;
        assert!(listed(&["list", "openai/gpt-4o-mini"]).contains("0.15"));
        listed(&["set", "OpenAI/GPT-4o-mini", "--input", "0.123", "--from", "2026-01-01"]);
        listed(&["set", "openai/gpt-4o-mini", "--input", "0.124", "--from", "2026-01-01"]);
        let cached = ["--cache-read-audio", "0.3", "--cache-read-image", "0.4"];
        listed(&[&["set", "corp.example/x/y", "--output", "$2"][..], &cached].concat());
        let kept = std::fs::read_to_string(home.prices_file()).unwrap();
        assert!(kept.contains("cache_read_audio = \"0.3\"\ncache_read_image = \"0.4\""), "{kept}");
        let mine = listed(&["list", "--own"]);
        assert!(mine.contains("0.124") && !mine.contains("0.123"), "{mine}");
        assert!(mine.contains("corp.example/x/y") && mine.contains("yours"), "{mine}");
        let json = listed(&["list", "gpt-4o-mini", "--at", "2025-06-01", "--json"]);
        assert!(json.contains("\"0.15\""), "{json}");
        assert!(listed(&["reset", "openai/gpt-4o-mini", "--from", "2026-01-02"]).starts_with("0 "));
        assert!(listed(&["reset", "openai/gpt-4o-mini", "--from", "2026-01-01"]).starts_with("1 "));
        assert!(listed(&["reset", "--all"]).starts_with("1 price"));
        assert_eq!(listed(&["list", "--own"]), "No price matches.\n");
    }

    #[test]
    fn a_provider_that_nobody_knows_is_told() {
        let (_dir, home) = home();
        let set = |name: &str| said(&home, &["set", name, "--input", "1"]);
        let unknown = |name: &str| set(name).unwrap().1.contains("Neither the list nor the ledger");
        for (name, expected) in [
            ("opnai/gpt-5", true),
            ("opnai/gpt-6", true),
            ("OpenAI/gpt-5", false),
            ("local/qwen", false),
            ("llm.corp.example/x", true),
        ] {
            assert_eq!(unknown(name), expected, "{name}");
        }
        let asked =
            Row { provider: "llm.corp.example".to_owned(), ..row(1, "2026-11-24T00:00:00Z") };
        store(&home, &[asked]);
        assert!(!unknown("llm.corp.example/x"));
        for name in ["openai/a\nb", "open\tai/a"] {
            assert!(set(name).unwrap_err().is::<UsageError>());
        }
        assert!(!std::fs::read_to_string(home.prices_file()).unwrap().contains("a\\nb"));
    }

    #[test]
    fn the_plain_tier_is_none() {
        let (_dir, home) = home();
        for tier in ["standard", "Default", "auto", "on_demand", "unspecified"] {
            said(&home, &["set", "openai/gpt-4o-mini", "--tier", tier, "--input", "7"]).unwrap();
        }
        said(&home, &["set", "openai/gpt-4o-mini", "--tier", "flex", "--input", "3"]).unwrap();
        let own = read_own(&home.prices_file()).unwrap();
        let tiers: Vec<_> = own.iter().map(|price| price.tier.as_deref()).collect();
        assert_eq!(tiers, [None, Some("flex")], "one replaces the other");
    }

    #[test]
    fn check_names_the_tier_that_has_no_price() {
        let (_dir, home) = home();
        let of = |n, reason: &str| Row {
            model: Some("gpt-4o-mini".to_owned()),
            cost_nanousd: None,
            cost_reason: Some(reason.to_owned()),
            ..row(n, "2026-11-24T00:00:00Z")
        };
        let advice = || said(&home, &["check"]).unwrap().1;
        store(&home, &[of(1, "no price for tier flex of gpt-4o-mini")]);
        assert!(
            advice().contains("set PROVIDER/gpt-4o-mini --tier flex --input …`"),
            "{}",
            advice()
        );
        store(&home, &[of(2, "no price for tier scale of gpt-4o-mini; unverified")]);
        // No price can be set for both at once.
        store(&home, &[of(3, "no price for tier batch at speed fast; one of two")]);
        let text = advice();
        assert!(text.contains("gpt-4o-mini: 3 requests"), "{text}");
        assert!(text.contains("--tier flex|scale --input …`"), "{text}");
        let json: serde_json::Value =
            serde_json::from_str(&said(&home, &["check", "--json"]).unwrap().1).unwrap();
        assert_eq!(json["unpriced"][0]["tiers"], serde_json::json!(["flex", "scale"]));
    }

    #[test]
    fn what_is_listed_is_of_the_day_and_of_whom_was_asked() {
        let (_dir, home) = home();
        let model = "openai/gpt-4o-mini";
        said(&home, &["set", model, "--input", "0.124", "--from", "2026-01-01"]).unwrap();
        // Whether the price is the user's own, and its input.
        let listed = |more: &[&str]| {
            let (_, text) = said(&home, &[&["list", model, "--json"], more].concat()).unwrap();
            let document: serde_json::Value = serde_json::from_str(&text).unwrap();
            let prices = document["prices"].as_array().unwrap().clone();
            let exact =
                prices.iter().filter(|p| p["model"] == "gpt-4o-mini" && p["tier"].is_null());
            exact
                .map(|p| (p["own"] == true, p["input"].as_str().unwrap().to_owned()))
                .collect::<Vec<_>>()
        };
        let list = vec![(false, "0.15".to_owned())];
        let own = vec![(true, "0.124".to_owned())];
        for (words, expected) in [
            (&["--at", "2025-12-31"][..], &list),
            (&["--at", "2026-01-01"], &own),
            (&[], &own),
            (&["--own"], &own),
            (&["--own", "--at", "2026-01-01"], &own),
            (&["--own", "--at", "2025-12-31"], &Vec::new()),
        ] {
            assert_eq!(&listed(words), expected, "{words:?}");
        }
        let (_, all) = said(&home, &["list", "--own", "--json"]).unwrap();
        assert_eq!(all.matches("\"model\"").count(), 1, "{all}");
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        let (_dir, home) = home();
        for words in [
            &["set", "gpt-4o", "--input", "1"][..],
            &["set", "openai/gpt-4o"],
            &["set", "openai/gpt-4o", "--input", "-1"],
            &["reset"],
        ] {
            assert!(said(&home, words).is_err(), "{words:?}");
        }
        assert!(!home.prices_file().exists());
    }

    #[test]
    fn check_finds_what_has_no_price_and_what_was_billed_otherwise() {
        let (_dir, home) = home();
        let fresh = |n| row(n, "2026-11-24T00:00:00Z");
        let billed = Row {
            provider: "openrouter".to_owned(),
            provider_cost_nanousd: Some(2_000_000_000),
            cost_nanousd: Some(2_000_000_000),
            list_nanousd: Some(1_500_000_000),
            ..fresh(1)
        };
        store(&home, std::slice::from_ref(&billed));
        let (sound, text) = said(&home, &["check"]).unwrap();
        assert!(sound && text.contains("openrouter: $2.00") && text.contains("$1.50"), "{text}");
        assert!(text.lines().count() < 50 && text.contains("explained "), "{text}");
        let (_, each) = said(&home, &["check", "--verbose"]).unwrap();
        assert!(each.lines().count() > 200 && each.contains(": list "), "{each}");
        store(&home, &[Row { model: Some("gpt-99".to_owned()), cost_nanousd: None, ..fresh(2) }]);
        let (sound, text) = said(&home, &["check"]).unwrap();
        assert!(!sound && text.contains("gpt-99: 1 request"), "{text}");
        let nameless = Row { model: None, model_requested: None, cost_nanousd: None, ..fresh(3) };
        store(&home, &[nameless]);
        let (_, text) = said(&home, &["check"]).unwrap();
        assert!(text.contains("(unknown): 1 request") && !text.contains("/(unknown)"), "{text}");
    }
}
