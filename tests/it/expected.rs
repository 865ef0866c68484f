//! What the ledger must say of an answer: computed here, independently of the product.

use serde_json::Value;

use crate::origin::{Served, Surface};

/// Nano-dollars per token, from the providers' public price lists.
struct Rates {
    input: u64,
    cache_read: u64,
    write_5m: u64,
    write_1h: u64,
    output: u64,
    web_search: u64,
}

/// Sonnet 4.5: $3 / $15 per million tokens, cache read 0.1x, writes 1.25x and 2x, $10 per 1000
/// searches.
const CLAUDE: Rates = Rates {
    input: 3_000,
    cache_read: 300,
    write_5m: 3_750,
    write_1h: 6_000,
    output: 15_000,
    web_search: 10_000_000,
};
/// GPT-5: $1.25 / $10, cached $0.125.
const GPT: Rates = Rates {
    input: 1_250,
    cache_read: 125,
    write_5m: 0,
    write_1h: 0,
    output: 10_000,
    web_search: 0,
};
/// GPT Realtime, text: $4 / $16, cached $0.40.
const REALTIME: Rates = Rates {
    input: 4_000,
    cache_read: 400,
    write_5m: 0,
    write_1h: 0,
    output: 16_000,
    web_search: 0,
};
/// Gemini 2.5 Flash: $0.30 / $2.50, cached $0.03.
const GEMINI: Rates =
    Rates { input: 300, cache_read: 30, write_5m: 0, write_1h: 0, output: 2_500, web_search: 0 };

pub fn cost_nanousd(served: &Served) -> u64 {
    let rates = match served.surface.expect("surface") {
        Surface::AnthropicMessages => CLAUDE,
        Surface::OpenAiChat | Surface::OpenAiResponses => GPT,
        Surface::Realtime => REALTIME,
        Surface::Gemini => GEMINI,
    };
    let count = |n: Option<u64>| n.unwrap_or(0);
    count(served.input) * rates.input
        + count(served.cache_read) * rates.cache_read
        + count(served.cache_write_5m) * rates.write_5m
        + count(served.cache_write_1h) * rates.write_1h
        + count(served.output) * rates.output
        + count(served.web_searches) * rates.web_search
}

/// The row of a complete, successful answer.
pub fn assert_row(row: &Value, served: &Served, protocol: &str) {
    let context = format!("\nserved {served:?}\nrow {row:#}");
    let (host, path, provider) = match served.surface.expect("surface") {
        Surface::AnthropicMessages => ("api.anthropic.com", "/v1/messages", "anthropic"),
        Surface::OpenAiChat => ("api.openai.com", "/v1/chat/completions", "openai"),
        Surface::OpenAiResponses => ("api.openai.com", "/v1/responses", "openai"),
        Surface::Realtime => ("api.openai.com", "/v1/realtime", "openai"),
        Surface::Gemini => ("generativelanguage.googleapis.com", "", "google"),
    };
    assert_eq!(row["host"], host, "{context}");
    if !path.is_empty() {
        assert_eq!(row["path"], path, "{context}");
    }
    assert_eq!(row["provider"], provider, "{context}");
    // A WebSocket's rows have what opened it.
    let (method, status) = if protocol == "ws" { ("GET", 101) } else { ("POST", 200) };
    assert_eq!(row["method"], method, "{context}");
    assert_eq!(row["protocol"], protocol, "{context}");
    assert_eq!(row["status"], status, "{context}");
    assert_eq!(row["model"], served.model, "{context}");
    assert_eq!(row["stream"], served.stream, "{context}");
    assert_eq!(row["completeness"], "complete", "{context}");
    assert_eq!(row["provider_request_id"], served.request_id, "{context}");
    assert_tokens(row, served);
    assert_eq!(row["web_searches"].as_u64(), served.web_searches, "{context}");
    let known = served.output.is_some();
    assert_eq!(row["usage"], if known { "reported" } else { "absent" }, "{context}");
    if known {
        let cost = cost_nanousd(served);
        assert_eq!(row["cost_nanousd"], cost, "{context}");
        assert_eq!(row["cost_estimated"], false, "{context}");
        let usd = row["cost_usd"].as_str().expect("cost_usd is a string");
        assert_eq!(nano(usd), cost, "{context}");
    } else {
        assert!(row["cost_nanousd"].is_null(), "{context}");
    }
}

/// Every class that the answer reported, and none that it did not.
pub fn assert_tokens(row: &Value, served: &Served) {
    for (class, expected) in [
        ("input", served.input),
        ("cache_read", served.cache_read),
        ("cache_write_5m", served.cache_write_5m),
        ("cache_write_1h", served.cache_write_1h),
        ("output", served.output),
        ("reasoning", served.reasoning),
    ] {
        let found = row["tokens"][class].as_u64();
        assert_eq!(found, expected, "{class}\nserved {served:?}\nrow {row:#}");
    }
}

/// A decimal dollar amount as nano-dollars.
fn nano(usd: &str) -> u64 {
    let (whole, part) = usd.split_once('.').unwrap_or((usd, ""));
    let whole: u64 = whole.parse().expect("dollars");
    let part: u64 = format!("{part:0<9}")[..9].parse().expect("fraction");
    whole * 1_000_000_000 + part
}
