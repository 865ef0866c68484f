//! (being written)

pub mod output;
pub mod range;
pub mod report;
pub mod requests;
