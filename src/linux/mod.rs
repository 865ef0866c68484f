//! What only Linux has.

pub mod owner;
