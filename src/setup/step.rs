//! What is done to the user's machine, as data: it can be shown, done, and taken back.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// A file of ours, whole. Directories that are missing are made.
    Write {
        path: PathBuf,
        content: Vec<u8>,
        mode: u32,
    },
    Copy {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    /// Our marked section of a file of the user's; `None`: no section.
    Section {
        path: PathBuf,
        body: Option<String>,
    },
    Run(Call),
    Check(Check),
}

/// A program with its arguments, found by the search path.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Call {
    pub program: String,
    pub args: Vec<String>,
    /// Answers that are as good as success.
    #[serde(default)]
    pub tolerate: Vec<Answer>,
    /// Answers that pass with time (`Exit(0)` may be one: "it is still there"): asked again for as
    /// long as `patience`.
    #[serde(default)]
    pub again: Vec<Answer>,
    #[serde(default)]
    pub patience: Duration,
    /// With this in its answer it has failed, though it ends with 0.
    #[serde(default)]
    pub error: Option<String>,
    #[serde(default)]
    pub listed: Option<Box<Listed>>,
    /// Takes it back, in this order, also when it failed half-way. Must bear being called when
    /// there is nothing to take back.
    #[serde(default)]
    pub undo: Vec<Call>,
}

/// Where that is listed, a name a line, which a call is about. What is listed no more is gone, and a call about
/// it has nothing left to fail at.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Listed {
    pub by: Call,
    pub names: Vec<String>,
}

/// How a program can answer.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Answer {
    Exit(i32),
    /// Fails, with this text on stderr or stdout.
    Says(String),
}

/// What must be so by then.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Check {
    /// The file with all roots holds the certificate (or not any more).
    Certificate { bundle: PathBuf, certificate: CertificateDer<'static>, present: bool },
    /// Somebody accepts connections there.
    Answers { addr: SocketAddr, patience: Duration },
}

impl Step {
    #[must_use]
    pub fn write(path: impl Into<PathBuf>, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        Self::Write { path: path.into(), content: content.into(), mode }
    }

    #[must_use]
    pub fn remove(path: impl Into<PathBuf>) -> Self {
        Self::Remove { path: path.into() }
    }

    /// Changes nothing.
    #[must_use]
    pub fn is_check(&self) -> bool {
        matches!(self, Self::Check(_))
    }
}

impl Call {
    #[must_use]
    pub fn new<S: Into<String>>(program: &str, args: impl IntoIterator<Item = S>) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { program: program.to_owned(), args, ..Self::default() }
    }

    #[must_use]
    pub fn tolerate(mut self, answers: impl IntoIterator<Item = Answer>) -> Self {
        self.tolerate.extend(answers);
        self
    }

    #[must_use]
    pub fn again(mut self, answers: impl IntoIterator<Item = Answer>, patience: Duration) -> Self {
        self.again.extend(answers);
        self.patience = patience;
        self
    }

    /// Asked again for no longer than that, and so is what lists it.
    #[must_use]
    pub fn within(mut self, left: Duration) -> Self {
        self.patience = self.patience.min(left);
        if let Some(listed) = &mut self.listed {
            listed.by.patience = listed.by.patience.min(left);
        }
        self
    }

    #[must_use]
    pub fn fails_saying(mut self, text: &str) -> Self {
        self.error = Some(text.to_owned());
        self
    }

    #[must_use]
    pub fn listed(mut self, by: Self, names: impl IntoIterator<Item = String>) -> Self {
        self.listed = Some(Box::new(Listed { by, names: names.into_iter().collect() }));
        self
    }

    #[must_use]
    pub fn undo(mut self, calls: impl IntoIterator<Item = Self>) -> Self {
        self.undo.extend(calls);
        self
    }

    /// As typed in a shell.
    #[must_use]
    pub fn line(&self) -> String {
        let words = [&self.program].into_iter().chain(&self.args);
        words.map(|a| quoted(Path::new(a))).collect::<Vec<_>>().join(" ")
    }
}

impl Answer {
    #[must_use]
    pub fn matches(&self, code: i32, said: &str) -> bool {
        match self {
            Self::Exit(wanted) => *wanted == code,
            Self::Says(text) => code != 0 && said.contains(text),
        }
    }
}

/// As a shell would do it; for people, and for a root shell.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { path, .. } => write!(f, "write {}", quoted(path)),
            Self::Copy { from, to } => write!(f, "install -m 644 {} {}", quoted(from), quoted(to)),
            Self::Remove { path } => write!(f, "rm -f {}", quoted(path)),
            Self::Section { path, body: Some(_) } => {
                write!(f, "# our section in {}", quoted(path))
            }
            Self::Section { path, body: None } => {
                write!(f, "# our section out of {}", quoted(path))
            }
            Self::Run(call) => f.write_str(&call.line()),
            Self::Check(check) => write!(f, "# check that {check}"),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate { bundle, present: true, .. } => {
                write!(f, "{} holds it", bundle.display())
            }
            Self::Certificate { bundle, present: false, .. } => {
                write!(f, "{} holds it no more", bundle.display())
            }
            Self::Answers { addr, .. } => write!(f, "{addr} accepts connections"),
        }
    }
}

/// The whole of it for a root shell.
#[must_use]
pub fn as_root(steps: &[Step]) -> String {
    let lines: Vec<_> = steps.iter().filter(|s| !s.is_check()).map(ToString::to_string).collect();
    format!("sudo sh -c {}", quoted(Path::new(&lines.join(" && "))))
}

/// For a shell.
#[must_use]
pub fn quoted(text: &Path) -> String {
    let text = text.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:+,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_for_root_is_one_command_that_a_shell_understands() {
        let check = Check::Certificate {
            bundle: "/b".into(),
            certificate: CertificateDer::from(vec![1]),
            present: true,
        };
        let text = as_root(&[
            Step::Copy { from: "/h/it's/ca.pem".into(), to: "/etc/a b".into() },
            Step::Run(Call::new("echo", ["-x"])),
            Step::Check(check),
        ]);
        let line = text.strip_prefix("sudo sh -c ").unwrap();
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("printf %s {line}")])
            .output()
            .unwrap();
        let inner = String::from_utf8(output.stdout).unwrap();
        assert_eq!(inner, r"install -m 644 '/h/it'\''s/ca.pem' '/etc/a b' && echo -x");
    }

    #[test]
    fn a_text_counts_in_a_failure_only() {
        let says = Answer::Says("No such process".to_owned());
        assert!(says.matches(3, "Boot-out failed: 3: No such process"));
        assert!(!says.matches(0, "No such process"));
        assert!(Answer::Exit(0).matches(0, ""));
    }
}
