//! What steps are done by: the file system and programs. Tests put a machine of their own in its place.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{read, retry_on_intr};
use serde::{Deserialize, Serialize};

use super::step::{Call, Check};
use crate::home::{through_links, write_atomic_with};
use crate::meter::trust::read_certificates;
use crate::near;
use crate::platform;

/// A manager that says nothing for so long hangs: what it was asked for goes on without it.
const QUESTION: Duration = Duration::from_secs(3);
/// Between two looks at a program that is about to end.
const LOOK: Duration = Duration::from_millis(2);

/// A file's content and mode.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Blob {
    pub content: Vec<u8>,
    pub mode: u32,
}

/// What a program answered.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Said {
    /// 128 + n after signal n.
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub trait Machine {
    /// `None`: there is no such file.
    fn read(&self, path: &Path) -> io::Result<Option<Blob>>;
    /// Whole or not at all; through a symbolic link, as those who keep their files in a repository
    /// have them. Directories that are missing are made.
    fn write(&mut self, path: &Path, blob: &Blob) -> io::Result<()>;
    fn remove(&mut self, path: &Path) -> io::Result<()>;
    /// What a write there writes, where that is a link.
    fn behind(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_path_buf())
    }
    /// Directories above `path` that are not there, outermost first.
    fn missing_dirs(&self, path: &Path) -> Vec<PathBuf>;
    /// If it is empty.
    fn remove_dir(&mut self, path: &Path);
    /// One line at the end of a file of ours, and onto the disk.
    fn append(&mut self, path: &Path, line: &[u8]) -> io::Result<()>;
    fn ask(&mut self, call: &Call) -> io::Result<Said>;
    fn holds(&mut self, check: &Check) -> bool;
    /// Lets this time pass.
    fn pause(&mut self, time: Duration);
}

/// The real one.
#[derive(Clone, Debug, Default)]
pub struct Os {
    /// Where programs are looked for instead of the own search path.
    pub path: Option<OsString>,
    /// How long an answer may take; then the program is ended.
    pub patience: Option<Duration>,
}

impl Os {
    /// For questions: what only asks is answered at once, or not at all.
    #[must_use]
    pub fn asking(path: Option<&OsString>) -> Self {
        Self { path: path.cloned(), patience: Some(QUESTION) }
    }
}

impl Os {
    fn output(&self, program: &str, args: &[String]) -> io::Result<Output> {
        let mut command = Command::new(program);
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        command.args(args).stdin(Stdio::null());
        match self.patience {
            None => command.output(),
            Some(patience) => output_within(&mut command, patience),
        }
    }
}

/// It did not even start.
fn not_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

impl Machine for Os {
    fn read(&self, path: &Path) -> io::Result<Option<Blob>> {
        match fs::read(path) {
            Ok(content) => {
                let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
                Ok(Some(Blob { content, mode }))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn write(&mut self, path: &Path, blob: &Blob) -> io::Result<()> {
        let path = self.behind(path)?;
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        write_atomic_with(&path, &blob.content, blob.mode)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn behind(&self, path: &Path) -> io::Result<PathBuf> {
        through_links(path)
    }

    fn missing_dirs(&self, path: &Path) -> Vec<PathBuf> {
        let above = path.ancestors().skip(1).filter(|d| !d.as_os_str().is_empty());
        let mut missing: Vec<_> =
            above.take_while(|d| !d.exists()).map(Path::to_path_buf).collect();
        missing.reverse();
        missing
    }

    fn remove_dir(&mut self, path: &Path) {
        let _ = fs::remove_dir(path);
    }

    fn append(&mut self, path: &Path, line: &[u8]) -> io::Result<()> {
        let mut file = crate::home::open_append(path)?;
        file.write_all(line)?;
        file.sync_data()
    }

    fn ask(&mut self, call: &Call) -> io::Result<Said> {
        let output = self.output(&call.program, &call.args).or_else(|e| {
            let elsewhere = platform::place_of_tool(&call.program).filter(|_| not_there(&e));
            elsewhere.map_or(Err(e), |program| self.output(program, &call.args))
        })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let signal = || std::os::unix::process::ExitStatusExt::signal(&output.status);
        let code = output.status.code().or_else(|| signal().map(|n| 128 + n));
        Ok(Said { code: code.unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) })
    }

    fn holds(&mut self, check: &Check) -> bool {
        match check {
            Check::Certificate { bundle, certificate, present } => {
                read_certificates(bundle).contains(certificate) == *present
            }
            Check::Answers { addr, patience } => {
                let deadline = Instant::now() + *patience;
                loop {
                    if near::connect_timeout(addr, Duration::from_secs(1)).is_ok() {
                        return true;
                    }
                    if Instant::now() >= deadline {
                        return false;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    fn pause(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}

fn output_within(command: &mut Command, patience: Duration) -> io::Result<Output> {
    let end = Instant::now() + patience;
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pipes = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
    // Both end with it.
    let answer = all_of(pipes, end).and_then(|[stdout, stderr]| {
        loop {
            match child.try_wait()? {
                Some(status) => return Ok(Output { status, stdout, stderr }),
                None if Instant::now() >= end => return Err(silent()),
                None => std::thread::sleep(LOOK),
            }
        }
    });
    if answer.is_err() {
        child.kill()?;
        child.wait()?;
    }
    answer
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it does not answer")
}

/// What comes out of both, to their ends: something that the program started may hold them open. Without a
/// thread, which there may be none of.
fn all_of(pipes: [Option<OwnedFd>; 2], end: Instant) -> io::Result<[Vec<u8>; 2]> {
    let mut said = [Vec::new(), Vec::new()];
    let mut open: Vec<_> =
        pipes.into_iter().zip(&mut said).filter_map(|(pipe, said)| Some((pipe?, said))).collect();
    while !open.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        let wait = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut asked: Vec<_> =
            open.iter().map(|(pipe, _)| PollFd::new(pipe, PollFlags::IN)).collect();
        // Some never come to an end.
        if left.is_zero() || retry_on_intr(|| poll(&mut asked, Some(&wait)))? == 0 {
            return Err(silent());
        }
        let ready: Vec<_> = asked.iter().map(|pipe| !pipe.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        open.retain_mut(|(pipe, said)| ready.next() != Some(true) || goes_on(pipe, said));
    }
    drop(open);
    Ok(said)
}

/// Takes what is there; false at the end.
fn goes_on(pipe: &OwnedFd, said: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    match retry_on_intr(|| read(pipe, &mut buffer)) {
        Ok(n) if n > 0 => {
            said.extend_from_slice(buffer.get(..n).unwrap_or_default());
            true
        }
        Ok(_) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::execute::execute;
    use super::super::step::Step;
    use super::*;

    #[test]
    fn a_write_goes_through_a_link_and_sets_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "a").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let blob = Blob { content: b"b".to_vec(), mode: 0o640 };
        Os::default().write(&link, &blob).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(Os::default().read(&real).unwrap(), Some(blob));
    }

    #[test]
    fn a_link_to_nothing_is_written_and_emptied_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("dots")).unwrap();
        std::os::unix::fs::symlink("dots/x", at(".bashrc")).unwrap();
        std::os::unix::fs::symlink("gone/x", at(".zshrc")).unwrap();
        let section = |name: &str, body: Option<&str>| {
            [Step::Section { path: at(name), body: body.map(Into::into) }]
        };
        let run = |steps: &[Step]| execute(&mut Os::default(), &at("journal"), steps);
        let failed = run(&section(".zshrc", Some("a"))).unwrap_err();
        assert!(failed.to_string().contains("gone/x") && failed.left.is_empty(), "{failed:?}");
        for (body, there) in [(Some("a"), true), (None, false)] {
            run(&section(".bashrc", body)).unwrap();
            assert_eq!(fs::read_link(at(".bashrc")).unwrap(), Path::new("dots/x"));
            assert_eq!(at("dots/x").exists(), there);
        }
        let fails = [&section(".bashrc", Some("a"))[..], &[Step::Run(Call::default())]].concat();
        assert!(run(&fails).unwrap_err().left.is_empty());
        assert!(at(".bashrc").is_symlink() && !at("dots/x").exists() && !at("gone").exists());
    }

    #[test]
    fn missing_directories_are_named_from_the_outside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/file");
        let missing = Os::default().missing_dirs(&path);
        assert_eq!(missing, [dir.path().join("a"), dir.path().join("a/b")]);
        assert_eq!(Os::default().missing_dirs(&missing[0]), Vec::<PathBuf>::new());
    }

    #[test]
    fn how_a_program_ended_is_told() {
        let mut os = Os::default();
        let said = os.ask(&Call::new("sh", ["-c", "echo o; echo e >&2; exit 3"])).unwrap();
        assert_eq!(said, Said { code: 3, out: "o\n".into(), err: "e\n".into() });
        assert_eq!(os.ask(&Call::new("sh", ["-c", "kill -9 $$"])).unwrap().code, 137);
        assert!(os.ask(&Call::new("no-such-program-here", [""; 0])).is_err());
    }

    #[test]
    fn a_question_is_not_waited_for_without_end() {
        let large = Call::new("sh", ["-c", "head -c 300000 /dev/zero | tr '\\0' x; exit 3"]);
        let said = Os::asking(None).ask(&large).unwrap();
        assert_eq!((said.code, said.out.len()), (3, 300_000));
        let mut os = Os { patience: Some(Duration::from_millis(200)), ..Os::default() };
        for silent in
            ["exec yes", "exec sleep 60", "sleep 60 & exit 0", "exec >&- 2>&-; exec sleep 60"]
        {
            let began = Instant::now();
            let error = os.ask(&Call::new("sh", ["-c", silent])).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{silent}");
            assert!(began.elapsed() < Duration::from_secs(30), "{silent}");
        }
    }
}
