//! Every key: its name, what it takes, how text becomes a value. One table, read by the file,
//! environment and flag layers alike.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::hosts::{ConnectRule, HostPattern, PlacePattern, UpstreamProxy};
use super::no_proxy::NoProxy;
use super::webhook::Webhook;

/// A value of a key, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(n) => write!(f, "{n}"),
            Self::Text(s) => write!(f, "{s:?}"),
            Self::List(items) => write!(f, "{items:?}"),
            Self::Map(map) => {
                let items: Vec<_> = map.iter().map(|(k, v)| format!("{k:?} = {v:?}")).collect();
                write!(f, "{{ {} }}", items.join(", "))
            }
        }
    }
}

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Takes {
    Bool,
    Int(i64, i64),
    Text(fn(&str) -> bool),
    /// Of a file, absolute: our processes work in other directories than their user.
    Path,
    List(fn(&str) -> bool),
    Map(fn(&str, &str) -> bool),
}

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `section.name`.
    pub name: &'static str,
    pub takes: Takes,
    /// Completes "expected …" in a message.
    pub expected: &'static str,
    /// Whether its value may hold a password.
    pub secret: bool,
}

/// All keys, in the order of the documented file.
pub const KEYS: &[Key] = &[
    key("edge.port", Takes::Int(1, 65535), "a port from 1 to 65535"),
    key("daemon.api_port", Takes::Int(1, 65535), "a port from 1 to 65535"),
    key("daemon.edge_health_ttl_ms", Takes::Int(50, 60_000), "a number from 50 to 60000"),
    key("meter.hosts", Takes::List(is_metered), HOSTS),
    key("meter.extra_hosts", Takes::List(is_metered), HOSTS),
    key("meter.plain_hosts", Takes::List(is_place), PLACES),
    key("meter.local_hosts", Takes::List(is_place), PLACES),
    Key {
        secret: true,
        ..key(
            "upstream.proxy",
            Takes::Text(is_proxy),
            "\"http://[user:password@]host:port\", or \"\" for none",
        )
    },
    Key {
        secret: true,
        ..key(
            "upstream.http_proxy",
            Takes::Text(is_http_proxy),
            "\"http://[user:password@]host:port\", \"direct\" or \"\"",
        )
    },
    key("upstream.proxy_from", Takes::Text(is_source), "\"system\" or \"\""),
    key(
        "upstream.no_proxy",
        Takes::List(NoProxy::is_rule),
        "a list of names, \".suffix\", addresses, networks or \"*\"",
    ),
    key("upstream.extra_ca_file", Takes::Path, "the absolute path of a PEM file, or \"\""),
    key("upstream.connect", Takes::Map(is_rule), "{ \"host:port\" = \"address:port\" }"),
    key("bodies.enabled", Takes::Bool, "true or false"),
    key("bodies.max_body_kb", Takes::Int(1, 16_384), "a number from 1 to 16384"),
    key("bodies.max_total_mb", Takes::Int(1, 1_048_576), "a number from 1 to 1048576"),
    key("bodies.retention_days", Takes::Int(1, 3_650), "a number from 1 to 3650"),
    key("budgets.desktop", Takes::Bool, "true or false"),
    Key {
        secret: true,
        ..key(
            "budgets.webhook",
            Takes::Text(is_hook),
            "\"https://host[:port]/path\" (http:// on this machine) or \"\"",
        )
    },
    key("log.level", Takes::Text(is_level), "critical, error, warning, info, debug or trace"),
];

/// `upstream.proxy_from` of a proxy that `init` found in the system's setting.
pub const FROM_SYSTEM: &str = "system";

/// `upstream.http_proxy`: plain HTTP goes through no proxy.
pub const DIRECT: &str = "direct";

const HOSTS: &str = "a list of host names (\"*.example.com\" for subdomains; \"*\", \"*.com\" and \
    \"*.co.uk\" would take in other people's)";

const PLACES: &str =
    "a list of \"host:port\" (\"*.x:port\" for subdomains, \"*:port\" for any host)";

const fn key(name: &'static str, takes: Takes, expected: &'static str) -> Key {
    Key { name, takes, expected, secret: false }
}

fn is_metered(text: &str) -> bool {
    let is = |name: &String| HostPattern::parse(name).is_some_and(|host| !host.is_too_wide());
    super::regions::expand(text).iter().all(is)
}

fn is_place(text: &str) -> bool {
    PlacePattern::parse(text).is_some()
}

fn is_proxy(text: &str) -> bool {
    // As a word it is meant as none, not as a host of that name.
    let none = [DIRECT, "none", "off"].iter().any(|word| text.eq_ignore_ascii_case(word));
    text.is_empty() || (!none && UpstreamProxy::parse(text).is_some())
}

fn is_http_proxy(text: &str) -> bool {
    text.eq_ignore_ascii_case(DIRECT) || is_proxy(text)
}

fn is_source(text: &str) -> bool {
    text.is_empty() || text == FROM_SYSTEM
}

fn is_hook(text: &str) -> bool {
    text.is_empty() || Webhook::parse(text).is_some()
}

fn is_rule(from: &str, to: &str) -> bool {
    ConnectRule::parse(from, to).is_some()
}

fn is_level(text: &str) -> bool {
    text.parse::<slog::Level>().is_ok()
}

impl Key {
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|k| k.name == name)
    }

    /// `HALTON_METER_EDGE_PORT` for `edge.port`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("HALTON_METER_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// A TOML value of the right type and range.
    #[must_use]
    pub fn accept(&self, value: &toml::Value) -> Option<Value> {
        let text = |v: &toml::Value| v.as_str().map(str::to_owned);
        match self.takes {
            Takes::Bool => value.as_bool().map(Value::Bool),
            Takes::Int(min, max) => {
                value.as_integer().filter(|n| (min..=max).contains(n)).map(Value::Int)
            }
            Takes::Text(ok) => text(value).filter(|s| ok(s)).map(Value::Text),
            Takes::Path => {
                text(value).filter(|s| s.is_empty() || Path::new(s).is_absolute()).map(Value::Text)
            }
            Takes::List(ok) => {
                let items: Option<Vec<_>> = value.as_array()?.iter().map(text).collect();
                items.filter(|i| i.iter().all(|s| ok(s))).map(Value::List)
            }
            Takes::Map(ok) => {
                let items: Option<BTreeMap<_, _>> =
                    value.as_table()?.iter().map(|(k, v)| Some((k.clone(), text(v)?))).collect();
                items.filter(|i| i.iter().all(|(k, v)| ok(k, v))).map(Value::Map)
            }
        }
    }

    /// A list without the items that won't do, and those; `None`: none of it does.
    pub(super) fn accept_rest(&self, value: &toml::Value) -> (Option<Value>, Vec<String>) {
        let Takes::List(ok) = self.takes else { return (None, Vec::new()) };
        let items = value.as_array().into_iter().flatten();
        let items: Option<Vec<_>> = items.map(|v| v.as_str().map(str::to_owned)).collect();
        let (good, wrong): (Vec<_>, Vec<_>) =
            items.unwrap_or_default().into_iter().partition(|item| ok(item));
        ((!good.is_empty()).then_some(Value::List(good)), wrong)
    }

    /// Text of somebody who works in this directory.
    #[must_use]
    pub fn accept_here(&self, text: &str) -> Option<Value> {
        // A shell makes a path of `~`, unless it is quoted; we don't.
        if !matches!(self.takes, Takes::Path) || text.is_empty() || text.starts_with('~') {
            return self.accept_text(text);
        }
        self.accept_text(std::path::absolute(text).ok()?.to_str()?)
    }

    /// Text from the environment or a flag.
    #[must_use]
    pub fn accept_text(&self, text: &str) -> Option<Value> {
        self.accept(&self.of_text(text)?)
    }

    /// Lists are separated by commas or TOML, maps are TOML.
    pub(super) fn of_text(&self, text: &str) -> Option<toml::Value> {
        Some(match self.takes {
            Takes::Bool => toml::Value::Boolean(text.trim().parse().ok()?),
            Takes::Int(..) => toml::Value::Integer(text.trim().parse().ok()?),
            Takes::Text(_) | Takes::Path => toml::Value::String(text.to_owned()),
            Takes::List(_) => {
                let items = text.split(',').map(str::trim).filter(|s| !s.is_empty());
                let listed = || items.map(|s| toml::Value::String(s.to_owned())).collect();
                // `[::1]:80` is no array, and an item.
                let array = of_toml(text).filter(toml::Value::is_array);
                array.unwrap_or_else(|| toml::Value::Array(listed()))
            }
            Takes::Map(_) => of_toml(text)?,
        })
    }
}

fn of_toml(text: &str) -> Option<toml::Value> {
    toml::from_str::<toml::Table>(&format!("v = {text}")).ok()?.remove("v")
}
