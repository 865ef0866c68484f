//! Variables of the programs that the session starts from now on: `launchctl setenv`, and an agent
//! that repeats it at each login, as launchd forgets them.

use std::collections::BTreeMap;
use std::fs;

use super::agents::{self, USERENV};
use super::launchd::{Agent, Launchd, not_text};
use super::{launchctl, plist};
use crate::platform::{Installation, SessionEnvironment, User};
use crate::setup::{self, Os, Step, StepError};

/// The agent ends at once.
const EXIT_TIMEOUT: u32 = 5;

/// launchd's.
#[derive(Clone, Debug, Default)]
pub struct Session {
    launchd: Launchd,
}

impl SessionEnvironment for Session {
    fn name(&self) -> &'static str {
        "launchctl setenv"
    }

    fn out_of_reach(&self, user: &User) -> Result<Option<String>, StepError> {
        // Nobody is at the screen: launchd has forgotten what was set there.
        if self.launchd.ask(&launchctl::print(&agents::domain(user)))?.code != 0 {
            return Ok(None);
        }
        Ok(launchctl::not_at_the_screen(&self.launchd.ask(&launchctl::managername())?.out))
    }

    fn read(&self, _user: &User, names: &[&str]) -> Result<BTreeMap<String, String>, StepError> {
        let mut found = BTreeMap::new();
        for name in names {
            let value = self.launchd.ask(&launchctl::getenv(name))?.out;
            // One that is not set is an empty answer.
            let value = value.strip_suffix('\n').unwrap_or(&value);
            if !value.is_empty() {
                found.insert((*name).to_owned(), value.to_owned());
            }
        }
        Ok(found)
    }

    fn set(
        &self,
        wanted: &Installation,
        vars: &BTreeMap<String, String>,
    ) -> Result<Vec<Step>, StepError> {
        let names: Vec<_> = vars.keys().map(String::as_str).collect();
        let now = self.read(&wanted.user, &names)?;
        let missing = vars.iter().filter(|(name, value)| now.get(*name) != Some(*value));
        let mut steps: Vec<_> = missing
            .map(|(name, value)| {
                Step::Run(launchctl::setenv(name, value).undo([back(name, now.get(name))]))
            })
            .collect();
        let text = agents::userenv(wanted, vars).as_ref().and_then(plist::render);
        let agent = Agent {
            label: USERENV,
            program: &wanted.program,
            text: text.ok_or_else(|| not_text(wanted))?,
            exit_timeout: EXIT_TIMEOUT,
            holds_port: false,
            lasts: false,
        };
        steps.extend(self.launchd.install_agent(&wanted.user, &agent)?);
        Ok(steps)
    }

    fn unset(
        &self,
        user: &User,
        names: &[&str],
        was: &BTreeMap<String, String>,
    ) -> Result<Vec<Step>, StepError> {
        // What we set is what the agent would set.
        let text = fs::read(agents::file(user, USERENV)).unwrap_or_default();
        let arguments = plist::strings(&String::from_utf8_lossy(&text), "ProgramArguments");
        let ours: BTreeMap<_, _> = arguments.iter().filter_map(|a| a.split_once('=')).collect();
        let now = self.read(user, names)?;
        let mut steps = self.launchd.remove_agent(user, USERENV, EXIT_TIMEOUT, false)?;
        for (name, value) in &now {
            if ours.get(name.as_str()) == Some(&value.as_str()) {
                let put_back = back(name, was.get(name).filter(|w| *w != value));
                steps.push(Step::Run(put_back.undo([launchctl::setenv(name, value)])));
            }
        }
        Ok(steps)
    }
}

/// For the agent at login: sets those of `NAME=VALUE` that nobody else has set. Names those that it
/// could not set.
///
/// # Errors
/// When `launchctl` can't be asked at all.
pub fn apply(vars: &[String]) -> Result<Vec<&str>, StepError> {
    let mut failed = Vec::new();
    for (name, value) in vars.iter().filter_map(|v| v.split_once('=')) {
        let mut os = Os::default();
        if setup::call(&mut os, &launchctl::getenv(name))?.out.trim().is_empty()
            && setup::call(&mut os, &launchctl::setenv(name, value)).is_err()
        {
            failed.push(name);
        }
    }
    Ok(failed)
}

fn back(name: &str, was: Option<&String>) -> setup::Call {
    was.map_or_else(|| launchctl::unsetenv(name), |value| launchctl::setenv(name, value))
}

#[cfg(test)]
impl Session {
    pub(super) fn with_path(path: std::ffi::OsString) -> Self {
        Self { launchd: Launchd::with_path(path) }
    }
}
