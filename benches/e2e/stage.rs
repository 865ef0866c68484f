//! Everything that runs during the bench, and the ways through it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ClientConfig;

use crate::cases::{Case, Load, Side, Target};
use crate::client::Net;
use crate::load::Subject;
use crate::meter::{Meter, SCRATCH};
use crate::pki::{self, HOST};
use crate::role::Role;

/// Roles, by the first argument that makes this program one.
pub const ORIGIN: &str = "origin";
pub const COPY: &str = "copy";
pub const SPLICE: &str = "splice";
pub const INTERCEPT: &str = "intercept";
pub const GUARD: &str = "guard";

#[derive(Debug)]
pub struct Stage {
    pub program: PathBuf,
    dir: PathBuf,
    origin: Role,
}

/// Targets that run.
#[derive(Debug)]
pub struct Cast {
    copy: Role,
    splice: Role,
    intercept: Role,
    pub meter: Meter,
    tls: Tls,
}

/// Clients of the metered host; they trust everyone who may answer for it.
#[derive(Debug)]
struct Tls {
    h1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
}

impl Stage {
    pub fn new(program: PathBuf, dir: &Path) -> Result<Self> {
        std::fs::write(dir.join(SCRATCH), "")?;
        pki::create(dir)?;
        Ok(Self { program, dir: dir.to_owned(), origin: Role::start(ORIGIN, dir)? })
    }

    /// New processes: nothing that an earlier load left is in them.
    pub fn cast(&self, name: &str) -> Result<Cast> {
        let meter = self.install(name)?;
        meter.start()?;
        let roots = [pki::root_pem(&self.dir), meter.home.ca_cert()];
        // No resumption: each new connection of the client's is a full handshake.
        let tls = Tls {
            h1: pki::client(&roots, &[b"http/1.1"], false)?,
            h2: pki::client(&roots, &[b"h2"], false)?,
        };
        let start = |role| Role::start(role, &self.dir);
        Ok(Cast {
            copy: start(COPY)?,
            splice: start(SPLICE)?,
            intercept: start(INTERCEPT)?,
            meter,
            tls,
        })
    }

    /// A home where nothing runs yet.
    pub fn install(&self, name: &str) -> Result<Meter> {
        Meter::install(&self.program, &self.dir, name, self.origin.addrs[1])
    }

    /// What a case measures when `target` carries it.
    pub fn subject(&self, cast: &Cast, case: &Case, target: Target) -> Subject {
        let tls = match (case.side, case.load) {
            (Side::Edge, _) => None,
            (Side::Tap, Load::Http2) => Some(&cast.tls.h2),
            (Side::Tap, _) => Some(&cast.tls.h1),
        };
        self.subject_over(cast, case.side, target, tls.cloned())
    }

    /// The same for one HTTP/1.1 connection after the other.
    pub fn plain_subject(&self, cast: &Cast, side: Side, target: Target) -> Subject {
        let tls = (side == Side::Tap).then(|| Arc::clone(&cast.tls.h1));
        self.subject_over(cast, side, target, tls)
    }

    fn subject_over(
        &self,
        cast: &Cast,
        side: Side,
        target: Target,
        tls: Option<Arc<ClientConfig>>,
    ) -> Subject {
        let origin = match side {
            Side::Edge => self.origin.addrs[0],
            Side::Tap => self.origin.addrs[1],
        };
        let role = |role: &Role| (role.addrs[0], Some(origin.to_string()), vec![role.pid()]);
        let (addr, authority, pids) = match target {
            Target::Direct => (origin, None, Vec::new()),
            Target::Copy => role(&cast.copy),
            Target::Splice => role(&cast.splice),
            Target::Intercept => role(&cast.intercept),
            Target::Meter => {
                let authority = match side {
                    Side::Edge => origin.to_string(),
                    Side::Tap => format!("{HOST}:443"),
                };
                (cast.meter.edge, Some(authority), cast.meter.pids())
            }
        };
        Subject { net: Net { addr, authority, tls }, pids, origin: self.origin.pid() }
    }

    /// The process that holds a target's connections.
    pub fn holder(&self, cast: &Cast, side: Side, target: Target) -> Result<u32> {
        let process = match (target, side) {
            (Target::Direct, _) => Some(self.origin.pid()),
            (Target::Copy, _) => Some(cast.copy.pid()),
            (Target::Splice, _) => Some(cast.splice.pid()),
            (Target::Intercept, _) => Some(cast.intercept.pid()),
            (Target::Meter, Side::Edge) => cast.meter.pid("edge"),
            (Target::Meter, Side::Tap) => cast.meter.pid("daemon"),
        };
        process.context("a process that does not run")
    }
}
