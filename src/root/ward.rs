//! Daemon and watchdog that the service manager started: it knows that they run, not whether they do
//! anything. One that holds its lock and is silent for long is killed here, and started anew there.

use std::sync::Arc;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use slog::Logger;

use super::alive;
use crate::actors::process::{PERIOD, Patience, Question};
use crate::home::{Home, PidLock};
use crate::supervisor::Journal;
use crate::supervisor::journal::Note;

const WARDS: [&str; 2] = ["daemon", "watchdog"];

pub(super) fn watch(home: &Home, log: &Logger, journal: &Journal) {
    for name in WARDS {
        actix_rt::spawn(guard(Ward {
            name,
            home: home.clone(),
            question: alive::by_file(home, name),
            log: log.clone(),
            journal: journal.clone(),
        }));
    }
}

struct Ward {
    name: &'static str,
    home: Home,
    question: Question,
    log: Logger,
    journal: Journal,
}

async fn guard(ward: Ward) {
    let mut patience = Patience::default();
    let mut asked_of = None;
    loop {
        tokio::time::sleep(PERIOD).await;
        let holder = ward.holder();
        if holder.is_none() || holder != asked_of {
            // Nobody there, or another one: his silence starts now.
            (patience, asked_of) = (Patience::default(), holder);
            continue;
        }
        let (question, asked) = (Arc::clone(&ward.question), Instant::now());
        let Ok(answer) = tokio::task::spawn_blocking(move || question()).await else { continue };
        if patience.step(answer, asked.elapsed()) {
            patience = Patience::default();
            ward.end(asked_of);
        }
    }
}

impl Ward {
    fn holder(&self) -> Option<u32> {
        PidLock::holder(&self.home.pid_file(self.name)).ok().flatten()
    }

    fn end(&self, pid: Option<u32>) {
        let Some(pid) = pid.filter(|_| self.holder() == pid) else { return };
        slog::error!(self.log, "silent for long, ended"; "process" => self.name, "pid" => pid);
        let note = Note::new("silent").cause(format!("{} does not answer any more", self.name));
        self.journal.append(note);
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may have ended this instant.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
