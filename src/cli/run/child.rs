//! The command of `run` as its caller's own child: with us between them it stops, goes on and dies alike.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getpid, kill_process, setrlimit, waitid,
};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::script;
use crate::cli::{Exit, lifecycle};
use crate::inherit;

/// Signals that end a program from outside.
const ENDING: [i32; 4] = [SIGINT, SIGQUIT, SIGTERM, SIGHUP];
/// By then a stop or a continuation that was meant for both of us has reached both.
const SETTLED: Duration = Duration::from_millis(20);

/// Starts the command and waits for it. Where there is no room for two processes there is for one, as there
/// would be without us: it takes our place, and nothing is said when it has ended.
pub fn run(command: &mut Command) -> io::Result<ExitStatus> {
    match watched(command) {
        Err(e) if is_shortage(&e) => by_shell_if_need_be(command, |command| Err(command.exec())),
        ended => ended,
    }
}

/// Of processes, memory or descriptors.
fn is_shortage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE))
}

/// Signals that are sent to us alone go on to it.
fn watched(command: &mut Command) -> io::Result<ExitStatus> {
    // A handler of ours would end with us: what was ignored would kill the command.
    let heard = ENDING.into_iter().filter(|signal| !inherit::ignored(*signal));
    let mut signals = Signals::new(heard)?;
    let handle = signals.handle();
    let continued = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGCONT, Arc::clone(&continued))?;
    let mut child = by_shell_if_need_be(command, Command::spawn)?;
    let pid = child.id();
    // Without one the command runs all the same.
    let forwarder = thread::Builder::new().spawn(move || {
        // Whoever waits for the command is to know first that he was stopped.
        let _ = SigSet::all().thread_block();
        for number in &mut signals {
            let signal = match number {
                SIGTERM => Signal::TERM,
                SIGHUP => Signal::HUP,
                // The terminal sends these to its whole foreground group, the child included. macOS does
                // not tell them from a program's (the sender is then the terminal's program), and twice
                // means "at once" to many tools.
                _ => continue,
            };
            let _ = lifecycle::signal(pid, signal);
        }
    });
    let status = wait(&mut child, &continued);
    handle.close();
    let _ = forwarder.map(thread::JoinHandle::join);
    status
}

fn by_shell_if_need_be<T>(
    command: &mut Command,
    start: impl Fn(&mut Command) -> io::Result<T>,
) -> io::Result<T> {
    inherit::hand_on_ignored(command);
    let started = start(command);
    if let Err(e) = &started
        && Errno::from_io_error(e) == Some(Errno::NOEXEC)
        && let Some(mut shell) = script::by_shell(command)
    {
        inherit::hand_on_ignored(&mut shell);
        return start(&mut shell);
    }
    started
}

/// Waits for its end. When it stops itself (Claude Code does on Ctrl+Z) we stop too, or the shell would
/// never have its terminal back; when the shell lets us go on, so does it.
fn wait(child: &mut Child, continued: &AtomicBool) -> io::Result<ExitStatus> {
    let pid = Pid::from_child(child);
    // What can't be looked at can still be waited for.
    while has_stopped(pid, WaitIdOptions::empty()).unwrap_or(false) {
        continued.store(false, Ordering::SeqCst);
        thread::sleep(SETTLED);
        // The terminal stopped us with it, and by now we both go on.
        if continued.load(Ordering::SeqCst)
            || !has_stopped(pid, WaitIdOptions::NOHANG).unwrap_or(false)
        {
            continue;
        }
        // Takes note of it: the next look waits for the next stop.
        let noted = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), noted));
        // Unlike SIGSTOP this stops nobody whom no shell could let go on.
        let _ = kill_process(getpid(), Signal::TSTP);
        thread::sleep(SETTLED);
        if continued.load(Ordering::SeqCst) {
            // It may be in a process group of its own, which the shell knows nothing of.
            let _ = kill_process(pid, Signal::CONT);
        }
    }
    child.wait()
}

/// Whether it has stopped, and nobody took note of that. False also when it has ended.
fn has_stopped(pid: Pid, how: WaitIdOptions) -> io::Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT | how;
    let status = retry_on_intr(|| waitid(WaitId::Pid(pid), options))?;
    Ok(status.is_some_and(|status| status.stopped()))
}

/// Ends this process by the signal that ended the command, if it was one that a caller makes more of than
/// of a number: bash goes on with a loop after a command that seems to have handled Ctrl-C. Else says how
/// to exit.
pub fn end_as(status: ExitStatus) -> Exit {
    if let Some(signal) = status.signal().filter(|signal| ENDING.contains(signal)) {
        // A core of ours would be of no use.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    let code = status.code().or(status.signal().map(|n| 128 + n)).unwrap_or(1);
    Exit(u8::try_from(code).unwrap_or(1))
}
