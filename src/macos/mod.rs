//! (being written)

pub mod owner;
