//! `systemd --user` keeps our processes: which steps bring its units to what is wanted.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use super::systemctl::{self, Shown};
use super::units::{self, ALL, EDGE, SOCKET};
use crate::platform::{Installation, Service, ServiceManager, ServiceState, User};
use crate::setup::{self, Call, Os, Said, Step, StepError};

/// The user's own systemd.
#[derive(Clone, Debug, Default)]
pub struct Systemd {
    /// Where programs are looked for; `None`: by the search path.
    path: Option<OsString>,
}

/// A unit as it is found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Found {
    /// What its file holds.
    file: Option<String>,
    shown: Shown,
}

type AllFound = BTreeMap<&'static str, Found>;

impl Systemd {
    pub(super) fn ask(&self, call: &Call) -> Result<Said, StepError> {
        setup::call(&mut Os::asking(self.path.as_ref()), call)
    }

    fn find(&self, user: &User, unit: &str) -> Result<Found, StepError> {
        let shown = systemctl::read_show(&self.ask(&systemctl::show(unit))?.out);
        let path = file(user, unit);
        let text = match fs::read(&path) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(StepError::Write { path, source }),
        };
        Ok(Found { file: text, shown })
    }

    fn find_all(&self, user: &User) -> Result<AllFound, StepError> {
        ALL.into_iter().map(|unit| Ok((unit, self.find(user, unit)?))).collect()
    }
}

/// Where the unit's file belongs.
fn file(user: &User, unit: &str) -> PathBuf {
    user.config.join("systemd/user").join(unit)
}

/// The same until the session's end: what the manager finds here is gone with it.
fn runtime_file(user: &User, unit: &str) -> PathBuf {
    let run = std::env::var_os("XDG_RUNTIME_DIR").filter(|v| !v.is_empty());
    let run = run.map_or_else(|| format!("/run/user/{}", user.uid).into(), PathBuf::from);
    run.join("systemd/user").join(unit)
}

fn any_file(user: &User) -> bool {
    ALL.into_iter().any(|unit| file(user, unit).exists() || runtime_file(user, unit).exists())
}

impl ServiceManager for Systemd {
    fn name(&self) -> &'static str {
        "systemd"
    }

    fn missing(&self) -> Option<String> {
        match self.ask(&systemctl::environment()) {
            Ok(_) => None,
            Err(StepError::Spawn { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Some("this machine has no systemd".to_owned())
            }
            Err(e) => Some(format!(
                "no systemd of yours answers here (a login at the screen or by ssh has one): {e}"
            )),
        }
    }

    fn state(&self, user: &User, service: Service) -> Result<ServiceState, StepError> {
        let units = units::of(service);
        let found =
            units.iter().map(|unit| self.find(user, unit)).collect::<Result<Vec<_>, _>>()?;
        let shown = found.first().map(|f| f.shown.clone()).unwrap_or_default();
        let program = found.iter().find_map(|f| units::program(f.file.as_deref()?));
        Ok(ServiceState {
            program: program.map(PathBuf::from),
            known_by: None,
            enabled: found.iter().all(|f| f.shown.loaded && f.shown.enabled),
            last_exit: shown.last_exit.filter(|_| shown.pid.is_none()),
            pid: shown.pid,
            refused: false,
        })
    }

    fn install(&self, wanted: &Installation) -> Result<Vec<Step>, StepError> {
        let texts = units::render(wanted)
            .ok_or_else(|| StepError::NotText { path: wanted.program.clone() })?;
        Ok(install(wanted, &texts, &self.find_all(&wanted.user)?))
    }

    fn uninstall(&self, user: &User, keep_edge: bool) -> Result<Vec<Step>, StepError> {
        match self.find_all(user) {
            Ok(found) => Ok(uninstall(user, &found, keep_edge)),
            // Nobody can be asked here (a container, a login by `su`), nor was anybody ever told.
            Err(_) if !any_file(user) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    fn start(&self, _user: &User, services: &[Service]) -> Vec<Step> {
        vec![Step::Run(systemctl::start(&all_of(services)))]
    }

    fn stop(&self, _user: &User, services: &[Service]) -> Vec<Step> {
        vec![Step::Run(systemctl::stop(&all_of(services)))]
    }

    fn restart(&self, _user: &User, services: &[Service]) -> Vec<Step> {
        // Never the socket: it would let go of the port.
        let units: Vec<_> =
            services.iter().filter_map(|s| units::of(*s).first().copied()).collect();
        vec![Step::Run(systemctl::restart(&units))]
    }

    fn advice(&self, user: &User) -> Vec<String> {
        let uid = user.uid.to_string();
        let call = Call::new("loginctl", ["show-user", uid.as_str(), "--property=Linger"]);
        let lingers = self.ask(&call).is_ok_and(|said| said.out.trim() == "Linger=yes");
        let advice = "the services run from your first login to your last logout; `loginctl enable-linger` \
            makes them run from boot on, for jobs by cron and the like";
        if lingers { Vec::new() } else { vec![advice.to_owned()] }
    }
}

fn all_of(services: &[Service]) -> Vec<&'static str> {
    services.iter().flat_map(|s| units::of(*s)).copied().collect()
}

fn install(wanted: &Installation, texts: &[(&'static str, String)], found: &AllFound) -> Vec<Step> {
    let is = |unit: &str| found.get(unit).cloned().unwrap_or_default();
    let changed: Vec<_> =
        texts.iter().filter(|(unit, text)| is(unit).file.as_deref() != Some(text)).collect();
    let mut steps = Vec::new();
    if !changed.is_empty() {
        // Taken back last: then the manager reads again what was there before.
        steps.push(Step::Run(systemctl::reload().undo([systemctl::reload()])));
        for (unit, text) in &changed {
            steps.push(Step::write(file(&wanted.user, unit), text.as_str(), 0o600));
        }
    }
    if !changed.is_empty() || found.values().any(|f| f.shown.stale) {
        steps.push(Step::Run(systemctl::reload()));
    }
    let differs = |unit: &str| changed.iter().any(|(name, _)| *name == unit);
    let old = is(SOCKET).file;
    let new = texts.iter().find(|(unit, _)| *unit == SOCKET).map(|(_, text)| text);
    let port = |text: Option<&String>| text.and_then(|t| units::listens(t)).map(str::to_owned);
    // Where the socket could not be had, the service has the port, or waits for it.
    let serves = is(EDGE).shown.active;
    let moved = (serves || is(SOCKET).shown.active) && port(old.as_ref()) != port(new);
    if moved {
        // Another port: both let go of the old one.
        let pair = [EDGE, SOCKET];
        steps.push(Step::Run(systemctl::stop(&pair).undo([systemctl::start(&pair)])));
    }
    let disabled: Vec<_> = ALL.into_iter().filter(|unit| !is(unit).shown.enabled).collect();
    if !disabled.is_empty() {
        let call = systemctl::enable(&disabled).undo([systemctl::disable(&disabled)]);
        steps.push(Step::Run(call));
    }
    // Who stopped metering has it stopped; the condition in the units says the same.
    let stopped = wanted.home.user_stopped().exists();
    let down: Vec<_> = ALL
        .into_iter()
        .filter(|unit| {
            let edge = [SOCKET, EDGE].contains(unit);
            let active = is(unit).shown.active || (*unit == SOCKET && serves);
            let runs = active && !(edge && moved);
            !runs && (edge || !stopped)
        })
        .collect();
    if !down.is_empty() {
        steps.push(Step::Run(systemctl::start(&down).undo([systemctl::stop(&down)])));
    }
    // The edge is not restarted, its tunnels would end: `upgrade` changes it in place.
    let old: Vec<_> = units_of_metering()
        .filter(|unit| differs(unit) && is(unit).shown.active && !down.contains(unit))
        .collect();
    if !old.is_empty() {
        steps.push(Step::Run(systemctl::try_restart(&old)));
    }
    steps
}

fn uninstall(user: &User, found: &AllFound, keep_edge: bool) -> Vec<Step> {
    let there = |unit: &&str| {
        found.get(unit).is_some_and(|f| f.file.is_some() || f.shown.active || f.shown.enabled)
    };
    let (edge, metering): (Vec<_>, Vec<_>) =
        ALL.into_iter().rev().filter(there).partition(|unit| [SOCKET, EDGE].contains(unit));
    if edge.is_empty() && metering.is_empty() {
        return Vec::new();
    }
    let mut steps = Vec::new();
    let mut out = |units: &[&'static str], end: bool| {
        if units.is_empty() {
            return;
        }
        let of = |wanted: fn(&Shown) -> bool| {
            let is = |u: &&&str| found.get(**u).is_some_and(|f| wanted(&f.shown));
            units.iter().filter(is).copied().collect::<Vec<_>>()
        };
        let (enabled, active) = (of(|s| s.enabled), of(|s| s.active));
        if end && !active.is_empty() {
            steps.push(Step::Run(systemctl::stop(&active).undo([systemctl::start(&active)])));
        }
        if !enabled.is_empty() {
            let call = systemctl::disable(&enabled).undo([systemctl::enable(&enabled)]);
            steps.push(Step::Run(call));
        }
    };
    out(&metering, true);
    out(&edge, !keep_edge);
    let mut reload = Vec::new();
    for unit in edge.iter().chain(&metering) {
        if let Some(text) = found.get(unit).and_then(|f| f.file.as_ref()) {
            reload.push(Step::remove(file(user, unit)));
            if keep_edge && edge.contains(unit) {
                // The manager goes on to know it, for as long as this boot lasts.
                reload.push(Step::write(runtime_file(user, unit), text.as_str(), 0o600));
            }
        }
    }
    if !keep_edge {
        // What an earlier `--graceful` left.
        let left = edge.iter().map(|unit| runtime_file(user, unit)).filter(|path| path.exists());
        reload.extend(left.map(Step::remove));
    }
    if !reload.is_empty() {
        steps.push(Step::Run(systemctl::reload().undo([systemctl::reload()])));
        steps.extend(reload);
        steps.push(Step::Run(systemctl::reload()));
    }
    steps
}

fn units_of_metering() -> impl Iterator<Item = &'static str> {
    Service::METERING.into_iter().flat_map(units::of).copied()
}

#[cfg(test)]
#[path = "systemd_tests.rs"]
mod tests;
