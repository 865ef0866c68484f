//! What `up` and `top` share: the end on request, and the terminal as a screen.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::meter::ledger::{Ledger, LedgerError, RequestFilter};
use crate::meter::row::Row;

/// Ctrl-C, and what else asks a program to end.
#[derive(Clone, Debug)]
pub struct Ended(Arc<AtomicBool>);

impl Ended {
    pub fn on_signals() -> io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&ended))?;
        }
        Ok(Self(ended))
    }

    pub fn yet(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Requests to a model that began since then, newest first.
pub fn rows(ledger: &Ledger, since: Timestamp, limit: usize) -> Result<Vec<Row>, LedgerError> {
    let filter =
        RequestFilter { since: Some(since), limit: Some(limit), ..RequestFilter::default() };
    Ok(ledger.requests(&filter)?.rows)
}

/// On: the other screen, no cursor. Off: as it was.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// The terminal as a screen of our own, given back when this is dropped or the program panics.
pub struct Screen {
    before: Termios,
}

impl Screen {
    /// `None`: there is no terminal to show on, or none to be told an end by.
    pub fn enter() -> io::Result<Option<Self>> {
        let (stdin, mut stdout) = (io::stdin(), io::stdout());
        if !stdin.is_terminal() || !stdout.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut keys = before.clone();
        // Each key at once and unseen. Ctrl-C stays a signal; a stop would leave the screen behind.
        keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        keys.special_codes[SpecialCodeIndex::VSUSP] = 0;
        tcsetattr(&stdin, OptionalActions::Now, &keys)?;
        let screen = Self { before: before.clone() };
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back(&before);
            earlier(info);
        }));
        stdout.write_all(ENTER.as_bytes())?;
        stdout.flush()?;
        Ok(Some(screen))
    }

    /// Lines that there is room for.
    pub fn height() -> usize {
        match tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_row) {
            // A terminal that does not know.
            0 => 24,
            rows => usize::from(rows).max(4),
        }
    }

    /// In place of what was there, without a flicker.
    pub fn show(&self, lines: &[String]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (i, line) in lines.iter().enumerate() {
            if i > 0 {
                text.push('\n');
            }
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        let mut stdout = io::stdout();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// Waits for that long; true: the user wants to leave.
    pub fn wait(&self, patience: Duration, ended: &Ended) -> io::Result<bool> {
        let end = Instant::now() + patience;
        while !ended.yet() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let stdin = io::stdin();
            let mut fds = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut fds, timeout.as_ref()) {
                // A signal: whether it was an end the next turn tells.
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(e) => return Err(e.into()),
            }
            let mut keys = [0; 64];
            let read = rustix::io::read(&stdin, &mut keys)?;
            let keys = keys.get(..read).unwrap_or_default();
            // The end of input: the terminal is gone. An escape begins an arrow key, or is one alone.
            if keys.is_empty() || keys == b"\x1b" || keys.iter().any(|k| matches!(k, b'q' | b'Q')) {
                return Ok(true);
            }
        }
        Ok(true)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back(&self.before);
    }
}

fn give_back(before: &Termios) {
    let mut stdout = io::stdout();
    let _ = stdout.write_all(LEAVE.as_bytes());
    let _ = stdout.flush();
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
}
