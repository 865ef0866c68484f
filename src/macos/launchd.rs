//! launchd keeps our processes: which steps bring its agents to what is wanted.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::agents::{self, domain, exit_timeout, file, label, target};
use super::{launchctl, local_network, plist};
use crate::platform::{Installation, Service, ServiceManager, ServiceState, User};
use crate::setup::{self, Call, Os, Said, Step, StepError};

/// launchd, in the user's session at the screen.
#[derive(Clone, Debug, Default)]
pub struct Launchd {
    /// Where `launchctl` is looked for; `None`: by the search path.
    path: Option<OsString>,
}

/// An agent as it is found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Found {
    /// What its file holds.
    file: Option<String>,
    /// What launchd says of it, if it is loaded.
    loaded: Option<launchctl::Printed>,
    /// The program that launchd knows it by is there.
    program_there: bool,
    /// Somebody has switched it off.
    disabled: bool,
}

impl Launchd {
    #[cfg(test)]
    pub(super) fn with_path(path: OsString) -> Self {
        Self { path: Some(path) }
    }

    pub(super) fn ask(&self, call: &Call) -> Result<Said, StepError> {
        setup::call(&mut Os::asking(self.path.as_ref()), call)
    }

    fn find(&self, user: &User, label: &str) -> Result<Found, StepError> {
        let printed = self.ask(&launchctl::print(&target(user, label)))?;
        let disabled = self.ask(&launchctl::print_disabled(&domain(user)))?.out;
        let disabled = launchctl::read_disabled(&disabled).any(|l| l == label);
        let path = file(user, label);
        let text = match fs::read(&path) {
            // A binary one is not ours, so it differs from any that is.
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(StepError::Write { path, source }),
        };
        let loaded = (printed.code == 0).then(|| launchctl::read_print(&printed.out));
        let program = loaded.as_ref().and_then(|l| l.program.as_deref());
        let program_there = program.is_some_and(|program| Path::new(program).is_file());
        Ok(Found { file: text, loaded, program_there, disabled })
    }

    /// What makes the agent as wanted. Empty: it is.
    pub(super) fn install_agent(
        &self,
        user: &User,
        agent: &Agent<'_>,
    ) -> Result<Vec<Step>, StepError> {
        Ok(install(user, agent, &self.find(user, agent.label)?))
    }

    /// Empty: there is nothing of it. `keep`: what runs goes on until the session ends.
    pub(super) fn remove_agent(
        &self,
        user: &User,
        label: &str,
        exit_timeout: u32,
        keep: bool,
    ) -> Result<Vec<Step>, StepError> {
        Ok(remove(user, label, exit_timeout, keep, &self.find(user, label)?))
    }
}

/// An agent as wanted.
#[derive(Clone, Debug)]
pub(super) struct Agent<'a> {
    pub(super) label: &'a str,
    pub(super) program: &'a Path,
    pub(super) text: String,
    pub(super) exit_timeout: u32,
    /// launchd has its port open: out of launchd it is closed, and what goes through it ends.
    pub(super) holds_port: bool,
    /// It runs for as long as it is loaded.
    pub(super) lasts: bool,
}

impl ServiceManager for Launchd {
    fn name(&self) -> &'static str {
        "launchd"
    }

    fn missing(&self) -> Option<String> {
        let Some(user) = User::from_env() else { return Some("HOME is not set".to_owned()) };
        let domain = domain(&user);
        match self.ask(&launchctl::print(&domain)) {
            Ok(said) if said.code == 0 => None,
            Ok(_) => Some(format!(
                "launchd has no session of yours ({domain}): agents need a login at the screen, not by ssh"
            )),
            Err(e) => Some(e.to_string()),
        }
    }

    fn state(&self, user: &User, service: Service) -> Result<ServiceState, StepError> {
        let found = self.find(user, label(service))?;
        let arguments = found.file.as_deref().map(|t| plist::strings(t, "ProgramArguments"));
        let program = arguments.map(|a| a.into_iter().next().unwrap_or_default());
        // After `stop` it is not loaded, and the next login loads it.
        let enabled = program.is_some() && !found.disabled;
        let known_by = known_by(&found).map(PathBuf::from);
        let loaded = found.loaded.unwrap_or_default();
        Ok(ServiceState {
            known_by,
            program: program.map(PathBuf::from),
            enabled,
            last_exit: loaded.last_exit.filter(|_| loaded.pid.is_none()),
            pid: loaded.pid,
            refused: loaded.refused,
        })
    }

    fn install(&self, wanted: &Installation) -> Result<Vec<Step>, StepError> {
        let mut steps = Vec::new();
        for service in Service::ALL {
            let text = agents::service(wanted, service).as_ref().and_then(plist::render);
            let agent = Agent {
                label: label(service),
                program: &wanted.program,
                text: text.ok_or_else(|| not_text(wanted))?,
                exit_timeout: exit_timeout(service),
                holds_port: service == Service::Edge,
                lasts: true,
            };
            steps.extend(self.install_agent(&wanted.user, &agent)?);
        }
        Ok(steps)
    }

    fn uninstall(&self, user: &User, keep_edge: bool) -> Result<Vec<Step>, StepError> {
        let mut steps = Vec::new();
        for service in Service::ALL.into_iter().rev() {
            let keep = keep_edge && service == Service::Edge;
            steps.extend(self.remove_agent(user, label(service), exit_timeout(service), keep)?);
        }
        Ok(steps)
    }

    fn start(&self, user: &User, services: &[Service]) -> Vec<Step> {
        let start = |service: &Service| {
            let (label, patience) = (label(*service), exit_timeout(*service));
            let target = target(user, label);
            let printed = self.ask(&launchctl::print(&target)).ok().filter(|said| said.code == 0);
            match printed.map(|said| launchctl::read_print(&said.out)) {
                None => load(user, label, patience).to_vec(),
                Some(job) if job.refused => {
                    [&unload(user, label, patience)[..], &load(user, label, patience)].concat()
                }
                Some(_) => vec![Step::Run(launchctl::kickstart(&target))],
            }
        };
        services.iter().flat_map(start).collect()
    }

    fn stop(&self, user: &User, services: &[Service]) -> Vec<Step> {
        let services = services.iter().rev();
        services.flat_map(|s| unload(user, label(*s), exit_timeout(*s))).collect()
    }

    fn restart(&self, user: &User, services: &[Service]) -> Vec<Step> {
        let stop = self.stop(user, services);
        let load = services.iter().flat_map(|s| load(user, label(*s), exit_timeout(*s)));
        stop.into_iter().chain(load).collect()
    }

    fn advice(&self, user: &User) -> Vec<String> {
        let items = "macOS announces the new background items; System Settings > General > Login Items lists \
             them, and what is switched off there does not start";
        let edge = self.find(user, label(Service::Edge)).ok();
        let always = [items, local_network::ASKS].map(str::to_owned);
        always.into_iter().chain(edge.as_ref().and_then(waits)).collect()
    }
}

pub(super) fn not_text(wanted: &Installation) -> StepError {
    StepError::NotText { path: wanted.program.clone() }
}

/// The program that launchd would start, where the file names another one: that counts from the next login
/// on.
fn known_by(found: &Found) -> Option<&str> {
    let written = plist::strings(found.file.as_deref()?, "ProgramArguments").into_iter().next()?;
    found.loaded.as_ref()?.program.as_deref().filter(|known| *known != written)
}

/// What a running edge that was left alone needs until its file counts.
fn waits(edge: &Found) -> Option<String> {
    let known = known_by(edge)?;
    Some(format!(
        "the running edge goes on, and its connections with it; launchd knows it as {known} until your \
         next login: leave that program there until then (`halton-meter upgrade` changes what runs)"
    ))
}

/// What runs can serve on: the port and the home are as wanted, and it can be started again. What else
/// differs counts from the next login on.
fn serves_on(agent: &Agent<'_>, found: &Found) -> bool {
    let old = found.file.as_deref().unwrap_or_default();
    let same = |key| {
        let dict = plist::dict(old, key);
        dict.is_some() && dict == plist::dict(&agent.text, key)
    };
    let runs = found.loaded.as_ref().is_some_and(|loaded| loaded.pid.is_some());
    agent.holds_port
        && runs
        && found.program_there
        && ["Sockets", "EnvironmentVariables"].into_iter().all(same)
}

fn install(user: &User, agent: &Agent<'_>, found: &Found) -> Vec<Step> {
    let same_file = found.file.as_deref() == Some(agent.text.as_str());
    let same_program = |p: &launchctl::Printed| {
        p.program.as_deref().is_none_or(|program| Path::new(program) == agent.program)
    };
    let loaded = found.loaded.as_ref();
    let can_start = |p: &launchctl::Printed| same_program(p) && !p.refused;
    if same_file && !found.disabled && loaded.is_some_and(can_start) {
        return Vec::new();
    }
    let (target, path) = (target(user, agent.label), file(user, agent.label));
    let stays = serves_on(agent, found);
    let mut steps = Vec::new();
    if loaded.is_some() && !stays {
        steps.extend(replace(user, agent.label, agent.exit_timeout, found));
    }
    if !same_file {
        steps.push(Step::write(&path, agent.text.clone(), 0o644));
    }
    if found.disabled {
        steps.push(Step::Run(launchctl::enable(&target).undo([launchctl::disable(&target)])));
    }
    if stays {
        return steps;
    }
    let [enable, load, start] = load(user, agent.label, agent.exit_timeout);
    if !found.disabled {
        steps.push(enable);
    }
    steps.push(load);
    steps.extend(Some(start).filter(|_| agent.lasts));
    steps
}

fn remove(user: &User, label: &str, exit_timeout: u32, keep: bool, found: &Found) -> Vec<Step> {
    let mut steps = Vec::new();
    let path = file(user, label);
    if found.loaded.is_some() && !keep {
        steps.extend(replace(user, label, exit_timeout, found));
    }
    if found.file.is_some() {
        steps.push(Step::remove(path));
    }
    steps
}

fn load(user: &User, label: &str, exit_timeout: u32) -> [Step; 3] {
    let target = target(user, label);
    let load = launchctl::bootstrap(&domain(user), &file(user, label));
    let load = load.undo(out(&target, exit_timeout));
    [launchctl::enable(&target), load, launchctl::start_loaded(&target)].map(Step::Run)
}

/// Out, and when that is taken back in again, from the file that was there. Whether it is still in
/// then can't be told: so it goes out first.
fn replace(user: &User, label: &str, exit_timeout: u32, found: &Found) -> [Step; 2] {
    let [out, gone] = out(&target(user, label), exit_timeout);
    let back = [out.clone(), gone.clone(), launchctl::bootstrap(&domain(user), &file(user, label))];
    let undo = back.into_iter().filter(|_| found.file.is_some());
    [Step::Run(out.undo(undo)), Step::Run(gone)]
}

fn unload(user: &User, label: &str, exit_timeout: u32) -> [Step; 2] {
    out(&target(user, label), exit_timeout).map(Step::Run)
}

fn out(target: &str, exit_timeout: u32) -> [Call; 2] {
    [launchctl::bootout(target), launchctl::gone(target, exit_timeout)]
}

#[cfg(test)]
#[path = "launchd_tests.rs"]
mod tests;
