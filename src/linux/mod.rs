//! What only Linux has.

pub mod listener;
pub mod owner;
pub mod splice;
pub mod trust_store;
