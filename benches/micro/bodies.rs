//! Bodies: event streams, content codings, what each surface reads of its events.

use std::fmt::Write as _;
use std::io::Write as _;

use halton_meter::meter::coding::Decoder;
use halton_meter::meter::exchange::{Exchange, ExchangeStart};
use halton_meter::meter::http::{RequestHead, ResponseHead};
use halton_meter::meter::price::Book;
use halton_meter::meter::sse::Parser;
use jiff::Timestamp;

use crate::Case;
use crate::pieces::{head, start};

const EVENTS: usize = 500;
const MIB: usize = 1 << 20;
/// As a socket gives it.
const PIECE: usize = 16 * 1024;

/// Deltas as Anthropic sends them.
fn stream(events: usize) -> String {
    let mut text = String::new();
    for n in 0..events {
        let _ = write!(
            text,
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\
             \"delta\":{{\"type\":\"text_delta\",\"text\":\" word {n}, and \\\"more\\\"\"}}}}\n\n"
        );
    }
    text
}

fn parse(text: &str, piece: usize) -> usize {
    let mut events = 0;
    let mut parser = Parser::new(MIB);
    for piece in text.as_bytes().chunks(piece) {
        parser.feed(piece, &mut |event| events += event.data.len());
    }
    events
}

pub(crate) fn sse_event() -> Case {
    let text = stream(EVENTS);
    let piece = text.len() / EVENTS;
    Case::new("sse-event", "event", EVENTS as u64, move || parse(&text, piece))
}

pub(crate) fn sse_mib() -> Case {
    let text = stream(MIB / stream(100).len() * 100);
    Case::new("sse", "byte", text.len() as u64, move || parse(&text, PIECE))
}

fn decode(name: &'static str, coding: &'static str, encoded: Vec<u8>, length: u64) -> Case {
    Case::new(name, "byte", length, move || {
        let mut decoder = Decoder::new(coding, 64 << 20).unwrap();
        let mut length = 0;
        for piece in encoded.chunks(PIECE) {
            decoder.feed(piece, &mut |bytes| length += bytes.len()).unwrap();
        }
        length
    })
}

pub(crate) fn gzip_mib() -> Case {
    let text = stream(7000);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    decode("gzip", "gzip", encoder.finish().unwrap(), text.len() as u64)
}

/// A stream whose sender flushes each event, as they come.
pub(crate) fn gzip_event() -> Case {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut pieces = Vec::new();
    for event in stream(EVENTS).split_inclusive("\n\n") {
        encoder.write_all(event.as_bytes()).unwrap();
        encoder.flush().unwrap();
        pieces.push(std::mem::take(encoder.get_mut()));
    }
    Case::new("gzip-event", "event", EVENTS as u64, move || {
        let mut decoder = Decoder::new("gzip", 64 << 20).unwrap();
        let mut length = 0;
        for piece in &pieces {
            decoder.feed(piece, &mut |bytes| length += bytes.len()).unwrap();
        }
        length
    })
}

pub(crate) fn brotli_mib() -> Case {
    let text = stream(7000);
    let mut encoded = Vec::new();
    let mut encoder = brotli::CompressorWriter::new(&mut encoded, 4096, 5, 22);
    encoder.write_all(text.as_bytes()).unwrap();
    drop(encoder);
    decode("brotli", "br", encoded, text.len() as u64)
}

pub(crate) fn zstd_mib() -> Case {
    let text = stream(7000);
    let encoded = zstd::encode_all(text.as_bytes(), 3).unwrap();
    decode("zstd", "zstd", encoded, text.len() as u64)
}

/// A whole streamed answer through the exchange: what it costs by event.
fn answer(
    name: &'static str,
    (host, path): (&'static str, &'static str),
    (first, event, last): (&'static str, String, &'static str),
) -> Case {
    let book = Book::builtin();
    let request = RequestHead { target: path.to_owned(), ..head() };
    let headers = [("content-type", "text/event-stream")].into_iter().collect();
    let response = ResponseHead { status: 200, headers };
    Case::new(name, "event", EVENTS as u64, move || {
        let at = Timestamp::now();
        let start = ExchangeStart { host: host.to_owned(), ..start() };
        let mut exchange = Exchange::new(start, &request);
        exchange.request_body(br#"{"model":"m","stream":true,"messages":[]}"#);
        exchange.request_end();
        exchange.response(&response, at);
        exchange.response_body(first.as_bytes(), at);
        (0..EVENTS).for_each(|_| exchange.response_body(event.as_bytes(), at));
        exchange.response_body(last.as_bytes(), at);
        exchange.response_end(at);
        let row = exchange.row(&book);
        assert_eq!(row.tokens.output, Some(7), "{row:?}");
        row
    })
}

pub(crate) fn anthropic_event() -> Case {
    let first = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"x\",\
        \"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-5\",\"content\":[],\
        \"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\n";
    let last = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\
        \"end_turn\"},\"usage\":{\"output_tokens\":7}}\n\nevent: message_stop\ndata: \
        {\"type\":\"message_stop\"}\n\n";
    answer("anthropic", ("api.anthropic.com", "/v1/messages"), (first, stream(1), last))
}

pub(crate) fn chat_event() -> Case {
    let event = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\
        \"model\":\"gpt-6-astra\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\
        \"finish_reason\":null}]}\n\n";
    let last = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\
        \"model\":\"gpt-6-astra\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\
        \"completion_tokens\":7,\"total_tokens\":10}}\n\ndata: [DONE]\n\n";
    let host = ("api.openai.com", "/v1/chat/completions");
    answer("openai-chat", host, ("", event.to_owned(), last))
}

pub(crate) fn responses_event() -> Case {
    let event = "event: response.output_text.delta\ndata: {\"type\":\
        \"response.output_text.delta\",\"item_id\":\"msg_1\",\"output_index\":0,\
        \"content_index\":0,\"delta\":\" word\",\"sequence_number\":9}\n\n";
    let last = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\
        \"id\":\"resp_1\",\"model\":\"gpt-6-astra\",\"status\":\"completed\",\"output\":[],\
        \"usage\":{\"input_tokens\":3,\"output_tokens\":7,\"total_tokens\":10}}}\n\n";
    let host = ("api.openai.com", "/v1/responses");
    answer("openai-responses", host, ("", event.to_owned(), last))
}

pub(crate) fn gemini_event() -> Case {
    let event = |tokens: u8| {
        format!(
            "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\" word\"}}],\"role\":\
             \"model\"}}}}],\"usageMetadata\":{{\"promptTokenCount\":3,\"candidatesTokenCount\":\
             {tokens},\"totalTokenCount\":10}},\"modelVersion\":\"gemini-3-pro\"}}\r\n\r\n"
        )
    };
    let path = "/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse";
    let host = ("generativelanguage.googleapis.com", path);
    answer("gemini", host, ("", event(7), ""))
}
