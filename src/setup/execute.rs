//! Steps are done in order, all or none of them: before each, the journal says how to take it back.
//! So a run that failed is rolled back at once, and one that was killed by whoever runs next.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::journal::{Journal, Reverse};
use super::machine::{Blob, Machine, Said};
use super::section;
use super::step::{Call, Check, Listed, Step};

/// Between two questions to a program whose answer passes with time.
const AGAIN: Duration = Duration::from_millis(200);

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("{program} could not be run: {source}")]
    Spawn { program: String, source: io::Error },
    #[error("`{call}` failed: {said}")]
    Refused { call: String, said: String },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is no text that we can add to; --no-shell-rc leaves the start files of shells alone", path.display())]
    NotText { path: PathBuf },
    #[error("{}", unmet(.0))]
    Unmet(Check),
}

/// Why a run did not come to its end, and what is left of it.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Failed {
    #[source]
    pub cause: StepError,
    /// What could not be taken back. Empty: all is as it was.
    pub left: Vec<String>,
}

/// Does them all, or none: what was done is taken back when one fails.
///
/// # Errors
/// With the first that failed.
pub fn execute(machine: &mut dyn Machine, journal: &Path, steps: &[Step]) -> Result<(), Failed> {
    let mut journal = Journal::new(journal);
    for step in steps {
        let done = reverse(machine, step).and_then(|back| {
            if let Some(back) = back {
                journal.record(machine, back).map_err(|source| StepError::Write {
                    path: journal.path().to_path_buf(),
                    source,
                })?;
            }
            perform(machine, step)
        });
        if let Err(cause) = done {
            return Err(Failed { cause, left: take_back(machine, &journal) });
        }
    }
    // From here on the run has happened: a kill before this line takes it back, one after it doesn't.
    if let Err(source) = journal.close(machine) {
        let cause = StepError::Write { path: journal.path().to_path_buf(), source };
        return Err(Failed { cause, left: take_back(machine, &journal) });
    }
    Ok(())
}

/// Takes back what a killed run left behind. `None`: there was none.
///
/// # Errors
/// When the journal can't be read.
pub fn recover(machine: &mut dyn Machine, journal: &Path) -> io::Result<Option<Vec<String>>> {
    let Some(journal) = Journal::read(machine, journal)? else { return Ok(None) };
    Ok(Some(take_back(machine, &journal)))
}

/// Asks a program until its answer is final.
///
/// # Errors
/// When it can't be run, or fails in a way that is not tolerated.
pub fn call(machine: &mut dyn Machine, call: &Call) -> Result<Said, StepError> {
    let mut waited = Duration::ZERO;
    loop {
        let mut said = machine
            .ask(call)
            .map_err(|source| StepError::Spawn { program: call.program.clone(), source })?;
        let text = format!("{}{}", said.err, said.out);
        if said.code == 0 && call.error.as_ref().is_some_and(|error| text.contains(error)) {
            said.code = 1;
        }
        let is =
            |answers: &[super::step::Answer]| answers.iter().any(|a| a.matches(said.code, &text));
        let passes = is(&call.again);
        if !passes && (said.code == 0 || is(&call.tolerate)) {
            return Ok(said);
        }
        if !passes || waited >= call.patience {
            if call.listed.as_ref().is_some_and(|listed| is_gone(machine, listed)) {
                return Ok(said);
            }
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let said = match (words.as_str(), said.code) {
                ("", code) => format!("exit {code}"),
                (words, 0) => format!("{words} (for {} s)", call.patience.as_secs()),
                (words, code) => format!("{words} (exit {code})"),
            };
            return Err(StepError::Refused { call: call.line(), said });
        }
        machine.pause(AGAIN);
        waited += AGAIN;
    }
}

/// A list that can't be had, or has a heading at most, tells nothing.
fn is_gone(machine: &mut dyn Machine, listed: &Listed) -> bool {
    let Ok(said) = call(machine, &listed.by) else { return false };
    let is_it = |line: &str| listed.names.iter().any(|name| name == line);
    said.out.lines().nth(1).is_some() && !said.out.lines().any(is_it)
}

/// How this step is taken back, given what is there now. `None`: it changes nothing.
fn reverse(machine: &dyn Machine, step: &Step) -> Result<Option<Reverse>, StepError> {
    let before = |path: &Path| {
        machine.read(path).map_err(|source| StepError::Write { path: path.to_path_buf(), source })
    };
    Ok(match step {
        Step::Write { path, .. } | Step::Copy { to: path, .. } | Step::Remove { path } => {
            Some(Reverse::File {
                path: path.clone(),
                before: before(path)?,
                made: machine.missing_dirs(path),
            })
        }
        Step::Section { path, body } => Some(Reverse::Section {
            path: path.clone(),
            before: before(path)?,
            body: body.clone(),
            made: machine.missing_dirs(path),
        }),
        Step::Run(call) if call.undo.is_empty() => None,
        Step::Run(call) => Some(Reverse::Calls(call.undo.clone())),
        Step::Check(_) => None,
    })
}

/// One step by itself, for what is not to be taken back: a service that is started.
///
/// # Errors
/// When it could not be done.
pub fn perform(machine: &mut dyn Machine, step: &Step) -> Result<(), StepError> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| StepError::Write { path, source }
    };
    match step {
        Step::Write { path, content, mode } => {
            machine.write(path, &Blob { content: content.clone(), mode: *mode }).map_err(at(path))
        }
        Step::Copy { from, to } => {
            let found = machine.read(from).map_err(at(from))?;
            let found = found.ok_or_else(|| at(from)(io::ErrorKind::NotFound.into()))?;
            machine.write(to, &Blob { mode: 0o644, ..found }).map_err(at(to))
        }
        Step::Remove { path } => machine.remove(path).map_err(at(path)),
        Step::Section { path, body } => {
            let before = machine.read(path).map_err(at(path))?;
            // Two bytes a character, say: what we add would be none to who reads it.
            if body.is_some() && before.as_ref().is_some_and(|b| b.content.contains(&0)) {
                return Err(StepError::NotText { path: path.clone() });
            }
            let after = sectioned(before.as_ref(), body.as_deref());
            put(machine, path, after.as_ref()).map_err(at(path))
        }
        Step::Run(it) => call(machine, it).map(drop),
        Step::Check(check) if machine.holds(check) => Ok(()),
        Step::Check(check) => Err(StepError::Unmet(check.clone())),
    }
}

/// The file with our section; `None`: we made it, it held nothing else, and goes.
fn sectioned(before: Option<&Blob>, body: Option<&str>) -> Option<Blob> {
    let Some(before) = before else {
        let content = section::with(&[], Some(body?));
        return Some(Blob { content, mode: 0o644 });
    };
    let gone = body.is_none() && section::is_all_of(&before.content);
    let content = section::with_in_file(&before.content, body);
    (!gone).then_some(Blob { content, mode: before.mode })
}

fn put(machine: &mut dyn Machine, path: &Path, blob: Option<&Blob>) -> io::Result<()> {
    match blob {
        Some(blob) => machine.write(path, blob),
        // A link to it is the user's.
        None => match machine.behind(path) {
            Ok(file) => machine.remove(&file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        },
    }
}

/// In reverse order, as far as it can be; what can't stays in the journal for the next run.
fn take_back(machine: &mut dyn Machine, journal: &Journal) -> Vec<String> {
    let (mut kept, mut left) = (Vec::new(), Vec::new());
    for back in journal.entries().iter().rev() {
        if let Err(e) = undo(machine, back) {
            left.push(e.to_string());
            kept.push(back.clone());
        }
    }
    kept.reverse();
    if let Err(e) = journal.keep(machine, &kept) {
        left.push(format!("cannot write {}: {e}", journal.path().display()));
    }
    left
}

fn undo(machine: &mut dyn Machine, back: &Reverse) -> Result<(), StepError> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| StepError::Write { path, source }
    };
    match back {
        Reverse::File { path, before, made } => {
            put(machine, path, before.as_ref()).map_err(at(path))?;
            made.iter().rev().for_each(|dir| machine.remove_dir(dir));
        }
        Reverse::Section { path, before, body, made } => {
            let now = machine.read(path).map_err(at(path))?;
            let ours = sectioned(before.as_ref(), body.as_deref());
            let after = if now == ours || now == *before {
                before.clone()
            } else {
                // Somebody wrote to it since: only our section is what it was.
                let was = before.as_ref().and_then(|b| section::body(&b.content));
                sectioned(now.as_ref(), was.as_deref())
            };
            if after != now {
                put(machine, path, after.as_ref()).map_err(at(path))?;
            }
            made.iter().rev().for_each(|dir| machine.remove_dir(dir));
        }
        Reverse::Calls(calls) => {
            // Each of them, though one fails: they concern different things.
            let mut failure = Ok(());
            for undo in calls {
                failure = failure.and(call(machine, undo).map(drop));
            }
            failure?;
        }
    }
    Ok(())
}

fn unmet(check: &Check) -> String {
    match check {
        Check::Certificate { bundle, present, .. } => format!(
            "{} {} our CA, although the tool reported success",
            bundle.display(),
            if *present { "does not hold" } else { "still holds" }
        ),
        Check::Answers { addr, patience } => {
            format!("nobody accepts connections at {addr}, even after {} s", patience.as_secs())
        }
    }
}

#[cfg(test)]
#[path = "execute_tests.rs"]
mod tests;
