//! Our certificate authority: made on first use, kept 0600, constrained to the metered hosts.
//!
//! A stolen key can impersonate no other host: the constraint is critical and stands in the
//! certificate that clients trust. What is loaded is put to the test before it is used, so a
//! certificate that is not constrained, not ours, or about to expire is replaced, and each leaf is
//! verified once against the CA before a client sees it: a clock that jumped or a host that is not
//! covered ends in a raw tunnel, not in a failed handshake.
//!
//! Programs read the roots that they trust when they start. So a CA is never exchanged at once: the *next*
//! one is published beside it, and only signs what the present one can't, until no running program can
//! have missed it ([`rotate`]). Where the present one can't sign any more there is no such choice: what
//! began before is left alone then ([`anew`]).

pub mod anew;
mod bundle;
mod inspect;
mod kept;
mod leaf;
mod make;
pub mod rotate;
mod signer;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;

pub use bundle::{Bundle, is_union, renew_unions, union_bundle};
#[cfg(any(test, fuzzing))]
pub(crate) use inspect::inspect_files;
pub use inspect::{Inspected, inspect};
pub use kept::{KeptFiles, Standing};

use crate::config::HostPattern;
use crate::home::Home;
use rotate::{promote, retire};
use signer::{Place, Signer, Unfit};

/// Why there is no CA, or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot use a certificate of our own: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the CA does not cover this host: {0}")]
    NotCovered(#[source] rustls::Error),
    #[error("by this clock the CA is not valid now")]
    NotValidNow,
    #[error("not a host name that a certificate can carry")]
    BadName,
    #[error("no root certificates found on this system")]
    NoRoots,
    #[error("no next CA waits")]
    NoNext,
}

impl CaError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}

/// The authority, ready to answer handshakes.
#[derive(Debug)]
pub struct Ca {
    current: Signer,
    next: Option<Signer>,
    /// When the one that signs took the place of another at once.
    anew: Option<SystemTime>,
}

/// To which programs the CA was given that signs for a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Known {
    ToAll,
    /// That were given the next one.
    WithNext,
    /// That were given the one that was made anew then.
    Since(SystemTime),
}

impl Ca {
    /// For commands: loads the CA of this home, or makes one when there is none or its time is over. One that won't do for much longer,
    /// or not for all of `hosts`, gets a next one beside it. Safe to call from several processes at once.
    ///
    /// # Errors
    /// When the files can't be read or written. A damaged file is no error: it is replaced.
    pub fn load_or_create(
        home: &Home,
        hosts: &[HostPattern],
        log: &slog::Logger,
    ) -> Result<Self, CaError> {
        let _lock = lock(home)?;
        let now = SystemTime::now();
        let current = Signer::load(&Place::current(home), hosts, now)?;
        let next = Signer::load(&Place::next(home), hosts, now)?.fit();
        let (current, unfit) = match current {
            signer::Found::Good(current) if next.as_ref() == Some(&current) => {
                // A change-over that was cut short behind its last file.
                anew::forget(home)?;
                Place::next(home).clear()?;
                return Ok(Self { current, next: None, anew: None });
            }
            signer::Found::Good(current) => {
                return Ok(Self { current, next, anew: anew::made(home)? });
            }
            signer::Found::Limited(current, unfit) => (Some(current), unfit),
            signer::Found::Unfit(unfit) => (None, unfit),
        };
        Ok(match (current, next) {
            (Some(current), Some(next)) => {
                Self { current, next: Some(next), anew: anew::made(home)? }
            }
            (Some(current), None) => {
                slog::warn!(log, "making the next certificate authority: running programs trust it \
                    after their next start, until then the old one signs for them"; "why" => %unfit);
                let next = rotate::publish(home, hosts, now)?;
                Self { current, next: Some(next), anew: anew::made(home)? }
            }
            (None, Some(next)) => {
                promote(home, now)?;
                slog::warn!(log, "the next certificate authority signs from now on"; "why" => %unfit);
                Self { current: next, next: None, anew: None }
            }
            (None, None) => {
                let place = Place::current(home);
                let replaces = anew::has_predecessor(home);
                if matches!(unfit, Unfit::Missing) {
                    slog::info!(log, "making a certificate authority");
                } else {
                    let kept = retire(home, &place, now)?;
                    slog::warn!(log, "making a new certificate authority: running programs \
                        trust it after their next start";
                        "old_one" => %unfit, "kept_as" => kept.display());
                }
                if replaces {
                    anew::note(home, now)?;
                }
                let current = Signer::create(&place, hosts, now)?;
                Self { current, next: None, anew: anew::made(home)? }
            }
        })
    }

    /// The same for the daemon, which nobody may have asked to start: it came back after a crash. One that
    /// is out of its time is kept then, until a command replaces it: running programs trust no other, and
    /// it may be the clock that is wrong.
    ///
    /// # Errors
    /// When the files can't be read or written.
    pub fn load_unasked(
        home: &Home,
        hosts: &[HostPattern],
        log: &slog::Logger,
    ) -> Result<Self, CaError> {
        if let Some(kept) = Self::out_of_time(home, hosts, SystemTime::now())? {
            slog::warn!(
                log,
                "by this clock the certificate authority is not valid; it stays until \
                `halton-meter restart` or `start` makes another"
            );
            return Ok(kept);
        }
        Self::load_or_create(home, hosts, log)
    }

    /// One that would do in its own time.
    fn out_of_time(
        home: &Home,
        hosts: &[HostPattern],
        now: SystemTime,
    ) -> Result<Option<Self>, CaError> {
        let _lock = lock(home)?;
        let place = Place::current(home);
        let current = Signer::open(&place)?.ok().filter(|signer| !signer.is_valid_at(now));
        let Some(current) = current else { return Ok(None) };
        tighten(&place.key)?;
        let beginning = current.beginning();
        let next = Signer::load(&Place::next(home), hosts, now)?.fit();
        Ok(match current.examine(hosts, beginning)? {
            signer::Found::Good(current) | signer::Found::Limited(current, _) => {
                Some(Self { current, next, anew: anew::made(home)? })
            }
            signer::Found::Unfit(_) => None,
        })
    }

    /// Server configuration for one connection: a leaf for `name` (the SNI, else the CONNECT
    /// host) and exactly the protocol that the provider chose.
    ///
    /// # Errors
    /// When no certificate can be made that a client would accept: leave the connection raw.
    pub fn server_config(
        &self,
        name: &str,
        alpn: Option<&[u8]>,
    ) -> Result<Arc<ServerConfig>, CaError> {
        self.server_config_at(name, alpn, SystemTime::now())
    }

    fn server_config_at(
        &self,
        name: &str,
        alpn: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<Arc<ServerConfig>, CaError> {
        let config = self.current.server_config(name, alpn, now);
        if let Some(next) = &self.next
            && matches!(config, Err(CaError::NotCovered(_) | CaError::NotValidNow))
        {
            return next.server_config(name, alpn, now);
        }
        config
    }

    /// Who was given the CA that signs for this name: others would refuse it.
    #[must_use]
    pub fn known(&self, name: &str) -> Known {
        let by_current = || self.current.server_config(name, None, SystemTime::now());
        if self.next.is_some()
            && matches!(by_current(), Err(CaError::NotCovered(_) | CaError::NotValidNow))
        {
            return Known::WithNext;
        }
        self.anew.map_or(Known::ToAll, Known::Since)
    }

    /// Whether any handshake can be answered at that moment.
    #[must_use]
    pub fn is_valid_at(&self, at: SystemTime) -> bool {
        self.next.iter().chain([&self.current]).any(|signer| signer.is_valid_at(at))
    }

    /// The certificate of the one that signs.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.current.certificate()
    }

    /// Every certificate that programs are to trust: the next one's, if there is one, and last the one
    /// that signs.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.next.iter().chain([&self.current]).map(Signer::certificate)
    }
}

/// Files with a certificate of ours: the one in use, the next one, then those that were replaced.
#[must_use]
pub fn files(home: &Home) -> Vec<PathBuf> {
    let retired = fs::read_dir(home.ca_dir()).into_iter().flatten().flatten().map(|e| e.path());
    let retired = retired.filter(|path| {
        path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("retired-"))
    });
    let live = [home.ca_cert(), home.next_ca_cert()];
    live.into_iter().filter(|path| path.exists()).chain(retired).collect()
}

/// Held while files of the CA change.
fn lock(home: &Home) -> Result<File, CaError> {
    let path = home.ca_dir().join("lock");
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(CaError::io(&path))?;
    flock(&lock, FlockOperation::LockExclusive)
        .map_err(|e| CaError::Io { path, source: e.into() })?;
    Ok(lock)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, CaError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(CaError::io(path)(e)),
    }
}

fn tighten(path: &Path) -> Result<(), CaError> {
    let mode = fs::metadata(path).map_err(CaError::io(path))?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(CaError::io(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
