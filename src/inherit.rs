//! What one image of a process leaves to the next one (`execve` in place): open descriptors, and a
//! file that says what they are.
//!
//! The pid stays, so no service manager notices. Until `execve` succeeds nothing is lost: if it
//! fails, the descriptors are closed-on-exec again and the old image goes on.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use crate::home::Home;

/// Descriptors below this one are standard.
const FIRST_OTHER: Number = 3;

/// Holds the number of the descriptor of the file.
pub const VAR: &str = "HALTON_METER_INHERIT";

/// What a program says to the preflight if it can take over.
pub const READY: &str = "ready";

const PREFLIGHT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// A number that the state names a descriptor by.
pub type Number = RawFd;

/// The program to change to: the one that `halton-meter upgrade` named, else our own file as it is
/// now.
///
/// # Errors
/// When our own file can't be told.
pub fn requested(home: &Home) -> io::Result<PathBuf> {
    let request = home.upgrade_request();
    let named = std::fs::read_to_string(&request).ok();
    let _ = std::fs::remove_file(request);
    match named.as_deref().map(str::trim) {
        Some(path) if !path.is_empty() => Ok(path.into()),
        Some(_) | None => crate::home::own_program(),
    }
}

/// Asks a program whether it can take over from a process of ours that writes states of `format`.
/// Blocks.
///
/// # Errors
/// Why it can't.
pub fn preflight(program: &Path, process: &str, format: u32) -> Result<(), String> {
    ask(program, process, format)
        .map_err(|why| format!("{} can't take over: {why}", program.display()))
}

/// Lets a descriptor live on in the next image (or not), and names it.
///
/// # Errors
/// When the kernel refuses.
pub fn leave(fd: impl AsFd, inheritable: bool) -> io::Result<Number> {
    let fd = fd.as_fd();
    let flags = fcntl_getfd(fd)?;
    let wanted = if inheritable { flags - FdFlags::CLOEXEC } else { flags | FdFlags::CLOEXEC };
    fcntl_setfd(fd, wanted)?;
    Ok(fd.as_raw_fd())
}

/// An anonymous file for the state; made early, so that a full disk shows before anything stops.
///
/// # Errors
/// When `directory` can't be written.
pub fn state_file(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!("inherit.{}.tmp", std::process::id()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// Replaces this process's image. Returns only if that failed, with everything as it was but the
/// descriptors that [`leave`] was called for. It fails if this image was `told` something that the
/// next one would never learn of.
pub fn replace(
    program: &Path,
    arguments: impl IntoIterator<Item = OsString>,
    state: &mut File,
    content: &[u8],
    told: impl FnOnce() -> bool,
) -> io::Error {
    let attempt = || -> io::Result<Infallible> {
        state.rewind()?;
        state.set_len(0)?;
        state.write_all(content)?;
        state.rewind()?;
        let program = text(program.as_os_str().to_owned())?;
        let mut argv = vec![program.clone()];
        for argument in arguments {
            argv.push(text(argument)?);
        }
        let mut variables = Vec::new();
        for (name, value) in std::env::vars_os().filter(|(name, _)| name != VAR) {
            variables.push(pair(name, value)?);
        }
        let number = leave(&*state, true)?;
        variables.push(pair(VAR.into(), number.to_string().into())?);
        // A signal that comes before the next image listens would end it: it waits till then. (And
        // std's own `exec` changes how signals are handled, also when it fails.)
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let failed = if told() {
            Err(io::Error::other("told something else meanwhile"))
        } else {
            nix::unistd::execve(&program, &argv, &variables).map_err(io::Error::from)
        };
        before.thread_set_mask()?;
        leave(&*state, false)?;
        failed
    };
    match attempt() {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

/// What the last image left, if this one took over from it.
///
/// # Errors
/// When there is something that can't be read.
pub fn received() -> io::Result<Option<Vec<u8>>> {
    let Some(number) = std::env::var_os(VAR) else { return Ok(None) };
    let number = number.to_str().and_then(|n| n.parse().ok());
    let number = number.ok_or_else(|| io::Error::other("not a descriptor's number"))?;
    let mut content = Vec::new();
    File::from(take(number)?).read_to_end(&mut content)?;
    Ok(Some(content))
}

/// Lets the signals through that waited while the images changed. Call it when somebody listens.
pub fn hear_signals() {
    // Fails only for a set that the kernel does not know.
    let _ = SigSet::all().thread_unblock();
}

/// Takes possession of a descriptor that the last image left. Each number at most once.
///
/// # Errors
/// When no descriptor has that number.
#[expect(unsafe_code, reason = "a number that came through execve becomes an owned descriptor")]
pub fn take(number: Number) -> io::Result<OwnedFd> {
    // SAFETY: `F_GETFD` on any number is harmless; one that is not open gives EBADF.
    let open = fcntl_getfd(unsafe { std::os::fd::BorrowedFd::borrow_raw(number.max(0)) });
    if number <= 2 || open?.contains(FdFlags::CLOEXEC) {
        // Opened by this image, so it has an owner.
        return Err(io::Error::other("not a descriptor that was left to us"));
    }
    // SAFETY: it is open, was left by the last image and has no owner in this one: whatever this
    // image opened is close-on-exec, which was checked above, and taking it makes it so too.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Whether this process was started with `signal` ignored (`nohup`, `trap ''`, a script's background
/// job): what it starts in its place must not be ended by it either.
#[must_use]
#[expect(unsafe_code, reason = "no safe call reads a disposition without changing it")]
pub fn ignored(signal: i32) -> bool {
    let mut now = std::mem::MaybeUninit::<nix::libc::sigaction>::zeroed();
    // SAFETY: no new disposition is given, so nothing changes; `now` has room for the present one, and
    // all of its zeroes are one, too.
    let now = unsafe {
        nix::libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr());
        now.assume_init()
    };
    now.sa_sigaction == nix::libc::SIG_IGN
}

/// Signals whose disposition a command is to find as it would without us: Rust's runtime ignores the one,
/// and its `Command` never does; the other we need ourselves.
const HANDED_ON: [i32; 2] = [nix::libc::SIGPIPE, nix::libc::SIGCHLD];

/// Those that were ignored before `main`, a bit each.
static FOUND_IGNORED: AtomicU64 = AtomicU64::new(0);

/// Runs before Rust's runtime: afterwards nobody can tell any more.
pub(crate) extern "C" fn note_ignored() {
    for signal in HANDED_ON.into_iter().filter(|signal| ignored(*signal)) {
        FOUND_IGNORED.fetch_or(1 << signal, Ordering::Relaxed);
    }
}

/// With SIGCHLD ignored the kernel reaps what we start, and nobody learns how it ended. Whoever ignores it
/// passes that on to us.
pub fn see_ends() {
    if ignored(nix::libc::SIGCHLD) {
        // A handler that does nothing: it is gone in what we start.
        let _ = signal_hook::flag::register(nix::libc::SIGCHLD, Arc::default());
    }
}

/// Has a command start with what was ignored when we started.
#[expect(unsafe_code, reason = "std gives SIGPIPE its default in what it starts")]
pub fn hand_on_ignored(command: &mut Command) {
    let found = FOUND_IGNORED.load(Ordering::Relaxed);
    if found == 0 {
        return;
    }
    let ignore = move || {
        for signal in HANDED_ON.into_iter().filter(|signal| found & (1 << signal) != 0) {
            // SAFETY: async-signal-safe, and no handler is set.
            unsafe { nix::libc::signal(signal, nix::libc::SIG_IGN) };
        }
        Ok(())
    };
    // SAFETY: between fork and exec it calls only `signal`, and allocates nothing.
    unsafe { command.pre_exec(ignore) };
}

/// Closes what the program that started us left open: a pipe of its own, say, whose other end waits for
/// its close. Call it before this process opens anything.
pub fn close_strays() {
    if std::env::var_os(VAR).is_some() {
        // The last image left them, and had closed its own strays.
        return;
    }
    // As files: `/dev/fd` is there on every Unix.
    let Ok(open) = std::fs::read_dir("/dev/fd") else { return };
    let open: Vec<_> =
        open.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for number in strays(&open, std::env::var("LISTEN_FDS").ok().as_deref()) {
        // The directory's own, which is closed by now, gives an error.
        let _ = nix::unistd::close(number);
    }
}

/// Neither standard nor handed to us.
fn strays(open: &[Number], listen_fds: Option<&str>) -> Vec<Number> {
    let handed: Number = listen_fds.and_then(|n| n.parse().ok()).unwrap_or(0).max(0);
    let first = FIRST_OTHER.saturating_add(handed);
    open.iter().copied().filter(|number| *number >= first).collect()
}

fn ask(program: &Path, process: &str, format: u32) -> Result<(), String> {
    let mut child = Command::new(program)
        .args(["preflight", process, &format.to_string()])
        .env_remove(VAR)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    let deadline = Instant::now() + PREFLIGHT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err("it does not answer".to_owned());
            }
        }
    };
    // Not `wait_with_output`: something that it started may hold its output open.
    let mut said = [0; 64];
    let read = child.stdout.take().map_or(Ok(0), |mut out| out.read(&mut said)).unwrap_or(0);
    let said = String::from_utf8_lossy(said.get(..read).unwrap_or_default()).into_owned();
    if status.success() && said.trim() == READY {
        Ok(())
    } else {
        Err(format!("it does not know how to ({status})"))
    }
}

fn text(value: OsString) -> io::Result<CString> {
    CString::new(value.into_vec()).map_err(io::Error::other)
}

fn pair(name: OsString, value: OsString) -> io::Result<CString> {
    let mut both = name;
    both.push("=");
    both.push(value);
    text(both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_left_and_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = state_file(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it has no name");
        file.write_all(b"kept").unwrap();
        file.rewind().unwrap();
        let copy = OwnedFd::from(file.try_clone().unwrap());
        assert!(take(copy.as_raw_fd()).is_err(), "close-on-exec: it is ours already");
        let number = leave(&copy, true).unwrap();
        std::mem::forget(copy);
        let mut taken = File::from(take(number).unwrap());
        assert!(take(number).is_err(), "twice");
        let mut content = String::new();
        taken.read_to_string(&mut content).unwrap();
        assert_eq!(content, "kept");
        assert!(take(9999).is_err() && take(0).is_err());
    }

    #[test]
    fn what_was_handed_over_is_no_stray() {
        let open = [0, 1, 2, 3, 4, 9];
        assert_eq!(strays(&open, None), [3, 4, 9]);
        assert_eq!(strays(&open, Some("1")), [4, 9]);
        assert_eq!(strays(&open, Some("x")), [3, 4, 9]);
        assert_eq!(strays(&open, Some("-5")), [3, 4, 9]);
        assert!(strays(&open, Some("2147483647")).is_empty());
    }

    #[test]
    fn a_program_that_is_not_there_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = state_file(dir.path()).unwrap();
        let before = SigSet::thread_get_mask().unwrap();
        let mut try_it = |told: bool| {
            replace(&dir.path().join("nothing"), [], &mut file, b"state", || told).kind()
        };
        assert_eq!(try_it(false), io::ErrorKind::NotFound);
        assert_eq!(try_it(true), io::ErrorKind::Other, "nothing is tried");
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
        assert!(fcntl_getfd(&file).unwrap().contains(FdFlags::CLOEXEC));
    }
}
