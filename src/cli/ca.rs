//! `ca path`, `ca bundle`.

use std::io::Write;

use clap::Subcommand;

use super::{Context, Exit, Failure, env};

#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Path of our CA's certificate (made if it is not there yet).
    Path,
    /// Path of the bundle: the system's roots plus our CA.
    Bundle,
}

pub fn run(ctx: &Context, command: &CaCommand, out: &mut impl Write) -> Result<Exit, Failure> {
    ctx.home.create()?;
    env::prepare_ca(ctx)?;
    let path = match command {
        CaCommand::Path => ctx.home.ca_cert(),
        CaCommand::Bundle => ctx.home.ca_bundle(),
    };
    writeln!(out, "{}", path.display())?;
    Ok(Exit::OK)
}
