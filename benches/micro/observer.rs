//! All that is done for a request behind the byte path, up to the row that goes to the ledger.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use halton_meter::meter::feed::{Budget, feed};
use halton_meter::meter::http::Side;
use halton_meter::meter::ledger::Entry;
use halton_meter::meter::observer::{RowSink, Subject, follower, observe};
use halton_meter::meter::price::Book;
use halton_meter::meter::row::Row;
use jiff::Timestamp;
use tokio::runtime::Builder;
use tokio::sync::watch;
use uuid::Uuid;

use crate::Case;

const REQUESTS: u64 = 100;

const REQUEST: &str = "POST /v1/messages HTTP/1.1\r\nhost: api.anthropic.com\r\nx-api-key: sk-ant-api03-0123\r\n\
    anthropic-version: 2023-06-01\r\ncontent-type: application/json\r\naccept: application/json\r\n\
    user-agent: Anthropic/Python 2.12.0\r\nx-stainless-lang: python\r\nx-stainless-package-version: 2.12.0\r\n\
    x-stainless-os: Linux\r\nx-stainless-arch: x64\r\nx-stainless-runtime: CPython\r\n\
    x-stainless-runtime-version: 3.13.1\r\naccept-encoding: gzip, deflate\r\nconnection: keep-alive\r\n";
const RESPONSE: &str = "HTTP/1.1 200 OK\r\ndate: Wed, 25 Nov 2026 12:00:00 GMT\r\ncontent-type: application/json\r\n\
    anthropic-organization-id: 3f1c\r\nrequest-id: req_011CZ\r\nanthropic-ratelimit-requests-limit: 4000\r\n\
    anthropic-ratelimit-requests-remaining: 3999\r\nserver: cloudflare\r\nstrict-transport-security: max-age=31536000\r\n";
const ASKED: &str = r#"{"model":"claude-sonnet-5","max_tokens":1024,"messages":[{"role":"user","content":"What costs this?"}]}"#;
const ANSWERED: &str = r#"{"id":"msg_01X","type":"message","role":"assistant","model":"claude-sonnet-5","content":[{"type":"text","text":"Next to nothing."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":1200,"cache_creation_input_tokens":900,"cache_read_input_tokens":80000,"cache_creation":{"ephemeral_5m_input_tokens":900,"ephemeral_1h_input_tokens":0},"output_tokens":700,"service_tier":"standard"}}"#;

struct Nowhere;

impl RowSink for Nowhere {
    fn record(&self, row: Row) {
        assert!(row.cost_nanousd.is_some());
        black_box(row);
    }
}

pub(crate) fn request() -> Case {
    let message = |head: &str, body: &str| {
        format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let (request, response) = (message(REQUEST, ASKED), message(RESPONSE, ANSWERED));
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let book = Arc::new(ArcSwap::from(Book::builtin()));
    let shared = Budget::new(64 << 20);
    Case::new("observer", "request", REQUESTS, move || {
        let (mut feed, watch) = feed(&shared, 64 << 20, &Arc::default());
        for _ in 0..REQUESTS {
            feed.bytes(Side::Client, &request);
            feed.bytes(Side::Server, &response);
        }
        drop(feed);
        let subject = Subject {
            entry: Entry::unrecorded(Uuid::nil()),
            host: "api.anthropic.com".to_owned(),
            port: 443,
            local: false,
            alpn: None,
            since: (Timestamp::now(), Instant::now()),
            clocks: |_| (Timestamp::now(), Instant::now()),
            attribution: watch::channel(Some(Arc::default())).1,
        };
        let observing = observe(watch, subject, Arc::new(Nowhere), Arc::clone(&book), follower);
        let observed = runtime.block_on(observing);
        assert_eq!((observed.exchanges, observed.lossy), (REQUESTS, None));
    })
}
