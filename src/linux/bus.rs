//! The session bus. Programs that it starts get the variables that it was started with, whatever the manager
//! has since; it can be told others, and never to forget one.

use std::collections::BTreeMap;

use crate::setup::{Answer, Call};

fn call<S: Into<String>>(method: &str, args: impl IntoIterator<Item = S>) -> Call {
    const BUS: [&str; 5] =
        ["--user", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"];
    let words = BUS.into_iter().chain([method]).map(str::to_owned);
    Call::new("busctl", words.chain(args.into_iter().map(Into::into)))
}

/// Is answered where there is one.
#[must_use]
pub fn ask() -> Call {
    call("GetId", [""; 0])
}

/// Programs that it starts from now on get these. Nothing else hangs on it.
#[must_use]
pub fn update(vars: &BTreeMap<String, String>) -> Call {
    let pairs = vars.iter().flat_map(|(name, value)| [name.clone(), value.clone()]);
    let args = ["a{ss}".to_owned(), vars.len().to_string()].into_iter().chain(pairs);
    call("UpdateActivationEnvironment", args).tolerate([Answer::Exit(1)])
}
