//! What a request costs: a dated book of list prices and the arithmetic on them, in integers.

mod book;
mod money;

pub use book::{Book, BookError, Query, Quote};
pub use money::NanoUsd;
