//! What only Linux has.

pub mod splice;
