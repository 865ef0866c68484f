//! Daemon and watchdog that the service manager started: it knows that they run, not whether they do
//! anything. One that holds its lock and is silent for long is killed here, and started anew there.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use slog::Logger;

use super::alive;
use crate::actors::process::{Answer, Asker, Question};
use crate::home::{Home, PidLock};
use crate::supervisor::Journal;
use crate::supervisor::journal::Note;

const WARDS: [&str; 2] = ["daemon", "watchdog"];

pub(super) fn watch(home: &Home, log: &Logger, journal: &Journal, asker: &Asker) {
    for name in WARDS {
        let ward = Ward {
            name,
            home: home.clone(),
            alive: alive::by_file(home, name),
            log: log.clone(),
            journal: journal.clone(),
        };
        actix_rt::spawn(guard(ward, asker.clone()));
    }
}

struct Ward {
    name: &'static str,
    home: Home,
    alive: Question,
    log: Logger,
    journal: Journal,
}

async fn guard(ward: Ward, asker: Asker) {
    loop {
        let asked_of = Arc::new(Mutex::new(None));
        let frozen = match asker.watch(ward.question(Arc::clone(&asked_of))) {
            Ok(frozen) => frozen,
            Err(e) => {
                return slog::error!(ward.log, "nobody asks whether it is frozen";
                    "process" => ward.name, "error" => %e);
            }
        };
        if frozen.await.is_ok() {
            let pid = *asked_of.lock().unwrap_or_else(PoisonError::into_inner);
            ward.end(pid);
        }
    }
}

impl Ward {
    /// `asked_of`: who was there when it was asked last.
    fn question(&self, asked_of: Arc<Mutex<Option<u32>>>) -> Question {
        let (name, home, alive) = (self.name, self.home.clone(), Arc::clone(&self.alive));
        Arc::new(move || {
            let holder = holder(&home, name);
            let before =
                mem::replace(&mut *asked_of.lock().unwrap_or_else(PoisonError::into_inner), holder);
            // Nobody there, or another one: his silence starts now.
            if holder.is_none() || holder != before { Answer::Unknown } else { alive() }
        })
    }

    fn end(&self, pid: Option<u32>) {
        let here = PidLock::holder_here(&self.home.pid_file(self.name));
        let Some(pid) = pid.filter(|_| here == pid) else { return };
        slog::error!(self.log, "silent for long, ended"; "process" => self.name, "pid" => pid);
        let note = Note::new("silent").cause(format!("{} does not answer any more", self.name));
        self.journal.append(note);
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may have ended this instant.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn holder(home: &Home, name: &str) -> Option<u32> {
    PidLock::holder(&home.pid_file(name)).ok().flatten()
}
