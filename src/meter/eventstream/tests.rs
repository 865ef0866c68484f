use proptest::prelude::*;

use super::*;

/// One message as it stands on the wire.
pub(crate) fn message(fields: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in fields {
        headers.push(u8::try_from(name.len()).unwrap());
        headers.extend(name.as_bytes());
        headers.push(7);
        headers.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        headers.extend(value.as_bytes());
    }
    raw(&headers, payload)
}

fn raw(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let total = u32::try_from(PRELUDE + headers.len() + payload.len() + SUM).unwrap();
    let mut out = total.to_be_bytes().to_vec();
    out.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
    out.extend(crc(&out).to_be_bytes());
    out.extend(headers);
    out.extend(payload);
    out.extend(crc(&out).to_be_bytes());
    out
}

pub(crate) fn event(name: &str, payload: &str) -> Vec<u8> {
    let json = (":content-type", "application/json");
    message(&[(":event-type", name), json, (":message-type", "event")], payload.as_bytes())
}

/// The model's own event, as `invoke-with-response-stream` wraps it.
pub(crate) fn wrapped(json: &str) -> Vec<u8> {
    event("chunk", &format!(r#"{{"bytes":"{}","p":"abcdefg"}}"#, encode(json.as_bytes())))
}

fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|i| u32::from(chunk.get(i).copied().unwrap_or_default()));
        let bits = a << 16 | b << 8 | c;
        for i in 0..4 {
            let index = (bits >> (18 - 6 * i) & 63) as usize;
            out.push(if i <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    out
}

/// One line for each message; the same in any pieces.
fn read(max: usize, wire: &[u8]) -> Vec<String> {
    let in_pieces = |size: usize| {
        let mut parser = Parser::new(max);
        let mut out = Vec::new();
        for piece in wire.chunks(size) {
            let fed = parser.feed(piece, &mut |message| {
                let Message { name, failure, payload, truncated } = message;
                let payload = payload.escape_ascii();
                out.push(format!("{name} {payload}{}", ["", " failed"][usize::from(failure)]));
                assert_eq!(truncated, name.is_empty() && payload.to_string().is_empty());
            });
            if fed.is_err() {
                out.push("corrupt".to_owned());
                assert_eq!(parser.feed(b"x", &mut |_| panic!("after the end")), Err(Corrupt));
                break;
            }
        }
        out
    };
    let whole = in_pieces(usize::MAX);
    for size in [1, 2, 7, 61] {
        assert_eq!(in_pieces(size), whole, "{size}");
    }
    whole
}

#[test]
fn events_and_failures() {
    let failure = message(
        &[(":exception-type", "throttlingException"), (":message-type", "exception")],
        b"{}",
    );
    let wire = [event("messageStart", "{}"), event("metadata", r#"{"a":1}"#), failure].concat();
    assert_eq!(
        read(1 << 20, &wire),
        ["messageStart {}", r#"metadata {\"a\":1}"#, "throttlingException {} failed"]
    );
}

#[test]
fn header_fields_of_every_type_are_passed_over() {
    let mut headers = Vec::new();
    for (kind, value) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (5, 8), (8, 8), (9, 16)]
        .map(|(k, n)| (k, vec![9; n]))
    {
        headers.extend([1, b'x', kind]);
        headers.extend(value);
    }
    headers.extend(b"\x01x\x06\x00\x02ab\x0b:event-type\x07\x00\x01e");
    assert_eq!(read(1 << 20, &raw(&headers, b"p")), ["e p"]);
    assert_eq!(read(1 << 20, &raw(b"\x01x\x0a", b"p")), ["corrupt"]);
    assert_eq!(read(1 << 20, &raw(b"\x05x", b"p")), ["corrupt"]);
}

#[test]
fn damage_anywhere_is_noticed() {
    let good = event("e", "{}");
    let wire = [good.clone(), good.clone()].concat();
    for at in 0..good.len() {
        let mut wire = wire.clone();
        wire[at] ^= 0x10;
        assert_eq!(read(1 << 20, &wire), ["corrupt"], "{at}");
    }
    assert_eq!(read(1 << 20, b"HTTP/1.1 200 OK\r\n"), ["corrupt"]);
}

#[test]
fn a_message_over_the_cap_is_passed_over() {
    let wire = [event("one", "{}"), event("two", &"x".repeat(500)), event("three", "{}")].concat();
    assert_eq!(read(200, &wire), ["one {}", " ", "three {}"]);
}

#[test]
fn chunks_hold_the_models_own_events() {
    for text in ["", "a", "ab", "abc", r#"{"type":"message_stop"}"#] {
        let wire = wrapped(text);
        let mut inner = None;
        Parser::new(1 << 20).feed(&wire, &mut |message| inner = chunk(message.payload)).unwrap();
        assert_eq!(inner.as_deref(), Some(text.as_bytes()), "{text}");
    }
    assert_eq!(chunk(br#"{"bytes":"a b"}"#), None);
    assert_eq!(chunk(br#"{"p":"x"}"#), None);
    assert_eq!(chunk(b"x"), None);
}

proptest! {
    #[test]
    fn garbage_says_the_same_in_any_pieces(
        good in 0_usize..3,
        data in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut wire = event("e", "{}").repeat(good);
        wire.extend(data);
        read(1 << 10, &wire);
    }
}
