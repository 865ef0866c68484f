//! Changing the user's machine, for `init`, `uninstall` and `ca`: show it, ask, do it, all or nothing.

use std::io::{BufRead, IsTerminal, Write};

use super::{Context, Exit, Failure, say};
use crate::home::PidLock;
use crate::setup::plan::Part;
use crate::setup::{self, Failed, Machine, Os, Step, StepError, diff, section};

/// What becomes of an earlier run that was cut short and can't be taken back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Leftover {
    /// Nothing else is done before that.
    Refuse,
    /// It is said, and forgotten: the way out looks at all that is there anyway.
    Forget,
}

/// Keeps two commands from changing the machine at the same time, and takes back what one that was
/// killed had begun.
pub fn begin(ctx: &Context, leftover: Leftover) -> Result<PidLock, Failure> {
    ctx.home.create()?;
    let path = ctx.home.pid_file("setup");
    let Some(lock) = PidLock::acquire(&path)? else {
        let pid = PidLock::holder(&path).ok().flatten();
        let who = pid.map(|p| format!(" (pid {p})")).unwrap_or_default();
        return Err(Failure::new(Exit::FAILED, format!("another init or uninstall runs{who}"))
            .hint("wait for its end, then the same command again"));
    };
    match setup::recover(&mut Os::default(), &ctx.home.setup_journal())? {
        None => {}
        Some(left) if left.is_empty() => {
            say("an earlier run was cut short; what it had begun has been taken back");
        }
        Some(left) => {
            say("an earlier run was cut short, and this of it can't be taken back:");
            left.iter().for_each(detail);
            if leftover == Leftover::Forget {
                std::fs::remove_file(ctx.home.setup_journal())?;
                return Ok(lock);
            }
            return Err(Failure::new(Exit::FAILED, "nothing more was changed")
                .hint("put that right, then the same command again"));
        }
    }
    Ok(lock)
}

/// A run that was cut short is to be taken back first.
pub fn interrupted(ctx: &Context) -> bool {
    ctx.home.setup_journal().exists()
}

/// What would be done, with the lines that change in files of the user's.
pub fn show(parts: &[Part]) {
    for part in parts {
        say(part.title);
        for step in &part.steps {
            detail(step);
            changes(step).iter().for_each(|line| detail(format_args!("    {line}")));
        }
    }
}

pub fn detail(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "    {text}");
}

/// A file's content, and what it will be.
type Change<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

/// Only a file that is the user's: what we write whole is ours.
fn changes(step: &Step) -> Vec<String> {
    let (path, after): (_, Change<'_>) = match step {
        Step::Section { path, body } => (path, &|now| section::with(now, body.as_deref())),
        Step::Write { path, content, .. }
            if path.file_name().is_some_and(|n| n == "config.toml") =>
        {
            (path, &|_| content.clone())
        }
        Step::Write { .. }
        | Step::Copy { .. }
        | Step::Remove { .. }
        | Step::Run(_)
        | Step::Check(_) => return Vec::new(),
    };
    let now = Os::default().read(path).ok().flatten().map(|b| b.content).unwrap_or_default();
    let after = after(&now);
    let [now, after] = [&now, &after].map(|bytes| String::from_utf8_lossy(bytes));
    diff::lines(&now, &after).iter().map(|line| hidden(line)).collect()
}

/// A proxy's address may hold a password.
fn hidden(line: &str) -> String {
    match (line.find("://"), line.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 < at => {
            format!("{}***{}", &line[..scheme + 3], &line[at..])
        }
        _ => line.to_owned(),
    }
}

/// Asks once.
pub fn consent(question: &str) -> Result<bool, Failure> {
    let Some(answer) = ask(question)? else {
        return Err(Failure::new(Exit::USAGE, "this asks first, and there is no terminal to ask")
            .hint("--yes does it without asking"));
    };
    Ok(answer)
}

/// `None`: there is no terminal.
pub fn ask(question: &str) -> Result<Option<bool>, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    let mut err = std::io::stderr();
    let _ = write!(err, "{question} [y/N] ");
    let _ = err.flush();
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(Some(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str())))
}

/// All of it or nothing. The lock is the proof that nobody else is at it.
pub fn execute(ctx: &Context, _lock: &PidLock, steps: &[Step]) -> Result<(), Failure> {
    setup::execute(&mut Os::default(), &ctx.home.setup_journal(), steps).map_err(|e| failure(&e))
}

fn failure(failed: &Failed) -> Failure {
    let exit = match &failed.cause {
        StepError::Write { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            Exit::NO_PERMISSION
        }
        StepError::Write { .. } => Exit::CANT_CREATE,
        StepError::Spawn { .. }
        | StepError::Refused { .. }
        | StepError::NotText { .. }
        | StepError::Unmet(_) => Exit::FAILED,
    };
    let hint = match failed.left.as_slice() {
        [] => "what was begun has been taken back: all is as before".to_owned(),
        left => format!(
            "this could not be taken back, the next run tries again:\n    {}",
            left.join("\n    ")
        ),
    };
    Failure::new(exit, failed).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(hidden("+proxy = \"http://me:p@ss@h:1\""), "+proxy = \"http://***@h:1\"");
        assert_eq!(hidden("+port = 8082"), "+port = 8082");
    }
}
