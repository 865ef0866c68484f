//! The four layers, merged; each value remembers where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::hosts::{ConnectRule, HostPattern, PlacePattern, UpstreamProxy};
use super::keys::{FROM_SYSTEM, KEYS, Key, Value};
use super::no_proxy::NoProxy;
use super::{Budgets, Config, DEFAULTS, Daemon, Edge, Log, Meter, Upstream};
use crate::meter::bodies::Wanted;
use crate::meter::budget::webhook::Hook;

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
}

/// Reads the file (absent = no file layer), this process's environment, and `flags`
/// (`section.key=value`).
#[must_use]
pub fn load(file: &Path, flags: &[String]) -> Loaded {
    let mut problems = Vec::new();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => Some(text),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
        Err(e) => {
            problems.push(Problem {
                origin: Origin::File { path: file.to_path_buf(), line: 0 },
                message: format!("cannot be read: {e}"),
            });
            None
        }
    };
    let mut loaded =
        load_from(text.as_deref().map(|t| (file, t)), |v| std::env::var(v).ok(), flags);
    problems.append(&mut loaded.problems);
    Loaded { problems, ..loaded }
}

/// The same from given inputs: pure.
#[must_use]
pub fn load_from(
    file: Option<(&Path, &str)>,
    env: impl Fn(&str) -> Option<String>,
    flags: &[String],
) -> Loaded {
    let mut merged: BTreeMap<&'static str, (Value, Origin)> = BTreeMap::new();
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
                key.accept_text(&text),
                Origin::Environment { variable },
                &mut merged,
                &mut problems,
            );
        }
    }
    for flag in flags {
        match flag.split_once('=').map(|(name, text)| (name, Key::find(name.trim()), text)) {
            Some((_, Some(key), text)) => {
                set(key, key.accept_text(text), Origin::Flag, &mut merged, &mut problems);
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
    if let (Some((Value::Int(edge), _)), Some((Value::Int(api), origin))) =
        (merged.get("edge.port"), merged.get("daemon.api_port"))
        && edge == api
    {
        problems.push(Problem {
            origin: origin.clone(),
            message: "daemon.api_port and edge.port are the same port".to_owned(),
        });
    }

    let mut config = typed(&merged);
    if config.upstream.proxy.as_ref().is_some_and(|p| is_ourselves(p, &config)) {
        config.upstream.proxy = None;
        let origin = merged.get("upstream.proxy").map_or(Origin::Default, |(_, o)| o.clone());
        problems.push(Problem {
            origin,
            message: "upstream.proxy is this proxy itself; connecting directly".to_owned(),
        });
    }
    let values = KEYS
        .iter()
        .filter_map(|k| merged.remove(k.name).map(|(value, origin)| (k, value, origin)))
        .collect();
    Loaded { config, values, problems }
}

fn read_toml(
    text: &str,
    at: impl Fn(usize) -> Origin,
    merged: &mut BTreeMap<&'static str, (Value, Origin)>,
    problems: &mut Vec<Problem>,
) {
    let line = |offset: usize| {
        text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(e) => {
            let offset = e.span().map_or(0, |s| s.start);
            problems.push(Problem {
                origin: at(line(offset)),
                message: format!("not TOML: {}", e.message()),
            });
            return;
        }
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
                    let parsed = to_value(value.get_ref()).and_then(|v| key.accept(&v));
                    set(key, parsed, origin, merged, problems);
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
    value: Option<Value>,
    origin: Origin,
    merged: &mut BTreeMap<&'static str, (Value, Origin)>,
    problems: &mut Vec<Problem>,
) {
    match value {
        Some(value) => {
            merged.insert(key.name, (value, origin));
        }
        None => problems
            .push(Problem { origin, message: format!("{}: expected {}", key.name, key.expected) }),
    }
}

fn is_ourselves(proxy: &UpstreamProxy, config: &Config) -> bool {
    let local = proxy.host == "localhost"
        || proxy.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    local && [config.edge.port, config.daemon.api_port].contains(&proxy.port)
}

fn unknown(name: &str) -> String {
    let near = KEYS
        .iter()
        .map(|k| (distance(k.name, name), k.name))
        .min()
        .filter(|(d, _)| *d <= 3)
        .map(|(_, k)| format!(" (did you mean {k}?)"));
    format!("unknown key {name}{}", near.unwrap_or_default())
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

fn typed(merged: &BTreeMap<&'static str, (Value, Origin)>) -> Config {
    let value = |name: &str| merged.get(name).map(|(v, _)| v);
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
    let layer = |name: &str| merged.get(name).map(|(_, origin)| std::mem::discriminant(origin));
    let from_system = text("upstream.proxy_from") == FROM_SYSTEM
        && layer("upstream.proxy_from") == layer("upstream.proxy");
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
            proxy: UpstreamProxy::parse(&text("upstream.proxy"))
                .map(|proxy| UpstreamProxy { from_system, ..proxy }),
            no_proxy: NoProxy::new(list("upstream.no_proxy")),
            extra_ca_file: Some(text("upstream.extra_ca_file"))
                .filter(|p| !p.is_empty())
                .map(PathBuf::from),
            connect,
        },
        bodies: Wanted {
            enabled: value("bodies.enabled") == Some(&Value::Bool(true)),
            body_bytes: usize::try_from(int("bodies.max_body_kb") << 10).unwrap_or_default(),
            total_bytes: int("bodies.max_total_mb").unsigned_abs() << 20,
            retention_days: u32::try_from(int("bodies.retention_days")).unwrap_or_default(),
        },
        budgets: Budgets {
            desktop: value("budgets.desktop") == Some(&Value::Bool(true)),
            webhook: Hook::parse(&text("budgets.webhook")),
        },
        log: Log { level: text("log.level").parse().unwrap_or(slog::Level::Info) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(text: &str) -> Loaded {
        load_from(Some((Path::new("c.toml"), text)), |_| None, &[])
    }

    #[test]
    fn the_documented_file_is_the_default_layer() {
        let loaded = load_from(None, |_| None, &[]);
        assert_eq!(loaded.problems, []);
        assert_eq!(loaded.values.len(), KEYS.len());
        assert_eq!(loaded.config.edge.port, 8081);
        assert!(loaded.config.meter.is_metered("api.anthropic.com", 443));
        assert!(!loaded.config.meter.is_metered("example.com", 443));
        for cloud in [
            "bedrock-runtime.eu-west-1.amazonaws.com",
            "us-east5-aiplatform.googleapis.com",
            "corp.openai.azure.com",
            "api.individual.githubcopilot.com",
            "aws-external-anthropic.us-east-1.api.aws",
            "claude.googleapis.com",
            "bedrock-runtime-fips.us-gov-west-1.amazonaws.com",
            "corp.cognitiveservices.azure.com",
            "api.eu.mistral.ai",
        ] {
            assert!(loaded.config.meter.is_metered(cloud, 443), "{cloud}");
        }
        assert!(!loaded.config.meter.is_metered("s3.eu-west-1.amazonaws.com", 443));
    }

    #[test]
    fn precedence_and_origin() {
        let file = "[edge]\nport = 1001\n[daemon]\napi_port = 1002\n[log]\nlevel = \"debug\"\n";
        let env = |v: &str| match v {
            "HALTON_METER_DAEMON_API_PORT" => Some("2002".to_owned()),
            "HALTON_METER_LOG_LEVEL" => Some("error".to_owned()),
            _ => None,
        };
        let flags = ["log.level=trace".to_owned()];
        let loaded = load_from(Some((Path::new("c.toml"), file)), env, &flags);
        assert_eq!(loaded.problems, []);
        let origins: BTreeMap<_, _> =
            loaded.values.iter().map(|(k, _, o)| (k.name, o.to_string())).collect();
        assert_eq!(origins["edge.port"], "c.toml:2");
        assert_eq!(origins["daemon.api_port"], "$HALTON_METER_DAEMON_API_PORT");
        assert_eq!(origins["log.level"], "flag");
        assert_eq!(origins["upstream.proxy"], "default");
        assert_eq!(loaded.config.edge.port, 1001);
        assert_eq!(loaded.config.daemon.api_port, 2002);
        assert_eq!(loaded.config.log.level, slog::Level::Trace);
    }

    #[test]
    fn wrong_values_name_their_line_and_leave_the_default() {
        let loaded = from_file(
            "[edge]\nport = 99999\nprot = 1\n[daemon]\n\nedge_health_ttl_ms = \"x\"\n[nope]\na = 1\n",
        );
        let text: Vec<_> = loaded.problems.iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 4, "{text:?}");
        assert!(text.contains(&"c.toml:2: edge.port: expected a port from 1 to 65535".to_owned()));
        assert!(
            text.contains(&"c.toml:3: unknown key edge.prot (did you mean edge.port?)".to_owned())
        );
        assert!(text.contains(
            &"c.toml:6: daemon.edge_health_ttl_ms: expected a number from 50 to 60000".to_owned()
        ));
        assert!(text.iter().any(|t| t.starts_with("c.toml:8: unknown key nope.a")));
        assert_eq!(loaded.config.edge.port, 8081);
    }

    #[test]
    fn a_path_is_absolute_or_made_so_where_its_user_works() {
        let of = |path: &str| from_file(&format!("[upstream]\nextra_ca_file = {path:?}\n"));
        for bad in ["corp.pem", "./corp.pem", "~/corp.pem"] {
            let loaded = of(bad);
            let said = "c.toml:2: upstream.extra_ca_file: expected the absolute path of a PEM file, or \"\"";
            assert_eq!(loaded.problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [said]);
            assert_eq!(loaded.config.upstream.extra_ca_file, None);
        }
        assert_eq!(of("").problems, []);
        assert_eq!(of("/corp.pem").config.upstream.extra_ca_file, Some("/corp.pem".into()));

        let key = Key::find("upstream.extra_ca_file").unwrap();
        let here = std::env::current_dir().unwrap().join("corp.pem").display().to_string();
        assert_eq!(key.accept_here("corp.pem"), Some(Value::Text(here)));
        assert_eq!(key.accept_here(""), Some(Value::Text(String::new())));
        assert_eq!(key.accept_here("~/corp.pem"), None);
        let level = Key::find("log.level").unwrap();
        assert_eq!(level.accept_here("info"), Some(Value::Text("info".to_owned())));
    }

    #[test]
    fn broken_toml_names_its_line() {
        let loaded = from_file("[edge]\nport = \n");
        assert_eq!(loaded.problems.len(), 1);
        assert!(
            loaded.problems[0].to_string().starts_with("c.toml:2: not TOML"),
            "{:?}",
            loaded.problems
        );
        assert_eq!(loaded.config.edge.port, 8081);
    }

    #[test]
    fn equal_ports_are_a_problem() {
        assert_eq!(from_file("[edge]\nport = 8765\n").problems.len(), 1);
    }

    #[test]
    fn a_proxy_that_is_ourselves_is_refused() {
        let loaded = from_file("[upstream]\nproxy = \"http://localhost:8081\"\n");
        assert_eq!(loaded.problems.len(), 1);
        assert_eq!(loaded.config.upstream.proxy, None);
        assert_eq!(from_file("[upstream]\nproxy = \"http://localhost:3128\"\n").problems, []);
    }

    #[test]
    fn the_systems_proxy_is_told_from_a_chosen_one() {
        let of_system =
            |loaded: &Loaded| loaded.config.upstream.proxy.as_ref().map(|p| p.from_system);
        let file = "[upstream]\nproxy = \"http://a:1\"\nproxy_from = \"system\"\n";
        assert_eq!(of_system(&from_file(file)), Some(true));
        assert_eq!(of_system(&from_file("[upstream]\nproxy = \"http://a:1\"\n")), Some(false));
        let chosen = ["upstream.proxy=http://b:1".to_owned()];
        let loaded = load_from(Some((Path::new("c.toml"), file)), |_| None, &chosen);
        assert_eq!(of_system(&loaded), Some(false));
        assert_eq!(from_file("[upstream]\nproxy_from = \"me\"\n").problems.len(), 1);
    }

    #[test]
    fn exact_connect_rule_wins_over_the_star() {
        let loaded = from_file(
            "[upstream]\nconnect = { \"*:443\" = \"127.0.0.1:1\", \"z.org:443\" = \"127.0.0.1:2\" }\n",
        );
        assert_eq!(loaded.config.upstream.connect_override("z.org", 443).unwrap().port(), 2);
        assert_eq!(loaded.config.upstream.connect_override("y.org", 443).unwrap().port(), 1);
        assert_eq!(loaded.config.upstream.connect_override("y.org", 80), None);
    }
}
