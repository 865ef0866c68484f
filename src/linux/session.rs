//! The variables of programs that the session starts: `environment.d`, which systemd reads at login,
//! and the environment of the running manager, and of the session bus, for what they start until then.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::systemd::Systemd;
use super::{bus, systemctl};
use crate::platform::{Installation, SessionEnvironment, User};
use crate::setup::{Step, StepError};

const FILE: &str = "environment.d/60-halton-meter.conf";
const HEAD: &str =
    "# Written by `halton-meter init --apps`; `halton-meter init` takes it away again.\n";

#[derive(Clone, Debug, Default)]
pub struct EnvironmentD(Systemd);

type Vars = BTreeMap<String, String>;

impl EnvironmentD {
    /// What the running manager hands on. Nothing where there is none.
    fn now(&self) -> Vars {
        let said = self.0.ask(&systemctl::environment());
        said.map(|said| systemctl::read_environment(&said.out)).unwrap_or_default()
    }

    fn has_bus(&self) -> bool {
        self.0.ask(&bus::ask()).is_ok()
    }

    fn ours(user: &User) -> Result<Option<String>, StepError> {
        let path = file(user);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StepError::Write { path, source }),
        }
    }
}

fn file(user: &User) -> PathBuf {
    user.config.join(FILE)
}

impl SessionEnvironment for EnvironmentD {
    fn name(&self) -> &'static str {
        "environment.d"
    }

    fn read(&self, _user: &User, names: &[&str]) -> Result<Vars, StepError> {
        let mut vars = self.now();
        vars.retain(|name, _| names.contains(&name.as_str()));
        Ok(vars)
    }

    fn set(&self, wanted: &Installation, vars: &Vars) -> Result<Vec<Step>, StepError> {
        let path = file(&wanted.user);
        let text = render(vars).ok_or_else(|| StepError::NotText { path: path.clone() })?;
        let file = Self::ours(&wanted.user)?;
        Ok(set(path, &text, vars, file.as_deref(), &self.now(), self.has_bus()))
    }

    fn unset(&self, user: &User, names: &[&str], was: &Vars) -> Result<Vec<Step>, StepError> {
        let Some(text) = Self::ours(user)? else { return Ok(Vec::new()) };
        Ok(unset(file(user), names, was, &parse(&text), &self.now(), self.has_bus()))
    }
}

fn set(
    path: PathBuf,
    text: &str,
    vars: &Vars,
    file: Option<&str>,
    now: &Vars,
    has_bus: bool,
) -> Vec<Step> {
    let mut steps = Vec::new();
    if file != Some(text) {
        steps.push(Step::write(path, text, 0o600));
    }
    // No manager, nothing to tell: the next one reads the file.
    let new: Vars = vars.iter().filter(|(n, v)| now.get(*n) != Some(v)).map(own).collect();
    if !now.is_empty() && !new.is_empty() {
        steps.push(change(&new, &[], now));
        // Undone before the manager is: some buses hand on to it what they are told.
        if has_bus {
            let back = without(new.keys(), now);
            steps.push(Step::Run(bus::update(&new).undo([bus::update(&back)])));
        }
    }
    steps
}

fn unset(
    path: PathBuf,
    names: &[&str],
    was: &Vars,
    ours: &Vars,
    now: &Vars,
    has_bus: bool,
) -> Vec<Step> {
    let ours: Vars = now
        .iter()
        .filter(|(n, v)| names.contains(&n.as_str()) && ours.get(*n) == Some(v))
        .map(own)
        .collect();
    let (back, gone): (Vec<_>, Vec<_>) = ours.iter().partition(|(name, _)| was.contains_key(*name));
    let back: Vars = back.into_iter().filter_map(|(n, _)| was.get_key_value(n)).map(own).collect();
    let gone: Vec<_> = gone.iter().map(|(name, _)| name.as_str()).collect();
    let mut steps = vec![Step::remove(path)];
    let told = without(ours.keys(), was);
    // Before the manager: some buses hand on to it what they are told.
    if has_bus && !told.is_empty() {
        steps.push(Step::Run(bus::update(&told).undo([bus::update(&ours)])));
    }
    if !back.is_empty() {
        steps.push(change(&back, &[], now));
    }
    if !gone.is_empty() {
        steps.push(change(&Vars::new(), &gone, now));
    }
    steps
}

/// What to tell the bus to have it without these: what was there before. Where that is nothing an empty proxy
/// is none to any program; a file of roots stays, as it does on disk: with an empty one some have no roots.
fn without<'a>(names: impl Iterator<Item = &'a String>, was: &Vars) -> Vars {
    let is_proxy =
        |name: &str| ["https_proxy", "http_proxy"].contains(&name.to_ascii_lowercase().as_str());
    let nothing = |name: &String| is_proxy(name).then(|| (name.clone(), String::new()));
    names.filter_map(|name| was.get_key_value(name).map(own).or_else(|| nothing(name))).collect()
}

fn own((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}

/// With what is set now as its undo.
fn change(set: &Vars, unset: &[&str], now: &Vars) -> Step {
    let names = || set.keys().map(String::as_str).chain(unset.iter().copied());
    let before: Vars = names().filter_map(|n| now.get_key_value(n)).map(own).collect();
    let fresh: Vec<_> = names().filter(|name| !now.contains_key(*name)).collect();
    let mut undo = Vec::new();
    if !before.is_empty() {
        undo.push(systemctl::set_environment(&before));
    }
    if !fresh.is_empty() {
        undo.push(systemctl::unset_environment(fresh));
    }
    let call = if set.is_empty() {
        systemctl::unset_environment(unset.iter().copied())
    } else {
        systemctl::set_environment(set)
    };
    Step::Run(call.undo(undo))
}

/// `None`: a value that no line can hold.
fn render(vars: &Vars) -> Option<String> {
    let mut text = HEAD.to_owned();
    for (name, value) in vars {
        if value.chars().any(char::is_control) {
            return None;
        }
        let mut quoted = String::new();
        for c in value.chars() {
            if matches!(c, '"' | '\\' | '$' | '`') {
                quoted.push('\\');
            }
            quoted.push(c);
        }
        text.push_str(&format!("{name}=\"{quoted}\"\n"));
    }
    Some(text)
}

/// What [`render`] wrote.
fn parse(text: &str) -> Vars {
    let lines = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once('='));
    let value = |quoted: &str| {
        let inner = quoted.trim().trim_start_matches('"');
        let inner = inner.strip_suffix('"').unwrap_or(inner);
        let mut value = String::new();
        let mut rest = inner.chars();
        while let Some(c) = rest.next() {
            value.push(if c == '\\' { rest.next().unwrap_or(c) } else { c });
        }
        value
    };
    lines.map(|(name, quoted)| (name.to_owned(), value(quoted))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> Vars {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    fn lines(steps: &[Step]) -> Vec<String> {
        let undone = |s: &Step| match s {
            Step::Run(call) => {
                let undo: Vec<_> = call.undo.iter().map(crate::setup::Call::line).collect();
                format!(" | {}", undo.join("; "))
            }
            Step::Write { .. }
            | Step::Copy { .. }
            | Step::Remove { .. }
            | Step::Section { .. }
            | Step::Check(_) => String::new(),
        };
        steps.iter().map(|s| format!("{s}{}", undone(s)).replace("systemctl --user ", "")).collect()
    }

    #[test]
    fn values_survive_the_file() {
        let odd =
            vars(&[("A", r#"a "b" \c $HOME `x` 100%"#), ("B", ""), ("C", "http://127.0.0.1:8081")]);
        let text = render(&odd).unwrap();
        assert_eq!(parse(&text), odd, "{text}");
        assert!(text.contains("C=\"http://127.0.0.1:8081\"\n") && text.contains(r"\$HOME"));
        assert_eq!(render(&vars(&[("A", "x\ny")])), None);
    }

    #[test]
    fn only_what_differs_is_set_and_the_undo_knows_what_was() {
        let wanted = vars(&[("A", "1"), ("B", "2"), ("C", "3")]);
        let now = vars(&[("A", "1"), ("B", "old"), ("PATH", "/bin")]);
        let text = render(&wanted).unwrap();
        let steps = set("/f".into(), &text, &wanted, None, &now, false);
        let change = "set-environment B=2 C=3 | set-environment B=old; unset-environment C";
        assert_eq!(lines(&steps), ["write /f", change]);
        assert_eq!(
            lines(&set("/f".into(), &text, &wanted, None, &Vars::new(), true)),
            ["write /f"]
        );
        let mut then = now;
        then.extend(wanted.iter().map(own));
        assert_eq!(lines(&set("/f".into(), &text, &wanted, Some(&text), &then, true)), [""; 0]);
    }

    #[test]
    fn what_is_not_ours_any_more_stays() {
        let ours = vars(&[("A", "1"), ("B", "2"), ("C", "3")]);
        let now = vars(&[("A", "1"), ("B", "somebody's"), ("C", "3")]);
        let was = vars(&[("C", "theirs")]);
        let steps = unset("/f".into(), &["A", "B", "C"], &was, &ours, &now, false);
        assert_eq!(
            lines(&steps),
            [
                "rm -f /f",
                "set-environment C=theirs | set-environment C=3",
                "unset-environment A | set-environment A=1"
            ]
        );
    }

    /// It is never left to lead to a port that is closed.
    #[test]
    fn the_session_bus_is_told_what_was_there_and_no_proxy_where_none_was() {
        let short = |steps: &[Step]| {
            let told = lines(steps).into_iter().filter(|line| line.starts_with("busctl"));
            let word = "UpdateActivationEnvironment 'a{ss}' ";
            let short = |part: &str| part.split_once(word).unwrap().1.to_owned();
            told.map(|l| l.split(" | ").map(short).collect::<Vec<_>>().join(" | "))
                .collect::<Vec<_>>()
        };
        let wanted = vars(&[("HTTPS_PROXY", "us"), ("NO_PROXY", "l"), ("SSL_CERT_FILE", "/b")]);
        let text = render(&wanted).unwrap();
        let now = vars(&[("NO_PROXY", "corp"), ("PATH", "/bin")]);
        let steps = set("/f".into(), &text, &wanted, None, &now, true);
        let told = "3 HTTPS_PROXY us NO_PROXY l SSL_CERT_FILE /b | 2 HTTPS_PROXY '' NO_PROXY corp";
        assert_eq!(short(&steps), [told]);
        assert!(lines(&steps)[1].starts_with("set-environment"), "the manager first");

        let names = ["HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"];
        let was = vars(&[("NO_PROXY", "corp")]);
        let steps = unset("/f".into(), &names, &was, &wanted, &wanted, true);
        let told = "2 HTTPS_PROXY '' NO_PROXY corp | 3 HTTPS_PROXY us NO_PROXY l SSL_CERT_FILE /b";
        assert_eq!(short(&steps), [told]);
        assert!(lines(&steps)[1].starts_with("busctl"), "the manager last");
        assert!(
            unset("/f".into(), &names, &was, &wanted, &now, true).len() == 1,
            "nothing of ours"
        );
    }
}
