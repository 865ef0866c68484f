//! What a secret looks like. Better a word too many than one too few: nobody needs the text whole.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use crate::meter::secrets::FORMS;

/// A kind of secret.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) name: &'static str,
    /// For plain text.
    plain: Regex,
    /// For text that is JSON around its strings: stops where a string does.
    structured: Option<Regex>,
    check: fn(&str) -> bool,
}

impl Class {
    pub(super) fn pattern(&self, structured: bool) -> &Regex {
        self.structured.as_ref().filter(|_| structured).unwrap_or(&self.plain)
    }

    pub(super) fn is_one(&self, found: &Captures<'_>, text: &str) -> bool {
        // `max_tokens: 4096`, unlike `token: 4096`, counts something.
        let longer = found.name("more").is_some_and(|more| !more.is_empty());
        (self.check)(text) && !(longer && is_number(text))
    }
}

/// All of them. Patterns with lower bounds far below the real lengths: what was cut off is one too.
pub(super) static CLASSES: LazyLock<Vec<Class>> = LazyLock::new(|| {
    let forms = FORMS.iter().map(|form| (form.class, form.pattern));
    let mut classes: Vec<Class> =
        forms.chain(SIMPLE.iter().copied()).map(|(name, pattern)| class(name, pattern)).collect();
    classes.extend(
        LIKELY.iter().map(|(name, pattern)| Class { check: has_digit, ..class(name, pattern) }),
    );
    classes.extend(WIDE.iter().map(|(name, plain, structured)| Class {
        structured: Some(compiled(structured)),
        check: is_value,
        ..class(name, plain)
    }));
    classes.push(Class { check: is_token, ..class("bearer_token", BEARER) });
    classes.push(Class { check: is_card, ..class("card_number", CARD) });
    classes.push(Class { check: is_phone, ..class("phone", PHONE) });
    classes
});

fn class(name: &'static str, pattern: &str) -> Class {
    Class { name, plain: compiled(pattern), structured: None, check: |_| true }
}

fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("written here, and compiled by each test")
}

/// What secrets are called.
macro_rules! names {
    () => {
        r"(?i:api[_. -]?keys?|access[_. -]?key(?:[_-]?id)?|account[_-]?key|shared[_-]?access[_-]?key|private[_-]?key|encryption[_-]?key|signing[_-]?key|secret(?:[_. -]?(?:access[_. -]?)?key)?|secrets|credentials?|token|passwd|password|passphrase|passcode|(?:(?-u:\b)|_)pass(?:(?-u:\b)|_)|(?-i:Pass(?-u:\b))|pwd|[_-]key|(?-i:(?-u:\b)KEY(?-u:\b))|authorization|cookie|x-api-key|x-goog-api-key|private[_-]?token|connection[_-]?string)"
    };
}

/// The same with what may stand behind them: `SECRET_KEY_BASE`, `passwordHash`.
macro_rules! named {
    () => {
        concat!(names!(), r"(?<more>[A-Za-z0-9_.-]{0,24})[\x22'`]?\]?")
    };
}

/// What stands between such a name and its value.
macro_rules! is {
    () => {
        r"\s*(?::|=>|:=|\|\|=|\?\?=|==?)\s*"
    };
}

/// Told by their own look, as [`FORMS`] are.
const SIMPLE: &[(&str, &str)] = &[
    ("basic_auth", r"(?i:\bbasic)[ \t]+([A-Za-z0-9+/_-]{8,}={0,2})"),
    (
        "command_line",
        r"--?(?:[A-Za-z0-9]+-)*(?i:password|passwd|passphrase|pass|token|api-?key|secret|(?:secret|access)-(?:access-)?key|auth)[ \t]+[\x22']?([^\s\x22'\\-][^\s\x22'\\]*)",
    ),
    (
        "command_line",
        r"(?:^|[\s\x22'(])(?:-u|-U|--user|--proxy-user)[ \t=]*[\x22']?[^\s\x22'\\:]+:([^\s\x22'\\]+)",
    ),
    // Of docker, podman, oc, az.
    (
        "command_line",
        r"(?-u:\b)login(?-u:\b)[^\r\n|;&]{0,160}?[ \t]-p[ \t=]*[\x22']?([^\s\x22'\\]+)",
    ),
    (
        "command_line",
        r"(?:redis-cli[^\r\n|;&]{0,160}?[ \t]-a|openssl[^\r\n|;&]{0,160}?[ \t]-(?:k|K))[ \t]+[\x22']?([^\s\x22'\\]+)",
    ),
    (
        "command_line",
        r"(?:echo|printf)[ \t]+(?:-[a-z]+[ \t]+)?[\x22']?([^\s\x22'\\|]+)[\x22']?[ \t]*\|[^\r\n|]{0,160}?--(?:password-stdin|with-token)",
    ),
    ("command_line", r"sshpass[ \t]+-p[ \t]*[\x22']?([^\s\x22'\\]+)"),
    // Its clients take the password right behind the letter; their options may go on in another line.
    (
        "command_line",
        r"(?:mysql|mariadb)[a-z_-]{0,12}(?:\\?\r?\n[ \t]*-|[\t -~&&[^|;&]]){0,120}?(?:[ \t]|\\?\r?\n)[ \t]*-p[\x22']?([^\s\x22'\\]+)",
    ),
    // A key's id with the key, as it is shown once.
    ("aws_secret_key", r"(?:AKIA|ASIA)[A-Z0-9]{12,}[^A-Za-z0-9/+]{1,8}([A-Za-z0-9/+]{40})"),
    ("connection_string", r"jdbc:[a-z0-9:]+:[^\s/@:\x22'<>]+/([^\s@\x22'<>]+)@"),
    // Without a scheme: as Go's driver for MySQL has it.
    ("connection_string", r"[^\s:/@\x22'<>()]:([^\s\x22'<>]+)@(?:tcp[46]?|udp|unix|cloudsql)\("),
    ("connection_string", r"[^\s:/@\x22'<>()]:([^\s:/\x22'<>]+)@/"),
    ("netrc", r"(?-u:\b)login\s+\S+\s+password\s+([^\s\x22\\]+)"),
    // A name and its value side by side: of XML, and of lists of variables.
    (
        "element",
        concat!(
            names!(),
            r"[A-Za-z0-9_.-]{0,24}[\x22'](?:[ \t]+value=[\x22']|[ \t]*>)([^<>\x22'\\\r\n]{1,256})"
        ),
    ),
    (
        "assignment",
        concat!(
            r"(?:name|key)[\x22']?\s*[:=]\s*[\x22']?[A-Za-z0-9_.-]{0,40}?",
            names!(),
            r"[A-Za-z0-9_.-]{0,24}[\x22']?\s*,?\s*(?:-\s*)?[\x22']?(?i:value)[\x22']?\s*[:=]\s*[\x22']?([^\s\x22'\\,}]+)",
        ),
    ),
    (
        "assignment",
        concat!(
            r"[({]\s*[\x22'`][A-Za-z0-9_.-]{0,40}?",
            names!(),
            r"[A-Za-z0-9_.-]{0,24}[\x22'`]\s*,\s*[\x22'`]([^\x22'`\\\r\n]+)",
        ),
    ),
    (
        "element",
        r"<(?i:password|passwd|passphrase|secret|token|api[_-]?key)>([^<\x22\\\r\n]{1,256})(?:<|$)",
    ),
    (
        "email",
        r"[\p{L}\p{N}][\p{L}\p{N}.!#$%&*+/=?^_`{|}~'-]*@(?:[\p{L}\p{N}](?:[\p{L}\p{N}-]*[\p{L}\p{N}])?\.)+\p{L}{2,}",
    ),
    ("ssn", r"\b[0-8][0-9]{2}-[0-9]{2}-[0-9]{4}\b"),
];

/// Told by what is before them, if they have a digit: the same words may begin prose.
const LIKELY: &[(&str, &str)] = &[
    // Of fish, csh, Dockerfiles, `aws configure`.
    (
        "assignment",
        concat!(
            r"(?-u:\b)(?i:set|setenv|env)(?:[ \t]+--?[A-Za-z]+)*[ \t]+[A-Za-z0-9_.]{0,40}?",
            names!(),
            r"[A-Za-z0-9_.-]{0,24}[ \t]+[\x22']?([^\s\x22'\\]{3,})",
        ),
    ),
    (
        "assignment",
        concat!(names!(), r"[ \t]+(?:is|was|ist|est|es)[ \t]*:?[ \t]+[\x22'`]?([^\s\x22'`\\]{6,})"),
    ),
    ("connection_string", r"[A-Za-z][A-Za-z0-9+.-]*://([^\s/@:\x22'<>\\]{16,})@"),
];

/// Told by what is before them: up to the end of the line, of the string or of the word.
const WIDE: &[(&str, &str, &str)] = &[
    (
        "header",
        r"(?i:authorization|x-api-key|x-goog-api-key|api-key|x-auth-token|cookie2?)[ \t]*:[ \t]*([^\r\n]+)",
        r"(?i:authorization|x-api-key|x-goog-api-key|api-key|x-auth-token|cookie2?)[ \t]*:[ \t]*([^\s\x22\\][^\r\n\x22\\]*)",
    ),
    (
        "connection_string",
        r"[A-Za-z][A-Za-z0-9+.-]*://[^\s:/@\x22'<>]*:([^\s\x22<>]+)@",
        r"[A-Za-z][A-Za-z0-9+.-]*://[^\s:/@\x22'<>]*:([^\s\x22<>]+)@",
    ),
    (
        "query",
        r"[?&;](?i:key|api[_-]?key|sig|signature|token|code|auth|x-amz-(?:signature|credential|security-token)|[a-z_-]*(?:token|secret|key|password))=([^&\s\x22'<>#]+)",
        r"[?&;](?i:key|api[_-]?key|sig|signature|token|code|auth|x-amz-(?:signature|credential|security-token)|[a-z_-]*(?:token|secret|key|password))=([^&\s\x22'<>#\\]+)",
    ),
    // In quotes of its own, which may be escaped within; then without.
    (
        "assignment",
        concat!(named!(), is!(), r"\x22((?:[^\x22\\]|\\(?s:.))+)"),
        concat!(named!(), is!(), r"\x22((?:[^\x22\\]|\\(?s:.))+)"),
    ),
    (
        "assignment",
        concat!(named!(), is!(), r"'((?:[^'\\\x22]|\\(?s:.))+)"),
        concat!(named!(), is!(), r"'((?:[^'\\\x22]|\\(?s:.))+)"),
    ),
    (
        "assignment",
        concat!(named!(), is!(), r"`((?:[^`\\\x22]|\\(?s:.))+)"),
        concat!(named!(), is!(), r"`((?:[^`\\\x22]|\\(?s:.))+)"),
    ),
    (
        "assignment",
        concat!(named!(), r"[ \t]*(?::|=>|:=|==?)[ \t]*([^\s\x22'`\[{(][^\s\x22']{2,})"),
        concat!(named!(), r"[ \t]*(?::|=>|:=|==?)[ \t]*([^\s\x22'`\[{(\\][^\s\x22'\\]{2,})"),
    ),
];

const BEARER: &str = r"(?i:\bbearer)[ \t]+([A-Za-z0-9._~+/=-]{8,})";
const CARD: &str = r"\b[0-9](?:[ -]?[0-9]){12,18}\b";
/// In groups with spaces only where they are those of North America, or begin as in Europe.
const PHONE: &str = r"\+[0-9][0-9 ().\x{2011}-]{6,20}[0-9]|\(?\b[0-9]{3}\)?[ .-]?[ ]?[0-9]{3}[.-][0-9]{4}\b|\([0-9]{3}\) ?[0-9]{3}[ .-]?[0-9]{4}\b|\b[2-9][0-9]{2} [2-9][0-9]{2} [0-9]{4}\b|(?:^|[^\p{L}0-9.,:_-])(0[1-9][0-9]{1,3}\)?[ -][0-9]{3,8}(?: [0-9]{3,4})?)\b";

/// `"password": null` is none.
fn is_value(text: &str) -> bool {
    let words = ["null", "true", "false", "None", "True", "False", "undefined"];
    !words.contains(&without_end(text))
}

fn has_digit(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_digit()) && !is_number(text)
}

fn is_number(text: &str) -> bool {
    without_end(text).bytes().all(|b| b.is_ascii_digit() || b".,_".contains(&b))
}

fn without_end(text: &str) -> &str {
    text.trim_end_matches([',', ';', ')', '}', ']'])
}

/// "Bearer tokens" is prose.
fn is_token(text: &str) -> bool {
    text.len() >= 16 || text.bytes().any(|b| b.is_ascii_digit())
}

fn is_phone(text: &str) -> bool {
    (10..=15).contains(&digits(text).count())
        || (text.starts_with('+') && digits(text).count() >= 8)
}

/// Numbers that a card network gives out, with the right last digit.
fn is_card(text: &str) -> bool {
    let digits: Vec<u32> = digits(text).collect();
    let prefix = |n: usize| digits.iter().take(n).fold(0, |sum, digit| sum * 10 + digit);
    let known = match digits.len() {
        14 => matches!(prefix(2), 30 | 36 | 38 | 39),
        15 => matches!(prefix(2), 34 | 37),
        13 => prefix(1) == 4,
        16..=19 => {
            prefix(1) == 4 || matches!(prefix(2), 35 | 50..=69) || matches!(prefix(4), 2221..=2720)
        }
        _ => false,
    };
    known && luhn(&digits)
}

fn luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(n, digit)| match (n % 2, digit * 2) {
            (0, _) => *digit,
            (_, double) if double > 9 => double - 9,
            (_, double) => double,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn digits(text: &str) -> impl Iterator<Item = u32> + '_ {
    text.chars().filter_map(|c| c.to_digit(10))
}
