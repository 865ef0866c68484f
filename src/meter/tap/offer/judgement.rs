//! What becomes of a client's judgement of our certificate.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::{WHO_DEADLINE, program, who};
use crate::config::is_selftest;
use crate::meter::ca::{Known, anew, rotate};
use crate::meter::observer::Attributed;
use crate::meter::tap::Tap;
use crate::meter::tap::bypass::{Strike, Tried, Voucher};
use crate::meter::tap::counters::add;
use crate::meter::tap::means::Means;
use crate::meter::tap::spoken::Excuse;
use crate::{platform, threads};

/// After a handshake there is time to find out.
const WHO_LATER: Duration = Duration::from_secs(2);

pub(super) async fn rejected(
    tap: &Tap,
    means: &Means,
    host: &str,
    strike: Strike,
    tried: Tried,
    attribution: &Attributed,
) {
    let who = who(attribution, WHO_LATER).await;
    let program = program(who.as_deref());
    let client = program.unwrap_or("unknown");
    let ca = tap.deps.ca.load();
    let strike = match means.bypass.excuses(host, who.as_deref(), ca.certificate(), strike, tried) {
        Excuse::Spare => {
            slog::debug!(tap.deps.log, "a client closed a connection that it did not need";
                "host" => host, "client" => client);
            return;
        }
        Excuse::Stranger => strike,
        // What the rest of it accepts is no reason to let this part fail.
        Excuse::Divided => Strike::Divided,
    };
    means.bypass.strike(host, program, strike, tried, Instant::now());
    add(&tap.counters_of(host).rejected, 1);
    slog::debug!(tap.deps.log, "a client did not accept our certificate";
        "host" => host, "client" => client);
}

/// Whether a client's program began when programs were given the CA already that signs for this name.
pub(super) async fn knows_signer(tap: &Tap, name: &str, attribution: &Attributed) -> bool {
    let known = tap.deps.ca.load().known(name);
    // It has read its roots just now, however long its process has been there.
    if known == Known::ToAll || is_selftest(name) {
        return true;
    }
    let Some(pid) = who(attribution, WHO_DEADLINE).await.and_then(|who| who.pid) else {
        return false;
    };
    let home = tap.deps.home.clone();
    let look = threads::blocking(move || {
        let given = match known {
            Known::ToAll => return true,
            Known::WithNext => rotate::given(&home),
            Known::Since(made) => anew::given(&home, made),
        };
        rotate::knows(platform::program_age(pid), given)
    });
    look.await.unwrap_or(false)
}

/// The connection's bytes don't wait until it is known whose they are.
pub(super) fn vouch(
    tap: &Arc<Tap>,
    means: &Means,
    host: &str,
    dialled: Tried,
    attribution: &Attributed,
    place: &Arc<OnceLock<Voucher>>,
) {
    let known = attribution.borrow().clone();
    if let Some(who) = known {
        let ca = tap.deps.ca.load();
        if let Some(voucher) = means.bypass.vouch(host, &who, ca.certificate(), dialled) {
            let _ = place.set(voucher);
        }
        return;
    }
    let (tap, bypass, host) = (Arc::downgrade(tap), Arc::clone(&means.bypass), host.to_owned());
    let (attribution, place) = (attribution.clone(), Arc::clone(place));
    tokio::spawn(async move {
        let who = who(&attribution, WHO_LATER).await;
        if let (Some(who), Some(tap)) = (who, tap.upgrade())
            && let Some(voucher) =
                bypass.vouch(&host, &who, tap.deps.ca.load().certificate(), dialled)
        {
            let _ = place.set(voucher);
        }
    });
}
