//! What a plan has left: read off headers, frames and answers, never asked for.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::http::Headers;
use super::price::shifted;

/// One limit of a plan: so much within a time.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[schema(as = QuotaWindow)]
pub struct Window {
    /// `5h`, `7d`, `7d_opus`, `overage`, `credits`; a model or kind of request where those differ.
    pub name: String,
    /// A short hash of whose it is; `None`: nothing tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    pub plan: Option<String>,
    /// Hundredths of a per cent; over 10000 is beyond the limit.
    pub used_bp: Option<u32>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resets_at: Option<Timestamp>,
    /// As the provider says it: `allowed`, `allowed_warning`, `rejected` …
    pub status: Option<String>,
    /// When it was told. Answers overlap: the one that ends last was not told last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // What is told of it says by itself when it was seen.
    #[schema(ignore)]
    pub seen_at: Option<Timestamp>,
}

impl Window {
    /// It is one, and says something.
    fn tells(&self) -> bool {
        !self.name.is_empty() && (self.used_bp.is_some() || self.status.is_some())
    }
}

/// More than any provider sends.
const MAX_WINDOWS: usize = 32;
const MAX_TEXT: usize = 64;
/// The status of what has no limit.
const UNLIMITED: &str = "unlimited";
/// What the headers' names begin with.
const STARTS: &[&[u8]] = &[b"anthropic-ratelimit-unified-", b"x-codex-", b"x-quota-snapshot-"];

/// The windows that a response's headers tell at `at`.
#[must_use]
pub fn from_headers(headers: &Headers, at: Timestamp) -> Vec<Window> {
    let mut windows = Vec::new();
    for (name, value) in headers.iter() {
        let text = std::str::from_utf8;
        if !STARTS.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        let (Ok(name), Ok(value)) = (text(name), text(value)) else { continue };
        if let Some(rest) = name.strip_prefix("anthropic-ratelimit-unified-") {
            anthropic(&mut windows, rest, value);
        } else if let Some(rest) = name.strip_prefix("x-codex-") {
            codex(&mut windows, rest, value, at);
        } else if let Some(kind) = name.strip_prefix("x-quota-snapshot-").and_then(short) {
            *window(&mut windows, &kind) = copilot(&kind, value);
        }
    }
    let plan = headers.get("x-codex-plan-type").and_then(short);
    windows.truncate(MAX_WINDOWS);
    windows.retain(Window::tells);
    for window in &mut windows {
        window.plan = window.plan.take().or_else(|| plan.clone());
        window.seen_at = Some(at);
    }
    by_length(&mut windows);
    windows
}

/// Whether a plan's limits are used up, and this answer was billed beside it: Anthropic says so, or that
/// the plan rejects it and what is paid beside does not.
#[must_use]
pub fn beyond_plan(headers: &Headers) -> bool {
    let told = |name: &str| headers.get(name).map_or("", str::trim);
    let beside =
        matches!(told("anthropic-ratelimit-unified-overage-status"), "allowed" | "allowed_warning");
    matches!(told("anthropic-ratelimit-unified-overage-in-use"), "true" | "1")
        || (beside && told("anthropic-ratelimit-unified-status") == "rejected")
}

/// Whether these are the limits of an account that pays by use, and none of a plan's.
#[must_use]
pub fn by_use(headers: &Headers) -> bool {
    let begin = |start: &[u8]| headers.iter().any(|(name, _)| name.starts_with(start));
    begin(b"anthropic-ratelimit-") && !begin(b"anthropic-ratelimit-unified-")
}

/// `codex.rate_limits` of a stream or socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct CodexFrame<'a> {
    pub limits: Option<&'a Value>,
    pub credits: Option<&'a Value>,
    pub plan: Option<&'a str>,
    /// Whose limits these are; `None`: those that headers tell too.
    pub bucket: Option<&'a str>,
}

/// The windows that such a frame tells at `at`.
#[must_use]
pub fn from_codex_frame(frame: &CodexFrame<'_>, at: Option<Timestamp>) -> Vec<Window> {
    // That of a single model has windows of the same lengths.
    let bucket = frame.bucket.and_then(short).filter(|bucket| bucket != "codex");
    let read = |role: &str| {
        let limit = frame.limits?.get(role)?;
        let number = |key: &str| limit.get(key).filter(|v| v.is_number()).map(Value::to_string);
        let minutes = number("window_minutes").and_then(|m| m.parse().ok());
        let name = minutes.map_or_else(|| role.to_owned(), length);
        Some(Window {
            name: bucket.as_ref().map_or_else(|| name.clone(), |of| format!("{of}_{name}")),
            used_bp: number("used_percent").and_then(|p| basis_points(&p, 2)),
            resets_at: number("reset_at").or_else(|| number("resets_at")).and_then(|s| unix(&s)),
            ..Window::default()
        })
    };
    let unlimited = frame.credits.and_then(|credits| credits.get("unlimited")?.as_bool());
    let balance = match unlimited {
        Some(true) => Some(UNLIMITED),
        Some(false) | None => frame.credits.and_then(|credits| credits.get("balance")?.as_str()),
    };
    let credits =
        Window { name: "credits".to_owned(), status: balance.and_then(short), ..Window::default() };
    let all = [read("primary"), read("secondary"), Some(credits)];
    let mut windows: Vec<Window> = all.into_iter().flatten().filter(Window::tells).collect();
    for window in &mut windows {
        window.plan = frame.plan.and_then(short);
        window.seen_at = at;
    }
    windows
}

/// Takes in what was told later: of each window the last word counts.
pub fn renew(known: &mut Vec<Window>, told: Vec<Window>) {
    known.retain(|old| told.iter().all(|new| new.name != old.name));
    known.extend(told);
    known.drain(..known.len().saturating_sub(MAX_WINDOWS));
}

/// `buckets` of Code Assist's answer to "how much is left".
#[must_use]
pub fn from_buckets(buckets: &Value, at: Option<Timestamp>) -> Vec<Window> {
    let text = |bucket: &Value, key: &str| bucket.get(key).and_then(Value::as_str).and_then(short);
    let read = |bucket: &Value| {
        let left = bucket.get("remainingFraction").filter(|v| v.is_number())?;
        let left = basis_points(&left.to_string(), 4)?;
        Some(Window {
            name: text(bucket, "modelId").or_else(|| text(bucket, "tokenType"))?,
            used_bp: Some(10_000_u32.saturating_sub(left)),
            resets_at: text(bucket, "resetTime").and_then(|t| t.parse().ok()),
            seen_at: at,
            ..Window::default()
        })
    };
    buckets.as_array().into_iter().flatten().take(MAX_WINDOWS).filter_map(read).collect()
}

/// Code Assist's `remainingCredits`: of those that are bought with Google One.
#[must_use]
pub fn from_credits(credits: &Value, at: Option<Timestamp>) -> Option<Window> {
    let (name, left) = ("credits".to_owned(), bought(credits)?.to_string());
    Some(Window { name, status: Some(left), seen_at: at, ..Window::default() })
}

/// Its `consumedCredits`: whether an answer was paid for with them, beside the plan.
#[must_use]
pub fn took_credits(credits: &Value) -> bool {
    bought(credits).is_some_and(|amount| amount > 0)
}

fn bought(credits: &Value) -> Option<u64> {
    let ours = |credit: &&Value| credit.get("creditType").is_some_and(|t| t == "GOOGLE_ONE_AI");
    let amount = |credit: &Value| credit.get("creditAmount")?.as_str()?.parse::<u64>().ok();
    let amounts = credits.as_array()?.iter().take(MAX_WINDOWS).filter(ours).filter_map(amount);
    amounts.reduce(u64::saturating_add)
}

/// `5h-utilization: 0.42`, `7d-reset: 1764072000`, `status: allowed`, `overage-disabled-reason: …`.
fn anthropic(windows: &mut Vec<Window>, rest: &str, value: &str) {
    let (name, what) = rest.rsplit_once('-').unwrap_or(("unified", rest));
    match what {
        "utilization" => window(windows, name).used_bp = basis_points(value, 4),
        "reset" => window(windows, name).resets_at = unix(value),
        "status" => window(windows, name).status = short(value),
        // `representative-claim`, `fallback-percentage`, and what comes next: no window's.
        _ => {}
    }
}

/// `primary-used-percent: 12.5`, `primary-window-minutes: 300`, `primary-reset-at: 1764072000`.
fn codex(windows: &mut Vec<Window>, rest: &str, value: &str, at: Timestamp) {
    let Some((role, what)) = rest.split_once('-') else { return };
    match (role, what) {
        ("primary" | "secondary", "used-percent") => {
            window(windows, role).used_bp = basis_points(value, 2);
        }
        // The name is put in place when everything has come.
        ("primary" | "secondary", "window-minutes") => {
            window(windows, role).status = value.trim().parse().ok().map(length);
        }
        ("primary" | "secondary", "reset-at") => window(windows, role).resets_at = unix(value),
        ("primary" | "secondary", "reset-after-seconds") => {
            let seconds = value.trim().parse().ok().map(SignedDuration::from_secs);
            let reset = seconds.and_then(|s| at.checked_add(s).ok());
            let window = window(windows, role);
            window.resets_at = window.resets_at.or(reset);
        }
        // Where there is no end of them, a balance says nothing; it may be empty, too.
        ("credits", "balance") => {
            let credits = window(windows, "credits");
            credits.status = credits.status.take().or_else(|| short(value));
        }
        ("credits", "unlimited") if value.trim().eq_ignore_ascii_case("true") => {
            window(windows, "credits").status = Some(UNLIMITED.to_owned());
        }
        _ => {}
    }
}

/// `ent=300&ov=0.0&ovPerm=false&rem=85.3&rst=2026-12-01T00:00:00Z`.
fn copilot(kind: &str, value: &str) -> Window {
    let field = |key: &str| {
        let pair =
            value.split('&').find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == key));
        pair.map(|(_, v)| String::from_utf8_lossy(&crate::config::percent_decode(v)).into_owned())
    };
    let unlimited = field("ent").as_deref() == Some("-1");
    let left = field("rem").and_then(|rem| basis_points(&rem, 2)).filter(|_| !unlimited);
    Window {
        name: kind.to_owned(),
        used_bp: left.map(|left| 10_000_u32.saturating_sub(left)),
        resets_at: field("rst").and_then(|t| t.parse().ok()),
        status: unlimited.then(|| UNLIMITED.to_owned()),
        ..Window::default()
    }
}

/// Codex' windows get the name of their length.
fn by_length(windows: &mut [Window]) {
    for window in windows.iter_mut().filter(|w| w.name == "primary" || w.name == "secondary") {
        if let Some(length) = window.status.take() {
            window.name = length;
        }
    }
}

fn length(minutes: u64) -> String {
    match (minutes % 1440, minutes % 60) {
        (0, _) => format!("{}d", minutes / 1440),
        (_, 0) => format!("{}h", minutes / 60),
        (_, _) => format!("{minutes}m"),
    }
}

fn window<'a>(windows: &'a mut Vec<Window>, name: &str) -> &'a mut Window {
    let at = windows.iter().position(|w| w.name == name).unwrap_or_else(|| {
        let name = short(name).unwrap_or_default();
        windows.push(Window { name, ..Window::default() });
        windows.len() - 1
    });
    &mut windows[at]
}

/// A decimal number, `digits` places up, as a share.
fn basis_points(text: &str, digits: i32) -> Option<u32> {
    u32::try_from(shifted(text.trim(), digits)?).ok()
}

fn unix(text: &str) -> Option<Timestamp> {
    Timestamp::from_second(shifted(text.trim(), 0)?).ok()
}

fn short(text: &str) -> Option<String> {
    let text = text.trim();
    let plain = !text.is_empty() && text.len() <= MAX_TEXT && !text.chars().any(char::is_control);
    plain.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().copied().collect()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Name, use, status, reset.
    type Seen = (String, Option<u32>, Option<String>, Option<String>);

    fn seen(pairs: &[(&str, &str)]) -> Vec<Seen> {
        from_headers(&headers(pairs), at("2026-11-25T12:00:00Z"))
            .into_iter()
            .map(|w| (w.name, w.used_bp, w.status, w.resets_at.map(|t| t.to_string())))
            .collect()
    }

    fn entry(name: &str, used: Option<u32>, status: Option<&str>, resets: Option<&str>) -> Seen {
        (name.to_owned(), used, status.map(str::to_owned), resets.map(str::to_owned))
    }

    #[test]
    fn claude_plans() {
        assert_eq!(
            seen(&[
                ("anthropic-ratelimit-unified-status", "allowed_warning"),
                ("anthropic-ratelimit-unified-5h-status", "allowed"),
                ("anthropic-ratelimit-unified-5h-utilization", "0.4217"),
                ("anthropic-ratelimit-unified-5h-reset", "1795608000"),
                ("anthropic-ratelimit-unified-7d_oi-utilization", "1.05"),
                ("anthropic-ratelimit-unified-7d_oi-reset", "nonsense"),
                ("anthropic-ratelimit-unified-representative-claim", "five_hour"),
                ("anthropic-ratelimit-unified-overage-status", "rejected"),
                ("anthropic-ratelimit-unified-overage-disabled-reason", "out_of_credits"),
                ("anthropic-ratelimit-requests-remaining", "9"),
            ]),
            [
                entry("unified", None, Some("allowed_warning"), None),
                entry("5h", Some(4217), Some("allowed"), Some("2026-11-25T12:00:00Z")),
                entry("7d_oi", Some(10_500), None, None),
                entry("overage", None, Some("rejected"), None),
            ]
        );
    }

    #[test]
    fn chatgpt_plans() {
        let found = seen(&[
            ("x-codex-primary-used-percent", "12.5"),
            ("x-codex-primary-window-minutes", "300"),
            ("x-codex-primary-reset-after-seconds", "60"),
            ("x-codex-secondary-used-percent", "100"),
            ("x-codex-secondary-window-minutes", "10080"),
            ("x-codex-secondary-reset-at", "1795608000"),
            ("x-codex-credits-balance", "12.30"),
            ("x-codex-turn-state", "opaque"),
        ]);
        assert_eq!(
            found,
            [
                entry("5h", Some(1250), None, Some("2026-11-25T12:01:00Z")),
                entry("7d", Some(10_000), None, Some("2026-11-25T12:00:00Z")),
                entry("credits", None, Some("12.30"), None),
            ]
        );
    }

    #[test]
    fn codex_frames_tell_what_headers_tell() {
        let read = |frame: &Value, bucket: Option<&str>| {
            let frame = CodexFrame {
                limits: frame.get("rate_limits"),
                credits: frame.get("credits"),
                plan: Some("plus"),
                bucket,
            };
            let windows = from_codex_frame(&frame, Some(Timestamp::UNIX_EPOCH));
            assert!(windows.iter().all(|w| w.seen_at == Some(Timestamp::UNIX_EPOCH)));
            assert!(windows.iter().all(|w| w.plan.as_deref() == Some("plus")));
            let seen =
                |w: Window| (w.name, w.used_bp, w.status, w.resets_at.map(|t| t.to_string()));
            windows.into_iter().map(seen).collect::<Vec<Seen>>()
        };
        let frame = serde_json::json!({
            "rate_limits": {
                "primary": {"used_percent": 12.5, "window_minutes": 300, "reset_at": 1_795_608_060},
                "secondary": {"used_percent": 100, "window_minutes": 10080, "reset_at": 1_795_608_000},
                "other": 1,
            },
            "credits": {"has_credits": true, "unlimited": false, "balance": "12.30"},
        });
        let expected = [
            entry("5h", Some(1250), None, Some("2026-11-25T12:01:00Z")),
            entry("7d", Some(10_000), None, Some("2026-11-25T12:00:00Z")),
            entry("credits", None, Some("12.30"), None),
        ];
        assert_eq!(read(&frame, None), expected);
        assert_eq!(read(&frame, Some("codex")), expected);
        // A model with limits of its own does not stand in for the plan's.
        let one = serde_json::json!({
            "rate_limits": {"primary": {"used_percent": 2, "window_minutes": 10080}, "secondary": null},
            "credits": {"has_credits": false, "unlimited": false, "balance": null},
        });
        assert_eq!(
            read(&one, Some("codex_bengalfox")),
            [entry("codex_bengalfox_7d", Some(200), None, None)]
        );
        assert_eq!(read(&Value::Null, None), []);
    }

    #[test]
    fn credits_without_an_end_have_no_balance() {
        const FLAG: &str = "x-codex-credits-unlimited";
        const BALANCE: &str = "x-codex-credits-balance";
        let unlimited = [entry("credits", None, Some("unlimited"), None)];
        assert_eq!(seen(&[(FLAG, "true")]), unlimited);
        for balance in ["", "0"] {
            assert_eq!(seen(&[(FLAG, "True"), (BALANCE, balance)]), unlimited);
            assert_eq!(seen(&[(BALANCE, balance), (FLAG, "True")]), unlimited);
        }
        assert_eq!(seen(&[(FLAG, "False"), (BALANCE, "")]), []);
        let balance = [entry("credits", None, Some("5"), None)];
        assert_eq!(seen(&[(FLAG, "False"), (BALANCE, "5")]), balance);
        let credits = serde_json::json!({"has_credits": true, "unlimited": true, "balance": null});
        let frame = CodexFrame { credits: Some(&credits), ..CodexFrame::default() };
        assert_eq!(from_codex_frame(&frame, None)[0].status.as_deref(), Some("unlimited"));
    }

    #[test]
    fn the_last_word_on_a_window_counts() {
        let told = |name: String, used| Window { name, used_bp: Some(used), ..Window::default() };
        let mut known = vec![told("5h".to_owned(), 1), told("7d".to_owned(), 2)];
        renew(&mut known, vec![told("5h".to_owned(), 3)]);
        assert_eq!(known, [told("7d".to_owned(), 2), told("5h".to_owned(), 3)]);
        for n in 0..100 {
            renew(&mut known, vec![told(format!("m{n}"), n)]);
        }
        assert_eq!((known.len(), known.last()), (MAX_WINDOWS, Some(&told("m99".to_owned(), 99))));
    }

    #[test]
    fn copilot_and_code_assist() {
        let snapshot = "ent=300&ov=0.0&ovPerm=false&rem=85.3&rst=2026-12-01T00%3A00%3A00Z";
        assert_eq!(
            seen(&[
                ("x-quota-snapshot-premium_interactions", snapshot),
                ("x-quota-snapshot-chat", "ent=-1&rem=100.0"),
            ]),
            [
                entry("premium_interactions", Some(1470), None, Some("2026-12-01T00:00:00Z")),
                entry("chat", None, Some("unlimited"), None),
            ]
        );
        let buckets = serde_json::json!([
            {"modelId": "gemini-2.5-pro", "remainingFraction": 0.975, "resetTime": "2026-11-26T00:00:00Z"},
            {"modelId": "no figure"}, null, 3,
        ]);
        let windows = from_buckets(&buckets, None);
        assert_eq!((windows.len(), windows[0].used_bp), (1, Some(250)));
    }

    #[test]
    fn nonsense_is_no_window() {
        for value in ["", "-1", "NaN", "1e99", "0x1", "\u{7}"] {
            assert_eq!(
                seen(&[("anthropic-ratelimit-unified-5h-utilization", value)]),
                [],
                "{value}"
            );
            assert_eq!(seen(&[("x-codex-primary-used-percent", value)]), [], "{value}");
        }
    }

    #[test]
    fn credits_that_were_bought_with_google_one() {
        let left = |credits: Value| {
            from_credits(&credits, None).map(|window| (window.name, window.status))
        };
        let of = |kind: &str, amount: &str| serde_json::json!({"creditType": kind, "creditAmount": amount});
        assert_eq!(
            left(serde_json::json!([
                of("GOOGLE_ONE_AI", "40"),
                of("OTHER", "9"),
                of("GOOGLE_ONE_AI", "2")
            ])),
            Some(("credits".to_owned(), Some("42".to_owned())))
        );
        for nothing in [
            serde_json::json!([]),
            serde_json::json!([of("OTHER", "9"), of("GOOGLE_ONE_AI", "-1"), null, 3]),
            serde_json::json!({"creditType": "GOOGLE_ONE_AI"}),
        ] {
            assert_eq!(left(nothing), None);
        }
    }
}
