//! The four layers, merged; each value remembers where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::hosts::{ConnectRule, HostPattern, PlacePattern, UpstreamProxy};
use super::keys::{DIRECT, FROM_SYSTEM, KEYS, Key, Value};
use super::no_proxy::NoProxy;
use super::own::{OwnPorts, is_loopback};
use super::recover::recover;
use super::stamp::Stamp;
use super::webhook::Webhook;
use super::{Bodies, Budgets, Config, DEFAULTS, Daemon, Edge, Log, Meter, Upstream};

/// How a problem begins that keeps the text from being edited.
pub(super) const NOT_TOML: &str = "not TOML";

/// Where a value comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Environment { variable: String },
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { variable } => write!(f, "${variable}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Something wrong with one layer; the value of the layer below stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    pub origin: Origin,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// The merged configuration and what was wrong on the way.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// Every key of [`KEYS`], in its order.
    pub values: Vec<(&'static Key, Value, Origin)>,
    pub problems: Vec<Problem>,
    /// State of the file that was read; `None`: none was.
    pub file: Option<Stamp>,
}

/// Reads the file (absent = no file layer), this process's environment, and `flags`
/// (`section.key=value`).
#[must_use]
pub fn load(file: &Path, flags: &[String]) -> Loaded {
    let mut problems = Vec::new();
    let (text, stamp) = match read(file) {
        Ok((bytes, stamp)) => (Some(readable(file, bytes, &mut problems)), Some(stamp)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            (None, None)
        }
        Err(e) => {
            problems.push(Problem {
                origin: Origin::File { path: file.to_path_buf(), line: 0 },
                message: format!("cannot be read: {e}"),
            });
            (None, None)
        }
    };
    let mut loaded =
        load_from(text.as_deref().map(|t| (file, t)), |v| std::env::var(v).ok(), flags);
    problems.append(&mut loaded.problems);
    Loaded { problems, file: stamp, ..loaded }
}

/// The stamp is taken first: what is written meanwhile shows as another one.
fn read(file: &Path) -> io::Result<(Vec<u8>, Stamp)> {
    let (mut opened, mut bytes) = (File::open(file)?, Vec::new());
    let stamp = Stamp::from(&opened.metadata()?);
    opened.read_to_end(&mut bytes)?;
    Ok((bytes, stamp))
}

/// A line in another encoding (a name in a comment, mostly) costs no more than itself.
fn readable(file: &Path, bytes: Vec<u8>, problems: &mut Vec<Problem>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| {
        let mut text = String::new();
        for (i, line) in e.as_bytes().split_inclusive(|b| *b == b'\n').enumerate() {
            text.push_str(str::from_utf8(line).unwrap_or_else(|_| {
                problems.push(Problem {
                    origin: Origin::File { path: file.to_path_buf(), line: i + 1 },
                    message: "not UTF-8".to_owned(),
                });
                "\n"
            }));
        }
        text
    })
}

/// The values of each key, that of the topmost layer last.
type Merged = BTreeMap<&'static str, Vec<(Value, Origin)>>;

/// The one that counts.
fn topmost<'a>(merged: &'a Merged, name: &str) -> Option<&'a (Value, Origin)> {
    merged.get(name)?.last()
}

/// The same from given inputs: pure.
#[must_use]
pub fn load_from(
    file: Option<(&Path, &str)>,
    env: impl Fn(&str) -> Option<String>,
    flags: &[String],
) -> Loaded {
    let mut merged = Merged::new();
    let mut problems = Vec::new();

    read_toml(DEFAULTS, |_| Origin::Default, &mut merged, &mut problems);
    assert!(
        problems.is_empty() && merged.len() == KEYS.len(),
        "config/halton-meter.toml and KEYS disagree: {problems:?}"
    );
    if let Some((path, text)) = file {
        let at = |line| Origin::File { path: path.to_path_buf(), line };
        read_toml(text, at, &mut merged, &mut problems);
    }
    for key in KEYS {
        let variable = key.variable();
        if let Some(text) = env(&variable) {
            set(
                key,
                key.of_text(&text),
                Origin::Environment { variable },
                &mut merged,
                &mut problems,
            );
        }
    }
    for flag in flags {
        match flag.split_once('=').map(|(name, text)| (name, Key::find(name.trim()), text)) {
            Some((_, Some(key), text)) => {
                set(key, key.of_text(text), Origin::Flag, &mut merged, &mut problems);
            }
            Some((name, None, _)) => {
                problems.push(Problem { origin: Origin::Flag, message: unknown(name) });
            }
            None => problems.push(Problem {
                origin: Origin::Flag,
                message: format!("{flag:?}: expected section.key=value"),
            }),
        }
    }
    keep_ports_apart(&mut merged, &mut problems);
    leave_ourselves_out(&mut merged, &mut problems);

    let config = typed(&merged);
    let values = KEYS
        .iter()
        .filter_map(|k| merged.remove(k.name)?.pop().map(|(value, origin)| (k, value, origin)))
        .collect();
    Loaded { config, values, problems, file: None }
}

fn read_toml(
    text: &str,
    at: impl Fn(usize) -> Origin,
    merged: &mut Merged,
    problems: &mut Vec<Problem>,
) {
    let recovered;
    let (text, lines, parsed) = match DeTable::parse(text) {
        Ok(table) => (text, None, Ok(table)),
        Err(e) => {
            recovered = recover(text, &e);
            for (line, message) in &recovered.wrong {
                let message = format!("{NOT_TOML}: {message}");
                problems.push(Problem { origin: at(*line), message });
            }
            let text = recovered.text.as_str();
            (text, Some(&recovered.lines), DeTable::parse(text))
        }
    };
    let Ok(table) = parsed.map(toml::Spanned::into_inner) else { return };
    let line = |offset: usize| {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let index = before.iter().filter(|b| **b == b'\n').count();
        lines.map_or(index + 1, |lines| lines.get(index).copied().unwrap_or(1))
    };
    for (section, body) in &table {
        let Some(keys) = body.get_ref().as_table() else {
            problems.push(Problem {
                origin: at(line(section.span().start)),
                message: unknown(section.get_ref()),
            });
            continue;
        };
        for (name, value) in keys {
            let full = format!("{}.{}", section.get_ref(), name.get_ref());
            let origin = at(line(name.span().start));
            match Key::find(&full) {
                Some(key) => {
                    set(key, to_value(value.get_ref()), origin, merged, problems);
                }
                None => problems.push(Problem { origin, message: unknown(&full) }),
            }
        }
    }
}

fn to_value(value: &toml::de::DeValue<'_>) -> Option<toml::Value> {
    use serde::Deserialize;
    toml::Value::deserialize(toml::de::ValueDeserializer::from(toml::Spanned::new(
        0..0,
        value.clone(),
    )))
    .ok()
}

fn set(
    key: &'static Key,
    given: Option<toml::Value>,
    origin: Origin,
    merged: &mut Merged,
    problems: &mut Vec<Problem>,
) {
    let mut value = given.as_ref().and_then(|given| key.accept(given));
    if value.is_none() {
        // One mistake in a list does not cost the rest of it.
        let (rest, wrong) = given.map(|given| key.accept_rest(&given)).unwrap_or_default();
        let wrong: Vec<_> = wrong.iter().map(|item| format!("{item:?}")).collect();
        let what = if wrong.is_empty() { "" } else { &format!("{} won't do: ", wrong.join(", ")) };
        let message = format!("{}: {what}expected {}", key.name, key.expected);
        problems.push(Problem { origin: origin.clone(), message });
        value = rest;
    }
    if let Some(value) = value {
        merged.entry(key.name).or_default().push((value, origin));
    }
}

/// The port of the edge is where programs point: it is the other one that gives way, else the daemon could
/// not listen and nothing would be metered.
fn keep_ports_apart(merged: &mut Merged, problems: &mut Vec<Problem>) {
    let Some(&(Value::Int(edge), _)) = topmost(merged, "edge.port") else { return };
    let Some(layers) = merged.get_mut("daemon.api_port") else { return };
    let Some((_, origin)) = layers.last().filter(|(port, _)| *port == Value::Int(edge)) else {
        return;
    };
    problems.push(Problem {
        origin: origin.clone(),
        message: "daemon.api_port and edge.port are the same port".to_owned(),
    });
    while layers.last().is_some_and(|(port, _)| *port == Value::Int(edge)) {
        layers.pop();
    }
    if layers.is_empty() {
        layers.push((Value::Int(edge + 1), Origin::Default));
    }
}

/// A proxy that is us would be a circle.
fn leave_ourselves_out(merged: &mut Merged, problems: &mut Vec<Problem>) {
    let ports = ["edge.port", "daemon.api_port"]
        .map(|name| topmost(merged, name).map(|(port, _)| port.clone()));
    let is_ours = |value: &Value| match value {
        Value::Text(url) => UpstreamProxy::parse(url).is_some_and(|proxy| {
            is_loopback(&proxy.host) && ports.contains(&Some(Value::Int(proxy.port.into())))
        }),
        Value::Bool(_) | Value::Int(_) | Value::List(_) | Value::Map(_) => false,
    };
    for name in ["upstream.proxy", "upstream.http_proxy"] {
        let Some(layers) = merged.get_mut(name) else { continue };
        while let Some((_, origin)) = layers.pop_if(|(url, _)| is_ours(url)) {
            let message = format!("{name} is this proxy itself");
            problems.push(Problem { origin, message });
        }
    }
}

fn unknown(name: &str) -> String {
    let near = nearest(name, KEYS.iter().map(|k| k.name));
    let near = near.map(|near| format!(" (did you mean {near}?)"));
    format!("unknown key {name}{}", near.unwrap_or_default())
}

/// The one of these that may have been meant.
pub(super) fn nearest<'a>(name: &str, of: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (far, near) = of.map(|known| (distance(known, name), known)).min()?;
    (far <= 3).then_some(near)
}

/// Levenshtein distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn typed(merged: &Merged) -> Config {
    let value = |name: &str| topmost(merged, name).map(|(v, _)| v);
    let int = |name: &str| match value(name) {
        Some(Value::Int(n)) => *n,
        Some(Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_)) | None => 0,
    };
    let text = |name: &str| match value(name) {
        Some(Value::Text(s)) => s.clone(),
        Some(Value::Bool(_) | Value::Int(_) | Value::List(_) | Value::Map(_)) | None => {
            String::new()
        }
    };
    let list = |name: &str| match value(name) {
        Some(Value::List(items)) => items.clone(),
        Some(Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::Map(_)) | None => Vec::new(),
    };
    let mut connect: Vec<ConnectRule> = match value("upstream.connect") {
        Some(Value::Map(map)) => map.iter().filter_map(|(k, v)| ConnectRule::parse(k, v)).collect(),
        Some(Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::List(_)) | None => Vec::new(),
    };
    connect.sort_by_key(|r| r.host.is_none());
    // It is said of the proxy of the same layer: one from the environment or a flag was chosen.
    let layer = |name: &str| topmost(merged, name).map(|(_, o)| std::mem::discriminant(o));
    let from_system = text("upstream.proxy_from") == FROM_SYSTEM
        && layer("upstream.proxy_from") == layer("upstream.proxy");
    let proxy = UpstreamProxy::parse(&text("upstream.proxy"))
        .map(|proxy| UpstreamProxy { from_system, ..proxy });
    let http_proxy = match &*text("upstream.http_proxy") {
        "" => proxy.clone(),
        url if url.eq_ignore_ascii_case(DIRECT) => None,
        url => UpstreamProxy::parse(url),
    };
    let places =
        |name: &str| list(name).iter().filter_map(|p| PlacePattern::parse(p)).collect::<Vec<_>>();
    let port = |name| u16::try_from(int(name)).unwrap_or_default();
    Config {
        edge: Edge { port: port("edge.port") },
        daemon: Daemon {
            api_port: port("daemon.api_port"),
            edge_health_ttl: Duration::from_millis(int("daemon.edge_health_ttl_ms").unsigned_abs()),
        },
        meter: Meter {
            hosts: list("meter.hosts")
                .iter()
                .chain(&list("meter.extra_hosts"))
                .flat_map(|h| super::regions::expand(h))
                .filter_map(|h| HostPattern::parse(&h))
                .collect(),
            plain: places("meter.plain_hosts"),
            local: places("meter.local_hosts"),
        },
        upstream: Upstream {
            proxy,
            http_proxy,
            http_apart: !text("upstream.http_proxy").is_empty(),
            no_proxy: NoProxy::new(list("upstream.no_proxy")),
            extra_ca_file: Some(text("upstream.extra_ca_file"))
                .filter(|p| !p.is_empty())
                .map(PathBuf::from),
            connect,
            own: OwnPorts { edge: port("edge.port"), api: port("daemon.api_port") },
        },
        bodies: Bodies {
            enabled: value("bodies.enabled") == Some(&Value::Bool(true)),
            body_bytes: usize::try_from(int("bodies.max_body_kb") << 10).unwrap_or_default(),
            total_bytes: int("bodies.max_total_mb").unsigned_abs() << 20,
            retention_days: u32::try_from(int("bodies.retention_days")).unwrap_or_default(),
        },
        budgets: Budgets {
            desktop: value("budgets.desktop") == Some(&Value::Bool(true)),
            webhook: Webhook::parse(&text("budgets.webhook")),
        },
        log: Log { level: text("log.level").parse().unwrap_or(slog::Level::Info) },
    }
}

#[cfg(test)]
mod tests;
