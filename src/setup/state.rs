//! What `init` leaves in the home: how it was called, what it is in charge of, and what it found.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::home::Home;
use crate::platform::{NetworkService, ProxySetting};

/// How far `init` goes. Each does what those before it do.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Mode {
    /// Services. Nothing of the user's environment changes: `run` and `env` lead through us.
    EnvOnly,
    /// New shells, and the programs that the session starts.
    Apps,
    /// The system proxy too.
    Full,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EnvOnly => "env-only",
            Self::Apps => "apps",
            Self::Full => "full",
        })
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::EnvOnly, Self::Apps, Self::Full]
            .into_iter()
            .find(|mode| mode.to_string() == text.trim())
            .ok_or(())
    }
}

impl Mode {
    /// How `init` was called last. `None`: not, or everything was taken back.
    #[must_use]
    pub fn installed(home: &Home) -> Option<Self> {
        // Whatever it says: services are there.
        let text = std::fs::read_to_string(home.install_mode()).ok()?;
        Some(text.parse().unwrap_or(Self::EnvOnly))
    }
}

/// What was there before us, and is restored by `uninstall`. Never anything of ours.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct SystemState {
    /// Where our proxy settings led to, to know them again when the port is another one.
    #[serde(default)]
    pub edge: Option<SocketAddr>,
    /// The session's variables that we took the place of.
    #[serde(default)]
    pub session: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub proxy: Option<Vec<NetworkService>>,
}

impl SystemState {
    /// `None`: there is none, or it can't be understood.
    #[must_use]
    pub fn read(home: &Home) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(home.system_state()).ok()?).ok()
    }

    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// What is to be kept in this mode, given what was kept, and what is there now.
    #[must_use]
    pub fn next(
        old: Option<&Self>,
        mode: Mode,
        home: &Path,
        edge: SocketAddr,
        session: &BTreeMap<String, String>,
        proxy: Option<&[NetworkService]>,
    ) -> Self {
        let edges: Vec<_> = old.and_then(|o| o.edge).into_iter().chain([edge]).collect();
        let session = (mode >= Mode::Apps).then(|| {
            let foreign = || {
                let theirs = session.iter().filter(|(_, value)| !is_ours(value, home, &edges));
                theirs.map(|(k, v)| (k.clone(), v.clone())).collect()
            };
            old.and_then(|o| o.session.clone()).unwrap_or_else(foreign)
        });
        let proxy = proxy.filter(|_| mode == Mode::Full).map(|found| {
            let mut kept = old.and_then(|o| o.proxy.clone()).unwrap_or_default();
            for service in found {
                if !kept.iter().any(|k| k.name == service.name) {
                    kept.push(without_us(service, &edges));
                }
            }
            kept
        });
        Self { edge: Some(edge), session, proxy }
    }
}

/// Whether a variable's value is one that we set.
fn is_ours(value: &str, home: &Path, edges: &[SocketAddr]) -> bool {
    edges.iter().any(|edge| value == format!("http://{edge}")) || Path::new(value).starts_with(home)
}

fn without_us(service: &NetworkService, edges: &[SocketAddr]) -> NetworkService {
    let clean = |setting: &ProxySetting| {
        let ours = edges.iter().any(|edge| setting.is(*edge));
        if ours { ProxySetting::default() } else { setting.clone() }
    };
    NetworkService { http: clean(&service.http), https: clean(&service.https), ..service.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: &str = "127.0.0.1:8081";

    fn next(
        old: Option<&SystemState>,
        mode: Mode,
        session: &[(&str, &str)],
        proxy: &[(&str, &str)],
    ) -> SystemState {
        let session = session.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let proxy: Vec<_> = proxy
            .iter()
            .map(|(name, at)| {
                let (host, port) = at.rsplit_once(':').unwrap_or(("", "0"));
                let port = port.parse().unwrap();
                let setting = ProxySetting {
                    on: port > 0,
                    host: host.to_owned(),
                    port,
                    authenticated: false,
                };
                NetworkService {
                    name: (*name).to_owned(),
                    https: setting,
                    ..NetworkService::default()
                }
            })
            .collect();
        let edge = EDGE.parse().unwrap();
        SystemState::next(old, mode, Path::new("/h"), edge, &session, Some(&proxy))
    }

    #[test]
    fn our_own_settings_are_never_kept_as_the_users() {
        let session = [
            ("HTTPS_PROXY", "http://127.0.0.1:8081"),
            ("SSL_CERT_FILE", "/h/ca/bundle.pem"),
            ("CURL_CA_BUNDLE", "/corp.pem"),
        ];
        let state =
            next(None, Mode::Full, &session, &[("Wi-Fi", EDGE), ("LAN", "proxy.corp:3128")]);
        assert_eq!(state.session.unwrap().into_keys().collect::<Vec<_>>(), ["CURL_CA_BUNDLE"]);
        let proxy = state.proxy.unwrap();
        assert_eq!(proxy[0].https, ProxySetting::default());
        assert_eq!(proxy[1].https.host, "proxy.corp");
    }

    #[test]
    fn what_was_found_first_stays_and_what_comes_later_is_added() {
        let first = next(None, Mode::Full, &[("A", "mine")], &[("LAN", "proxy.corp:3128")]);
        let again = [("LAN", EDGE), ("VPN", "other.corp:1")];
        let second = next(Some(&first), Mode::Full, &[("A", "now")], &again);
        assert_eq!(second.session, first.session);
        let proxy = second.proxy.as_ref().unwrap();
        assert_eq!(proxy[0], first.proxy.unwrap()[0]);
        assert_eq!(proxy[1].https.host, "other.corp");
        let apps = next(Some(&second), Mode::Apps, &[], &again);
        assert!(apps.proxy.is_none() && apps.session.is_some());
        assert_eq!(next(Some(&apps), Mode::EnvOnly, &[], &[]).session, None);
    }

    #[test]
    fn a_changed_port_is_still_known() {
        let old =
            SystemState { edge: Some("127.0.0.1:9999".parse().unwrap()), ..Default::default() };
        let state = next(Some(&old), Mode::Full, &[], &[("LAN", "127.0.0.1:9999")]);
        assert_eq!(state.proxy.unwrap()[0].https, ProxySetting::default());
    }

    #[test]
    fn modes_are_read_as_they_are_written() {
        for mode in [Mode::EnvOnly, Mode::Apps, Mode::Full] {
            assert_eq!(format!("{mode}\n").parse(), Ok(mode));
        }
        assert_eq!("gui".parse::<Mode>(), Err(()));
    }
}
