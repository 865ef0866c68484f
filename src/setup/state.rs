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

    /// Whether the session's variables lead to us.
    #[must_use]
    pub fn leads_session(&self) -> bool {
        self.session.is_some()
    }

    /// The session's variables as they are without us: what was there before, and what somebody set since.
    #[must_use]
    pub fn own_session(
        old: Option<&Self>,
        home: &Path,
        edge: SocketAddr,
        session: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let edges: Vec<_> = old.and_then(|o| o.edge).into_iter().chain([edge]).collect();
        let before = old.and_then(|o| o.session.clone()).unwrap_or_default();
        let now = session.iter().filter(|(_, value)| !is_ours(value, home, &edges));
        before.into_iter().chain(now.map(|(k, v)| (k.clone(), v.clone()))).collect()
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
            let before = old.and_then(|o| o.session.clone());
            before.unwrap_or_else(|| Self::own_session(old, home, edge, session))
        });
        let proxy = proxy.filter(|_| mode == Mode::Full).map(|found| {
            let kept = old.and_then(|o| o.proxy.clone()).unwrap_or_default();
            // What is not led needs no record, which would say that somebody wanted it led.
            let led = found.iter().filter(|s| !s.disabled && s.own_way().is_none());
            led.fold(kept, |kept, service| keep(kept, service, &edges))
        });
        Self { edge: Some(edge), session, proxy }
    }

    /// For the daemon: what is to be kept before the services of `found` are led to the edge, and which of
    /// them may be. One whose own proxy is on may only if `init` found it so, and led it here: that it
    /// should, somebody has wanted. Another was set by somebody who does not know of us.
    #[must_use]
    pub fn claim(
        &self,
        edge: SocketAddr,
        found: Vec<NetworkService>,
    ) -> (Self, Vec<NetworkService>) {
        let edges: Vec<_> = self.edge.into_iter().chain([edge]).collect();
        let saved = self.proxy.as_deref().unwrap_or_default();
        let may = |service: &NetworkService| {
            let known = service.find_in(saved);
            let free = |now: &ProxySetting, found: Option<&ProxySetting>| {
                !now.on || now.names_any(&edges) || found == Some(now)
            };
            service.own_way().is_none()
                && free(&service.http, known.map(|k| &k.http))
                && free(&service.https, known.map(|k| &k.https))
        };
        let ours: Vec<_> = found.into_iter().filter(may).collect();
        let proxy = ours.iter().fold(saved.to_vec(), |kept, s| keep(kept, s, &edges));
        (Self { proxy: Some(proxy), ..self.clone() }, ours)
    }

    /// Services of other places that we led, and can't reach from where `found` is.
    #[must_use]
    pub fn elsewhere(&self, found: &[NetworkService]) -> Vec<&NetworkService> {
        let here = found.first().map_or("", |service| &service.place);
        let saved = self.proxy.iter().flatten();
        saved.filter(|s| !s.place.is_empty() && s.place != here).collect()
    }
}

/// What is there of a service is the user's, but for what is ours: of that the earlier record holds.
fn keep(
    mut kept: Vec<NetworkService>,
    service: &NetworkService,
    edges: &[SocketAddr],
) -> Vec<NetworkService> {
    let mut clean = without_us(service, edges);
    if let Some(before) = service.find_in(&kept) {
        let (http, https) = (service.http.names_any(edges), service.https.names_any(edges));
        if http {
            clean.http.clone_from(&before.http);
        }
        if https {
            clean.https.clone_from(&before.https);
        }
        if http || https {
            clean.bypass.clone_from(&before.bypass);
        }
    }
    match kept.iter_mut().find(|k| (&k.place, &k.name) == (&clean.place, &clean.name)) {
        Some(before) => *before = clean,
        None => kept.push(clean),
    }
    kept
}

/// Whether a variable's value is one that we set.
fn is_ours(value: &str, home: &Path, edges: &[SocketAddr]) -> bool {
    edges.iter().any(|edge| value == format!("http://{edge}")) || Path::new(value).starts_with(home)
}

fn without_us(service: &NetworkService, edges: &[SocketAddr]) -> NetworkService {
    let clean = |setting: &ProxySetting| {
        let ours = setting.names_any(edges);
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

    fn proxy(host: &str, on: bool) -> ProxySetting {
        let (host, port) = host.rsplit_once(':').unwrap();
        let port = port.parse().unwrap();
        ProxySetting { on, host: host.to_owned(), port, authenticated: false }
    }

    fn service(place: &str, name: &str, https: ProxySetting) -> NetworkService {
        let (place, name) = (place.to_owned(), name.to_owned());
        NetworkService { place, name, https, ..NetworkService::default() }
    }

    #[test]
    fn what_somebody_set_since_is_neither_led_nor_forgotten() {
        let corp = proxy("proxy.corp:3128", true);
        let saved = SystemState {
            proxy: Some(vec![
                service("Home", "Wi-Fi", corp.clone()),
                service("Home", "LAN", corp.clone()),
                service("Home", "VPN", corp.clone()),
            ]),
            ..SystemState::default()
        };
        // What is left of ours beside a proxy that was put back does not make it another one.
        let residue = proxy(EDGE, false);
        let wifi = NetworkService { http: residue, ..service("Home", "Wi-Fi", corp.clone()) };
        let (new, off) = (proxy("new.corp:1", true), proxy("proxy.corp:3128", false));
        let found = vec![
            wifi,
            service("Home", "LAN", new.clone()),
            service("Home", "VPN", off.clone()),
            service("Home", "Hotspot", ProxySetting::default()),
            service("Home", "Guest", new.clone()),
            service("Office", "Wi-Fi", new.clone()),
            service("Office", "Bridge", proxy(EDGE, true)),
        ];
        let edge = EDGE.parse().unwrap();
        let (state, ours) = saved.claim(edge, found);
        let names: Vec<_> = ours.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["Wi-Fi", "VPN", "Hotspot", "Bridge"]);
        let kept = state.proxy.clone().unwrap();
        let expected = [
            service("Home", "Wi-Fi", corp.clone()),
            service("Home", "LAN", corp.clone()),
            service("Home", "VPN", off),
            service("Home", "Hotspot", ProxySetting::default()),
            service("Office", "Bridge", ProxySetting::default()),
        ];
        assert_eq!(kept, expected);
        assert_eq!(state.claim(edge, ours).0, state, "nothing new");
        let elsewhere = state.elsewhere(&[service("Home", "Wi-Fi", corp)]);
        assert_eq!(elsewhere.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["Bridge"]);
        // `init` is told to lead all: what is there by then is what will be put back.
        let again = SystemState::next(
            Some(&saved),
            Mode::Full,
            Path::new("/h"),
            edge,
            &BTreeMap::new(),
            Some(&[service("Home", "LAN", new.clone())]),
        );
        assert_eq!(again.proxy.unwrap()[1].https, new);
    }

    #[test]
    fn a_state_without_places_is_that_of_any_place() {
        let old = br#"{"proxy":[{"name":"Wi-Fi","bypass":[],
            "http":{"on":false,"host":"","port":0},"https":{"on":true,"host":"proxy.corp","port":3128}}]}"#;
        let old: SystemState = serde_json::from_slice(old).unwrap();
        let found = vec![service("Home", "Wi-Fi", proxy(EDGE, true))];
        let (state, _) = old.claim(EDGE.parse().unwrap(), found);
        let kept = state.proxy.unwrap();
        assert_eq!(kept[1], service("Home", "Wi-Fi", proxy("proxy.corp:3128", true)));
        let office = service("Office", "Wi-Fi", ProxySetting::default());
        assert_eq!(office.find_in(&kept).unwrap().place, "");
        assert_eq!(office.find_in(&kept[1..]), None, "another place's is not this one's");
    }

    #[test]
    fn what_is_left_of_ours_is_not_the_users() {
        let off =
            ProxySetting { host: "127.0.0.1".to_owned(), port: 8081, ..ProxySetting::default() };
        let service = NetworkService { http: off, ..NetworkService::default() };
        assert_eq!(without_us(&service, &[EDGE.parse().unwrap()]), NetworkService::default());
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
