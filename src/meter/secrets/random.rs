//! Whether a text has something in it that nobody made up: a long token by chance, of a key without a form
//! of its own. Cautious: a name that is taken for a key is lost.

use std::sync::LazyLock;

use regex::Regex;

/// Shorter ones may be anybody's id.
const LONG: usize = 40;

/// Ids that are longer all the same.
const IDS: &[&str] = &[
    "asst", "batch", "call", "chatcmpl", "cmpl", "cntr", "conv", "file", "fs", "gen", "item",
    "msg", "msgbatch", "req", "resp", "rs", "rtc", "run", "thread", "v1", "vs",
];

/// What stands before the digest of something, which nobody can do anything with.
const BEFORE_DIGESTS: &[&str] = &[":", "@", "sha256-", "sha1-", "snapshots/", "blobs/"];

/// Pairs of letters that make up most of the words of most languages here, and of models' names.
const PAIRS: &str = "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as \
    ou io le ve co me de hi ri ro ic ne ea ra ce li ch ll be ma si om ur pr et em ec \
    ex ta el ni pl ct us ss tr mo ur ge ho la ol ac mi wi am il un po ch em im op";

static UUID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
        .expect("written here, and compiled by each test")
});

/// Whether such a token stands anywhere in `text`.
pub(super) fn is_in(text: &str) -> bool {
    if text.len() < LONG {
        return false;
    }
    let text = UUID.replace_all(text, " ");
    let in_token = |c: char| c.is_ascii_alphanumeric() || "+=_-".contains(c);
    let mut at = 0;
    text.split(|c| !in_token(c)).any(|token| {
        let before = text.get(..at).unwrap_or_default();
        at += token.len();
        at += text.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        is_one(token, before)
    })
}

fn is_one(token: &str, before: &str) -> bool {
    let id = IDS
        .iter()
        .any(|id| token.strip_prefix(id).is_some_and(|rest| rest.starts_with(['_', '-'])));
    token.len() >= LONG && !id && (is_mixed(token) || of_one_case(token, before))
}

/// As base64 writes it: small and capital letters and digits without order, and few other signs.
fn is_mixed(token: &str) -> bool {
    let token = token.trim_end_matches('=');
    let has = |kind: Kind| token.bytes().filter(|b| Kind::of(*b) == kind).count() >= 2;
    let breaks = token.bytes().filter(|b| Kind::of(*b) == Kind::Other).count();
    token.len() + 2 >= LONG
        && [Kind::Small, Kind::Capital, Kind::Digit].into_iter().all(has)
        && breaks * 8 <= token.len()
        && changes(token) * 10 >= token.len() * 4
        && !is_worded(token)
}

/// As hexadecimal digits and base 32 or 36 write it, in one piece.
fn of_one_case(token: &str, before: &str) -> bool {
    let mut from = 0;
    token.split(['-', '_', '+', '=']).any(|piece| {
        let at = from;
        from += piece.len() + 1;
        let has = |kind: Kind| piece.bytes().filter(|b| Kind::of(*b) == kind).count();
        let [small, capital, digits] = [Kind::Small, Kind::Capital, Kind::Digit].map(has);
        let hex = piece.bytes().all(|b| b.is_ascii_hexdigit());
        piece.len() >= LONG
            && (small == 0) != (capital == 0)
            && digits >= 4
            && changes(piece) * 5 >= piece.len()
            && if hex {
                !is_digest(before, token.get(..at).unwrap_or_default())
            } else {
                !is_worded(piece)
            }
    })
}

fn is_digest(before: &str, of_token: &str) -> bool {
    BEFORE_DIGESTS.iter().any(|mark| match of_token.is_empty() {
        true => before.ends_with(mark),
        false => of_token.ends_with(mark),
    })
}

/// Of neighbours within words half are usual ones, of letters thrown together an eighth.
fn is_worded(token: &str) -> bool {
    let lower = token.to_ascii_lowercase();
    let pairs = lower.as_bytes().windows(2).filter(|p| p.iter().all(u8::is_ascii_alphabetic));
    let (mut all, mut usual) = (0, 0);
    for pair in pairs {
        all += 1;
        usual += usize::from(is_usual(pair));
    }
    usual * 10 > all * 3
}

fn is_usual(pair: &[u8]) -> bool {
    PAIRS.as_bytes().split(|b| *b == b' ').any(|usual| usual == pair)
}

/// How often another kind of character follows.
fn changes(token: &str) -> usize {
    let kinds: Vec<Kind> = token.bytes().map(Kind::of).collect();
    kinds.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Small,
    Capital,
    Digit,
    Other,
}

impl Kind {
    const fn of(byte: u8) -> Self {
        match byte {
            b'a'..=b'z' => Self::Small,
            b'A'..=b'Z' => Self::Capital,
            b'0'..=b'9' => Self::Digit,
            _ => Self::Other,
        }
    }
}
