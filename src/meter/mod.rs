//! The meter: what happens to a connection that the edge hands over.
//!
//! The byte path is [`tap`] → [`hello`] → [`upstream`] → [`pump`]; everything else works on copies of
//! the bytes. Followers and surfaces are sans-IO: bytes in, events out, no runtime, no clock.
//!
//! - To the copies: [`feed`] → [`pulse`] → [`observer`].
//! - Followers of a protocol ([`http1`], [`http2`], [`websocket`], parts shared in [`http`]) and of a
//!   format ([`coding`], [`sse`], [`eventstream`], [`connect_rpc`], [`multipart`]); [`plain`] is HTTP without TLS.
//! - What was asked and answered: [`exchange`], with [`surface`] for each provider's [`usage`].
//! - What comes of it: [`row`], priced ([`charge`], [`price`]) and kept ([`ledger`], [`bodies`]); beside
//!   it [`quota`] and [`budget`].
//! - Without keys: [`secrets`].
//! - Whose it was: [`attribution`], [`projects`], [`account`].
//! - Prices, budgets and names that people edit: [`own_file`].
//! - Certificates: [`ca`] signs for clients, [`trust`] judges providers.

pub mod account;
pub mod attribution;
pub mod bodies;
pub mod budget;
pub mod ca;
pub mod charge;
pub mod coding;
pub mod connect_rpc;
pub mod eventstream;
pub mod exchange;
pub mod feed;
pub mod hello;
pub mod http;
pub mod http1;
pub mod http2;
pub mod ledger;
pub mod multipart;
pub mod observer;
pub mod own_file;
pub mod plain;
pub mod price;
pub mod projects;
pub mod pulse;
pub mod pump;
pub mod quota;
pub mod row;
pub mod secrets;
pub mod sse;
pub mod surface;
pub mod tap;
pub mod trust;
pub mod upstream;
pub mod usage;
pub mod websocket;
