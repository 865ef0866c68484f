//! The storm itself: traffic, failures one after the other, and the reckoning.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, io};

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::accounts::Ledger;
use crate::client::{ORIGIN_ROOT, Trust};
use crate::harness::{Stand, binary, free_port};
use crate::oracle::{Failure, Incident};
use crate::origin::{Leaf, Origin, Root, Setup, Transport};
use crate::processes::{self, Usage};
use crate::record::Record;
use crate::relay::Relay;
use crate::report::{self, StepReport, Summary};
use crate::schedule::{Schedule, Step};
use crate::strike::{self, Wound};
use crate::traffic::{self, Load, World};

/// A storm of at least this length is a full one: bigger bodies, longer streams.
const FULL: Duration = Duration::from_secs(60);
/// Metering must work again so soon after the repair. The root waits up to 30 s before it starts a
/// daemon that keeps dying, ± 20 %.
const BACK: Duration = Duration::from_secs(45);
const WARM_UP: Duration = Duration::from_secs(2);
/// Between two steps, so that there is something to fail.
const QUIET: Duration = Duration::from_millis(1_500);
/// What the workers, and the processes, may take to come to rest.
const REST: Duration = Duration::from_secs(100);
/// The storm ends itself when something hangs.
const BEYOND: Duration = Duration::from_secs(400);
const LOOK: Duration = Duration::from_millis(10);

/// Runs it and prints what happened; the rules that were broken.
pub fn run(seed: u64, length: Duration) -> Vec<String> {
    let full = length >= FULL;
    end_by(length + BEYOND);
    let quiet = Setup { record: false, ..Setup::default() };
    let root = Root::new(ORIGIN_ROOT);
    let stand = Stand::before(Origin::with(&quiet, &root));
    let foreign = Origin::with(&Setup { leaf: Leaf::Foreign, ..quiet.clone() }, &root);
    let plain = Origin::with(&Setup { transport: Transport::Plain, ..quiet }, &root);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("traffic")
        .enable_all()
        .build()
        .expect("runtime");
    let _inside = runtime.enter();
    let relay = Relay::start(free_port(), stand.origin.addr(), foreign.addr());
    stand.configure(relay.addr, "");
    stand.must(&["start"]);
    stand.wait_metering();
    let ours = fs::read_to_string(stand.home.ca_cert()).expect("our CA");
    let load = if full {
        Load { part: Duration::from_millis(400), bulk: 24 << 20 }
    } else {
        Load { part: Duration::from_millis(200), bulk: 4 << 20 }
    };
    let world = Arc::new(World {
        record: Record::new(),
        edge: stand.edge,
        provider: relay.addr,
        plain: plain.addr(),
        trust: Trust::new(&[ours, stand.origin.root_pem().to_owned()]),
        load,
        stop: AtomicBool::new(false),
        connections: AtomicU64::new(0),
    });
    println!("chaos: {} for {} s, seed {seed}", binary().display(), length.as_secs());
    let mut usage = Usage::new(&stand);
    let workers = traffic::start(&world, seed);
    let mut storm = Storm {
        stand: &stand,
        relay: &relay,
        world: &world,
        incidents: Vec::new(),
        steps: Vec::new(),
        broken: Vec::new(),
        ledger: Ledger::default(),
    };
    storm.calm(WARM_UP);
    let mut schedule = Schedule::new(seed);
    while world.record.now() < length {
        storm.step(&schedule.next_step());
        usage.look(&stand);
        std::thread::sleep(if full { QUIET } else { QUIET / 3 });
    }
    storm.calm(WARM_UP);
    let Storm { incidents, steps, mut broken, mut ledger, .. } = storm;

    world.stop.store(true, Ordering::Relaxed);
    if !rest(&runtime, workers) {
        broken.push(format!("clients were not done {REST:?} after the storm"));
    }
    broken.extend(usage.rest(&stand));
    let stop = stand.halton(&["stop"]);
    if !stop.status.success() {
        broken.push(format!("the last stop: {}", String::from_utf8_lossy(&stop.stderr)));
    }
    let tries = world.record.lock().clone();
    ledger.read(&stand);
    let accounts = ledger.check(stand.origin.served(), &tries, &incidents);
    stand.halton(&["edge", "stop"]);
    broken.extend(processes::leftovers(&stand).into_iter().map(|p| format!("still there: {p}")));
    let summary = Summary { seed, length, steps, incidents, tries, usage, accounts };
    let broken = report::print(&summary, broken);
    if !broken.is_empty() {
        match keep(&stand, seed) {
            Ok(dir) => println!("chaos: the home is kept in {}", dir.display()),
            Err(e) => println!("chaos: the home could not be kept: {e}\n{}", stand.logs()),
        }
    }
    broken
}

struct Storm<'a> {
    stand: &'a Stand,
    relay: &'a Relay,
    world: &'a World,
    incidents: Vec<Incident>,
    steps: Vec<StepReport>,
    broken: Vec<String>,
    ledger: Ledger,
}

impl Storm<'_> {
    /// Traffic, and nothing else.
    fn calm(&mut self, length: Duration) {
        let since = self.world.record.now();
        std::thread::sleep(length);
        self.wait_metered("calm", since);
    }

    fn step(&mut self, step: &Step) {
        let now = || self.world.record.now();
        let begin = now();
        let mut wounds = Vec::new();
        for (n, failure) in step.failures().enumerate() {
            if n > 0 {
                std::thread::sleep(step.between);
            }
            wounds.extend(self.strike(step, failure));
        }
        std::thread::sleep(step.hold);
        // A command waits until metering works: it comes last.
        wounds.sort_by_key(|(_, wound)| {
            matches!(wound, Wound::Run(_) | Wound::Running(..) | Wound::Impostor(..))
        });
        for (incident, wound) in wounds {
            if let Err(e) = strike::mend(self.stand, self.relay, wound) {
                self.broken.push(format!("{}: cannot be repaired: {e}", step.name()));
            }
            self.incidents[incident].over = now();
        }
        let mended = now();
        let back = self.wait_metered(&step.name(), mended);
        self.steps.push(StepReport { name: step.name(), begin, mended, back, until: now() });
    }

    fn strike(&mut self, step: &Step, failure: Failure) -> Option<(usize, Wound)> {
        if failure == Failure::LedgerCorrupt {
            // What is in it will be lost.
            self.ledger.read(self.stand);
        }
        let begin = self.world.record.now();
        let wound = strike::strike(self.stand, self.relay, failure);
        let struck = self.world.record.now();
        self.incidents.push(Incident { failure, begin, struck, over: Duration::MAX });
        match wound {
            Ok(wound) => Some((self.incidents.len() - 1, wound)),
            Err(e) => {
                self.broken.push(format!("{}: {e}", step.name()));
                if let Some(incident) = self.incidents.last_mut() {
                    incident.over = struck;
                }
                None
            }
        }
    }

    /// When a connection that was opened after `since` was metered.
    fn wait_metered(&mut self, when: &str, since: Duration) -> Option<Duration> {
        while self.world.record.now() < since + BACK {
            if let Some(at) = self.world.record.metered_since(since) {
                return Some(at);
            }
            std::thread::sleep(LOOK);
        }
        self.broken.push(format!("{when}: no metering within {BACK:?} of the repair"));
        None
    }
}

/// Logs, journal and ledger, for whoever looks for the cause.
fn keep(stand: &Stand, seed: u64) -> io::Result<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{seed}"));
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    for from in [stand.home.path(), stand.home.log_dir().as_path()] {
        for entry in fs::read_dir(from)?.flatten().filter(|e| e.path().is_file()) {
            fs::copy(entry.path(), dir.join(entry.file_name()))?;
        }
    }
    Ok(dir)
}

fn rest(runtime: &Runtime, workers: Vec<JoinHandle<()>>) -> bool {
    runtime.block_on(async {
        let all = async {
            for worker in workers {
                worker.await.expect("a worker panicked");
            }
        };
        timeout(REST, all).await.is_ok()
    })
}

/// Nothing of this goes on for ever: the guard ends what the process leaves behind.
fn end_by(limit: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        println!("chaos: not done after {limit:?}");
        std::process::exit(1);
    });
}
