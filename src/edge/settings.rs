//! The edge's settings: what of the configuration is in force, and how it is taken over when somebody
//! edits the file.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use slog::Logger;
use tokio::time::sleep;

use super::route::OwnPorts;
use super::serve::Shared;
use crate::config::{self, Config, Loaded, SETTLED, Stamp};
use crate::threads;

/// States of the file that have been read.
#[derive(Debug, Default)]
pub struct Standing(RefCell<Read>);

/// The latest of each.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// Is in force.
    pub taken: Option<Stamp>,
    /// Had a mistake, and changed nothing.
    pub refused: Option<Stamp>,
}

impl Standing {
    #[must_use]
    pub fn begun_with(taken: Option<Stamp>) -> Self {
        Self(RefCell::new(Read { taken, refused: None }))
    }

    #[must_use]
    pub fn look(&self) -> Read {
        self.0.borrow().clone()
    }

    fn has_read(&self, stamp: &Stamp) -> bool {
        let read = self.0.borrow();
        read.taken.as_ref() == Some(stamp) || read.refused.as_ref() == Some(stamp)
    }
}

/// Reads the file anew, as it was asked to.
pub fn reload(shared: &Shared) {
    take(shared, config::load(&shared.home.config_file(), &[]));
}

/// Takes over what lies there by now, if it has not been read yet and whoever writes it has finished. A
/// file that is gone, or out of reach, changes nothing: it may be back in a moment.
pub async fn follow(shared: Rc<Shared>, now: Option<Stamp>) {
    let Some(now) = now.filter(|now| !shared.settings.has_read(now)) else { return };
    sleep(SETTLED).await;
    let file = shared.home.config_file();
    // Else the next look does.
    if let Ok(loaded) = threads::blocking(move || config::load(&file, &[])).await
        && loaded.file.as_ref() == Some(&now)
    {
        take(&shared, loaded);
    }
}

/// If all of it is right; else the last good one stays.
fn take(shared: &Shared, loaded: Loaded) {
    let log = &shared.log;
    let mut read = shared.settings.0.borrow_mut();
    if !loaded.problems.is_empty() {
        for problem in &loaded.problems {
            slog::warn!(log, "configuration"; "problem" => %problem);
        }
        slog::warn!(log, "configuration kept as it was");
        read.refused = loaded.file;
        return;
    }
    if loaded.config.edge.port != shared.edge_port {
        slog::warn!(log, "another port takes another root"; "served" => shared.edge_port,
            "configured" => loaded.config.edge.port);
    }
    let config = usable(loaded.config, shared.edge_port, log);
    shared.config.store(Arc::new(config));
    *read = Read { taken: loaded.file, refused: None };
    slog::info!(log, "configuration reloaded");
}

/// An upstream proxy that is ourselves would send every connection round in circles.
pub fn usable(mut config: Config, edge_port: u16, log: &Logger) -> Config {
    let own = OwnPorts { edge: edge_port, api: config.daemon.api_port };
    // Those that only their address gives away are found when they are dialled.
    config.upstream.own = own;
    for proxy in [&mut config.upstream.proxy, &mut config.upstream.http_proxy] {
        if proxy.take_if(|p| own.is_us(&p.host, p.port)).is_some() {
            slog::warn!(log, "an upstream proxy is this proxy itself: connecting directly");
        }
    }
    config
}
