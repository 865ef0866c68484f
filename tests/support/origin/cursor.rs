//! Cursor's agent, as far as others have found out: Connect's envelopes over HTTP/2, both ways at once.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use h2::RecvStream;
use h2::server::SendResponse;

pub const PATH: &str = "/agent.v1.AgentService/Run";
/// 1000 of input, of which 400 from a cache, 70 of output, of which 30 were reasoning.
const TURN: [u8; 10] = [0x08, 0xe8, 0x07, 0x10, 70, 0x18, 0x90, 0x03, 0x28, 30];

/// Answers each message of the client's before it waits for the next. `None`: the client went away.
pub async fn run(mut asked: RecvStream, mut respond: SendResponse<Bytes>) -> Option<()> {
    let response = http::Response::builder()
        .header("content-type", "application/connect+proto")
        .header("connect-content-encoding", "gzip");
    let mut out = respond.send_response(response.body(()).ok()?, false).ok()?;
    let mut heard = Vec::new();
    for text in ["one", "two"] {
        message(&mut asked, &mut heard).await?;
        let delta = field(1, &field(1, &field(1, text.as_bytes())));
        out.send_data(envelope(0, &delta).into(), false).ok()?;
    }
    let ended = field(1, &field(14, &TURN));
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&ended).ok()?;
    out.send_data(envelope(1, &gzip.finish().ok()?).into(), false).ok()?;
    out.send_data(envelope(2, b"{}").into(), true).ok()
}

/// Waits for one envelope.
async fn message(asked: &mut RecvStream, heard: &mut Vec<u8>) -> Option<()> {
    loop {
        if let Some(&[_, a, b, c, d]) = heard.first_chunk::<5>() {
            let length = 5 + u32::from_be_bytes([a, b, c, d]) as usize;
            if heard.len() >= length {
                heard.drain(..length);
                return Some(());
            }
        }
        let data = asked.data().await?.ok()?;
        asked.flow_control().release_capacity(data.len()).ok()?;
        heard.extend_from_slice(&data);
    }
}

fn field(number: u8, inner: &[u8]) -> Vec<u8> {
    let length = u8::try_from(inner.len()).expect("short");
    [&[number << 3 | 2, length], inner].concat()
}

fn envelope(flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&[flags][..], &length, payload].concat()
}
