//! What only Linux has.

pub mod owner;
pub mod splice;
