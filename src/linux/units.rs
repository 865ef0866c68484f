//! The unit files, as text. What is in them and what is left out on purpose: docs/linux.md.

use std::path::Path;

use crate::home::Home;
use crate::platform::{Installation, Service};

pub const SOCKET: &str = "halton-meter-edge.socket";
pub const EDGE: &str = "halton-meter-edge.service";
pub const DAEMON: &str = "halton-meter.service";
pub const WATCHDOG: &str = "halton-meter-watchdog.service";

/// In the order of starting.
pub const ALL: [&str; 4] = [SOCKET, EDGE, DAEMON, WATCHDOG];

/// Variables that are for the user's tools; `environment.d` may hold them.
const NOT_FOR_US: &str = "HTTPS_PROXY https_proxy HTTP_PROXY http_proxy ALL_PROXY all_proxy";

/// The units of a service: the first one is what runs.
#[must_use]
pub fn of(service: Service) -> &'static [&'static str] {
    match service {
        Service::Edge => &[EDGE, SOCKET],
        Service::Daemon => &[DAEMON],
        Service::Watchdog => &[WATCHDOG],
    }
}

/// All of them, by name. `None`: a path can't be written down in a unit.
#[must_use]
pub fn render(wanted: &Installation) -> Option<[(&'static str, String); 4]> {
    let texts = [socket(wanted)?, edge(wanted)?, daemon(wanted)?, watchdog(wanted)?];
    let mut texts = texts.into_iter();
    let units = ALL.map(|name| (name, texts.next().unwrap_or_default()));
    Some(units)
}

/// The program that a unit of ours starts.
#[must_use]
pub fn program(unit: &str) -> Option<String> {
    let quoted = unit.lines().find_map(|l| l.strip_prefix("ExecStart=\""))?;
    let mut program = String::new();
    let mut rest = quoted.chars();
    loop {
        match rest.next()? {
            '"' => return Some(program),
            '\\' => program.push(rest.next()?),
            // `%%`
            '%' => program.push(rest.next()?),
            other => program.push(other),
        }
    }
}

/// The address that a socket unit of ours listens on.
#[must_use]
pub fn listens(unit: &str) -> Option<&str> {
    unit.lines().find_map(|l| l.strip_prefix("ListenStream="))
}

fn socket(wanted: &Installation) -> Option<String> {
    Some(format!(
        "[Unit]\n\
         Description=Halton Meter: the port that tools connect to\n\
         {}\
         # Each start of the service tries this one too: five tries in 10 s, while another program has\n\
         # the port, would be its last.\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Socket]\n\
         ListenStream={}\n\
         Backlog=1024\n\
         FileDescriptorName=proxy\n\
         # Too many starts close the port for good. No crashing program starts so often: only one that is\n\
         # not there, and then nobody must wait.\n\
         TriggerLimitIntervalSec=2s\n\
         TriggerLimitBurst=1000\n\
         \n\
         [Install]\n\
         WantedBy=sockets.target\n",
        there(wanted)?,
        wanted.edge
    ))
}

/// `203/EXEC`: the program is gone. systemd 257 would try again for ever (once restarting, it looks at no
/// condition any more), and its socket would let everybody in meanwhile. What starts it next asks again.
const NOT_WITHOUT_IT: &str = "# Without its program it fails, until something starts it.\n\
    RestartPreventExitStatus=203\n";

/// A port that nobody can serve is closed: a client that is refused fails at once, one that is let in
/// hangs.
fn there(wanted: &Installation) -> Option<String> {
    let program = escaped(&wanted.program)?;
    Some(format!("# Without its program it is not there.\nConditionFileIsExecutable={program}\n"))
}

fn edge(wanted: &Installation) -> Option<String> {
    Some(format!(
        "[Unit]\n\
         Description=Halton Meter: edge\n\
         # Not `Requires`: where another program has the port the socket fails for good. This service waits\n\
         # for the port, and starts it again.\n\
         Wants={SOCKET}\n\
         After={SOCKET}\n\
         {}\
         # It never gives up: a failed service would close its socket.\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=exec\n\
         # Else systemd makes the socket blocking at each start, for an edge that lives and shares it too.\n\
         NonBlocking=yes\n\
         ExecStart={} supervise --edge-only\n\
         {}\
         Restart=always\n\
         RestartSec=100ms\n\
         {NOT_WITHOUT_IT}\
         # The root alone is told to end, and ends the edge. If it crashes the edge goes on, with its\n\
         # tunnels, for the next root to adopt.\n\
         KillMode=process\n\
         TimeoutStopSec=45\n\
         # The root restarts an edge that was killed for its memory.\n\
         OOMPolicy=continue\n\
         {}\
         \n\
         [Install]\n\
         WantedBy=default.target\n",
        there(wanted)?,
        quoted(&wanted.program)?,
        environment(wanted)?,
        hardening(),
    ))
}

fn daemon(wanted: &Installation) -> Option<String> {
    // A drain takes 25 s at most.
    metering(wanted, "daemon", "Halton Meter: daemon", 30)
}

fn watchdog(wanted: &Installation) -> Option<String> {
    metering(wanted, "watchdog", "Halton Meter: watchdog", 10)
}

fn metering(wanted: &Installation, process: &str, what: &str, stop: u32) -> Option<String> {
    Some(format!(
        "[Unit]\n\
         Description={what}\n\
         After={EDGE}\n\
         {}\
         # After `halton-meter stop` it stays down.\n\
         ConditionPathExists=!{}\n\
         # Once a second at most, and for ever.\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=exec\n\
         ExecStart={} {process} --service\n\
         {}\
         Restart=always\n\
         RestartSec=1s\n\
         {NOT_WITHOUT_IT}\
         TimeoutStopSec={stop}\n\
         KillMode=mixed\n\
         {}\
         \n\
         [Install]\n\
         WantedBy=default.target\n",
        there(wanted)?,
        escaped(&stopped(&wanted.home))?,
        quoted(&wanted.program)?,
        environment(wanted)?,
        hardening(),
    ))
}

fn stopped(home: &Home) -> std::path::PathBuf {
    home.user_stopped()
}

fn environment(wanted: &Installation) -> Option<String> {
    let mut lines = String::new();
    for (name, value) in &wanted.environment {
        lines
            .push_str(&format!("Environment={}\n", quoted(Path::new(&format!("{name}={value}")))?));
    }
    lines.push_str(&format!("UnsetEnvironment={NOT_FOR_US}\n"));
    Some(lines)
}

/// Only what needs no namespace of its own. Namespaces would need a user namespace here, which some
/// systems refuse (and the service would not start), and in which `/proc` no longer tells whose a
/// connection is.
fn hardening() -> &'static str {
    "UMask=0077\n\
     NoNewPrivileges=yes\n\
     LockPersonality=yes\n\
     MemoryDenyWriteExecute=yes\n\
     RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n\
     RestrictNamespaces=yes\n\
     RestrictRealtime=yes\n\
     RestrictSUIDSGID=yes\n\
     SystemCallArchitectures=native\n"
}

/// One word of a command line or an assignment.
fn quoted(text: &Path) -> Option<String> {
    let text = escaped(text)?.replace('\\', r"\\").replace('"', "\\\"");
    Some(format!("\"{text}\""))
}

/// Without specifiers. `None`: it would end the line, or be no text.
fn escaped(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    (!text.chars().any(char::is_control)).then(|| text.replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::platform::User;

    fn wanted(program: &str, home: &str) -> Installation {
        let var = (crate::home::HOME_VAR.to_owned(), home.to_owned());
        Installation {
            program: program.into(),
            home: Home::at(home),
            environment: BTreeMap::from([var]),
            edge: ([127, 0, 0, 1], 8081).into(),
            user: User { uid: 1000, home: "/home/u".into(), config: "/home/u/.config".into() },
        }
    }

    #[test]
    fn the_units() {
        let mut plain = wanted("/usr/local/bin/halton-meter", "/home/u/.halton-meter");
        plain.environment.clear();
        let units = render(&plain).unwrap();
        let all: Vec<_> = units.iter().map(|(name, text)| format!("# {name}\n{text}")).collect();
        insta::assert_snapshot!("units", all.join("\n"));
    }

    /// systemd 257 would try again for ever, and the port would hang meanwhile.
    #[test]
    fn without_the_program_no_service_tries_again() {
        for (name, text) in render(&wanted("/p", "/h")).unwrap() {
            let gives_up = text.contains("\nRestartPreventExitStatus=203\n");
            assert_eq!(gives_up, name != SOCKET, "{name}");
        }
    }

    #[test]
    fn a_path_is_a_path_whatever_is_in_it() {
        let odd = r#"/opt/100% "my" \o/ $HOME/halton-meter"#;
        let units = render(&wanted(odd, "/home/50% off/h")).unwrap();
        for (name, text) in &units {
            let path = (*name != SOCKET).then(|| odd.to_owned());
            assert_eq!(program(text), path, "{name}");
        }
        let [_, edge, daemon, _] = units.map(|(_, text)| text);
        assert!(
            edge.contains(r#"ExecStart="/opt/100%% \"my\" \\o/ $HOME/halton-meter" supervise"#)
        );
        assert!(edge.contains("Environment=\"HALTON_METER_HOME=/home/50%% off/h\"\n"));
        assert!(daemon.contains("ConditionPathExists=!/home/50%% off/h/user-stopped\n"));
        assert_eq!(render(&wanted("/a\nb", "/h")), None);
        assert_eq!(render(&wanted("/a", "/h\nx")), None);
    }

    #[test]
    fn nothing_in_them_needs_a_namespace() {
        // Each of these implies PrivateUsers= in a user's manager.
        let namespaces =
            ["Private", "Protect", "ReadOnly", "ReadWrite", "Inaccessible", "Bind", "Temp"];
        for (name, text) in render(&wanted("/p", "/h")).unwrap() {
            for line in text.lines() {
                assert!(!namespaces.iter().any(|n| line.starts_with(n)), "{name}: {line}");
            }
        }
    }
}
