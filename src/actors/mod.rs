//! The daemon's actors: its control plane. Bytes never pass through them.

pub mod admin;
pub mod ask;
