//! Children that do what they are told, and a tree whose journal is kept.

use super::*;

/// What the test children do, by order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Order {
    Panic,
    Fail(&'static str),
    End,
    Count,
    /// Waits in a way that keeps the context from being polled.
    Hang,
    HangProtected,
    /// Blocks the thread itself until released.
    Block(Arc<Gate>),
}

#[derive(Debug, Default)]
pub(super) struct Gate(std::sync::Mutex<bool>, std::sync::Condvar);

impl Gate {
    pub(super) fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
    pub(super) fn wait(&self) {
        let _open = self.1.wait_while(self.0.lock().unwrap(), |open| !*open).unwrap();
    }
}

impl PartialEq for Gate {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Gate {}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Do(pub(super) Order);

pub(super) struct Worker {
    pub(super) birth: Birth,
    pub(super) count: u32,
    pub(super) silent: bool,
    pub(super) stubborn: bool,
    pub(super) protected: Option<Protected>,
    #[expect(dead_code, reason = "it counts by being dropped")]
    pub(super) alive: Option<Box<dyn std::any::Any>>,
}

impl Worker {
    pub(super) fn new(birth: Birth) -> Self {
        Self { birth, count: 0, silent: false, stubborn: false, protected: None, alive: None }
    }
}

impl Actor for Worker {
    type Context = Context<Self>;
    fn started(&mut self, _: &mut Context<Self>) {
        if !self.silent {
            self.birth.ready();
        }
    }
}

impl Child for Worker {
    fn observe(&self) -> Value {
        json!({ "count": self.count })
    }
    fn stop(&mut self, ctx: &mut Context<Self>) {
        if !self.stubborn {
            ctx.stop();
        }
    }
}

impl Handler<Do> for Worker {
    type Result = ();
    fn handle(&mut self, order: Do, ctx: &mut Context<Self>) {
        match order.0 {
            Order::Panic => panic!("ordered"),
            Order::Fail(why) => self.birth.fail(why),
            Order::End => ctx.stop(),
            Order::Count => self.count += 1,
            Order::Hang => ctx.wait(actix::fut::wrap_future(std::future::pending::<()>())),
            Order::HangProtected => {
                self.protected = Some(self.birth.pulse().protect());
                ctx.wait(actix::fut::wrap_future(std::future::pending::<()>()));
            }
            Order::Block(gate) => gate.wait(),
        }
    }
}

/// A tree on the current thread, its journal kept.
pub(super) struct Bench {
    pub(super) entries: Rc<RefCell<Vec<JournalEntry>>>,
    pub(super) journal: Journal,
}

impl Bench {
    pub(super) fn new() -> Self {
        let journal = Journal::disabled();
        let mut listener = journal.listen();
        let entries = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&entries);
        actix_rt::spawn(async move {
            while let Ok(entry) = listener.recv().await {
                kept.borrow_mut().push(entry);
            }
        });
        Self { entries, journal }
    }

    pub(super) fn tree(&self) -> TreeSpec {
        let log = slog::Logger::root(slog::Discard, slog::o!());
        TreeSpec::new("test", log, self.journal.clone()).lanes(Lanes::current())
    }

    /// `child event cause` of each entry.
    pub(super) fn said(&self) -> Vec<String> {
        let line = |e: &JournalEntry| {
            let name = e.child.clone().unwrap_or_default();
            let generation = e.generation.map(|g| format!("#{g}")).unwrap_or_default();
            format!("{name}{generation} {}", e.event)
        };
        self.entries.borrow().iter().map(line).collect()
    }

    pub(super) fn cause(&self, event: &str) -> Option<String> {
        self.entries.borrow().iter().rev().find(|e| e.event == event).and_then(|e| e.cause.clone())
    }

    /// Every test's journal must be what the pure core decides.
    pub(super) fn check(&self) {
        let replayed = replay(&self.entries.borrow()).unwrap();
        assert!(replayed.gaps.is_empty(), "{:?}", replayed.gaps);
        let states = replayed.states;
        assert!(!states.is_empty());
        assert!(states.values().all(|s| s.mode == Mode::Finished), "{states:?}");
    }
}

/// Runs with paused time: it jumps when nobody has anything to do.
pub(super) fn world<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    actix_rt::System::new().block_on(async {
        tokio::time::pause();
        test().await;
    });
}

pub(super) async fn up(slot: &Slot<Worker>, generation: u64) -> actix::Addr<Worker> {
    for _ in 0..10_000 {
        match slot.get() {
            Ok((g, addr)) if g >= generation => return addr,
            Ok(_) | Err(ChildDown) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("generation {generation} never came up");
}

pub(super) fn worker(id: &'static str, slot: &Slot<Worker>) -> ChildSpec {
    ChildSpec::actor(id, slot.clone(), Worker::new)
}
