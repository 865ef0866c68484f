//! Halton Meter: a fail-open metering proxy for LLM tools.
//!
//! # The process tree
//!
//! ```text
//! supervise (root)            holds 127.0.0.1:8081, restarts what dies
//! ├── edge                    accepts, reads CONNECT, tunnels; never decrypts
//! │   └── health cache        actor: probes the daemon, publishes the verdict
//! ├── daemon                  actor tree + tap
//! │   ├── meter               supervisor: who starts first is restarted with all that follow
//! │   │   ├── ledger          actor: owns the SQLite writer thread
//! │   │   ├── prices          actor: publishes the price book
//! │   │   └── tap             actor: takes sockets from the edge, meters them
//! │   ├── budgets             actor: tells desktop and webhook of thresholds
//! │   ├── edge monitor        actor: watches the edge process
//! │   ├── health              actor: folds observations into /health
//! │   └── admin               actor: actix-web on 127.0.0.1:8765
//! └── watchdog                actor in a process of its own: 5 misses -> system proxy off
//! ```
//!
//! # The way of a byte
//!
//! tool → [`edge::accept`] → [`edge::connect`] → [`edge::route`] → either [`edge::tunnel`]
//! (raw, to any host) or, for a metered host and a healthy daemon, the client's *socket* goes
//! over the [`handover`] channel to [`meter::tap`]: TLS ends there on both sides, [`meter::pump`]
//! moves the bytes verbatim, and a copy goes to [`meter::observer`] → followers
//! ([`meter::http1`], [`meter::http2`], [`meter::websocket`], [`meter::sse`] …) → [`meter::exchange`],
//! which reads with [`meter::surface`] → [`meter::price`] → [`meter::ledger`].
//!
//! A request for an `https://` address in absolute form, which some tools ask of any proxy, goes the same
//! way in plain text, with TLS on the provider's side only: by the tap, or else by [`edge::secure`].
//!
//! All of it can be replaced under traffic: [`edge::upgrade`] and [`inherit`]. [`selftest`] sends
//! real requests along the way above.
//!
//! # Where the rest is
//!
//! - Processes: [`root`], [`edge`], [`daemon`] with its [`actors`], [`watchdog`]; what starts and restarts them,
//!   [`supervisor`]; what they have in common, [`signals`], [`beat`], [`threads`], [`log`], [`exit`]; what their
//!   caller allows them, [`limits`], [`descriptors`].
//! - Settings and files: [`config`], [`home`].
//! - Connections of ours: [`dial`] to a target, [`near`] to this machine.
//! - Commands: [`cli`]; what changes the user's machine, [`setup`] and [`trust_store`].
//! - What differs between systems: [`platform`], over [`linux`] and [`macos`].
//!
//! Every failure of ours ends in "the user's bytes flow, unmetered"; the table that says so, row
//! by row, is `docs/architecture.md`.

pub mod actors;
pub mod beat;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod descriptors;
pub mod dial;
pub mod digest;
pub mod edge;
pub mod exit;
mod framing;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod handover;
pub mod home;
pub mod inherit;
pub mod limits;
pub mod linux;
pub mod log;
pub mod macos;
pub mod meter;
pub mod near;
pub mod notice;
pub mod platform;
pub mod root;
pub mod selftest;
pub mod setup;
pub mod signals;
pub mod supervisor;
#[cfg(test)]
mod testing;
pub mod threads;
pub mod trust_store;
pub mod watchdog;
