//! A client that waits while something is under way for it: whether it still does, and what is done
//! meanwhile.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::live::{Place, Stage};
use crate::dial::{DialError, peek_now};

/// An offer that takes longer is one to somewhere slow, and may come to nothing.
const AHEAD: Duration = Duration::from_secs(2);
/// How long the daemon, which has dialled before us, may still take when we are there: its handshake with
/// the provider (`Limits::provider`).
const GRACE: Duration = Duration::from_secs(3);
/// How a ClientHello begins.
const TLS_HANDSHAKE: u8 = 0x16;

/// Whether it has said its last word, or is gone. What it said before may still be there.
pub(super) fn has_left(place: &Place) -> bool {
    place.look(|stage| client(stage).is_none_or(said_last))
}

/// Whether it has left in the middle of its ClientHello: it was never going to be heard.
pub(super) fn broke_off(place: &Place) -> bool {
    let begun = |client: &TcpStream| {
        let mut first = [0];
        matches!(peek_now(client, &mut first), Ok(1..)) && first == [TLS_HANDSHAKE]
    };
    place.look(|stage| client(stage).is_some_and(|client| begun(client) && said_last(client)))
}

fn client(stage: &Stage) -> Option<&TcpStream> {
    match stage {
        Stage::Asked(asked) => Some(&asked.client),
        Stage::Metered(metered) => Some(&metered.client),
        Stage::Head(_) | Stage::Tunnel(_) | Stage::Secure | Stage::Over => None,
    }
}

/// As far as the runtime has seen by now.
fn said_last(client: &TcpStream) -> bool {
    let ready =
        pin!(client.ready(Interest::READABLE)).poll(&mut Context::from_waker(Waker::noop()));
    match ready {
        Poll::Ready(Ok(ready)) => ready.is_read_closed(),
        Poll::Ready(Err(_)) => true,
        Poll::Pending => false,
    }
}

/// What comes of a dial, as long as somebody waits for it; looked at each time that it has taken so long
/// again.
pub(super) async fn wanted<T>(
    dial: impl Future<Output = Result<T, DialError>>,
    every: Duration,
    left: &dyn Fn() -> bool,
) -> Result<T, DialError> {
    let mut dial = pin!(dial);
    loop {
        match timeout(every, &mut dial).await {
            Ok(dialled) => return dialled,
            Err(_) if left() => return Err(DialError::Timeout),
            Err(_) => {}
        }
    }
}

/// An offer, and beside it, if it takes long, the dial that would come after it: else who is slow to
/// reach (a proxy that takes its time, a silent resolver) costs what the daemon has waited in vain, and the
/// same again. Without an outcome the offer is given up, as the dial was quicker; what came of that, if it
/// has ended.
pub(super) async fn beside<O, T, E>(
    offer: impl Future<Output = O>,
    dial: Pin<&mut impl Future<Output = Result<T, E>>>,
) -> (Option<O>, Option<Result<T, E>>) {
    let mut offer = pin!(offer);
    if let Ok(outcome) = timeout(AHEAD, &mut offer).await {
        return (Some(outcome), None);
    }
    let dialled = tokio::select! {
        biased;
        outcome = &mut offer => return (Some(outcome), None),
        dialled = dial => dialled,
    };
    let outcome = match &dialled {
        Ok(_) => timeout(GRACE, offer).await.ok(),
        Err(_) => Some(offer.await),
    };
    (outcome, Some(dialled))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::{Instant, sleep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_dial_takes_its_time_while_somebody_waits() {
        let begun = Instant::now();
        let late = async {
            sleep(SECOND * 100).await;
            Ok(())
        };
        wanted(late, SECOND * 30, &|| false).await.unwrap();
        assert_eq!(begun.elapsed(), SECOND * 100);
        let (begun, looks) = (Instant::now(), Cell::new(0));
        let left = || {
            looks.set(looks.get() + 1);
            looks.get() == 2
        };
        let never = std::future::pending::<Result<(), _>>();
        assert!(matches!(wanted(never, SECOND * 30, &left).await, Err(DialError::Timeout)));
        assert_eq!(begun.elapsed(), SECOND * 60);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_to_reach_is_dialled_beside_the_offer() {
        let after = async |seconds: u32, result: Result<(), ()>| {
            sleep(SECOND * seconds).await;
            result
        };
        // The offer takes so long and comes to nothing, unless it is granted.
        let timed = async |offer, granted: bool, dial, there| {
            let begun = Instant::now();
            let mut dial = pin!(after(dial, there));
            let (outcome, dialled) = beside(after(offer, Ok(())), dial.as_mut()).await;
            let given_up = outcome.is_none();
            let result = match dialled {
                _ if granted && !given_up => Ok(()),
                Some(dialled) => dialled,
                None => dial.await,
            };
            (begun.elapsed(), given_up, result)
        };
        for (offer, granted, dial, there, (took, given_up)) in [
            (0, true, 9, Ok(()), (0, false)),
            (0, false, 9, Ok(()), (9, false)),
            // A proxy that takes 17 s, and the daemon waits 15.
            (15, false, 17, Ok(()), (19, false)),
            // One that takes 10, and the daemon has its handshake to do.
            (12, true, 10, Ok(()), (12, false)),
            // The daemon waits for what we have long reached.
            (15, false, 0, Ok(()), (5, true)),
            (4, true, 0, Ok(()), (4, false)),
            // A name that nobody finds is waited for once; the daemon may find it all the same.
            (10, false, 10, Err(()), (12, false)),
            (10, false, 3, Err(()), (10, false)),
            (10, true, 3, Err(()), (10, false)),
        ] {
            let result = if granted { Ok(()) } else { there };
            let wanted = (SECOND * took, given_up, result);
            assert_eq!(timed(offer, granted, dial, there).await, wanted, "{offer} {dial}");
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_seen_behind_what_it_said() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        assert!(!said_last(&near));
        far.write_all(b"\x16\x03\x01").await.unwrap();
        near.readable().await.unwrap();
        assert!(!said_last(&near));
        far.shutdown().await.unwrap();
        while !said_last(&near) {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(matches!(peek_now(&near, &mut [0]), Ok(1)), "nothing was taken");
    }
}
