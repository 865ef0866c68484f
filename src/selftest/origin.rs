//! The provider that a self-test talks to: TLS on loopback with a root of its own, HTTP/1.1, the
//! answers of an Anthropic-shaped API with token counts that no two answers share.
//!
//! It lives and dies with the command: threads, no runtime.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::config::SELFTEST_HOST;
use crate::meter::usage::Tokens;

/// A model whose price is known.
pub const MODEL: &str = "claude-sonnet-4-5-20250929";
/// No client of ours is silent for longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the rest of a stream waits for its reader to have seen the beginning.
const GATE: Duration = Duration::from_secs(2);

/// A request that was answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Served {
    pub tokens: Tokens,
    pub body: Vec<u8>,
    /// A stream's reader had its beginning before the rest was sent.
    pub in_time: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Origin {
    addr: SocketAddr,
    root: CertificateDer<'static>,
    root_pem: String,
    leaf: CertificateDer<'static>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    count: AtomicU64,
    served: Mutex<Vec<Served>>,
    /// How many streams have been seen to begin.
    begun: Mutex<u64>,
    news: Condvar,
}

impl Origin {
    /// # Errors
    /// When there is no port, thread or key to be had.
    pub fn start() -> io::Result<Self> {
        let (root, root_pem, leaf, config) = certificates().map_err(io::Error::other)?;
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        std::thread::Builder::new().name("origin".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, shared) = (Arc::clone(&config), Arc::clone(&for_thread));
                // A client that breaks off is what some of the checks are about.
                let _ = std::thread::Builder::new()
                    .name("origin connection".to_owned())
                    .spawn(move || serve(stream, config, &shared));
            }
        })?;
        Ok(Self { addr, root, root_pem, leaf, shared })
    }

    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// What a client sees that reaches us without anybody in between.
    #[must_use]
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// The reader has the beginning of its stream: the rest may come.
    pub fn open_gate(&self) {
        *self.shared.begun.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.shared.news.notify_all();
    }

    /// Everything that was answered so far.
    #[must_use]
    pub fn served(&self) -> Vec<Served> {
        self.shared.served.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

type Certificates = (CertificateDer<'static>, String, CertificateDer<'static>, Arc<ServerConfig>);

fn certificates() -> Result<Certificates, Box<dyn std::error::Error + Send + Sync>> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Halton Meter self-test");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate()?;
    let mut params =
        CertificateParams::new(vec![SELFTEST_HOST.to_owned(), "127.0.0.1".to_owned()])?;
    params.use_authority_key_identifier_extension = true;
    let leaf = params.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((root.der().clone(), root.pem(), leaf.der().clone(), Arc::new(config)))
}

fn serve(tcp: TcpStream, config: Arc<ServerConfig>, shared: &Shared) -> io::Result<()> {
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    tcp.set_nodelay(true)?;
    let tls = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(tls, tcp));
    while let Some(request) = read_request(&mut stream)? {
        let n = shared.count.fetch_add(1, Ordering::Relaxed);
        answer(stream.get_mut(), &request, n, shared)?;
    }
    stream.get_mut().conn.send_close_notify();
    stream.get_mut().flush()
}

/// The JSON body of the next request; `None`: the client is done.
fn read_request(stream: &mut impl BufRead) -> io::Result<Option<Value>> {
    let mut length = 0;
    let mut line = String::new();
    let mut first = true;
    loop {
        line.clear();
        if stream.by_ref().take(8 * 1024).read_line(&mut line)? == 0 {
            return if first { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        first = false;
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        if let Some((name, value)) = text.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; usize::min(length, 64 * 1024)];
    stream.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body).unwrap_or_default()))
}

fn answer(out: &mut impl Write, request: &Value, n: u64, shared: &Shared) -> io::Result<()> {
    let tokens = Tokens {
        input: Some(1000 + n),
        cache_read: Some(2000 + n),
        output: Some(500 + n),
        ..Tokens::default()
    };
    if request["stream"] == true {
        stream(out, tokens, n, shared)
    } else {
        whole(out, tokens, n, shared)
    }
}

impl Shared {
    /// Before the last byte goes out: the client may look at once.
    fn note(&self, tokens: Tokens, body: Vec<u8>, in_time: bool) {
        let served = Served { tokens, body, in_time };
        self.served.lock().unwrap_or_else(PoisonError::into_inner).push(served);
    }
}

fn message(tokens: &Tokens, n: u64, content: &Value, output: Option<u64>) -> Value {
    json!({
        "id": format!("msg_selftest_{n}"), "type": "message", "role": "assistant", "model": MODEL,
        "content": content, "stop_reason": null, "stop_sequence": null,
        "usage": {
            "input_tokens": tokens.input, "cache_read_input_tokens": tokens.cache_read,
            "output_tokens": output, "service_tier": "standard",
        },
    })
}

fn whole(out: &mut impl Write, tokens: Tokens, n: u64, shared: &Shared) -> io::Result<()> {
    let content = json!([{ "type": "text", "text": "It works." }]);
    let body = message(&tokens, n, &content, tokens.output).to_string().into_bytes();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = [head.as_bytes(), &body].concat();
    shared.note(tokens, body, true);
    out.write_all(&answer)?;
    out.flush()
}

/// The first event, and the others once the reader has it. Without their `message_delta` the output
/// is not known: a reader that saw only the beginning would be noticed in the ledger too.
fn stream(out: &mut impl Write, tokens: Tokens, n: u64, shared: &Shared) -> io::Result<()> {
    let event = |data: Value| {
        format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
    };
    let begin = event(json!({ "type": "message_start",
        "message": message(&tokens, n, &json!([]), Some(1)) }));
    let rest = [
        event(json!({ "type": "content_block_delta", "index": 0,
            "delta": { "type": "text_delta", "text": "It works." } })),
        event(json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" },
            "usage": { "output_tokens": tokens.output } })),
        event(json!({ "type": "message_stop" })),
    ]
    .concat();
    let begun = *shared.begun.lock().unwrap_or_else(PoisonError::into_inner);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
        transfer-encoding: chunked\r\n\r\n";
    write!(out, "{head}{:x}\r\n{begin}\r\n", begin.len())?;
    out.flush()?;
    let guard = shared.begun.lock().unwrap_or_else(PoisonError::into_inner);
    let (guard, _) = shared
        .news
        .wait_timeout_while(guard, GATE, |now| *now == begun)
        .unwrap_or_else(PoisonError::into_inner);
    let in_time = *guard != begun;
    drop(guard);
    shared.note(tokens, [begin.as_str(), &rest].concat().into_bytes(), in_time);
    write!(out, "{:x}\r\n{rest}\r\n0\r\n\r\n", rest.len())?;
    out.flush()
}
