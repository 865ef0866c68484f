//! What a client makes of our certificate.

use std::io;
use std::time::Duration;

use rustls::AlertDescription;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::bypass::Strike;

/// For a client that judges it after the handshake.
const JUDGEMENT: Duration = Duration::from_secs(1);

/// What a client that stays has done with our certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Word {
    /// It has spoken, and so accepted it.
    Spoke,
    /// It has not left, at least.
    Silent,
}

/// Whether the client has said its last word, behind what it said before.
pub(super) async fn has_left(client: &TcpStream) -> bool {
    // The runtime looks at its sockets meanwhile.
    tokio::task::yield_now().await;
    tokio::select! {
        biased;
        ready = client.ready(Interest::READABLE) => ready.is_ok_and(|ready| ready.is_read_closed()),
        () = std::future::ready(()) => false,
    }
}

/// Some look at our certificate only when the handshake is over (Bun), and leave without a word. Nothing
/// is taken from the client meanwhile, and it has nothing to wait for, unless the provider speaks first.
pub(super) async fn judged(
    client: &mut (impl AsyncBufRead + Unpin),
    provider: &mut (impl AsyncBufRead + Unpin),
) -> Result<Word, Strike> {
    let said = tokio::select! {
        biased;
        said = timeout(JUDGEMENT, client.fill_buf()) => said,
        _ = provider.fill_buf() => return Ok(Word::Silent),
    };
    match said {
        Ok(Ok([])) => Err(Strike::Closed),
        Ok(Err(e)) => Err(strike(&e)),
        Ok(Ok(_)) => Ok(Word::Spoke),
        Err(_) => Ok(Word::Silent),
    }
}

/// What the way a handshake failed says of the client. Whatever it is, the next try would end like it.
pub(super) fn strike(error: &io::Error) -> Strike {
    use AlertDescription::{CloseNotify, UserCanceled};
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        // Of a user who gave up, maybe.
        Some(rustls::Error::AlertReceived(CloseNotify | UserCanceled)) | None => Strike::Vanished,
        Some(_) => Strike::Refused,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, BufReader, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    fn pair() -> (DuplexStream, BufReader<DuplexStream>) {
        let (far, near) = duplex(64);
        (far, BufReader::new(near))
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_speaks_or_leaves_first_is_not_held_up() {
        let (_user, mut client) = pair();
        let (mut far, mut provider) = pair();
        let before = Instant::now();
        assert_eq!(judged(&mut client, &mut provider).await, Ok(Word::Silent));
        assert_eq!(before.elapsed(), JUDGEMENT, "nobody says anything");
        let before = Instant::now();
        far.write_all(b"welcome").await.unwrap();
        assert_eq!(judged(&mut client, &mut provider).await, Ok(Word::Silent));
        let (far, mut provider) = pair();
        drop(far);
        assert_eq!(judged(&mut client, &mut provider).await, Ok(Word::Silent));
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_has_judged() {
        let ((user, mut client), (_far, mut provider)) = (pair(), pair());
        drop(user);
        assert_eq!(judged(&mut client, &mut provider).await, Err(Strike::Closed));
        let (mut user, mut client) = pair();
        user.write_all(b"GET /").await.unwrap();
        assert_eq!(judged(&mut client, &mut provider).await, Ok(Word::Spoke));
    }
}
