//! The one facade over what differs between platforms.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::trust_store::TrustStore;

#[cfg(target_os = "linux")]
pub use crate::linux::{owner, splice};
#[cfg(not(target_os = "linux"))]
pub use crate::macos::{owner, splice};

/// Tests name a file here; each call of [`SystemProxy::off`] then adds a line to it, and nothing
/// else happens.
pub const RECORD_VAR: &str = "HALTON_METER_RECORD_SYSTEM_PROXY";

/// The system-wide proxy setting.
pub trait SystemProxy: Send + Sync {
    /// Takes it off on every active network service and names them. `None`: this platform has no
    /// such setting. Never turns anything on.
    fn off(&self) -> Result<Option<Vec<String>>, SystemProxyError>;

    /// `host:port` of the HTTP and HTTPS proxies that are on; none where that can't be told.
    fn leads_to(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Why the setting could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum SystemProxyError {
    #[error("{program} could not be run: {source}")]
    Spawn { program: &'static str, source: std::io::Error },
    #[error("{program} {call}: {said} (exit {code})")]
    Refused { program: &'static str, call: String, said: String, code: i32 },
    #[error("the recording could not be written: {0}")]
    Recording(#[from] std::io::Error),
}

/// This platform's.
#[must_use]
pub fn system_proxy() -> Box<dyn SystemProxy> {
    if let Some(path) = std::env::var_os(RECORD_VAR) {
        return Box::new(Recording(path.into()));
    }
    // Never the developer's own, from a unit test.
    #[cfg(all(target_os = "macos", not(test)))]
    return Box::new(crate::macos::system_proxy::NetworkSetup);
    #[cfg(any(not(target_os = "macos"), test))]
    return Box::new(Absent);
}

/// Tests name a directory here; the system's trust store is then looked for below it.
pub const SYSTEM_ROOT_VAR: &str = "HALTON_METER_SYSTEM_ROOT";

/// This platform's trust store.
#[must_use]
pub fn trust_store() -> Box<dyn TrustStore> {
    #[cfg(target_os = "linux")]
    return Box::new(crate::linux::trust_store::Anchors::below(
        std::env::var_os(SYSTEM_ROOT_VAR).unwrap_or_else(|| "/".into()).into(),
    ));
    #[cfg(not(target_os = "linux"))]
    return Box::new(crate::macos::trust_store::Keychain::of(std::path::Path::new(
        &std::env::var_os("HOME").unwrap_or_default(),
    )));
}

/// The edge's socket, where the service manager hands it out on a call (launchd).
///
/// # Errors
/// When it should, and does not.
pub fn activated_socket() -> io::Result<Option<TcpListener>> {
    #[cfg(target_os = "macos")]
    return crate::macos::activate::socket();
    #[cfg(not(target_os = "macos"))]
    Ok(None)
}

/// The program that listens on a local port, as `name, pid N`, if that can be told.
#[must_use]
pub fn listener_on(addr: SocketAddr) -> Option<String> {
    #[cfg(target_os = "linux")]
    return crate::linux::listener::on(addr);
    #[cfg(not(target_os = "linux"))]
    return crate::macos::listener::on(addr);
}

/// Where there is no system proxy.
#[cfg(any(not(target_os = "macos"), test))]
struct Absent;

#[cfg(any(not(target_os = "macos"), test))]
impl SystemProxy for Absent {
    fn off(&self) -> Result<Option<Vec<String>>, SystemProxyError> {
        Ok(None)
    }
}

struct Recording(std::path::PathBuf);

impl SystemProxy for Recording {
    fn off(&self) -> Result<Option<Vec<String>>, SystemProxyError> {
        use std::io::Write;
        crate::home::open_append(&self.0)?.write_all(b"off\n")?;
        Ok(Some(vec!["recorded".to_owned()]))
    }
}
