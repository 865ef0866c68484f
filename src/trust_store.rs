//! Our CA in the system's trust store: first a plan that can be shown, then its steps, each of which
//! can be taken back. Which steps there are, the platform says.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::CertificateDer;

use crate::meter::trust::read_certificates;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    Trust,
    Untrust,
}

/// A certificate of ours in a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Authority {
    pub file: PathBuf,
    pub certificate: CertificateDer<'static>,
}

impl Authority {
    /// `None`: there is no certificate in this file.
    #[must_use]
    pub fn read(file: &Path) -> Option<Self> {
        let certificate = read_certificates(file).into_iter().next()?;
        Some(Self { file: file.to_path_buf(), certificate })
    }

    /// SHA-256 in upper-case hex: what `security` calls a certificate by.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let Some(suite) = TLS13_AES_128_GCM_SHA256.tls13() else { return String::new() };
        let digest = suite.common.hash_provider.hash(&self.certificate);
        digest.as_ref().iter().map(|b| format!("{b:02X}")).collect()
    }
}

/// The trust store of a platform.
pub trait TrustStore {
    /// What the change takes. `authorities`: the one in use first, then earlier ones.
    ///
    /// # Errors
    /// When the store is not known, or can't be asked.
    fn plan(&self, change: Change, authorities: &[Authority]) -> Result<Plan, TrustStoreError>;
}

/// What would be done.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// How people call this store.
    pub store: String,
    /// Empty: it is as wanted.
    pub steps: Vec<Step>,
    /// We may not do it.
    pub needs_root: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    Copy {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    Run(Call),
    /// The file with all roots must hold the certificate now (or not any more).
    Verify {
        bundle: PathBuf,
        certificate: CertificateDer<'static>,
        present: bool,
    },
}

/// A program with its arguments, found by the search path.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Call {
    pub program: &'static str,
    pub args: Vec<String>,
    /// A failure that says this is none.
    pub tolerate: Option<&'static str>,
    /// Takes it back, also when it failed half-way.
    pub undo: Option<Vec<String>>,
}

/// Why the store is not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum TrustStoreError {
    #[error("no trust store that we know: {0}")]
    Unknown(String),
    #[error("{program} could not be run: {source}")]
    Spawn { program: &'static str, source: io::Error },
    #[error("{call} failed: {said}")]
    Refused { call: String, said: String },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} {} our CA, although the tool reported success", bundle.display(),
        if *present { "does not hold" } else { "still holds" })]
    Unchanged { bundle: PathBuf, present: bool },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy { from, to } => write!(f, "install -m 644 {} {}", quoted(from), quoted(to)),
            Self::Remove { path } => write!(f, "rm -f {}", quoted(path)),
            Self::Run(call) => f.write_str(&call.line()),
            Self::Verify { bundle, present: true, .. } => {
                write!(f, "# check that {} holds it", bundle.display())
            }
            Self::Verify { bundle, present: false, .. } => {
                write!(f, "# check that {} holds it no more", bundle.display())
            }
        }
    }
}

impl Call {
    fn line(&self) -> String {
        let args = self.args.iter().map(|a| quoted(Path::new(a)));
        [self.program.to_owned()].into_iter().chain(args).collect::<Vec<_>>().join(" ")
    }

    /// Standard output. `path`: where to look for programs instead of the own search path.
    ///
    /// # Errors
    /// When it can't be run, or fails in a way that is not tolerated.
    pub fn run(&self, path: Option<&OsString>) -> Result<String, TrustStoreError> {
        let mut command = Command::new(self.program);
        if let Some(path) = path {
            command.env("PATH", path);
        }
        let output = command
            .args(&self.args)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| TrustStoreError::Spawn { program: self.program, source })?;
        let said = String::from_utf8_lossy(&output.stderr);
        let fine = output.status.success() || self.tolerate.is_some_and(|t| said.contains(t));
        if fine {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let said = if said.is_empty() { output.status.to_string() } else { said };
        Err(TrustStoreError::Refused { call: self.line(), said })
    }
}

impl Plan {
    /// The whole plan for a root shell.
    #[must_use]
    pub fn as_root(&self) -> String {
        let does = |step: &&Step| !matches!(step, Step::Verify { .. });
        let lines: Vec<_> = self.steps.iter().filter(does).map(ToString::to_string).collect();
        format!("sudo sh -c {}", quoted(Path::new(&lines.join(" && "))))
    }

    /// Does it, all or nothing.
    ///
    /// # Errors
    /// With the first step that failed; those before it have been taken back.
    pub fn apply(&self, path: Option<&OsString>) -> Result<(), TrustStoreError> {
        for (i, step) in self.steps.iter().enumerate() {
            if let Err(e) = step.run(path) {
                let done = self.steps.get(..=i).unwrap_or_default();
                done.iter().rev().for_each(|step| step.undo(path));
                return Err(e);
            }
        }
        Ok(())
    }
}

impl Step {
    fn run(&self, path: Option<&OsString>) -> Result<(), TrustStoreError> {
        match self {
            Self::Copy { from, to } => {
                let write = |source| TrustStoreError::Write { path: to.clone(), source };
                fs::copy(from, to).map_err(write)?;
                fs::set_permissions(to, fs::Permissions::from_mode(0o644)).map_err(write)
            }
            Self::Remove { path } => match fs::remove_file(path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    Err(TrustStoreError::Write { path: path.clone(), source })
                }
                Ok(()) | Err(_) => Ok(()),
            },
            Self::Run(call) => call.run(path).map(drop),
            Self::Verify { bundle, certificate, present } => {
                let holds = read_certificates(bundle).contains(certificate);
                (holds == *present).then_some(()).ok_or_else(|| TrustStoreError::Unchanged {
                    bundle: bundle.clone(),
                    present: *present,
                })
            }
        }
    }

    /// As far as it can be: the failure that led here is what the user must hear of.
    fn undo(&self, path: Option<&OsString>) {
        match self {
            Self::Copy { to, .. } => drop(fs::remove_file(to)),
            Self::Run(Call { program, undo: Some(args), .. }) => {
                let back = Call { program, args: args.clone(), ..Call::default() };
                drop(back.run(path));
            }
            Self::Run(_) | Self::Remove { .. } | Self::Verify { .. } => {}
        }
    }
}

/// For a shell.
fn quoted(text: &Path) -> String {
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
        let plan = Plan {
            steps: vec![
                Step::Copy { from: "/h/it's/ca.pem".into(), to: "/etc/a b".into() },
                Step::Run(Call { program: "echo", args: vec!["-x".into()], ..Call::default() }),
                Step::Verify {
                    bundle: "/b".into(),
                    certificate: CertificateDer::from(vec![1]),
                    present: true,
                },
            ],
            ..Plan::default()
        };
        let text = plan.as_root();
        let line = text.strip_prefix("sudo sh -c ").unwrap();
        let output =
            Command::new("sh").args(["-c", &format!("printf %s {line}")]).output().unwrap();
        let inner = String::from_utf8(output.stdout).unwrap();
        assert_eq!(inner, r"install -m 644 '/h/it'\''s/ca.pem' '/etc/a b' && echo -x");
    }

    #[test]
    fn what_failed_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "x").unwrap();
        let mut steps = vec![Step::Copy { from, to: to.clone() }];
        let plan = |steps: &[Step]| Plan { steps: steps.to_vec(), ..Plan::default() };
        plan(&steps).apply(None).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o644);
        steps.push(Step::Run(Call { program: "false", ..Call::default() }));
        let error = plan(&steps).apply(None).unwrap_err();
        assert!(matches!(error, TrustStoreError::Refused { .. }), "{error}");
        assert!(!to.exists());
        steps[1] = Step::Run(Call { program: "no-such-program-here", ..Call::default() });
        assert!(matches!(plan(&steps).apply(None), Err(TrustStoreError::Spawn { .. })));
        assert!(!to.exists());
    }

    #[test]
    fn fingerprints_are_sha_256() {
        let authority =
            Authority { file: "x".into(), certificate: CertificateDer::from(b"abc".to_vec()) };
        assert_eq!(
            authority.fingerprint(),
            "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"
        );
    }
}
