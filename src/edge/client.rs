//! A client that waits while something is under way for it: whether it still does, and what is done
//! meanwhile.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::live::{Place, Stage};
use crate::dial::{DialError, peek_now};

/// An offer that takes longer is one of a name that nobody finds, as like as not.
const AHEAD: Duration = Duration::from_secs(1);
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

/// An offer, and beside it, if it takes long, the look-up that would come after it: where the resolver is
/// silent the daemon waits for it in vain, and whoever asked would then wait as long again. The look-up is
/// waited for if it has begun and the offer ended so that it `goes_on`.
pub(super) async fn beside<T>(
    offer: impl Future<Output = T>,
    look_up: impl Future<Output = Result<(), DialError>>,
    goes_on: impl FnOnce(&T) -> bool,
) -> (T, Result<(), DialError>) {
    let mut offer = pin!(offer);
    if let Ok(outcome) = timeout(AHEAD, &mut offer).await {
        return (outcome, Ok(()));
    }
    let mut look_up = pin!(look_up);
    tokio::select! {
        biased;
        outcome = &mut offer => {
            let named = if goes_on(&outcome) { look_up.await } else { Ok(()) };
            (outcome, named)
        }
        named = &mut look_up => (offer.await, named),
    }
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
    async fn a_name_that_nobody_finds_is_waited_for_once() {
        let after = async |seconds: u32| sleep(SECOND * seconds).await;
        let in_vain = async |seconds| {
            after(seconds).await;
            Err(DialError::NoAddress)
        };
        let timed = async |offer, look_up, goes_on: bool| {
            let begun = Instant::now();
            let (_, named) = beside(after(offer), in_vain(look_up), |()| goes_on).await;
            (begun.elapsed(), named.is_err())
        };
        assert_eq!(timed(10, 10, true).await, (SECOND * 11, true));
        assert_eq!(timed(10, 3, true).await, (SECOND * 10, true));
        assert_eq!(timed(10, 10, false).await, (SECOND * 10, false), "granted");
        assert_eq!(timed(0, 10, true).await, (Duration::ZERO, false), "not even begun");
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
