//! What a request costs: a dated book of list prices, and the arithmetic on it in integers.

mod book;
mod charges;
mod dollars;
mod holidays;
mod items;
mod list;
mod money;
mod own;
mod quote;
mod sources;
#[cfg(test)]
mod tests;

pub use book::{Book, BookError};
pub use dollars::Dollars;
pub use items::{Item, spread};
pub use list::ListPrice;
pub(crate) use money::shifted;
pub use money::{nano_from_decimal, usd};
#[cfg(any(test, fuzzing))]
pub(crate) use own::parse_own;
pub use own::{OwnPrice, OwnRates, read_own, write_own};
pub use quote::{Query, Quote};
pub use sources::{Comparison, Difference, SourcesError};
