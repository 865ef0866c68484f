//! (being written)

pub mod owner;
pub mod splice;
