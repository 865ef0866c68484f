//! (being written)

pub mod splice;
