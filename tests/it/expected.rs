//! What the ledger must say of an answer: computed here, independently of the product.

use serde_json::Value;

use crate::origin::{Served, Surface, copilot_nano_aiu};

/// Nano-dollars per token, from the providers' public price lists.
struct Rates {
    input: u64,
    cache_read: u64,
    write_5m: u64,
    write_1h: u64,
    output: u64,
    web_search: u64,
}

/// Sonnet 4.5 and 4.6: $3 / $15 per million tokens, cache read 0.1x, writes 1.25x and 2x, $10 per 1000
/// searches.
const CLAUDE: Rates = Rates {
    input: 3_000,
    cache_read: 300,
    write_5m: 3_750,
    write_1h: 6_000,
    output: 15_000,
    web_search: 10_000_000,
};
/// Haiku 4.5: a third of it.
const HAIKU: Rates = Rates {
    input: 1_000,
    cache_read: 100,
    write_5m: 1_250,
    write_1h: 2_000,
    output: 5_000,
    web_search: 10_000_000,
};
/// Opus 5.5: $4 / $20, cache read a twentieth.
const OPUS: Rates = Rates {
    input: 4_000,
    cache_read: 200,
    write_5m: 5_000,
    write_1h: 8_000,
    output: 20_000,
    web_search: 10_000_000,
};
/// GPT-5: $1.25 / $10, cached $0.125.
const GPT: Rates = plain(1_250, 125, 10_000);
/// GPT Realtime, text: $4 / $16, cached $0.40.
const REALTIME: Rates = plain(4_000, 400, 16_000);
/// Gemini 2.5 Flash: $0.30 / $2.50, cached $0.03.
const GEMINI: Rates = plain(300, 30, 2_500);
/// GPT-5.4 nano: $0.20 / $1.25, cached $0.02.
const NANO: Rates = plain(200, 20, 1_250);
/// GPT-4o: $2.50 / $10, cached $1.25.
const GPT_4O: Rates = plain(2_500, 1_250, 10_000);
/// Mistral Small: $0.15 / $0.60, cached a tenth.
const MISTRAL: Rates = plain(150, 15, 600);
/// Command R (08-2024): $0.15 / $0.60.
const COHERE: Rates = plain(150, 0, 600);

const fn plain(input: u64, cache_read: u64, output: u64) -> Rates {
    Rates { input, cache_read, write_5m: 0, write_1h: 0, output, web_search: 0 }
}

pub fn cost_nanousd(served: &Served) -> u64 {
    // Copilot says itself what it charges: 1e9 nano-AIU are a credit, and that is a cent.
    if let Some(nano_aiu) = copilot_nano_aiu(served) {
        return nano_aiu / 100;
    }
    if is_live(served) {
        return live_nanousd(served);
    }
    let rates = rates(served);
    let count = |n: Option<u64>| n.unwrap_or(0);
    let tokens = count(served.input) * rates.input
        + count(served.cache_read) * rates.cache_read
        + count(served.cache_write_5m) * rates.write_5m
        + count(served.cache_write_1h) * rates.write_1h
        + count(served.output) * rates.output;
    let tokens = if regional(served) { tokens * 11 / 10 } else { tokens };
    tokens + count(served.web_searches) * rates.web_search
}

fn is_live(served: &Served) -> bool {
    served.path.contains("BidiGenerateContent")
}

/// Gemini 2.5 Flash Live: $0.50 in, $12 for what it says aloud, $2 for what it thinks.
fn live_nanousd(served: &Served) -> u64 {
    let count = |n: Option<u64>| n.unwrap_or(0);
    let thoughts = count(served.reasoning);
    count(served.input) * 500 + (count(served.output) - thoughts) * 12_000 + thoughts * 2_000
}

/// The clouds charge a tenth more for Claude that stays in a region.
fn regional(served: &Served) -> bool {
    if served.host.starts_with("bedrock-runtime") {
        return served.path.starts_with("/model/eu.") || served.path.starts_with("/model/us.");
    }
    served.path.contains("/publishers/anthropic/") && served.host != "aiplatform.googleapis.com"
}

fn rates(served: &Served) -> Rates {
    if served.surface == Some(Surface::Cohere) {
        return COHERE;
    }
    // Converse names the model in the path alone.
    let model = if served.model.is_empty() { &served.path } else { &served.model };
    for (part, rates) in [
        ("claude-sonnet-4-", CLAUDE),
        ("claude-haiku-4-5", HAIKU),
        ("claude-opus-5-5", OPUS),
        ("gpt-realtime", REALTIME),
        ("gpt-5.4-nano", NANO),
        ("gpt-5", GPT),
        ("gpt-4o", GPT_4O),
        ("gemini-2.5-flash", GEMINI),
        ("mistral-small", MISTRAL),
    ] {
        if model.contains(part) {
            return rates;
        }
    }
    panic!("no price for {model} in this file")
}

/// Whose host it is.
fn provider(host: &str) -> &'static str {
    for (end, provider) in [
        ("api.anthropic.com", "anthropic"),
        ("api.openai.com", "openai"),
        ("chatgpt.com", "openai"),
        ("generativelanguage.googleapis.com", "google"),
        ("cloudcode-pa.googleapis.com", "google"),
        ("aiplatform.googleapis.com", "vertex"),
        (".amazonaws.com", "bedrock"),
        (".githubcopilot.com", "copilot"),
        ("api.mistral.ai", "mistral"),
        ("api.cohere.com", "cohere"),
    ] {
        if host.ends_with(end) {
            return provider;
        }
    }
    panic!("{host} is no provider's")
}

/// The row of a complete, successful answer.
pub fn assert_row(row: &Value, served: &Served, protocol: &str) {
    let context = format!("\nserved {served:?}\nrow {row:#}");
    assert_eq!(row["host"], served.host, "{context}");
    assert_eq!(row["path"], served.path, "{context}");
    assert_eq!(row["provider"], provider(&served.host), "{context}");
    // A WebSocket's rows have what opened it.
    let (method, status) = if protocol == "ws" { ("GET", 101) } else { ("POST", 200) };
    assert_eq!(row["method"], method, "{context}");
    assert_eq!(row["protocol"], protocol, "{context}");
    assert_eq!(row["status"], status, "{context}");
    let model = row["model"].as_str().unwrap_or_default();
    assert_eq!(model, served.model, "{context}");
    assert_eq!(row["stream"], served.stream, "{context}");
    assert_eq!(row["completeness"], "complete", "{context}");
    let id = row["provider_request_id"].as_str().unwrap_or_default();
    assert_eq!(id, served.request_id, "{context}");
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
