//! The daemon's tree of actors.
//!
//! ```text
//! daemon        one_for_one
//! ├── meter     rest_for_one: who prices needs who writes, the tap needs both
//! │   ├── ledger
//! │   ├── prices
//! │   └── tap
//! ├── budgets
//! ├── edge_monitor
//! ├── health
//! └── admin
//! ```

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::Value;
use slog::Logger;

use super::admin::dto::ActorAnswer;
use super::admin::{Admin, Api, Port};
use super::budgets::{BudgetParts, Budgets};
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
        let mut all = Vec::new();
        for status in supervisor.observe().await {
            flatten(ActorAnswer::from(status), &mut all);
        }
        all
    }
}

/// A supervisor says of itself what its children say: they follow it, as `meter.ledger`.
fn flatten(mut actor: ActorAnswer, all: &mut Vec<ActorAnswer>) {
    let children = match &mut actor.observed {
        Value::Array(children) => std::mem::take(children),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            return all.push(actor);
        }
    };
    actor.observed = Value::Null;
    let parent = actor.id.clone();
    all.push(actor);
    for child in children {
        if let Ok(mut child) = serde_json::from_value::<ActorAnswer>(child) {
            child.id = format!("{parent}.{}", child.id);
            flatten(child, all);
        }
    }
}

/// Starts the tree in the running actix system.
pub fn start(parts: Parts, view: &View) -> Supervisor {
    let Parts { home, config, meter, health, door, port, api, journal, log } = parts;
    let edge_addr = config.load().edge.addr();
    let edge = api.edge.clone();

    let budget_parts = BudgetParts {
        home: home.clone(),
        config: Arc::clone(&config),
        meter: meter.clone(),
        journal: journal.clone(),
        log: log.new(slog::o!("part" => "budgets")),
    };
    let meter_tree = {
        let meter = meter.clone();
        let (prices_home, prices_log) = (home.clone(), log.new(slog::o!("part" => "prices")));
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
                let (meter, home, log) = (meter.clone(), prices_home.clone(), prices_log.clone());
                ChildSpec::actor("prices", Slot::new(), move |birth| {
                    Prices::new(birth, meter.clone(), home.clone(), log.clone())
                })
            };
            let tap = {
                let tap = tap.clone();
                ChildSpec::actor("tap", Slot::new(), move |birth| TapActor::new(birth, tap.clone()))
            };
            TreeSpec::nested(birth)
                .strategy(Strategy::RestForOne)
                .intensity(Some(INTENSITY))
                .child(ledger)
                .child(prices)
                .child(tap)
        })
    };
    let budgets = {
        let parts = budget_parts;
        ChildSpec::actor("budgets", Slot::new(), move |birth| Budgets::new(birth, parts.clone()))
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
        .child(budgets)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn children_of_supervisors_follow_them_by_their_full_names() {
        let child = |id: &str, observed: Value| {
            json!({
                "id": id, "state": "ready", "generation": 1, "restarts": 0, "last_exit": null,
                "observed": observed,
            })
        };
        let tree = child("a", json!([child("b", json!([child("c", json!({"x": 1}))]))]));
        let mut all = Vec::new();
        flatten(serde_json::from_value(tree).unwrap(), &mut all);
        let ids: Vec<_> = all.iter().map(|a| a.id.as_str()).collect();
        assert_eq!(ids, ["a", "a.b", "a.b.c"]);
        assert_eq!(all[2].observed, json!({"x": 1}));
    }
}
