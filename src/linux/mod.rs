//! What only Linux has.

pub mod listener;
pub mod splice;
