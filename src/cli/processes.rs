//! The hidden subcommands: the processes themselves. A mistake in the configuration never keeps
//! them from serving; the default stands for what is wrong, and the log says so.

use std::io::Write;

use super::{Context, Exit, say};
use crate::log::{self, LogTo};
use crate::{daemon, edge, inherit, limits, root, watchdog};

pub fn edge(ctx: Context) -> Exit {
    with_log(ctx, "edge", false, |ctx, log| {
        edge::main(edge::EdgeOptions { home: ctx.home, config: ctx.loaded, log })
    })
}

pub fn preflight(process: &str, format: u32, out: &mut impl Write) -> Exit {
    let known = match process {
        "edge" => edge::upgrade::FORMAT,
        "root" => root::FORMAT,
        _ => return Exit::USAGE,
    };
    if known == format && writeln!(out, "{}", inherit::READY).is_ok() {
        Exit::OK
    } else {
        Exit::FAILED
    }
}

pub fn daemon(ctx: Context, service: bool) -> Exit {
    with_log(ctx, "daemon", false, |ctx, log| {
        daemon::main(daemon::DaemonOptions { home: ctx.home, config: ctx.loaded, log, service })
    })
}

pub fn watchdog(ctx: Context, service: bool) -> Exit {
    with_log(ctx, "watchdog", false, |ctx, log| {
        let config = ctx.loaded;
        watchdog::main(watchdog::WatchdogOptions { home: ctx.home, config, log, service })
    })
}

pub fn supervise(ctx: Context, foreground: bool, edge_only: bool) -> Exit {
    with_log(ctx, "root", foreground, |ctx, log| {
        let config = ctx.loaded;
        root::main(root::RootOptions { home: ctx.home, config, log, foreground, edge_only })
    })
}

fn with_log(
    ctx: Context,
    process: &'static str,
    to_stderr: bool,
    main: impl FnOnce(Context, slog::Logger) -> Exit,
) -> Exit {
    inherit::close_strays();
    limits::raise();
    limits::without_core();
    // Even an unwritable home must not keep an edge from serving.
    if let Err(e) = ctx.home.create() {
        say(&e);
    }
    let to = if to_stderr { LogTo::Stderr } else { LogTo::File };
    let log = log::root(process, &ctx.home, ctx.loaded.config.log.level, to);
    for problem in &ctx.loaded.problems {
        slog::error!(log, "configuration"; "problem" => %problem);
    }
    let code = main(ctx, log);
    log::finish();
    code
}
