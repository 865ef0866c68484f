//! Cursor's agent: what others have found out about `agent.v1`, as far as it can be read without a
//! schema. **Unverified**: the format is not published and changes, so what is read is marked, and
//! what does not look as it should says nothing.
//!
//! `AgentServerMessage { 1: InteractionUpdate { 14: TurnEndedUpdate { 1 input, 2 output, 3 cache read,
//! 4 cache write, 5 reasoning } } }`, all of them varints that may be absent;
//! `AgentClientMessage { 1: AgentRunRequest { 3: ModelDetails { 1: id }, 9: RequestedModel { 1: id } } }`.

use super::error::in_stream;
use super::protobuf::{Value, fields, inside};
use super::scan::Found;
use super::{Field, Reader, Reading, state};
use crate::meter::usage::{Caveat, Tokens, Usage};

const INTERACTION: u64 = 1;
const TURN_ENDED: u64 = 14;
const RUN: u64 = 1;
const MODEL_DETAILS: u64 = 3;
const REQUESTED_MODEL: u64 = 9;
const MODEL_ID: u64 = 1;
/// More tokens than this are none.
const MAX_COUNT: u64 = 1 << 40;

/// The model that a message of the client's asks for.
pub(crate) fn asked_model(message: &[u8]) -> Option<String> {
    let run = inside(message, RUN)?;
    let named = |place| inside(inside(run, place)?, MODEL_ID);
    let name = named(REQUESTED_MODEL).or_else(|| named(MODEL_DETAILS))?;
    let name = std::str::from_utf8(name).ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
    (!name.is_empty() && name.len() <= 100 && name.bytes().all(plain)).then(|| name.to_owned())
}

/// What a message of the agent's says of the turn that has ended: maybe no tokens.
pub(crate) fn told(message: &[u8]) -> Option<Option<Tokens>> {
    inside(inside(message, INTERACTION)?, TURN_ENDED).map(counts)
}

/// What `turn_ended` says; the last one is of the whole run.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    over: bool,
    tokens: Option<Tokens>,
    error: Option<&'static str>,
}

impl Reader for Cursor {
    /// How the stream ended.
    fn unit(&mut self, _event: Option<&str>, found: &Found) {
        if let Some(error) = found.field(Field::Error) {
            self.error = Some(in_stream(error));
        }
    }

    fn binary(&mut self, message: &[u8]) {
        if let Some(tokens) = told(message) {
            self.over = true;
            self.tokens = tokens.or(self.tokens);
        }
    }

    fn reading(&self) -> Reading {
        Reading {
            usage: Usage {
                state: state(self.tokens.is_some(), true),
                tokens: self.tokens.unwrap_or_default(),
                caveat: self.tokens.map(|_| Caveat::Unverified),
                ..Usage::default()
            },
            error: self.error,
            over: self.over,
            ..Reading::default()
        }
    }
}

/// `None` unless all of it looks like counts: it may be another message by now.
fn counts(ended: &[u8]) -> Option<Tokens> {
    let mut said = [None; 5];
    for (number, value) in fields(ended)? {
        let slot = usize::try_from(number).ok().and_then(|n| said.get_mut(n.checked_sub(1)?));
        let Some(slot) = slot else { continue };
        match value {
            Value::Varint(count) if count < MAX_COUNT => *slot = Some(count),
            Value::Varint(_) | Value::Bytes(_) | Value::Wide(_) | Value::Fixed => return None,
        }
    }
    let [input, output, read, write, reasoning] = said;
    let cached = read.unwrap_or(0).saturating_add(write.unwrap_or(0));
    // Seen inside the input, mostly; where that can't be, it is beside.
    let fresh = input.map(|input| input.checked_sub(cached).unwrap_or(input));
    output.or(input).map(|_| Tokens {
        input: fresh,
        cache_read: read,
        cache_write_other: write,
        output,
        reasoning: reasoning.filter(|part| output.is_some_and(|output| *part <= output)),
        ..Tokens::default()
    })
}

#[cfg(test)]
mod tests {
    use super::super::protobuf::tests::{nested, number};
    use super::*;

    fn read(ended: &[u8]) -> Option<Tokens> {
        let mut reader = Cursor::default();
        reader.binary(&nested(INTERACTION, &nested(TURN_ENDED, ended)));
        let reading = reader.reading();
        assert!(reading.over);
        assert_eq!(reading.usage.caveat.is_some(), reader.tokens.is_some());
        reader.tokens
    }

    #[test]
    fn the_counts_of_a_turn() {
        let all = [(1, 786_003), (2, 10_819), (3, 625_408), (4, 0), (5, 5_004)];
        let ended: Vec<u8> = all.into_iter().flat_map(|(n, count)| number(n, count)).collect();
        let expected = Tokens {
            input: Some(160_595),
            output: Some(10_819),
            cache_read: Some(625_408),
            cache_write_other: Some(0),
            reasoning: Some(5_004),
            ..Tokens::default()
        };
        assert_eq!(read(&ended), Some(expected));
        // Less input than came out of the cache: it is beside.
        let beside = [number(1, 14), number(2, 9), number(3, 628_643)].concat();
        assert_eq!(read(&beside).unwrap().input, Some(14));
        // New fields don't matter, but that the known ones are no counts does.
        let more = [number(1, 14), number(2, 9), nested(6, b"x")].concat();
        assert_eq!(read(&more).unwrap().output, Some(9));
        for odd in [vec![], number(5, 7), nested(1, b"x"), number(1, u64::MAX), vec![8]] {
            assert_eq!(read(&odd), None, "{odd:?}");
        }
    }

    #[test]
    fn other_messages_say_nothing() {
        let mut reader = Cursor::default();
        let text = nested(1, &nested(1, &nested(1, b"hi")));
        let checkpoint = nested(3, &nested(14, &number(1, 7)));
        let heartbeat = nested(1, &nested(13, b""));
        for message in [text, checkpoint, heartbeat, b"\x0a\xff".to_vec(), Vec::new()] {
            reader.binary(&message);
        }
        assert_eq!((reader.over, reader.tokens), (false, None));
    }

    #[test]
    fn the_model_is_the_requested_one() {
        let details = nested(MODEL_DETAILS, &nested(MODEL_ID, b"composer-2"));
        let requested = nested(REQUESTED_MODEL, &nested(MODEL_ID, b"gpt-5"));
        let ask = |run: &[u8]| asked_model(&nested(RUN, run));
        assert_eq!(ask(&details).as_deref(), Some("composer-2"));
        assert_eq!(ask(&[details, requested].concat()).as_deref(), Some("gpt-5"));
        assert_eq!(ask(&nested(MODEL_DETAILS, &nested(MODEL_ID, "gp\nt".as_bytes()))), None);
        assert_eq!(ask(b"3f2a"), None);
    }
}
