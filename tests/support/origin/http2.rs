//! HTTP/2 by the `h2` crate: requests are recorded decoded.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use super::answer::{Cut, Reply};
use super::{Proto, Request, Shared, cursor};

pub async fn serve<S>(io: S, connection: u64, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Ok(mut h2) = h2::server::handshake(io).await else { return };
    let cut = Arc::new(Cutter {
        now: Notify::new(),
        ping: tokio::sync::Mutex::new(h2.ping_pong().expect("taken once")),
    });
    loop {
        let accepted = tokio::select! {
            accepted = h2.accept() => accepted,
            () = cut.now.notified() => return,
        };
        let Some(Ok((request, respond))) = accepted else { return };
        let (shared, cut) = (Arc::clone(&shared), Arc::clone(&cut));
        tokio::spawn(async move {
            if exchange(request, respond, connection, &shared, &cut).await.is_none() {
                shared.aborted();
            }
        });
    }
}

/// Ends streams and connections in the middle, but behind what was sent before.
struct Cutter {
    now: Notify,
    ping: tokio::sync::Mutex<PingPong>,
}

impl Cutter {
    /// `h2` drops queued frames with a reset; a ping is answered after they have arrived.
    async fn all_arrived(&self) {
        let _ = self.ping.lock().await.ping(Ping::opaque()).await;
    }
}

/// `None`: the client went away.
async fn exchange(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    connection: u64,
    shared: &Shared,
    cut: &Cutter,
) -> Option<()> {
    let (head, mut stream) = request.into_parts();
    if head.uri.path() == cursor::PATH {
        shared.answer(recorded(&head, connection, Vec::new()));
        return cursor::run(stream, respond).await;
    }
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.ok()?;
        body.extend_from_slice(&data);
        stream.flow_control().release_capacity(data.len()).ok()?;
    }
    let reply = shared.answer(recorded(&head, connection, body));
    let mut response = http::Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    let mut out = respond.send_response(response.body(()).ok()?, false).ok()?;
    send_body(&mut out, &reply, shared, cut).await
}

fn recorded(head: &http::request::Parts, connection: u64, body: Vec<u8>) -> Request {
    let mut headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
        .collect();
    if let Some(authority) = head.uri.authority() {
        headers.insert(0, (":authority".to_owned(), authority.to_string()));
    }
    Request {
        connection,
        proto: Proto::H2,
        method: head.method.to_string(),
        target: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers,
        body,
        raw: Vec::new(),
    }
}

async fn send_body(
    out: &mut SendStream<Bytes>,
    reply: &Reply,
    shared: &Shared,
    cut: &Cutter,
) -> Option<()> {
    let half = reply.parts.len() / 2;
    for (i, part) in reply.parts.iter().enumerate() {
        if i == half {
            if reply.gate {
                tokio::select! {
                    () = shared.pass_gate() => {}
                    _ = std::future::poll_fn(|cx| out.poll_reset(cx)) => return None,
                }
            }
            match reply.cut {
                Cut::None => {}
                Cut::Fin => {
                    cut.all_arrived().await;
                    cut.now.notify_one();
                    return Some(());
                }
                Cut::Reset => {
                    cut.all_arrived().await;
                    out.send_reset(Reason::INTERNAL_ERROR);
                    return Some(());
                }
            }
        }
        if let Some(pause) = reply.slow {
            tokio::time::sleep(pause).await;
        }
        for slice in part.chunks(reply.slice.unwrap_or(usize::MAX)) {
            send(out, slice).await?;
        }
    }
    out.send_data(Bytes::new(), true).ok()
}

async fn send(out: &mut SendStream<Bytes>, mut data: &[u8]) -> Option<()> {
    while !data.is_empty() {
        out.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| out.poll_capacity(cx)).await?.ok()?;
        let (now, rest) = data.split_at(room.min(data.len()));
        out.send_data(Bytes::copy_from_slice(now), false).ok()?;
        data = rest;
    }
    Some(())
}
