//! A request for an `https://` address that was asked of the proxy in plain text: TLS towards the
//! provider only.

use std::time::Instant;

use super::{Ready, WHO_PLAIN, Way, provider, who};
use crate::handover::{Decline, Offer};
use crate::meter::hello::Hello;
use crate::meter::observer::Attributed;
use crate::meter::tap::Tap;
use crate::meter::tap::means::Means;
use crate::meter::tap::unfit::Place;

pub(super) async fn prepare(
    tap: &Tap,
    means: &Means,
    offer: &Offer,
    attribution: &Attributed,
) -> Result<Ready, Decline> {
    let name = &offer.host;
    if !means.cover(name) || !means.config.meter.is_metered(name, offer.port) {
        return Err(Decline::NotMetered);
    }
    let hello = Hello::ours(name);
    let place = Place { name, port: offer.port, hello: &hello };
    if let Some(reason) = tap.unfit.reason(place, &means.trust, Instant::now()) {
        return Err(reason);
    }
    let upstream = provider(tap, means, offer, &hello, place);
    let (upstream, _) = tokio::join!(upstream, who(attribution, WHO_PLAIN));
    Ok(Ready { name: name.clone(), way: Way::Secure(upstream?) })
}
