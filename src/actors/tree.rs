//! The daemon's tree of actors.
//!
//! ```text
//! daemon        one_for_one
//! ├── meter     rest_for_one: who prices needs who writes, the tap needs both
//! │   ├── ledger
//! │   ├── prices
//! │   └── tap
//! ├── edge_monitor
//! ├── health
//! └── admin
//! ```

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use slog::Logger;

use super::admin::dto::ActorAnswer;
use super::admin::{Admin, Api, Port};
use super::edge_monitor::EdgeMonitor;
use super::health::{self, Health};
use super::ledger::Ledger;
use super::meter::Meter;
use super::prices::Prices;
use super::tap::{Door, TapActor, TapParts};
use crate::config::Config;
use crate::home::Home;
use crate::supervisor::{
    self, ChildSpec, ChildStatus, Intensity, Journal, Lane, Slot, Strategy, Supervisor, TreeSpec,
};

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
    pub journal: Journal,
    pub log: Logger,
}

/// The running tree, for those who are started before it is known. Clones share.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<OnceLock<Supervisor>>);

impl View {
    /// Every child and what it says of itself; nothing before the tree is started.
    pub async fn observe(&self) -> Vec<ActorAnswer> {
        let Some(supervisor) = self.0.get() else { return Vec::new() };
        supervisor.observe().await.into_iter().map(ActorAnswer::from).collect()
    }
}

/// Starts the tree in the running actix system.
pub fn start(parts: Parts, view: &View) -> Supervisor {
    let Parts { home, config, meter, health, door, port, api, journal, log } = parts;
    let edge_addr = config.load().edge.addr();
    let edge = api.edge.clone();

    let meter_tree = {
        let meter = meter.clone();
        let tap = TapParts {
            home: home.clone(),
            config,
            meter: meter.clone(),
            door,
            log: log.new(slog::o!("part" => "tap")),
        };
        ChildSpec::tree("meter", move |birth| {
            let ledger = {
                let meter = meter.clone();
                ChildSpec::actor("ledger", Slot::new(), move |birth| {
                    Ledger::new(birth, meter.clone())
                })
            };
            let prices = {
                let meter = meter.clone();
                ChildSpec::actor("prices", Slot::new(), move |birth| {
                    Prices::new(birth, meter.clone())
                })
            };
            let tap = {
                let tap = tap.clone();
                ChildSpec::actor("tap", Slot::new(), move |birth| {
                    TapActor::new(birth, tap.clone())
                })
            };
            TreeSpec::nested(birth)
                .strategy(Strategy::RestForOne)
                .intensity(Some(INTENSITY))
                .child(ledger)
                .child(prices)
                .child(tap)
        })
    };
    let edge_monitor = ChildSpec::actor("edge_monitor", Slot::new(), move |birth| {
        EdgeMonitor::new(birth, edge.clone(), home.clone(), edge_addr)
    });
    let health = ChildSpec::actor("health", Slot::new(), move |birth| {
        Health::new(birth, health.clone(), meter.clone())
    });
    let admin = ChildSpec::actor("admin", Slot::new(), move |birth| {
        Admin::new(birth, Arc::clone(&api), port.clone())
    });
    let tree = TreeSpec::new("daemon", log, journal)
        .intensity(Some(INTENSITY))
        .child(meter_tree)
        .child(edge_monitor.lane(Lane::Control))
        .child(health.lane(Lane::Control))
        .child(admin.lane(Lane::Control));
    let supervisor = supervisor::start(tree);
    // Started once per process: nobody has set it before.
    let _ = view.0.set(supervisor.clone());
    supervisor
}

/// Beyond it the process ends, and the root starts a fresh one.
const INTENSITY: Intensity = Intensity { restarts: 5, period: Duration::from_secs(60) };

impl From<ChildStatus> for ActorAnswer {
    fn from(status: ChildStatus) -> Self {
        Self {
            id: status.id,
            state: serde_json::to_value(status.state)
                .ok()
                .and_then(|name| name.as_str().map(str::to_owned))
                .unwrap_or_default(),
            generation: status.generation,
            restarts: status.restarts,
            last_exit: status.last_exit,
            observed: status.observed,
        }
    }
}
