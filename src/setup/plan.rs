//! What `init` and `uninstall` do, in which order. Pure: what was found comes in, steps come out.
//!
//! On the way in everything that leads to the edge comes after the edge; on the way out before it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::state::{Mode, SystemState};
use super::step::{Call, Check, Step};
use crate::home::Home;
use crate::platform::Installation;

/// For the edge's port to be open after its service was started.
const EDGE_PATIENCE: Duration = Duration::from_secs(15);

/// Steps that belong together, with what people are told of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Part {
    pub title: &'static str,
    pub steps: Vec<Step>,
}

/// What the platform plans for the wanted mode, or for the way out.
#[derive(Clone, Debug, Default)]
pub struct FromPlatform {
    pub services: Vec<Step>,
    pub session: Vec<Step>,
    pub proxy: Vec<Step>,
}

/// What is there of ours.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Sections in the start files of shells: all files that may hold one.
    pub sections: Vec<(PathBuf, Option<String>)>,
    pub state: Option<SystemState>,
    /// Processes of ours live that no service manager keeps.
    pub tree: bool,
    /// A file of the home is there with this content.
    pub files: Vec<(PathBuf, Vec<u8>)>,
}

impl Found {
    /// Looks at the sentinels.
    #[must_use]
    pub fn sentinels(home: &Home) -> Vec<(PathBuf, Vec<u8>)> {
        let names = [
            home.install_mode(),
            home.apps_managed(),
            home.proxy_managed(),
            home.system_state(),
            home.user_stopped(),
        ];
        names.into_iter().filter_map(|p| std::fs::read(&p).ok().map(|c| (p, c))).collect()
    }

    fn has(&self, path: &Path) -> bool {
        self.files.iter().any(|(p, _)| p == path)
    }

    /// Writes it if it is not so yet.
    fn put(&self, path: PathBuf, content: Vec<u8>) -> Option<Step> {
        let same = self.files.iter().any(|(p, c)| *p == path && *c == content);
        (!same).then(|| Step::write(path, content, 0o600))
    }

    fn gone(&self, path: PathBuf) -> Option<Step> {
        self.has(&path).then(|| Step::remove(path))
    }

    fn sections(&self, wanted: &[(PathBuf, String)]) -> Vec<Step> {
        let body_for = |path: &Path| wanted.iter().find(|(p, _)| p == path).map(|(_, b)| b.clone());
        let there = self.sections.iter().filter_map(|(path, now)| {
            let body = body_for(path);
            (*now != body).then(|| Step::Section { path: path.clone(), body })
        });
        let new = wanted.iter().filter(|(p, _)| !self.sections.iter().any(|(q, _)| p == q));
        let new =
            new.map(|(path, body)| Step::Section { path: path.clone(), body: Some(body.clone()) });
        there.chain(new).collect()
    }
}

/// `sections`: those that are to be, `state`: what is to be kept.
#[must_use]
pub fn init(
    installation: &Installation,
    mode: Mode,
    found: &Found,
    from: FromPlatform,
    sections: &[(PathBuf, String)],
    state: &SystemState,
    config: Option<Step>,
) -> Vec<Part> {
    let home = &installation.home;
    let mut services = Vec::new();
    if found.tree && !from.services.is_empty() {
        // One tree only: the port is given back to whoever had it if the services don't come up.
        let back = own(installation, &["start", "--quiet"]);
        services.push(Step::Run(own(installation, &["edge", "stop"]).undo([back])));
    }
    let first = !found.has(&home.install_mode());
    // Whoever sets it up wants it, whatever was stopped before.
    services.extend(found.gone(home.user_stopped()).filter(|_| first));
    let starts = !from.services.is_empty();
    services.extend(from.services);
    services.extend(found.put(home.install_mode(), format!("{mode}\n").into_bytes()));
    if starts {
        let patience = EDGE_PATIENCE;
        services.push(Step::Check(Check::Answers { addr: installation.edge, patience }));
        // Who stopped metering has it stopped.
        if first || !found.has(&home.user_stopped()) {
            services.push(Step::Run(own(installation, &["start", "--quiet"])));
        }
    }
    let apps = mode >= Mode::Apps;
    let mut session = Vec::new();
    session.extend(found.put(home.system_state(), state.to_json()));
    if apps {
        session.extend(found.put(home.apps_managed(), Vec::new()));
    }
    session.extend(from.session);
    if !apps {
        session.extend(found.gone(home.apps_managed()));
    }
    // The daemon sets it too, as soon as it sees the sentinel: never while we may still go back.
    let mut proxy = Vec::new();
    if mode != Mode::Full {
        proxy.extend(found.gone(home.proxy_managed()));
    }
    proxy.extend(from.proxy);
    if mode == Mode::Full {
        proxy.extend(found.put(home.proxy_managed(), Vec::new()));
    }
    parts([
        ("Configuration", config.into_iter().collect()),
        ("Services", services),
        ("Shells", found.sections(sections)),
        ("Programs that the session starts", session),
        ("System proxy", proxy),
    ])
}

/// What goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WayOut {
    All,
    /// Metering ends, and the edge goes on until the next reboot.
    KeepEdge,
    /// The same, and what leads the session to it is left to another `uninstall`: it can't be undone from here,
    /// and would lead to a closed port.
    KeepSession,
}

impl WayOut {
    /// `leads`: the session's variables lead to us, `reached`: they can be set from here.
    #[must_use]
    pub fn of(graceful: bool, leads: bool, reached: bool) -> Self {
        match (graceful, leads && !reached) {
            (_, true) => Self::KeepSession,
            (true, false) => Self::KeepEdge,
            (false, false) => Self::All,
        }
    }

    #[must_use]
    pub fn keeps_edge(self) -> bool {
        match self {
            Self::All => false,
            Self::KeepEdge | Self::KeepSession => true,
        }
    }
}

#[must_use]
pub fn uninstall(
    installation: &Installation,
    found: &Found,
    from: FromPlatform,
    way: WayOut,
) -> Vec<Part> {
    let home = &installation.home;
    let mut proxy: Vec<_> = found.gone(home.proxy_managed()).into_iter().collect();
    proxy.extend(from.proxy);
    let keep_session = way == WayOut::KeepSession;
    let mut session = Vec::new();
    if !keep_session {
        session.extend(from.session);
        session.extend(found.gone(home.apps_managed()));
    }
    let mut services = from.services;
    if found.tree {
        let down: &[&str] = if way.keeps_edge() { &["stop"] } else { &["edge", "stop"] };
        let back = own(installation, &["start", "--quiet"]);
        // What the services leave behind, and what no service ever kept.
        services.push(Step::Run(own(installation, down).undo([back])));
    }
    services.extend(found.gone(home.install_mode()));
    if !keep_session {
        services.extend(found.gone(home.system_state()));
    }
    parts([
        ("System proxy", proxy),
        ("Programs that the session starts", session),
        ("Shells", found.sections(&[])),
        ("Services", services),
    ])
}

fn parts<const N: usize>(all: [(&'static str, Vec<Step>); N]) -> Vec<Part> {
    let all = all.into_iter().map(|(title, steps)| Part { title, steps });
    all.filter(|part| !part.steps.is_empty()).collect()
}

/// Ourselves, on this home.
fn own(installation: &Installation, args: &[&str]) -> Call {
    let program = installation.program.display().to_string();
    Call::new(&program, args.iter().copied())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
