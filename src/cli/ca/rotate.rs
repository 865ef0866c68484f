//! `ca rotate`: publish the next CA, then have it sign, once every running program can know it.
//!
//! One command for both: it does what can be done without a request that fails, and says what it waits
//! for. Called again it goes on from there.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::super::{Context, Exit, Failure, apply, client, env, lifecycle, output, say};
use crate::home::PidLock;
use crate::meter::ca::{CaError, rotate};
use crate::platform::{self, Running};
use crate::setup;
use crate::trust_store::{Authority, Change, Plan};

/// Clocks of programs and of files are not exactly the same.
const MARGIN: Duration = Duration::from_secs(2);

/// For the daemon's answer, and how often it is told.
const ASK: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 3;

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    halton-meter ca rotate          begin, or go on; changes over once nobody needs the old CA\n  \
    halton-meter ca rotate --now    change over though programs run that know only the old one")]
pub struct RotateArgs {
    /// Change over at once. A running program that knows only the old CA fails once per host, then it
    /// passes unmetered until its next start.
    #[arg(long)]
    now: bool,
    /// Change the system's trust store, where our CA is in it, without asking.
    #[arg(long)]
    yes: bool,
    /// Print how far it has come as JSON.
    #[arg(long)]
    json: bool,
}

/// What keeps the old CA in use.
#[derive(Debug)]
enum Waits {
    /// Programs that began before the next one was published.
    For(Vec<Running>),
    /// The system trusts the old one, and the next one not yet.
    TrustStore(String),
}

pub fn run(ctx: &Context, args: &RotateArgs, out: &mut impl Write) -> Result<(), Failure> {
    ctx.checked()?;
    // Neither can the daemon be told, nor its programs be seen, from another place.
    client::can_be_told(&ctx.home)?;
    let lock = apply::begin(ctx, apply::Leftover::Refuse)?;
    env::prepare_ca(ctx)?;
    if rotate::waiting(&ctx.home).is_none() {
        rotate::begin(&ctx.home, &ctx.loaded.config.meter.hosts).map_err(failed)?;
        // The bundle with both: from here on whatever starts trusts both.
        env::prepare_ca(ctx)?;
        lifecycle::reload(ctx);
        say("made the next CA; programs that start from now on trust it and the old one");
    }
    let waits = match trust_next(ctx, &lock, args.yes)? {
        Some(command) => Some(Waits::TrustStore(command)),
        None => Some(holders(ctx)).filter(|held| !held.is_empty()).map(Waits::For),
    };
    let done = waits.is_none() || args.now;
    let mut taken_over = None;
    match &waits {
        Some(waits) if !args.now => tell(waits),
        Some(_) | None => {
            rotate::finish(&ctx.home, &ctx.loaded.config.meter.hosts).map_err(failed)?;
            // First who signs, then the bundle and the trust store without the old one.
            let taken = (0..ATTEMPTS).any(|_| {
                lifecycle::reload(ctx);
                signs(ctx)
            });
            taken_over = Some(taken);
            if taken {
                env::prepare_ca(ctx)?;
                say("the new CA signs from now on; the old one's key is gone");
                forget_old(ctx, &lock, args.yes)?;
            } else {
                say("the running daemon has not taken the new CA over: `halton-meter restart`");
            }
        }
    }
    if args.json {
        let held = match &waits {
            Some(Waits::For(programs)) => programs.as_slice(),
            Some(Waits::TrustStore(_)) | None => &[],
        };
        let document = json!({
            "state": if done { "done" } else { "waiting" },
            "taken_over": taken_over,
            "certificate": ctx.home.ca_cert().to_string_lossy(),
            "next_certificate": (!done).then(|| ctx.home.next_ca_cert().to_string_lossy().into_owned()),
            "trust_store_lacks_next": matches!(waits, Some(Waits::TrustStore(_))) && !done,
            "programs": held.iter().map(|p| json!({"pid": p.pid, "name": p.name})).collect::<Vec<_>>(),
        });
        output::write_json(out, &document)?;
    }
    Ok(())
}

/// Whether nobody signs with the old CA any more: a daemon that says nothing signs nothing.
fn signs(ctx: &Context) -> bool {
    let Ok(status) = client::api(ctx, "/v1/status", ASK) else { return true };
    let in_use = status.get("authority").and_then(Value::as_str);
    let ours = Authority::read(&ctx.home.ca_cert()).map(|ours| ours.fingerprint());
    in_use.is_none() || in_use == ours.as_deref()
}

/// Programs of this user that may have read the bundle before the next CA was in it.
fn holders(ctx: &Context) -> Vec<Running> {
    let published = rotate::waiting(&ctx.home).unwrap_or_default();
    let mut programs = platform::programs_pointing_at(ctx.loaded.config.edge.addr());
    // What waits for its command, or is one of our own processes, makes no connection through us.
    programs.retain(|p| !p.name.starts_with("halton-meter") && missed(p.age, published));
    programs
}

/// Whether a program of this age began before that; who can't be told did.
fn missed(age: Option<Duration>, published: Duration) -> bool {
    age.is_none_or(|age| age + MARGIN >= published)
}

/// Where the old one is in the system's trust store, the next one goes there too. A command for root, if
/// that is not for us to do.
fn trust_next(ctx: &Context, lock: &PidLock, yes: bool) -> Result<Option<String>, Failure> {
    let plan = |file: &Path| {
        let authority = Authority::read(file)?;
        // Where there is no store that we know, nothing of ours is in it.
        platform::trust_store().plan(Change::Trust, &[authority]).ok()
    };
    let (Some(old), Some(next)) = (plan(&ctx.home.ca_cert()), plan(&ctx.home.next_ca_cert()))
    else {
        return Ok(None);
    };
    if !old.steps.is_empty() || next.steps.is_empty() {
        return Ok(None);
    }
    if next.needs_root {
        return Ok(Some(setup::as_root(&next.steps)));
    }
    change(ctx, lock, yes, &next, "the next CA goes into")?;
    Ok(None)
}

/// The old ones leave the system's trust store.
fn forget_old(ctx: &Context, lock: &PidLock, yes: bool) -> Result<(), Failure> {
    let old: Vec<_> = super::authorities(&ctx.home).into_iter().skip(1).collect();
    let Ok(plan) = platform::trust_store().plan(Change::Untrust, &old) else { return Ok(()) };
    if plan.steps.is_empty() {
        return Ok(());
    }
    if plan.needs_root {
        say("the old CA is still in the system's trust store, which is root's; this takes it out:");
        apply::detail(setup::as_root(&plan.steps));
        return Ok(());
    }
    change(ctx, lock, yes, &plan, "the old CA goes out of")
}

fn change(
    ctx: &Context,
    lock: &PidLock,
    yes: bool,
    plan: &Plan,
    what: &str,
) -> Result<(), Failure> {
    say(format_args!("{what} the trust store of this system ({})", plan.store));
    plan.steps.iter().for_each(apply::detail);
    if !yes && !apply::consent("Go on?")? {
        return Err(Failure::new(Exit::FAILED, "the trust store was not changed")
            .hint("both CAs are fit for use; the same command again goes on"));
    }
    apply::execute(ctx, lock, &plan.steps)
}

fn tell(waits: &Waits) {
    match waits {
        Waits::For(programs) => {
            say(
                "these programs began before, and may know only the old CA: it signs until they have \
                 ended; then the same command again, or --now",
            );
            programs.iter().for_each(apply::detail);
        }
        Waits::TrustStore(command) => {
            say(
                "the old CA is in the system's trust store, which is root's, and signs until the next one \
                 is there too; this puts it there, then the same command again:",
            );
            apply::detail(command);
        }
    }
}

fn failed(error: CaError) -> Failure {
    Failure::new(Exit::CANT_CREATE, error).hint("nothing is broken: the old CA signs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_began_before_or_is_not_known_has_missed_it() {
        let published = Duration::from_secs(100);
        for (age, expected) in
            [(None, true), (Some(200), true), (Some(99), true), (Some(90), false)]
        {
            assert_eq!(missed(age.map(Duration::from_secs), published), expected, "{age:?}");
        }
    }
}
