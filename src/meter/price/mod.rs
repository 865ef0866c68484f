//! What a request costs: a dated book of list prices, and the arithmetic on it in integers.

mod book;
mod money;
mod quote;
#[cfg(test)]
mod tests;

pub use book::{Book, BookError};
pub(crate) use money::shifted;
pub use money::{nano_from_decimal, usd};
pub use quote::{Query, Quote};
