//! Our launchd agents: their labels, files and definitions. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::activate;
use super::plist::Value;
use crate::platform::{Installation, Service, User};

pub const USERENV: &str = "com.haltonlabs.meter.userenv";

/// What launchd knows the service by.
#[must_use]
pub fn label(service: Service) -> &'static str {
    match service {
        Service::Edge => "com.haltonlabs.meter.edge",
        Service::Daemon => "com.haltonlabs.meter",
        Service::Watchdog => "com.haltonlabs.meter.watchdog",
    }
}

/// The domain of the user's session at the screen: agents live in it.
#[must_use]
pub fn domain(user: &User) -> String {
    format!("gui/{}", user.uid)
}

#[must_use]
pub fn target(user: &User, label: &str) -> String {
    format!("{}/{label}", domain(user))
}

#[must_use]
pub fn file(user: &User, label: &str) -> PathBuf {
    user.home.join("Library/LaunchAgents").join(format!("{label}.plist"))
}

/// How long launchd lets it take to end, in seconds; then it is killed.
#[must_use]
pub fn exit_timeout(service: Service) -> u32 {
    match service {
        // The root gives an edge 35 s before it ends it the hard way, and must live till then, or one
        // that hangs would be left with the port. An edge takes 30 s of it for its open connections, at
        // logout too, if the programs that have them have not ended before.
        Service::Edge => 40,
        // The drain's 25 s and what comes after it (docs/supervision.md).
        Service::Daemon => 30,
        Service::Watchdog => 10,
    }
}

/// The definition. `None`: our program's path is no text.
///
/// None has a file for its output: the processes write logs of their own, and launchd does not start
/// an agent whose file it can't open.
#[must_use]
pub fn service(wanted: &Installation, service: Service) -> Option<Value> {
    let (arguments, restart): (&[&str], Vec<_>) = match service {
        Service::Edge => (&["supervise", "--edge-only"], edge(wanted)),
        Service::Daemon => (&["daemon", "--service"], metering()),
        Service::Watchdog => (&["watchdog", "--service"], metering()),
    };
    let mut pairs = head(label(service), &wanted.program, arguments)?;
    pairs.push(("EnvironmentVariables", map(&wanted.environment)));
    pairs.push(("ExitTimeOut", Value::Integer(exit_timeout(service))));
    pairs.extend(restart);
    // launchd's default is 256, and each connection takes two. More than this some kernels refuse.
    let files = Value::Dict(vec![("NumberOfFiles", Value::Integer(10_240))]);
    pairs.push(("SoftResourceLimits", files));
    // Anything else is slowed down while the user looks elsewhere.
    pairs.push(("ProcessType", "Interactive".into()));
    Some(Value::Dict(pairs))
}

/// Sets the session's variables at each login. By our own program: when that is gone, nothing points
/// programs at a port where nobody is.
#[must_use]
pub fn userenv(wanted: &Installation, vars: &BTreeMap<String, String>) -> Option<Value> {
    let mut arguments = vec!["userenv".to_owned()];
    arguments.extend(vars.iter().map(|(name, value)| format!("{name}={value}")));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut pairs = head(USERENV, &wanted.program, &arguments)?;
    pairs.push(("EnvironmentVariables", map(&wanted.environment)));
    Some(Value::Dict(pairs))
}

fn head(label: &str, program: &Path, arguments: &[&str]) -> Option<Vec<(&'static str, Value)>> {
    let words = [program.to_str()?].into_iter().chain(arguments.iter().copied());
    Some(vec![
        ("Label", label.into()),
        ("ProgramArguments", Value::Array(words.map(Value::from).collect())),
        ("RunAtLoad", Value::Bool(true)),
        // Nobody else's to read.
        ("Umask", Value::Integer(0o077)),
    ])
}

/// Always there; launchd holds its port.
fn edge(wanted: &Installation) -> Vec<(&'static str, Value)> {
    let socket = Value::Dict(vec![
        // Without both launchd would listen on every interface.
        ("SockNodeName", Value::String(wanted.edge.ip().to_string())),
        ("SockFamily", if wanted.edge.is_ipv4() { "IPv4" } else { "IPv6" }.into()),
        ("SockServiceName", Value::String(wanted.edge.port().to_string())),
        ("SockType", "stream".into()),
    ]);
    vec![
        ("KeepAlive", Value::Bool(true)),
        // 10 s is the default, counted from the last start. Connections queue meanwhile.
        ("ThrottleInterval", Value::Integer(1)),
        // A root that crashed leaves an edge with live connections: the next one adopts it.
        ("AbandonProcessGroup", Value::Bool(true)),
        ("Sockets", Value::Dict(vec![(activate::NAME, socket)])),
    ]
}

/// Started anew after a crash, every 10 s at most; one that ended well was told to.
fn metering() -> Vec<(&'static str, Value)> {
    vec![
        ("KeepAlive", Value::Dict(vec![("SuccessfulExit", Value::Bool(false))])),
        ("ThrottleInterval", Value::Integer(10)),
    ]
}

fn map(vars: &BTreeMap<String, String>) -> Value {
    Value::Map(vars.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect())
}

#[cfg(test)]
mod tests {
    use super::super::plist;
    use super::*;
    use crate::home::Home;

    fn wanted() -> Installation {
        Installation {
            program: "/Users/j doe/.cargo/bin/halton-meter".into(),
            home: Home::at("/Users/j doe/.halton-meter"),
            environment: BTreeMap::from([(
                "HALTON_METER_HOME".to_owned(),
                "/Volumes/a&b".to_owned(),
            )]),
            edge: ([127, 0, 0, 1], 8081).into(),
            user: User {
                uid: 501,
                home: "/Users/j doe".into(),
                config: "/Users/j doe/.config".into(),
            },
        }
    }

    #[test]
    fn definitions() {
        for s in Service::ALL {
            let text = plist::render(&service(&wanted(), s).unwrap()).unwrap();
            insta::assert_snapshot!(label(s), text);
            check(&text);
        }
        let vars = [("HTTPS_PROXY", "http://127.0.0.1:8081"), ("NO_PROXY", "localhost,<local>")];
        let vars = vars.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let text = plist::render(&userenv(&wanted(), &vars).unwrap()).unwrap();
        insta::assert_snapshot!(USERENV, text);
        check(&text);
        let user = wanted().user;
        assert_eq!(
            file(&user, label(Service::Daemon)).to_str().unwrap(),
            "/Users/j doe/Library/LaunchAgents/com.haltonlabs.meter.plist"
        );
        assert_eq!(target(&user, USERENV), "gui/501/com.haltonlabs.meter.userenv");
    }

    /// As `plutil -lint` and launchd would: a plist, of keys that there are, with their types.
    fn check(text: &str) {
        use std::io::Write;
        use std::process::{Command, Stdio};
        const SCRIPT: &str = r#"
import plistlib, sys
TYPES = {
    "Label": str, "ProgramArguments": [str], "RunAtLoad": bool, "KeepAlive": (bool, dict), "Umask": int,
    "EnvironmentVariables": dict, "ExitTimeOut": int, "ThrottleInterval": int, "ProcessType": str,
    "AbandonProcessGroup": bool, "Sockets": dict, "SoftResourceLimits": dict,
}
SOCKET = {"SockNodeName", "SockFamily", "SockServiceName", "SockType"}
p = plistlib.loads(sys.stdin.buffer.read())
for key, value in p.items():
    wanted = TYPES[key]
    items = value if isinstance(wanted, list) else [value]
    kind = wanted[0] if isinstance(wanted, list) else wanted
    assert all(isinstance(i, kind) for i in items), key
    assert kind is not int or not isinstance(value, bool), key
assert all(isinstance(v, str) for v in p.get("EnvironmentVariables", {}).values())
assert p.get("ProcessType", "Standard") in {"Standard", "Background", "Adaptive", "Interactive"}
keep = p.get("KeepAlive", False)
assert isinstance(keep, bool) or set(keep) <= {"SuccessfulExit", "Crashed", "PathState", "OtherJobEnabled"}
for s in p.get("Sockets", {}).values():
    assert set(s) == SOCKET and all(isinstance(v, str) for v in s.values())
"#;
        let mut python =
            Command::new("python3").args(["-c", SCRIPT]).stdin(Stdio::piped()).spawn().unwrap();
        python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(python.wait().unwrap().success(), "{text}");
    }
}
