//! WebSockets and the other framings that carry a model's answers.

use jiff::Timestamp;
use uuid::Uuid;

use super::{pieces, same};
use crate::meter::exchange::turns::News;
use crate::meter::exchange::{Exchange, ExchangeStart};
use crate::meter::http::{Cut, Headers, RequestHead, ResponseHead, Side};
use crate::meter::price::Book;
use crate::meter::row::Protocol;
use crate::meter::websocket::{Extensions, WebSocket, WsEvent};

const EXTENSIONS: [&str; 4] = [
    "",
    "permessage-deflate",
    "permessage-deflate; client_no_context_takeover",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=9",
];

/// The first byte chooses the extensions, a script of records follows.
pub fn websocket(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let extensions = Extensions::agreed(&headers(choice)).expect("known extensions");
    // The order of the two sides depends on the pieces; what each says does not.
    same(|size| {
        let mut follower = WebSocket::new(extensions);
        let mut said = [Said::default(), Said::default()];
        let mut gave_up = false;
        pieces(data, size, |side, piece| {
            let Some(piece) = piece else { return };
            follower.feed(side, piece, &mut |event| {
                assert!(!gave_up, "said something after giving up: {event:?}");
                gave_up = matches!(event, WsEvent::GaveUp(_));
                let of = match event {
                    WsEvent::Data { side, .. }
                    | WsEvent::End { side, .. }
                    | WsEvent::Close { side, .. } => side,
                    WsEvent::GaveUp(_) => side,
                };
                said[usize::from(of == Side::Server)].add(&event);
            });
        });
        said.map(|said| said.lines)
    });
}

/// What one side said; how much of a lost message was handed out is by chance.
#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    open: Vec<u8>,
    closed: bool,
}

impl Said {
    fn add(&mut self, event: &WsEvent<'_>) {
        assert!(!self.closed || matches!(event, WsEvent::GaveUp(_)), "behind the close: {event:?}");
        match *event {
            WsEvent::Data { data, .. } => {
                assert!(!data.is_empty(), "an empty piece");
                self.open.extend_from_slice(data);
            }
            WsEvent::End { text, lost, .. } => {
                let message = std::mem::take(&mut self.open);
                self.lines.push(match lost {
                    Some(lost) => format!("{text} {lost:?}"),
                    None => format!("{text} {}", message.escape_ascii()),
                });
            }
            WsEvent::Close { code, .. } => {
                self.closed = true;
                self.lines.push(format!("close {code:?}"));
            }
            WsEvent::GaveUp(why) => self.lines.push(why.to_string()),
        }
    }
}

/// As [`websocket`], through the responses to the rows.
pub fn turns(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let (host, path) = spoken(choice);
    same(|size| {
        let mut opened = handshake(host, path);
        opened.response(&ResponseHead { status: 101, headers: headers(choice) }, at());
        let mut turns = opened.upgraded(at(), Uuid::nil).expect("a model's");
        let mut rows = Vec::new();
        let (mut open, book) = (0_usize, Book::builtin());
        let mut note = |exchange: &mut Exchange, news: News| {
            match news {
                News::Opened => open += 1,
                News::Ended => open -= 1,
            }
            assert_eq!(exchange.is_finished(), news == News::Ended);
            rows.push(format!("{news:?} {:?}", exchange.row(&book)));
        };
        pieces(data, size, |side, piece| match piece {
            Some(piece) => turns.feed(&opened, side, piece, at(), &mut note),
            None => turns.cut(Cut::Eof(side), at(), &mut note),
        });
        turns.end(None, at(), &mut note);
        assert_eq!(open, 0, "a row was left open");
        rows
    });
}

fn headers(choice: u8) -> Headers {
    let value = EXTENSIONS.get(usize::from(choice) % EXTENSIONS.len()).copied().unwrap_or_default();
    [("sec-websocket-extensions", value)].into_iter().collect()
}

/// Of those that speak of models on a WebSocket.
fn spoken(choice: u8) -> (&'static str, &'static str) {
    const LIVE: &str =
        "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";
    match (choice & 0x80, choice & 0x40) {
        (0, 0) => ("api.openai.com", "/v1/responses"),
        (0, _) => ("generativelanguage.googleapis.com", LIVE),
        (_, _) => ("api.openai.com", "/v1/realtime?model=gpt-realtime"),
    }
}

fn handshake(host: &str, path: &str) -> Exchange {
    let start = ExchangeStart {
        id: Uuid::nil(),
        at: at(),
        host: host.to_owned(),
        port: 443,
        local: false,
        protocol: Protocol::H1,
    };
    let head = RequestHead {
        method: "GET".to_owned(),
        target: path.to_owned(),
        headers: [("upgrade", "websocket")].into_iter().collect(),
        ..RequestHead::default()
    };
    Exchange::new(start, &head)
}

const fn at() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

#[cfg(test)]
mod tests {
    use super::super::tests::{script, seed};
    use super::*;
    use crate::meter::eventstream::tests::{event, message, wrapped};
    use crate::meter::websocket::tests::{Deflater, close, frame, text};

    #[test]
    fn seeds_are_current() {
        const ASK: &str = r#"{"type":"response.create","model":"gpt-5","input":[]}"#;
        const WARM: &str = r#"{"type":"response.create","model":"gpt-5","generate":false}"#;
        const BEGUN: &str = r#"{"type":"response.created","response":{"id":"r1","model":"gpt-5"}}"#;
        const DELTA: &str = r#"{"type":"response.output_text.delta","delta":"x"}"#;
        const OVER: &str = r#"{"type":"response.completed","response":{"id":"r1","usage":
            {"input_tokens":7,"output_tokens":3}}}"#;
        const FAILED: &str = r#"{"type":"error","status":429,"error":{"code":"x","event_id":"e"}}"#;
        const DONE: &str = r#"{"type":"response.done","response":{"id":"r2","usage":
            {"input_tokens":7,"input_token_details":{"cached_tokens":1},"output_tokens":3}}}"#;
        const HEARD: &str = r#"{"type":"conversation.item.input_audio_transcription.completed",
            "usage":{"type":"tokens","input_tokens":7,"output_tokens":3}}"#;
        let (client, server) = (Side::Client, Side::Server);
        let plain = vec![
            (client, text(client, WARM)),
            (client, text(client, ASK)),
            (server, text(server, BEGUN)),
            (server, frame(server, 0x89, b"ping")),
            (server, [frame(server, 1, b"{\"type\":"), frame(server, 0x80, b"\"x\"}")].concat()),
            (server, text(server, DELTA)),
            (server, text(server, OVER)),
            (server, text(server, FAILED)),
            (client, close(client, 1000)),
            (server, close(server, 1000)),
            (server, Vec::new()),
        ];
        let voice = vec![
            (client, text(client, r#"{"type":"session.update","session":{"model":"m"}}"#)),
            (server, text(server, HEARD)),
            (server, text(server, DONE)),
            (client, frame(client, 0x82, b"\0\x01")),
            (client, Vec::new()),
        ];
        let (mut up, mut down) = (Deflater::new(true), Deflater::new(true));
        let packed = vec![
            (client, up.frames(client, ASK, 1)),
            (server, down.frames(server, BEGUN, 2)),
            (server, down.frames(server, OVER, 3)),
            (client, up.frames(client, ASK, 2)),
            (server, frame(server, 0xc1, &[0xff; 9])),
            (server, down.frames(server, OVER, 1)),
        ];
        for (name, choice, acts) in
            [("plain", 0, &plain), ("realtime", 0x80, &voice), ("deflate", 1, &packed)]
        {
            let bytes = [&[choice][..], &script(acts)].concat();
            seed("websocket", name, &bytes);
            seed("turns", name, &bytes);
        }
        let failure = [(":message-type", "exception"), (":exception-type", "throttlingException")];
        let stream = [
            event("messageStart", r#"{"role":"assistant"}"#),
            wrapped(r#"{"type":"message_stop"}"#),
            event("metadata", r#"{"usage":{"inputTokens":7,"outputTokens":3}}"#),
            message(&failure, br#"{"message":"slow down"}"#),
        ];
        seed("eventstream", "all", &[&[200], &stream.concat()[..]].concat());
        seed("eventstream", "over-cap", &[&[14], &stream.concat()[..]].concat());
    }
}
