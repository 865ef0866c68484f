//! One binary for all integration tests, so that they link once.

#[path = "../support/client.rs"]
mod client;
#[path = "../support/clis.rs"]
mod clis;
#[path = "../support/harness.rs"]
mod harness;
#[path = "../support/origin/mod.rs"]
mod origin;
#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/standins.rs"]
mod standins;

mod absolute;
mod api_port;
mod as_without_us;
mod bodies;
mod budgets;
mod bypass;
mod ca;
mod cli_tools;
mod clients;
mod clock;
mod commands;
mod configuration;
mod containers;
mod corporate;
mod coverage;
mod descriptors;
mod doctor;
mod documents;
mod drain;
mod expected;
mod fail_open;
mod home_removed;
mod job_control;
mod ladder;
mod launchd;
mod layers;
mod ledger_faults;
mod limits;
mod macos_network;
mod macos_tools;
mod origin_itself;
mod plain;
mod program_gone;
mod projects;
mod recompute;
mod rest;
mod sdks;
mod selftest;
mod services;
mod setup;
mod shared_home;
mod shell_variables;
mod shells;
mod sockets;
mod supervision;
mod surfaces;
mod systemd;
mod tools;
mod two_users;
mod uninstall;
mod up;
mod upgrade;
mod views;
mod watchdog;
mod wire;
