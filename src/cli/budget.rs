//! `halton-meter budget`: amounts that warn and never block.

use std::io::Write;

use clap::{Args, Subcommand};
use jiff::ZonedDateTime;

use super::output::{
    Column, Style, Table, UsageError, clean, finish, harmless, local, money, write_json,
};
use super::{Context, Exit, Failure};
use crate::home::Home;
use crate::meter::budget::{self, Budget, Channel, Per, Standing, standings};
use crate::meter::ledger::Ledger;
use crate::meter::price::Dollars;

#[derive(Debug, Subcommand)]
pub enum BudgetCommand {
    /// How the budgets stand.
    #[command(after_help = "Examples:
  halton-meter budget list
  halton-meter budget list --json")]
    List {
        /// One JSON document (docs/json.md)
        #[arg(long)]
        json: bool,
    },
    /// Set a budget; one of the same name is replaced.
    Set(SetArgs),
    /// Take a budget back.
    #[command(after_help = "Examples:
  halton-meter budget remove side-project")]
    Remove {
        /// What `budget set` called it
        name: String,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  halton-meter budget set all --limit 100
  halton-meter budget set side-project --limit 5 --per day --project my-app
A budget warns in `run`, `status` and `statusline`, and if you like on the desktop
(`config set budgets.desktop true`) and at a URL (`config set budgets.webhook https://…`).
No request is ever held back.")]
pub struct SetArgs {
    /// What you call it: any word; setting it again changes it
    #[arg(value_parser = a_name)]
    name: String,
    /// In dollars
    #[arg(long, value_name = "USD", value_parser = a_limit)]
    limit: Dollars,
    #[arg(long, value_enum, default_value = "month")]
    per: Per,
    /// Only this project
    #[arg(long, value_parser = a_part)]
    project: Option<String>,
    /// Only this model; without the date in its name, all of that name
    #[arg(long, value_parser = a_part)]
    model: Option<String>,
    /// What a subscription covers too, at list prices
    #[arg(long)]
    covered: bool,
}

/// One without a word in it could be neither told of nor read.
fn a_name(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err("expected a name, like all") } else { Ok(text.to_owned()) }
}

fn a_limit(text: &str) -> Result<Dollars, &'static str> {
    text.parse().and_then(budget::some_amount)
}

fn a_part(text: &str) -> Result<String, &'static str> {
    budget::some_name(text.to_owned())
}

pub fn run(ctx: &Context, command: &BudgetCommand, out: &mut dyn Write) -> Result<Exit, Failure> {
    let style = Style::detect(ctx.color);
    finish(act(&ctx.home, command, style, &ZonedDateTime::now(), out))
}

fn act(
    home: &Home,
    command: &BudgetCommand,
    style: Style,
    now: &ZonedDateTime,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let path = home.budgets_file();
    match command {
        BudgetCommand::List { json } => {
            budget::read(&path)?;
            let standings = standings(home, now)?;
            if *json {
                return write_json(out, &serde_json::json!({ "budgets": standings }));
            }
            if standings.is_empty() {
                writeln!(out, "No budgets; `halton-meter budget set` sets one.")?;
                return Ok(());
            }
            out.write_all(table(&standings, now).render(style).as_bytes())?;
        }
        BudgetCommand::Set(args) => {
            home.create()?;
            let _alone = home.change_one_by_one();
            let mut budgets = budget::read(&path)?;
            budgets.retain(|budget| budget.name != args.name);
            let budget = Budget {
                name: args.name.clone(),
                limit: args.limit,
                per: args.per,
                project: args.project.clone(),
                model: args.model.clone(),
                covered: args.covered,
            };
            let idle = of_nothing(home, &budget);
            budgets.push(budget);
            budget::write(&path, &budgets)?;
            writeln!(out, "Set. It warns at 50, 80 and 100 %, and never holds a request back.")?;
            idle.map_or(Ok(()), |said| writeln!(out, "{said}"))?;
        }
        BudgetCommand::Remove { name } => {
            let _alone = home.change_one_by_one();
            let mut budgets = budget::read(&path)?;
            let before = budgets.len();
            budgets.retain(|budget| budget.name != *name);
            if budgets.len() == before {
                return Err(UsageError(format!("no budget is named {name:?}")).into());
            }
            budget::write(&path, &budgets)?;
            writeln!(out, "Removed.")?;
        }
    }
    Ok(())
}

/// Says so if nothing was ever asked that would count for it: a name may be mistyped.
fn of_nothing(home: &Home, budget: &Budget) -> Option<String> {
    let part =
        |kind: &str, name: &Option<String>| Some(format!("{kind} {}", clean(name.as_ref()?)));
    let parts = [part("project", &budget.project), part("model", &budget.model)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return None;
    }
    // A ledger that can't be read is no reason to doubt the name.
    let known = Ledger::open(home).and_then(|ledger| budget.is_of_something(&ledger));
    let said = format!(
        "The ledger has nothing of {} yet; `halton-meter report --by project --by model` shows the names.",
        parts.join(", ")
    );
    (!known.unwrap_or(true)).then_some(said)
}

/// Thresholds that were passed and not told by `run` yet, in words; they are told now.
pub fn news(home: &Home, now: &ZonedDateTime) -> Vec<String> {
    let standings = standings(home, now).unwrap_or_default();
    let news = budget::claim(home, Channel::Run, &standings, now).unwrap_or_default();
    news.iter().map(|standing| harmless(&standing.line())).collect()
}

/// `budget all: $84.20 of $100.00 this month (84%)`.
pub fn line(standing: &Standing) -> String {
    let budget = &standing.budget;
    let unpriced = if standing.unpriced > 0 { ", and what has no price" } else { "" };
    format!(
        "budget {}: {} of {} this {} ({}%){unpriced}",
        clean(&budget.name),
        money(i128::from(standing.spent_nanousd)),
        money(i128::from(budget.limit.nano())),
        budget.per.as_str(),
        standing.percent(),
    )
}

fn table(standings: &[Standing], now: &ZonedDateTime) -> Table {
    let mut table = Table::new(&[
        Column::text("BUDGET", 0),
        Column::text("FOR", 2),
        Column::text("PER", 1),
        Column::number("SPENT", 0),
        Column::number("LIMIT", 0),
        Column::number("USED", 0),
        Column::text("UNTIL", 3),
    ]);
    for standing in standings {
        let Budget { name, limit, per, project, model, .. } = &standing.budget;
        let parts: Vec<String> = project.iter().chain(model).map(|part| clean(part)).collect();
        let unpriced = if standing.unpriced > 0 { " + unpriced" } else { "" };
        table.row(vec![
            clean(name),
            if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") },
            per.as_str().to_owned(),
            format!("{}{unpriced}", money(i128::from(standing.spent_nanousd))),
            money(i128::from(limit.nano())),
            format!("{}%", standing.percent()),
            local(standing.window.to, now.time_zone(), "%m-%d"),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::ledger::fixture::{home, row, store};
    use crate::meter::row::{Billing, Row};

    #[test]
    fn what_a_plan_covers_counts_where_that_is_asked_for() {
        use clap::Parser;
        #[derive(Debug, Parser)]
        struct Line {
            #[command(subcommand)]
            command: BudgetCommand,
        }
        let (_dir, home) = home();
        let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
        let of = |n, cost, billing| Row {
            cost_nanousd: Some(cost),
            billing,
            ..row(n, "2026-11-24T00:00:00Z")
        };
        let paid = of(1, 1_000_000_000, Billing::Metered);
        store(&home, &[paid, of(2, 2_000_000_000, Billing::Subscription)]);
        let said = |line: &str| {
            let line = Line::parse_from(line.split(' '));
            let mut out = Vec::new();
            act(&home, &line.command, Style::default(), &now, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        said("budget set paid --limit 10");
        said("budget set both --limit 10 --covered");
        let list: serde_json::Value = serde_json::from_str(&said("budget list --json")).unwrap();
        let budget = |n: usize| {
            let budget = &list["budgets"][n];
            let field = |name: &str| budget[name].clone();
            (field("name"), field("covered") == true, field("spent_nanousd"))
        };
        assert_eq!(budget(0), ("paid".into(), false, 1_000_000_000.into()), "{list:#}");
        assert_eq!(budget(1), ("both".into(), true, 3_000_000_000_u64.into()), "{list:#}");
    }

    #[test]
    fn what_has_no_price_is_said_beside_what_was_spent() {
        let (_dir, home) = home();
        let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
        let rows = [
            Row { cost_nanousd: Some(5_000_000_000), ..row(1, "2026-11-24T00:00:00Z") },
            Row { cost_nanousd: None, ..row(2, "2026-11-24T00:00:00Z") },
        ];
        store(&home, &rows);
        budget::write(
            &home.budgets_file(),
            &[Budget {
                name: "all".to_owned(),
                limit: "10".parse().unwrap(),
                per: Per::Month,
                project: None,
                model: None,
                covered: false,
            }],
        )
        .unwrap();
        let standings = standings(&home, &now).unwrap();
        let told = table(&standings, &now).render(Style::default());
        assert!(told.contains("$5.00 + unpriced") && told.contains("12-01"), "{told}");
    }

    #[test]
    fn who_sets_one_at_the_same_time_loses_none() {
        let (_dir, home) = home();
        let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (home, now) = (&home, &now);
                scope.spawn(move || {
                    let args = SetArgs {
                        name: format!("b{n}"),
                        limit: "10".parse().unwrap(),
                        per: Per::Month,
                        project: None,
                        model: None,
                        covered: false,
                    };
                    let set = BudgetCommand::Set(args);
                    act(home, &set, Style::default(), now, &mut Vec::new()).unwrap();
                });
            }
        });
        assert_eq!(budget::read(&home.budgets_file()).unwrap().len(), 8);
    }

    #[test]
    fn a_budget_has_a_name() {
        assert_eq!(a_name("all"), Ok("all".to_owned()));
        assert!(a_name("").is_err() && a_name(" \t").is_err());
    }

    #[test]
    fn a_budget_is_of_something() {
        use clap::Parser;
        #[derive(Debug, Parser)]
        struct Line {
            #[command(subcommand)]
            command: BudgetCommand,
        }
        let refused = |more: &[&str]| {
            let words = [&["budget", "set", "all"], more].concat();
            Line::try_parse_from(words).err().map(|e| e.to_string()).unwrap_or_default()
        };
        for limit in ["0", "$0.00", "0.0000000001"] {
            let said = refused(&["--limit", limit]);
            assert!(said.contains("expected more than $0"), "{limit}: {said}");
        }
        for part in ["--model", "--project"] {
            let said = refused(&["--limit", "5", part, ""]);
            assert!(said.contains("expected a name"), "{part}: {said}");
            assert_eq!(refused(&["--limit", "0.000000001", part, "x"]), "");
        }
    }

    #[test]
    fn set_warn_once_and_remove() {
        let (_dir, home) = home();
        let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
        let said = |command: &BudgetCommand| {
            let mut out = Vec::new();
            act(&home, command, Style::default(), &now, &mut out)
                .map(|()| String::from_utf8(out).unwrap())
        };
        let list = BudgetCommand::List { json: false };
        assert!(said(&list).unwrap().starts_with("No budgets"));
        let set = |model: Option<&str>| {
            let args = SetArgs {
                name: "all".to_owned(),
                limit: "10".parse().unwrap(),
                per: Per::Month,
                project: None,
                model: model.map(str::to_owned),
                covered: false,
            };
            said(&BudgetCommand::Set(args)).unwrap()
        };
        assert!(set(Some("claude")).contains("nothing of model claude yet"));
        assert!(!set(None).contains("nothing"));
        let rows = [Row { cost_nanousd: Some(8_400_000_000), ..row(1, "2026-11-24T00:00:00Z") }];
        store(&home, &rows);
        assert!(said(&list).unwrap().contains("84%"));
        assert!(!set(Some("claude-sonnet-5")).contains("nothing"));
        set(None);
        assert_eq!(
            news(&home, &now),
            ["budget all has passed 80%: $8.40 of $10.00 this month (84%)"]
        );
        assert!(news(&home, &now).is_empty(), "told before");
        let remove = BudgetCommand::Remove { name: "all".to_owned() };
        said(&remove).unwrap();
        assert!(said(&remove).is_err());
    }
}
