//! `ca path`, `ca bundle`, `ca trust`, `ca untrust`, `ca rotate`.

mod rotate;

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::apply::Leftover;
use super::output::{AsJson, finish, path};
use super::{Context, Exit, Failure, apply, client, env, lifecycle, say};
use crate::home::Home;
use crate::meter::ca;
use crate::platform;
use crate::setup::{self, StepError};
use crate::trust_store::{Authority, Change, Plan, TrustStoreError};

const ASK: Duration = Duration::from_secs(2);

#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Path of our CA's certificate (made if it is not there yet).
    #[command(after_help = "Examples:\n  \
        openssl x509 -noout -text -in \"$(halton-meter ca path)\"")]
    Path(AsJson),
    /// Path of the bundle: the system's roots plus our CA.
    #[command(after_help = "Examples:\n  \
        SSL_CERT_FILE=\"$(halton-meter ca bundle)\" my-tool")]
    Bundle(AsJson),
    /// Put our CA into the system's trust store, for programs that read no CA variable.
    #[command(after_help = "Examples:\n  \
        halton-meter ca trust\n  \
        halton-meter ca trust --yes")]
    Trust(ConsentArgs),
    /// Take it out again, with every earlier one of ours.
    #[command(after_help = "Examples:\n  \
        halton-meter ca untrust")]
    Untrust(ConsentArgs),
    /// Put a new CA in its place without a request that fails: first it is published, then it signs.
    Rotate(rotate::RotateArgs),
}

#[derive(Args, Debug)]
pub struct ConsentArgs {
    /// Do it without asking.
    #[arg(long)]
    yes: bool,
}

pub fn run(ctx: &Context, command: &CaCommand, out: &mut impl Write) -> Result<Exit, Failure> {
    ctx.home.create()?;
    match command {
        CaCommand::Path(AsJson { json }) => {
            env::prepare_ca(ctx)?;
            finish(path(&ctx.home.ca_cert(), *json, out))?;
        }
        CaCommand::Bundle(AsJson { json }) => {
            env::prepare_ca(ctx)?;
            finish(path(&ctx.home.ca_bundle(), *json, out))?;
        }
        CaCommand::Trust(args) => {
            env::prepare_ca(ctx)?;
            change(ctx, Change::Trust, args.yes)?;
            // Whoever did not know us may now.
            match client::clear_bypass(ctx, ASK) {
                Ok(0) => {}
                Err(_) => lifecycle::let_try_again(&ctx.home),
                Ok(_) => say("programs that refused our certificate are metered again"),
            }
        }
        CaCommand::Untrust(args) => change(ctx, Change::Untrust, args.yes)?,
        CaCommand::Rotate(args) => rotate::run(ctx, args, out)?,
    }
    Ok(Exit::OK)
}

fn change(ctx: &Context, change: Change, yes: bool) -> Result<(), Failure> {
    let lock = apply::begin(ctx, Leftover::Refuse)?;
    let plan = plan(change, &ctx.home).map_err(failure)?;
    let store = format!("the trust store of this system ({})", plan.store);
    if plan.steps.is_empty() {
        say(match change {
            Change::Trust => format!("our CA is in {store} already"),
            Change::Untrust => format!("no CA of ours is in {store}"),
        });
        return Ok(());
    }
    show(&plan, change, &store);
    if plan.needs_root {
        return Err(Failure::new(Exit::NO_PERMISSION, format!("{store} is root's"))
            .hint(format!("{}\n  then the same command again", setup::as_root(&plan.steps))));
    }
    if !yes && !apply::consent("Go on?")? {
        return Err(Failure::new(Exit::FAILED, "nothing was changed"));
    }
    apply::execute(ctx, &lock, &plan.steps)?;
    let left = self::plan(change, &ctx.home).map_err(failure)?.steps;
    if change == Change::Untrust && !left.is_empty() {
        let steps: Vec<_> = left.iter().map(ToString::to_string).collect();
        return Err(Failure::new(Exit::FAILED, format!("our CA is still in {store}"))
            .hint(format!("at the screen, not by ssh: {}", steps.join("; "))));
    }
    say(match change {
        Change::Trust => "done; programs that run already may need a restart to notice",
        Change::Untrust => "done",
    });
    Ok(())
}

/// For all that are to be trusted: while a next CA waits, two.
fn plan(change: Change, home: &Home) -> Result<Plan, TrustStoreError> {
    let store = platform::trust_store();
    let mut plan = store.plan(change, &authorities(home))?;
    if let (Change::Trust, Some(next)) = (change, Authority::read(&home.next_ca_cert())) {
        plan.steps.extend(store.plan(change, &[next])?.steps);
    }
    Ok(plan)
}

fn show(plan: &Plan, change: Change, store: &str) {
    match change {
        Change::Trust => say(format_args!(
            "our CA goes into {store}: its programs then accept certificates that we sign, which is \
             possible for the metered hosts only"
        )),
        Change::Untrust => say(format_args!(
            "our CA goes out of {store}: programs that rely on it will fail once per metered host, \
             then pass unmetered"
        )),
    }
    let mut err = std::io::stderr();
    for step in &plan.steps {
        let _ = writeln!(err, "    {step}");
    }
}

/// The one in use, the next one, then those that were replaced.
pub fn authorities(home: &Home) -> Vec<Authority> {
    let mut found: Vec<Authority> = Vec::new();
    for authority in ca::files(home).iter().filter_map(|file| Authority::read(file)) {
        if !found.iter().any(|known| known.certificate == authority.certificate) {
            found.push(authority);
        }
    }
    found
}

fn failure(error: TrustStoreError) -> Failure {
    let hint = match &error {
        TrustStoreError::Unknown(_) => {
            "point programs at the bundle instead: `halton-meter env`, `halton-meter ca bundle`"
        }
        TrustStoreError::Tool(StepError::Spawn { .. }) => {
            "install it, or use `halton-meter env` instead"
        }
        TrustStoreError::Tool(_) => "nothing was changed",
    };
    Failure::new(Exit::FAILED, error).hint(hint)
}
