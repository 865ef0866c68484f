//! `networksetup` and `scutil`: what they are asked, and what they answer. Pure.

use crate::platform::{NetworkService, ProxySetting};
use crate::setup::{Answer, Call};

pub const PROGRAM: &str = "networksetup";

/// "Not a recognized network service": it went away since it was listed.
pub const UNKNOWN: i32 = 4;

/// The two proxies of a service. HTTPS first: that is the one that tools with keys in their requests
/// use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Https,
    Http,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Https, Self::Http];

    #[must_use]
    pub fn of(self, service: &NetworkService) -> &ProxySetting {
        match self {
            Self::Https => &service.https,
            Self::Http => &service.http,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Https => "securewebproxy",
            Self::Http => "webproxy",
        }
    }

    #[must_use]
    pub fn get(self, service: &str) -> [String; 2] {
        [format!("-get{}", self.name()), service.to_owned()]
    }

    /// Switches it on as well.
    #[must_use]
    pub fn set(self, service: &str, host: &str, port: u16) -> Call {
        change([&format!("-set{}", self.name()), service, host, &port.to_string()])
    }

    /// Host and port are kept.
    #[must_use]
    pub fn switch(self, service: &str, on: bool) -> Call {
        let state = if on { "on" } else { "off" };
        change([&format!("-set{}state", self.name()), service, state])
    }
}

/// Replaces the whole list.
#[must_use]
pub fn set_bypass(service: &str, domains: &[String]) -> Call {
    let mut args = vec!["-setproxybypassdomains", service];
    match domains {
        [] => args.push("Empty"),
        some => args.extend(some.iter().map(String::as_str)),
    }
    change(args)
}

fn change<'a>(args: impl IntoIterator<Item = &'a str>) -> Call {
    // A service that went away must not keep the others from being set.
    Call::new(PROGRAM, args).tolerate([Answer::Exit(UNKNOWN)])
}

/// Names from `-listallnetworkservices`: the first line explains the asterisk, which marks a
/// disabled service. Names may hold spaces, slashes and parentheses.
#[must_use]
pub fn active_services(listing: &str) -> Vec<String> {
    listing
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty() && !line.starts_with('*'))
        .map(str::to_owned)
        .collect()
}

/// `Enabled: Yes`, `Server: 127.0.0.1`, `Port: 8081`, `Authenticated Proxy Enabled: 0`.
#[must_use]
pub fn read_proxy(text: &str) -> ProxySetting {
    let value = |key: &str| {
        let mut pairs = text.lines().filter_map(|l| l.split_once(':'));
        pairs.find(|(k, _)| *k == key).map(|(_, v)| v.trim()).unwrap_or_default()
    };
    ProxySetting {
        on: value("Enabled") == "Yes",
        host: value("Server").to_owned(),
        port: value("Port").parse().unwrap_or_default(),
        authenticated: value("Authenticated Proxy Enabled") == "1",
    }
}

/// One domain a line; a sentence if there is none.
#[must_use]
pub fn read_bypass(text: &str) -> Vec<String> {
    // No domain has a space in it.
    text.lines().filter(|l| !l.is_empty() && !l.contains(' ')).map(str::to_owned).collect()
}

/// `URL: …`, `Enabled: Yes`.
#[must_use]
pub fn read_auto(text: &str) -> Option<String> {
    let url = text.lines().find_map(|l| l.strip_prefix("URL: "))?;
    text.lines().any(|l| l == "Enabled: Yes").then(|| url.to_owned())
}

/// The proxies that are in force, of `scutil --proxy`: `key : value` lines, two spaces a level. What is
/// deeper (`__SCOPED__`) is a single interface's, and counts only for what is bound to that one.
#[must_use]
pub fn effective(listing: &str) -> Vec<String> {
    let value = |wanted: &str| {
        let lines = listing.lines().filter_map(|line| line.strip_prefix("  "));
        let mut pairs = lines.filter_map(|line| line.split_once(" : "));
        pairs.find(|(key, _)| *key == wanted).map(|(_, value)| value.trim())
    };
    let on = ["HTTPS", "HTTP"].into_iter().filter_map(|kind| {
        let (host, port) = (value(&format!("{kind}Proxy"))?, value(&format!("{kind}Port"))?);
        (value(&format!("{kind}Enable")) == Some("1")).then(|| format!("{host}:{port}"))
    });
    on.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_keep_their_names_and_disabled_ones_are_left_out() {
        let listing = "An asterisk (*) denotes that a network service is disabled.\n\
            USB 10/100/1000 LAN 2\nWi-Fi\n*Thunderbolt Bridge\nCorp VPN (1)\n\n";
        assert_eq!(active_services(listing), ["USB 10/100/1000 LAN 2", "Wi-Fi", "Corp VPN (1)"]);
        assert_eq!(active_services(""), Vec::<String>::new());
    }

    #[test]
    fn answers_are_read() {
        let text = "Enabled: Yes\nServer: fe80::1\nPort: 7890\nAuthenticated Proxy Enabled: 1\n";
        let proxy =
            ProxySetting { on: true, host: "fe80::1".to_owned(), port: 7890, authenticated: true };
        assert_eq!(read_proxy(text), proxy);
        let text = "Enabled: No\nServer: \nPort: 0\nAuthenticated Proxy Enabled: 0\n";
        assert_eq!(read_proxy(text), ProxySetting::default());
        assert_eq!(read_bypass("*.local\n169.254/16\n"), ["*.local", "169.254/16"]);
        assert_eq!(read_bypass("There aren't any bypass domains set on Wi-Fi.\n"), [""; 0]);
        let url = "http://wpad/proxy.pac";
        assert_eq!(read_auto(&format!("URL: {url}\nEnabled: Yes\n")).as_deref(), Some(url));
        assert_eq!(read_auto(&format!("URL: {url}\nEnabled: No\n")), None);
        assert_eq!(read_auto("URL: (null)\nEnabled: No\n"), None);
    }

    #[test]
    fn only_proxies_that_are_on_count() {
        let listing = "<dictionary> {\n  ExceptionsList : <array> {\n    0 : *.local\n  }\n  \
            HTTPEnable : 0\n  HTTPPort : 7890\n  HTTPProxy : 10.0.0.1\n  HTTPSEnable : 1\n  \
            HTTPSPort : 8081\n  HTTPSProxy : 127.0.0.1\n}\n";
        assert_eq!(effective(listing), ["127.0.0.1:8081"]);
        assert_eq!(effective("<dictionary> {\n}\n"), Vec::<String>::new());
    }

    #[test]
    fn an_interfaces_own_proxy_is_not_in_force() {
        let own = "      HTTPEnable : 1\n      HTTPPort : 8081\n      HTTPProxy : 127.0.0.1\n      \
            HTTPSEnable : 1\n      HTTPSPort : 8081\n      HTTPSProxy : 127.0.0.1\n";
        let scoped = format!(
            "  __SCOPED__ : <dictionary> {{\n    en0 : <dictionary> {{\n{own}    }}\n  }}\n"
        );
        let listing = |top: &str| format!("<dictionary> {{\n{top}{scoped}}}\n");
        assert_eq!(effective(&listing("  FTPPassive : 1\n")), [""; 0]);
        let corp = "  HTTPSEnable : 1\n  HTTPSPort : 3128\n  HTTPSProxy : proxy.corp\n";
        assert_eq!(effective(&listing(corp)), ["proxy.corp:3128"]);
        // Half of it is from there, half of it from here.
        assert_eq!(effective(&listing("  HTTPSEnable : 1\n")), [""; 0]);
    }
}
