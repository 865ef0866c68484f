//! `networksetup` and `scutil`: what they are asked, and what they answer. Pure.

use std::time::Duration;

use crate::platform::{NetworkService, PAC, ProxySetting, SOCKS};
use crate::setup::{Answer, Call};

pub const PROGRAM: &str = "networksetup";
/// Says what is in force.
pub const IN_FORCE: &str = "scutil";

/// "Not a recognized network service": it went away since it was listed.
const UNKNOWN: i32 = 4;
/// "Unable to find item in network database": there is no such service; or the network has changed just now,
/// and for a moment none is found, not even the list of them.
const NOT_FOUND: i32 = 8;
/// In what it says then, and when it can't write ("Unable to commit changes to network database").
const DATABASE: &str = "network database";
/// In what it says of each of its failures, on stdout. Some releases end with 0 then.
const ERROR: &str = "** Error";
/// How long such a moment is waited for.
pub const SETTLES: Duration = Duration::from_secs(2);

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
    pub fn get(self, service: &str) -> Call {
        of_service(&[&format!("-get{}", self.name()), service])
    }

    /// Switches it on as well.
    #[must_use]
    pub fn set(self, service: &str, host: &str, port: u16) -> Call {
        of_service(&[&format!("-set{}", self.name()), service, host, &port.to_string()])
    }

    /// Host and port are kept.
    #[must_use]
    pub fn switch(self, service: &str, on: bool) -> Call {
        let state = if on { "on" } else { "off" };
        of_service(&[&format!("-set{}state", self.name()), service, state])
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
    of_service(&args)
}

#[must_use]
pub fn get_bypass(service: &str) -> Call {
    of_service(&["-getproxybypassdomains", service])
}

#[must_use]
pub fn get_auto(service: &str) -> Call {
    of_service(&["-getautoproxyurl", service])
}

#[must_use]
pub fn get_socks(service: &str) -> Call {
    of_service(&["-getsocksfirewallproxy", service])
}

#[must_use]
pub fn location() -> Call {
    call(["-getcurrentlocation"])
}

#[must_use]
pub fn list() -> Call {
    call(["-listallnetworkservices"])
}

#[must_use]
pub fn in_force() -> Call {
    Call::new(IN_FORCE, ["--proxy"])
}

/// What is asked or set of a service, its name behind the verb. One that went away must not keep the others
/// from being read and set.
fn of_service(args: &[&str]) -> Call {
    let names = args.get(1).map(|name| [(*name).to_owned(), format!("*{name}")]);
    let call = call(args.iter().copied()).tolerate([Answer::Exit(UNKNOWN)]);
    call.listed(list(), names.into_iter().flatten())
}

fn call<'a>(args: impl IntoIterator<Item = &'a str>) -> Call {
    let passes = [Answer::Exit(NOT_FOUND), Answer::Says(DATABASE.to_owned())];
    Call::new(PROGRAM, args).fails_saying(ERROR).again(passes, SETTLES)
}

/// Names from `-listallnetworkservices`, and which of them are active: the first line explains the asterisk,
/// which marks a disabled one and is no part of its name. Names may hold spaces, slashes and parentheses.
pub fn services(listing: &str) -> impl Iterator<Item = (&str, bool)> {
    let lines = listing.lines().skip(1).filter(|line| !line.is_empty());
    lines.map(|line| line.strip_prefix('*').map_or((line, true), |name| (name, false)))
}

/// `Enabled: Yes`, `Server: 127.0.0.1`, `Port: 8081`, `Authenticated Proxy Enabled: 0`. `None`: it says
/// something else, which is not that there is none.
#[must_use]
pub fn read_proxy(text: &str) -> Option<ProxySetting> {
    let value = |key: &str| {
        let mut pairs = text.lines().filter_map(|l| l.split_once(':'));
        pairs.find(|(k, _)| *k == key).map(|(_, v)| v.trim())
    };
    Some(ProxySetting {
        on: value("Enabled")? == "Yes",
        host: value("Server").unwrap_or_default().to_owned(),
        port: value("Port").and_then(|port| port.parse().ok()).unwrap_or_default(),
        authenticated: value("Authenticated Proxy Enabled") == Some("1"),
    })
}

/// One domain a line; a sentence if there is none.
#[must_use]
pub fn read_bypass(text: &str) -> Vec<String> {
    // No domain has a space in it.
    text.lines().filter(|l| !l.is_empty() && !l.contains(' ')).map(str::to_owned).collect()
}

/// `URL: …`, `Enabled: Yes`. `None`: it says something else.
#[must_use]
pub fn read_auto(text: &str) -> Option<Option<String>> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let on = value("Enabled:")?.trim() == "Yes";
    Some(value("URL:").filter(|_| on).map(|url| url.trim().to_owned()))
}

/// The proxies that are in force, of `scutil --proxy`: `key : value` lines, two spaces a level. What is
/// deeper (`__SCOPED__`) is a single interface's, and counts only for what is bound to that one.
#[must_use]
pub fn effective(listing: &str) -> Vec<String> {
    let value = |key: String| value_in_force(listing, &key);
    let on = ["HTTPS", "HTTP"].into_iter().filter_map(|kind| {
        let (host, port) = (value(format!("{kind}Proxy"))?, value(format!("{kind}Port"))?);
        (value(format!("{kind}Enable")) == Some("1")).then(|| format!("{host}:{port}"))
    });
    on.collect()
}

/// What goes before those proxies, or instead of them.
#[must_use]
pub fn other_way(listing: &str) -> Option<&'static str> {
    let on = |key| value_in_force(listing, key) == Some("1");
    if on("ProxyAutoConfigEnable") {
        return Some(PAC);
    }
    (on("SOCKSEnable") && effective(listing).is_empty()).then_some(SOCKS)
}

fn value_in_force<'a>(listing: &'a str, wanted: &str) -> Option<&'a str> {
    let lines = listing.lines().filter_map(|line| line.strip_prefix("  "));
    let mut pairs = lines.filter_map(|line| line.split_once(" : "));
    pairs.find(|(key, _)| *key == wanted).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_keep_their_names_and_disabled_ones_are_told() {
        let listing = "An asterisk (*) denotes that a network service is disabled.\n\
            USB 10/100/1000 LAN 2\nWi-Fi\n*Thunderbolt Bridge\nCorp VPN (1)\n\n";
        let expected = [
            ("USB 10/100/1000 LAN 2", true),
            ("Wi-Fi", true),
            ("Thunderbolt Bridge", false),
            ("Corp VPN (1)", true),
        ];
        assert_eq!(services(listing).collect::<Vec<_>>(), expected);
        assert_eq!(services("").count(), 0);
    }

    #[test]
    fn answers_are_read() {
        let text = "Enabled: Yes\nServer: fe80::1\nPort: 7890\nAuthenticated Proxy Enabled: 1\n";
        let proxy =
            ProxySetting { on: true, host: "fe80::1".to_owned(), port: 7890, authenticated: true };
        assert_eq!(read_proxy(text), Some(proxy));
        let text = "Enabled: No\nServer: \nPort: 0\nAuthenticated Proxy Enabled: 0\n";
        assert_eq!(read_proxy(text), Some(ProxySetting::default()));
        let error = "** Error: Unable to find item in network database.\n";
        assert_eq!((read_proxy(error), read_auto(error)), (None, None), "that is not \"off\"");
        assert_eq!(read_bypass("*.local\n169.254/16\n"), ["*.local", "169.254/16"]);
        assert_eq!(read_bypass("There aren't any bypass domains set on Wi-Fi.\n"), [""; 0]);
        let url = "http://wpad/proxy.pac";
        let on = read_auto(&format!("URL: {url}\nEnabled: Yes\n"));
        assert_eq!(on, Some(Some(url.to_owned())));
        assert_eq!(read_auto(&format!("URL: {url}\nEnabled: No\n")), Some(None));
        assert_eq!(read_auto("URL: (null)\nEnabled: No\n"), Some(None));
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
    fn what_goes_before_a_proxy_or_instead_of_it_is_told() {
        let proxy = "  HTTPSEnable : 1\n  HTTPSPort : 8081\n  HTTPSProxy : 127.0.0.1\n";
        for (lines, ours, way) in [
            (
                "  ProxyAutoConfigEnable : 1\n  ProxyAutoConfigURLString : http://x/\n",
                proxy,
                Some(PAC),
            ),
            ("  ProxyAutoConfigEnable : 0\n", proxy, None),
            ("  SOCKSEnable : 1\n  SOCKSPort : 1080\n  SOCKSProxy : 127.0.0.1\n", "", Some(SOCKS)),
            ("  SOCKSEnable : 1\n  SOCKSPort : 1080\n  SOCKSProxy : 127.0.0.1\n", proxy, None),
            ("", "", None),
        ] {
            assert_eq!(other_way(&format!("<dictionary> {{\n{ours}{lines}}}\n")), way, "{lines}");
        }
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
