//! Puts the code that a resting process runs beside each other (docs/adr/0027-resting-code-lies-together.md).
//!
//! Only for release builds on Linux, and only where the linker takes the script: it is tried on an empty
//! program first, as a build must not fail for a few megabytes.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SCRIPT: &str = "src/linux/resting.ld";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SCRIPT}");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if !is("CARGO_CFG_TARGET_OS", "linux") || !is("PROFILE", "release") {
        return;
    }
    let order =
        path("CARGO_MANIFEST_DIR").map(|dir| format!("-Wl,-T,{}", dir.join(SCRIPT).display()));
    if let Some(order) = order
        && takes(&order).unwrap_or(false)
    {
        println!("cargo::rustc-link-arg-bins={order}");
    }
}

/// Whether an empty program links with this argument, as the program will be.
fn takes(order: &str) -> Option<bool> {
    let dir = path("OUT_DIR")?;
    let source = dir.join("empty.rs");
    std::fs::write(&source, "fn main() {}\n").ok()?;
    let mut rustc = Command::new(env::var_os("RUSTC")?);
    rustc.arg(&source).arg("-o").arg(dir.join("empty")).arg("--target").arg(env::var_os("TARGET")?);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut argument = OsString::from("-Clinker=");
        argument.push(linker);
        rustc.arg(argument);
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    rustc.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));
    let tried = rustc.arg(format!("-Clink-arg={order}")).stderr(Stdio::null()).status().ok()?;
    Some(tried.success() && runs(&dir.join("empty")))
}

/// A program for another machine can't be run here; one that can must end well.
fn runs(program: &Path) -> bool {
    env::var_os("HOST") != env::var_os("TARGET")
        || Command::new(program).status().is_ok_and(|status| status.success())
}

fn path(name: &str) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from)
}
