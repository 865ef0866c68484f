//! Secrets of each class, made at random, at random places, escaped and cut in all ways that occur:
//! none of them is left.

use proptest::prelude::*;
use proptest::string::string_regex;
use serde_json::{Value, json};

use super::redact;

mod forms;
mod memory;

/// How a secret of each class is made: what is around it, with `@` for the secret itself.
const CLASSES: &[(&str, &str, &str)] = &[
    ("anthropic", "key @ ok", "sk-ant-(api03|oat01|admin01)-[A-Za-z0-9_-]{40,93}AA"),
    ("openai", "key @ ok", "sk-(proj|svcacct)-[A-Za-z0-9_-]{40,120}"),
    ("openai, old", "key @ ok", "sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}"),
    ("deepseek", "key @ ok", "sk-[a-f0-9]{32}"),
    ("openrouter", "key @ ok", "sk-or-v1-[a-f0-9]{64}"),
    ("xai", "key @ ok", "xai-[A-Za-z0-9]{80}"),
    ("groq", "key @ ok", "gsk_[A-Za-z0-9]{52}"),
    ("google", "key @ ok", "AIza[A-Za-z0-9_-]{35}"),
    ("google oauth", "key @ ok", r"ya29\.[A-Za-z0-9_-]{60,120}"),
    ("perplexity", "key @ ok", "pplx-[A-Za-z0-9]{48}"),
    ("nvidia", "key @ ok", "nvapi-[A-Za-z0-9_-]{60}"),
    ("cerebras", "key @ ok", "csk-[a-z0-9]{48}"),
    ("hugging face", "key @ ok", "hf_[A-Za-z0-9]{34}"),
    ("replicate", "key @ ok", "r8_[A-Za-z0-9]{37}"),
    ("aws id", "key @ ok", "(AKIA|ASIA)[A-Z0-9]{16}"),
    ("aws secret", "aws_secret_access_key = @ ok", "[A-Za-z0-9/+]{40}"),
    ("aws session", "AWS_SESSION_TOKEN=@ ok", "[A-Za-z0-9/+]{100,300}=="),
    ("github", "key @ ok", "gh[pousr]_[A-Za-z0-9]{36}"),
    ("github, fine", "key @ ok", "github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    ("gitlab", "key @ ok", "glpat-[A-Za-z0-9_-]{20}"),
    ("npm", "key @ ok", "npm_[A-Za-z0-9]{36}"),
    ("slack", "key @ ok", "xox[abprs]-[0-9]{10,13}-[0-9]{10,13}-[A-Za-z0-9]{24}"),
    (
        "slack hook",
        "https://hooks.slack.com/services/@ ok",
        "T[A-Z0-9]{8}/B[A-Z0-9]{8}/[A-Za-z0-9]{24}",
    ),
    ("stripe", "key @ ok", "(sk|rk)_live_[A-Za-z0-9]{24,99}"),
    ("jwt", "key @ ok", r"eyJ[A-Za-z0-9_-]{20,60}\.eyJ[A-Za-z0-9_-]{20,200}\.[A-Za-z0-9_-]{20,86}"),
    ("bearer", "Bearer @ ok", "[A-Za-z0-9._~+/-]{16,80}"),
    ("basic", "Authorization: Basic @\nok", "[A-Za-z0-9+/]{16,60}={0,2}"),
    ("x-api-key", "x-api-key: @\nok", "[A-Za-z0-9]{16,64}"),
    ("cookie", "Cookie: @\nok", "session=[A-Za-z0-9%]{16,40}; id=[A-Za-z0-9]{10}"),
    ("set-cookie", "set-cookie: @\nok", "sid=[A-Za-z0-9%]{16,40}; Path=/; HttpOnly"),
    ("password", "password=@ ok", "[A-Za-z0-9!#$^*_.:+-]{8,24}"),
    ("yaml password", "db_password: @\nok", "[A-Za-z0-9!#$^*_.:+-]{8,24}"),
    ("quoted key", "api_key=\"@\" ok", "[A-Za-z0-9 ,;!#$^&*_.:+-]{12,40}"),
    ("single quotes", "client_secret: '@' ok", "[A-Za-z0-9 ,;!#$^&*_.:+-]{12,40}"),
    ("dsn", "postgres://app:@@db.internal:5432/x ok", "[A-Za-z0-9!#$^*_.+-]{8,24}"),
    ("amqp", "see amqps://u:@@mq/v ok", "[A-Za-z0-9%_.+-]{8,24}"),
    ("go's dsn", "app:@@tcp(127.0.0.1:3306)/db ok", "[A-Za-z0-9!#$^*_.+-]{8,24}"),
    ("go's socket", "app:@@unix(/run/mysqld.sock)/db ok", "[A-Za-z0-9!#$^*_.+-]{8,24}"),
    ("go's default", "app:@@/db ok", "[A-Za-z0-9!#$^*_.+-]{8,24}"),
    ("azure", "AccountName=a;AccountKey=@ ok", "[A-Za-z0-9+/]{86}=="),
    ("query", "GET /v1beta/models/g:generate?alt=sse&key=@ ok", "[A-Za-z0-9_-]{20,39}"),
    ("signed", "https://b/o?X-Amz-Signature=@&x=1 ok", "[a-f0-9]{64}"),
    ("command line", "login --password @ ok", "[A-Za-z0-9!#$^*_.:+]{8,24}"),
    ("short name", "DB_PASS=@ ok", "[A-Za-z0-9]{12,40}"),
    ("shortest name", "pass: @\nok", "[A-Za-z0-9]{12,40}"),
    ("key base", "SECRET_KEY_BASE=@ ok", "[A-Za-z0-9]{12,40}"),
    ("second key", "API_KEY_2=@ ok", "[A-Za-z0-9]{12,40}"),
    ("second password", "PASSWORD2=@ ok", "[A-Za-z0-9]{12,40}"),
    ("key of a test", "STRIPE_SECRET_KEY_TEST=@ ok", "[A-Za-z0-9]{12,40}"),
    ("token of a place", "TOKEN_PROD=@ ok", "[A-Za-z0-9]{12,40}"),
    ("auth key", "AUTH_KEY=@ ok", "[A-Za-z0-9]{12,40}"),
    ("jwt key", "JWT_KEY=@ ok", "[A-Za-z0-9]{12,40}"),
    ("hash", "{\"passwordHash\": \"@\"} ok", "[A-Za-z0-9]{12,40}"),
    ("camels", "{\"accessTokenProd\": \"@\"} ok", "[A-Za-z0-9]{12,40}"),
    ("again", "{\"password_confirmation\":\"@\"} ok", "[A-Za-z0-9]{12,40}"),
    ("curl", "curl -u admin:@ https://example.com ok", "[A-Za-z0-9]{12,40}"),
    ("ssh", "sshpass -p @ ssh host ok", "[A-Za-z0-9]{12,40}"),
    ("mysql", "mysql -u root -p@ db ok", "[A-Za-z0-9!#$^*_.:+]{8,24}"),
    ("mysqldump", "mysqldump -h 'a b' \\\n -p'@' db ok", "[A-Za-z0-9!#$^*_.:+]{8,24}"),
    ("mariadb", "mariadb -p@ ok", "[A-Za-z0-9!#$^*_.:+]{8,24}"),
    ("netrc", "machine a.example login x password @\nok", "[A-Za-z0-9]{12,40}"),
    ("element", "<password>@</password> ok", "[A-Za-z0-9]{12,40}"),
    ("email", "write to @ ok", r"[a-z]{3,10}\.[a-z]{3,10}@[a-z]{3,10}\.(com|org|de)"),
    ("ssn", "number @ ok", "[1-7][0-9]{2}-[0-9]{2}-[0-9]{4}"),
    ("phone", "call @ ok", r"\+1[ -][2-9][0-9]{2}[ -][2-9][0-9]{2}[ -][0-9]{4}"),
    ("phone, at home", "call @ ok", r"\([2-9][0-9]{2}\) [2-9][0-9]{2}-[0-9]{4}"),
    ("phone, spaced", "call @ ok", "[2-9][0-9]{2} [2-9][0-9]{2} [0-9]{4}"),
    ("phone, in London", "call @ ok", "020 [0-9]{4} [0-9]{4}"),
    ("phone, in Britain", "call @, ok", "0[1-9][0-9]{3} [0-9]{6}"),
    ("phone, in Germany", "call (@ ok", "01[5-7][0-9][ -][0-9]{7,8}"),
    (
        "private key",
        "-----BEGIN RSA PRIVATE KEY-----\n@\n-----END RSA PRIVATE KEY-----\nok",
        r"([A-Za-z0-9+/]{64}\n){3,8}[A-Za-z0-9+/]{20,40}==",
    ),
];

/// A secret, and a text that it is in.
fn secrets() -> impl Strategy<Value = (&'static str, String, String)> {
    (0..=CLASSES.len()).prop_flat_map(|class| match CLASSES.get(class) {
        None => card().prop_map(|n| ("card", n.clone(), format!("card {n} ok"))).boxed(),
        Some((name, around, shape)) => string_regex(shape)
            .unwrap()
            .prop_map(|secret| (*name, secret.clone(), around.replacen('@', &secret, 1)))
            .boxed(),
    })
}

fn card() -> impl Strategy<Value = String> {
    string_regex("4[0-9]{14}").unwrap().prop_map(|digits| {
        let sum: u32 = digits
            .chars()
            .rev()
            .map(|c| c.to_digit(10).unwrap())
            .enumerate()
            .map(|(n, d)| if n % 2 == 0 { d * 2 / 10 + d * 2 % 10 } else { d })
            .sum();
        format!("{digits}{}", (10 - sum % 10) % 10)
    })
}

/// Prose around it; it may have what JSON escapes.
fn prose() -> impl Strategy<Value = String> {
    string_regex("([a-z]{1,9}[ .,\n\t\"]{1,2}|é |日本 ){0,30}").unwrap()
}

/// `text` in pieces of at least one character, cut where the numbers say.
fn pieces(text: &str, cuts: &[prop::sample::Index]) -> Vec<String> {
    let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).skip(1).collect();
    let mut at: Vec<usize> =
        cuts.iter().filter(|_| !ends.is_empty()).map(|c| ends[c.index(ends.len())]).collect();
    at.sort_unstable();
    at.dedup();
    at.push(text.len());
    let mut from = 0;
    at.into_iter().map(|to| text[std::mem::replace(&mut from, to)..to].to_owned()).collect()
}

fn events(pieces: &[String], event: impl Fn(&str) -> Value) -> String {
    pieces.iter().map(|piece| format!("event: e\ndata: {}\n\n", event(piece))).collect()
}

/// `\u` for each character that need not be escaped at all, and `\/`.
fn escaped_oddly(text: &str) -> String {
    let odd = |c: char| match c {
        '-' | '_' | '=' | '@' => format!("\\u{:04x}", u32::from(c)),
        '/' => "\\/".to_owned(),
        c => {
            let quoted = serde_json::to_string(&c.to_string()).unwrap();
            quoted[1..quoted.len() - 1].to_owned()
        }
    };
    format!("{{\"text\":\"{}\"}}", text.chars().map(odd).collect::<String>())
}

/// All that is said in the strings of JSON (documents or events), put together by place.
fn said(text: &str) -> String {
    fn walk(value: &Value, out: &mut std::collections::BTreeMap<String, String>, path: &str) {
        match value {
            Value::String(s) => out.entry(path.to_owned()).or_default().push_str(s),
            Value::Array(list) => list.iter().for_each(|v| walk(v, out, &format!("{path}[]"))),
            Value::Object(map) => {
                // The streams of a document that has several.
                let index = map.get("index").map(Value::to_string).unwrap_or_default();
                map.iter().for_each(|(k, v)| walk(v, out, &format!("{path}{index}.{k}")));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut out = std::collections::BTreeMap::new();
    let documents = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    documents.map_while(Result::ok).for_each(|v| walk(&v, &mut out, ""));
    for line in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        walk(&serde_json::from_str(line).unwrap_or_default(), &mut out, "");
    }
    out.into_values().collect::<Vec<_>>().join("\n")
}

/// A part that nobody could take for chance.
fn is_left(secret: &str, text: &str) -> bool {
    let chars: Vec<char> = secret.chars().collect();
    let window = chars.len().min(10);
    chars.windows(window).any(|part| text.contains(&part.iter().collect::<String>()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_secret_is_left_in_any_form(
        (class, secret, around) in secrets(),
        before in prose(),
        after in prose(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let plain = format!("{before} {around}\n{after}");
        let parts = pieces(&plain, &cuts);
        let nested = json!({"messages": [{"role": "user", "content": plain}]}).to_string();
        let other = |n: usize| json!({"type": "d", "index": 7, "delta": {"text": format!("other {n}")}});
        let interleaved: String = parts.iter().enumerate().map(|(n, piece)| {
            let mine = json!({"type": "d", "index": 1, "delta": {"text": piece}});
            format!("data: {mine}\n\ndata: {}\n\n", other(n))
        }).collect();
        let forms = [
            ("plain", plain.clone()),
            ("json", nested.clone()),
            ("pretty json", serde_json::to_string_pretty(&json!({"a": {"input": plain}})).unwrap()),
            ("json in json", json!({"arguments": nested}).to_string()),
            ("json in json in json", json!({"a": json!({"b": nested}).to_string()}).to_string()),
            ("odd escapes", escaped_oddly(&plain)),
            ("anthropic's deltas", events(&parts, |p| json!({"type": "content_block_delta",
                "index": 0, "delta": {"type": "text_delta", "text": p}}))),
            ("openai's deltas", events(&parts, |p| json!({"choices": [{"index": 0,
                "delta": {"content": p}}]}))),
            ("deltas of json", events(&pieces(&nested, &cuts), |p| json!({"type": "input_json_delta",
                "partial_json": p}))),
            ("interleaved", interleaved),
            ("gemini's array", Value::from(parts.iter().map(|p| json!({"candidates":
                [{"content": {"parts": [{"text": p}]}}]})).collect::<Vec<_>>()).to_string()),
            ("lines", parts.iter().map(|p| json!({"message": {"content": p}}).to_string() + "\n")
                .collect::<String>()),
            ("a list of pieces", json!({"lines": parts}).to_string()),
        ];
        for (form, text) in &forms {
            let redacted = redact(text, text.len());
            prop_assert!(!is_left(&secret, &redacted.text) && !is_left(&secret, &said(&redacted.text)),
                "{class} as {form}: {secret:?} is left\nin  {text}\nout {}", redacted.text);
        }
    }

    #[test]
    fn nor_on_the_border_of_what_is_kept(
        (class, secret, around) in secrets(),
        keep in any::<prop::sample::Index>(),
    ) {
        let text = format!("{around} and more");
        let redacted = redact(&text, keep.index(text.len()));
        prop_assert!(!is_left(&secret, &redacted.text), "{class}: {}", redacted.text);
    }

    #[test]
    fn any_text_is_taken(text in "\\PC{0,200}|[\\[\\]{}\":,\\\\a%0u]{0,60}", keep in 0usize..300) {
        let _ = redact(&text, keep);
    }
}

#[test]
fn what_is_no_secret_stays() {
    for text in [
        r#"{"model":"claude-opus-4-1","max_tokens":4096,"stream":true,"usage":{"input_tokens":12,"output_tokens":5}}"#,
        "Call the disk-management-and-task-scheduling-service at 10:30, 2026-11-28T12:00:00Z.",
        "commit 9fbfebf0aa11bb22cc33dd44ee55ff6677889900, version 1.2.3-rc.4, id msg_01AbCdEf",
        r#"{"api_key":null,"password":false}"#,
        "max_tokens: 4096\nTOKEN_LIMIT=8192, total_tokens: 12,345",
        r#"{"input_tokens":12,"token_count": 3.5,"secret_key_version":2}"#,
        "mysql -u root -p db; mkdir -pv a; pip install mysql | ssh -p22 b; a@/b, 'x':'@/y'",
        "0000 0001 0203 0405, 2026-01-02 103000, 12 345 6789, 100 200 3000, 08:00 0.123 4567890",
        "bypass: no, compass: north, passengers: two; date -u",
        "bearer tokens and basic things; a key: value store",
    ] {
        assert_eq!(redact(text, text.len()).text, text);
    }
}

#[test]
fn what_was_found_is_counted_by_its_class() {
    let found = redact("a@b.com, c@d.org and sk-ant-api03-abcdefghijkl", 100);
    assert_eq!(found.text, "[REDACTED:email], [REDACTED:email] and [REDACTED:anthropic_key]");
    assert_eq!((found.found["email"], found.found["anthropic_key"]), (2, 1));
}

#[test]
fn json_stays_json() {
    let body = json!({"messages": [{"content": "password: hunter22 and\nCookie: a=b; c=d\nrest"}],
        "password": "x\"y", "n": 1});
    let redacted = redact(&body.to_string(), 10_000);
    let value: Value = serde_json::from_str(&redacted.text).unwrap();
    assert_eq!(value["password"], "[REDACTED:assignment]");
    assert_eq!(value["n"], 1);
    assert!(value["messages"][0]["content"].as_str().unwrap().ends_with("\nrest"));
}
