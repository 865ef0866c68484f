//! A row's cost by kind of token.

use crate::cli::output::all_input;
use crate::meter::charge::itemised;
use crate::meter::price::{Book, Item, spread};
use crate::meter::row::Row;

/// What a row has of one kind.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Part {
    /// `input`, `cache_read`, `web_searches` …; `tokens`: of all kinds; empty: nothing is known.
    pub kind: String,
    pub quantity: Option<u64>,
    /// Dollars for one, where the list says what the row's cost was made by.
    pub unit_price: Option<String>,
    pub cost: Option<i64>,
    pub list: Option<i64>,
}

/// The parts of a row; their costs add up to the row's. There is always one.
pub fn split(row: &Row, book: &Book) -> Vec<Part> {
    let list = row.list_nanousd.or(row.cost_nanousd);
    let Some(cost) = row.cost_nanousd else { return known(row) };
    let (listed, items) = itemised(row, book);
    if items.is_empty() && cost == 0 {
        let free = |part| Part { cost: Some(0), list, ..part };
        return known(row).into_iter().map(free).collect();
    }
    // What somebody charged for a model that the list does not have can't be told apart.
    let Some(costs) = spread(cost, &items) else { return vec![whole(row)] };
    let lists = list.and_then(|list| spread(list, &items));
    // Priced by an earlier list, or with prices of one's own that have changed since.
    let by_this_list = listed == list;
    let share = |at: usize, of: Option<&Vec<i64>>| of.and_then(|all| all.get(at).copied());
    let part = |(at, item): (usize, &Item)| Part {
        kind: item.kind.clone(),
        quantity: Some(item.quantity),
        unit_price: by_this_list.then(|| item.unit_price()),
        cost: share(at, Some(&costs)),
        list: share(at, lists.as_ref()),
    };
    items.iter().enumerate().map(part).collect()
}

/// What is not priced: by kind, without money.
fn known(row: &Row) -> Vec<Part> {
    let counts = row.detail.counts.iter().map(|(name, n)| (name.as_str(), Some(*n)));
    let told = row.tokens.by_kind().into_iter().chain([("web_searches", row.web_searches)]);
    let there = told.chain(counts).filter(|(_, n)| n.is_some_and(|n| n > 0));
    let parts: Vec<Part> = there
        .map(|(kind, quantity)| Part { kind: kind.to_owned(), quantity, ..Part::default() })
        .collect();
    if parts.is_empty() { vec![whole(row)] } else { parts }
}

/// All of it as one.
fn whole(row: &Row) -> Part {
    let tokens = all_input(&row.tokens).into_iter().chain(row.tokens.output);
    let quantity = tokens.reduce(u64::saturating_add);
    Part {
        kind: quantity.map(|_| "tokens".to_owned()).unwrap_or_default(),
        quantity,
        unit_price: None,
        cost: row.cost_nanousd,
        list: row.list_nanousd.or(row.cost_nanousd),
    }
}
