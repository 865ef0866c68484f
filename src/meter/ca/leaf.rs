//! Leaves and server configurations, made on demand and kept for a while.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::ProducesTickets;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CipherSuite, ServerConfig};

use super::signer::Signer;
use super::{CaError, make};

/// How long a leaf is valid.
const LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long it is handed out; well below its life, so that no client sees one about to expire.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// A clock that went back further than this makes a new leaf.
const STEP: Duration = Duration::from_secs(3600);
const MAX_NAMES: usize = 256;
const MAX_PROTOCOLS: usize = 8;

/// Cache by name and protocol, bounded both ways.
pub(super) struct Cache {
    entries: Mutex<HashMap<String, Entry>>,
    /// One for all configurations; a ticket holds no secret of any certificate.
    tickets: Arc<dyn ProducesTickets>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

struct Entry {
    made: SystemTime,
    /// `Err`: the CA does not cover this name, and need not be asked again for a while.
    leaf: Result<Leaf, rustls::Error>,
}

struct Leaf {
    resolver: Arc<SingleCertAndKey>,
    configs: Vec<(Option<Vec<u8>>, Arc<ServerConfig>)>,
}

impl Entry {
    fn is_fresh(&self, now: SystemTime) -> bool {
        match now.duration_since(self.made) {
            Ok(age) => age < KEEP,
            Err(back) => back.duration() < STEP,
        }
    }
}

impl Cache {
    pub(super) fn new() -> Result<Self, CaError> {
        Ok(Self { entries: Mutex::new(HashMap::new()), tickets: ring::Ticketer::new()? })
    }

    pub(super) fn config(
        &self,
        ca: &Signer,
        name: &str,
        alpn: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<Arc<ServerConfig>, CaError> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        // Minting under the lock (about 0.2 ms, once a day per name) keeps a burst of first
        // connections from making a leaf each.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if !entries.get(&name).is_some_and(|entry| entry.is_fresh(now)) {
            let leaf = match mint(ca, &name, now) {
                Ok(leaf) => Ok(leaf),
                Err(CaError::NotCovered(e)) => Err(e),
                Err(e) => return Err(e),
            };
            make_room(&mut entries, now);
            entries.insert(name.clone(), Entry { made: now, leaf });
        }
        let entry = entries.get_mut(&name).ok_or(CaError::BadName)?;
        let leaf = entry.leaf.as_mut().map_err(|e| CaError::NotCovered(e.clone()))?;
        if let Some((_, config)) = leaf.configs.iter().find(|(p, _)| p.as_deref() == alpn) {
            return Ok(Arc::clone(config));
        }
        let config = self.build(ca, Arc::clone(&leaf.resolver), alpn)?;
        if leaf.configs.len() < MAX_PROTOCOLS {
            leaf.configs.push((alpn.map(<[u8]>::to_vec), Arc::clone(&config)));
        }
        Ok(config)
    }

    fn build(
        &self,
        ca: &Signer,
        resolver: Arc<SingleCertAndKey>,
        alpn: Option<&[u8]>,
    ) -> Result<Arc<ServerConfig>, CaError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&ca.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
        config.ticketer = Arc::clone(&self.tickets);
        // Where AES is slow, so it is for the client, which says so by its order.
        config.ignore_client_order = aes_in_hardware();
        Ok(Arc::new(config))
    }
}

/// AES-128 before AES-256: between two programs of one machine it protects as well, and its SHA-256
/// costs a fraction of SHA-384 where only that has instructions.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    provider
}

pub(super) fn aes_in_hardware() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

fn mint(ca: &Signer, name: &str, now: SystemTime) -> Result<Leaf, CaError> {
    if !ca.is_valid_at(now) {
        return Err(CaError::NotValidNow);
    }
    let (certificate, key) = make::leaf(&ca.issuer, &[name.to_owned()], now, LIFE)?;
    ca.verify(&certificate, name, now).map_err(CaError::NotCovered)?;
    let key = ca.provider.key_provider.load_private_key(key)?;
    let resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key)));
    Ok(Leaf { resolver, configs: Vec::new() })
}

fn make_room(entries: &mut HashMap<String, Entry>, now: SystemTime) {
    if entries.len() < MAX_NAMES {
        return;
    }
    entries.retain(|_, entry| entry.is_fresh(now));
    if entries.len() >= MAX_NAMES
        && let Some(oldest) = entries.iter().min_by_key(|(_, l)| l.made).map(|(n, _)| n.clone())
    {
        entries.remove(&oldest);
    }
}
