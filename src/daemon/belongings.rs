//! What others find of the daemon in its home, written again when the home is removed, or moved away,
//! under it. Programs that run name files there, and without those their TLS fails; commands find and
//! ask the daemon by others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use slog::Logger;
use uuid::Uuid;

use crate::actors::admin::auth::Token;
use crate::actors::meter::Meter;
use crate::beat;
use crate::config::Config;
use crate::home::{Home, write_atomic};
use crate::meter::ca::{KeptFiles, Standing};
use crate::threads;

pub(super) struct Belongings {
    pub(super) home: Home,
    pub(super) instance: Uuid,
    pub(super) token: Token,
    pub(super) meter: Meter,
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) log: Logger,
}

/// Looks at each beat until the future is dropped.
pub(super) async fn keep(belongings: Belongings) {
    let belongings = Arc::new(belongings);
    let files = Arc::new(Mutex::new(KeptFiles::default()));
    // At once: there may be a CA that programs have been led to for long.
    let mut rest = Duration::ZERO;
    loop {
        tokio::time::sleep(rest).await;
        rest = beat::until(beat::PERIOD);
        let standing = lock(&files).look(&belongings.home);
        let found = belongings.home.instance_file().exists();
        if standing == Standing::Well && found {
            continue;
        }
        let (belongings, files) = (Arc::clone(&belongings), Arc::clone(&files));
        let work = move || belongings.set_right(&mut lock(&files), standing, found);
        // Without a thread it is done at the next beat, as what a panic left is.
        let _ = threads::blocking(work).await;
    }
}

fn lock(files: &Mutex<KeptFiles>) -> MutexGuard<'_, KeptFiles> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Belongings {
    /// What can't be done now is tried at the next beat.
    fn set_right(&self, files: &mut KeptFiles, standing: Standing, found: bool) {
        if !found && let Err(e) = self.tell_again() {
            slog::debug!(self.log, "the run directory can't be written"; "error" => %e);
        }
        match standing {
            Standing::Well => return,
            Standing::Changed => {}
            Standing::Missing => {
                let restored = self.home.create().map_err(|e| e.to_string());
                let restored =
                    restored.and_then(|()| files.restore(&self.home).map_err(|e| e.to_string()));
                match restored {
                    Ok(true) => {
                        slog::warn!(self.log, "files of the CA were removed, written again");
                    }
                    Ok(false) => self.change_ca(),
                    Err(e) => {
                        // What is held is all that there is of them.
                        slog::debug!(self.log, "files of the CA are missing"; "error" => e);
                        return;
                    }
                }
            }
            Standing::Another => self.change_ca(),
        }
        if let Err(e) = files.note(&self.home) {
            slog::debug!(self.log, "files of the CA can't be held"; "error" => %e);
        }
    }

    /// Whoever starts from now on trusts the one that is there.
    fn change_ca(&self) {
        slog::warn!(self.log, "another CA took the place of ours, changing to it");
        if let Some(keys) = self.meter.known_keys()
            && let Err(e) = keys.reload(&self.home, &self.config.load(), &self.log)
        {
            slog::error!(self.log, "it can't be used"; "error" => %e);
        }
    }

    /// Not a token alone that somebody removed: that is how to get a new one.
    fn tell_again(&self) -> std::io::Result<()> {
        self.home.create().map_err(std::io::Error::other)?;
        if !self.home.token_file().exists() {
            self.token.write(&self.home)?;
        }
        write_atomic(&self.home.instance_file(), self.instance.to_string().as_bytes())
    }
}
