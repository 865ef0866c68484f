//! The daemon's tree of actors.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use slog::Logger;

use super::admin::dto::ActorAnswer;
use super::admin::{Admin, Api, Port};
use super::edge_monitor::EdgeMonitor;
use super::health::{self, Health};
use super::ledger::Ledger;
use super::meter::Meter;
use super::prices::Prices;
use super::tap::{Door, TapActor};
use crate::config::Config;
use crate::home::Home;
use crate::supervisor::{self, ChildSpec, Supervisor};

/// What the actors are made of; all of it outlives them.
#[derive(Debug)]
pub struct Parts {
    pub home: Home,
    pub config: Arc<ArcSwap<Config>>,
    pub meter: Meter,
    pub health: health::Board,
    pub door: Door,
    pub port: Port,
    pub api: Arc<Api>,
    pub log: Logger,
}

/// The running tree, for those who are started before it is known. Clones share.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<OnceLock<Supervisor>>);

impl View {
    /// Every child and what it says of itself; nothing before the tree is started.
    pub async fn observe(&self) -> Vec<ActorAnswer> {
        let Some(supervisor) = self.0.get() else { return Vec::new() };
        supervisor.observe().await.into_iter().map(|s| ActorAnswer { id: s.id, state: s.state, generation: s.generation, restarts: s.restarts, last_exit: s.last_exit, observed: s.observed }).collect()
    }
}

/// Starts the tree in the running actix system.
pub fn start(parts: Parts, view: &View) -> Supervisor {
    let Parts { home, config, meter, health, door, port, api, log } = parts;
    let m = meter.clone();
    let ledger = ChildSpec::actor("ledger", move |birth| Ledger::new(birth, m.clone()));
    let m = meter.clone();
    let prices = ChildSpec::actor("prices", move |birth| Prices::new(birth, m.clone()));
    let (m, h, c) = (meter.clone(), home.clone(), Arc::clone(&config));
    let tap = ChildSpec::actor("tap", move |birth| {
        TapActor::new(birth, m.clone(), door.clone(), h.clone(), Arc::clone(&c))
    });
    let (edge, addr) = (api.edge.clone(), config.load().edge.addr());
    let edge_monitor = ChildSpec::actor("edge_monitor", move |birth| {
        EdgeMonitor::new(birth, edge.clone(), home.clone(), addr)
    });
    let health = ChildSpec::actor("health", move |birth| {
        Health::new(birth, health.clone(), meter.clone())
    });
    let admin = ChildSpec::actor("admin", move |birth| {
        Admin::new(birth, Arc::clone(&api), port.clone())
    });
    let supervisor = supervisor::start(vec![ledger, prices, tap, edge_monitor, health, admin], log);
    let _ = view.0.set(supervisor.clone());
    supervisor
}
