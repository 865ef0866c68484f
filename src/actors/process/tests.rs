//! With real processes: this test binary itself, which takes the lock and waits for the end of
//! its input.

use std::io::{Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::test_kill_process;
use slog::Logger;

use super::*;
use crate::supervisor::replay::replay;
use crate::supervisor::step::Phase;
use crate::supervisor::{
    self, Backoff, ChildSpec, ChildStatus, Journal, JournalEntry, Lanes, Slot, Supervisor, TreeSpec,
};

const LOCK_VAR: &str = "HALTON_METER_TEST_LOCK";
/// Lets go of the lock, and waits for another word.
const DRAIN: [u8; 1] = *b"d";
const DEAF_VAR: &str = "HALTON_METER_TEST_DEAF";

/// Not a test: what the processes below do.
#[test]
fn stand_in() {
    let Some(path) = std::env::var_os(LOCK_VAR) else { return };
    if std::env::var_os(DEAF_VAR).is_some() {
        let ignored = Arc::new(std::sync::atomic::AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGTERM, ignored).unwrap();
    }
    let lock = PidLock::acquire(path.as_ref());
    assert!(!matches!(lock, Ok(None)), "the lock is not free");
    let mut code = [b'0'];
    let _ = std::io::stdin().read(&mut code);
    if code == DRAIN {
        drop(lock);
        let _ = std::io::stdin().read(&mut code);
    }
    std::process::exit(i32::from(code[0] - b'0'));
}

fn spawn_stand_in(pid_file: &std::path::Path, deaf: bool) -> io::Result<OsChild> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "actors::process::tests::stand_in"]).env(LOCK_VAR, pid_file);
    if deaf {
        command.env(DEAF_VAR, "1");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

struct Bench {
    _dir: tempfile::TempDir,
    pid_file: PathBuf,
    drain: Drain,
    inherited: Arc<Mutex<Option<u32>>>,
    starts: Arc<AtomicU32>,
    input: Arc<Mutex<Option<ChildStdin>>>,
    entries: tokio::sync::broadcast::Receiver<JournalEntry>,
    journal: Journal,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::disabled();
        Self {
            pid_file: dir.path().join("it.pid"),
            _dir: dir,
            drain: Drain::Awaited,
            inherited: Arc::default(),
            starts: Arc::default(),
            input: Arc::default(),
            entries: journal.listen(),
            journal,
        }
    }

    fn start(&self, deaf: bool, shutdown: Duration) -> Supervisor {
        let (pid_file, starts, input) =
            (self.pid_file.clone(), Arc::clone(&self.starts), Arc::clone(&self.input));
        let spec = ProcessSpec {
            alive: Arc::new(|| Answer::Alive),
            asker: Asker::default(),
            drain: self.drain,
            pid_file: self.pid_file.clone(),
            inherited: Arc::clone(&self.inherited),
            start: Arc::new(move || {
                starts.fetch_add(1, Ordering::Relaxed);
                let mut process = spawn_stand_in(&pid_file, deaf)?;
                *input.lock().unwrap() = process.stdin.take();
                Ok(process)
            }),
        };
        let child = ChildSpec::actor("it", Slot::default(), move |birth| {
            ProcessActor::new(birth, spec.clone())
        });
        let log = Logger::root(slog::Discard, slog::o!());
        let fast = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
        supervisor::start(
            TreeSpec::new("root", log, self.journal.clone())
                .intensity(None)
                .lanes(Lanes::current())
                .child(child.backoff(fast).shutdown(shutdown)),
        )
    }

    fn tell(&self, code: u8) {
        let mut input = self.input.lock().unwrap();
        input.as_mut().unwrap().write_all(&[b'0' + code]).unwrap();
    }

    fn drain(&self) -> ChildStdin {
        let mut input = self.input.lock().unwrap().take().unwrap();
        input.write_all(&DRAIN).unwrap();
        input
    }

    fn holder(&self) -> Option<u32> {
        PidLock::holder(&self.pid_file).unwrap()
    }

    fn entries(&mut self) -> Vec<JournalEntry> {
        std::iter::from_fn(|| self.entries.try_recv().ok()).collect()
    }
}

async fn ready(tree: &Supervisor, generation: u64) -> ChildStatus {
    for _ in 0..3000 {
        let status = tree.observe().await.remove(0);
        if status.generation >= generation && status.state == Phase::Ready {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("generation {generation} never got ready");
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn an_exit_is_typed_and_a_new_process_comes() {
    let mut bench = Bench::new();
    actix_rt::System::new().block_on(async {
        let tree = bench.start(false, LONG);
        let first = ready(&tree, 1).await.observed["pid"].clone();
        bench.tell(7);
        let status = ready(&tree, 2).await;
        assert_eq!(status.last_exit.as_deref(), Some("failed: process ended: exit status: 7"));
        assert_ne!(status.observed["pid"], first);
        let pid = bench.holder().unwrap();
        kill_process(raw(pid).unwrap(), Signal::KILL).unwrap();
        let status = ready(&tree, 3).await;
        assert!(status.last_exit.unwrap().contains("signal: 9"));
        // In order, as after a signal of somebody's.
        bench.tell(0);
        let status = ready(&tree, 4).await;
        assert_eq!(status.last_exit.as_deref(), Some("normal"));
        tree.shutdown().await;
    });
    assert_eq!((bench.holder(), bench.starts.load(Ordering::Relaxed)), (None, 4));
    assert!(replay(&bench.entries()).unwrap().gaps.is_empty());
}

#[test]
fn one_that_serves_without_a_lock_where_there_can_be_none_is_let_serve() {
    let bench = Bench::new();
    std::fs::create_dir(&bench.pid_file).unwrap();
    actix_rt::System::new().block_on(async {
        let tree = bench.start(false, LONG);
        ready(&tree, 1).await;
        bench.tell(7);
        let status = ready(&tree, 2).await;
        assert_eq!(status.last_exit.as_deref(), Some("failed: process ended: exit status: 7"));
        tree.shutdown().await;
    });
    assert_eq!(bench.starts.load(Ordering::Relaxed), 2);
}

/// After a change of the root's program in place there is no lock to find it by.
#[test]
fn one_that_serves_without_a_lock_is_inherited_and_its_end_is_noticed() {
    let bench = Bench::new();
    std::fs::create_dir(&bench.pid_file).unwrap();
    let mut child = spawn_stand_in(&bench.pid_file, false).unwrap();
    *bench.inherited.lock().unwrap() = Some(child.id());
    actix_rt::System::new().block_on(async {
        let tree = bench.start(false, LONG);
        let status = ready(&tree, 1).await;
        assert_eq!(status.observed, json!({ "pid": child.id(), "adopted": false }));
        assert_eq!(bench.starts.load(Ordering::Relaxed), 0, "not started twice");
        child.kill().unwrap();
        ready(&tree, 2).await;
        tree.shutdown().await;
    });
    let ended = child.id();
    assert_reaped(child);
    // Its number may be another's by now.
    *bench.inherited.lock().unwrap() = Some(ended);
    actix_rt::System::new().block_on(async {
        let tree = bench.start(false, LONG);
        ready(&tree, 1).await;
        tree.shutdown().await;
    });
    assert_eq!(bench.starts.load(Ordering::Relaxed), 2);
}

#[test]
fn one_that_drains_is_replaced_meanwhile_and_reaped_in_the_end() {
    // Adopted it is a child all the same, after a change of the root's program in place.
    for adopted in [false, true] {
        let bench = Bench::new();
        let orphan = adopted.then(|| {
            let mut orphan = spawn_stand_in(&bench.pid_file, false).unwrap();
            *bench.input.lock().unwrap() = orphan.stdin.take();
            while bench.holder() != Some(orphan.id()) {
                std::thread::yield_now();
            }
            orphan
        });
        actix_rt::System::new().block_on(async {
            let tree = bench.start(false, LONG);
            assert_eq!(ready(&tree, 1).await.observed["adopted"], adopted);
            let old = bench.holder().unwrap();
            let connections = bench.drain();
            let status = ready(&tree, 2).await;
            assert!(status.last_exit.unwrap().contains("let go of its lock"));
            let new = bench.holder().unwrap();
            assert_ne!(new, old);
            test_kill_process(raw(old).unwrap()).expect("it lives on");
            drop(connections);
            while test_kill_process(raw(old).unwrap()).is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(bench.holder(), Some(new), "its end is nothing to the next one");
            tree.shutdown().await;
        });
        assert_eq!(bench.starts.load(Ordering::Relaxed), 2 - u32::from(adopted));
        orphan.into_iter().for_each(assert_reaped);
    }
}

#[test]
fn one_that_is_told_to_end_drains_alone_if_it_may() {
    for drain in [Drain::Awaited, Drain::Alone] {
        let bench = Bench { drain, ..Bench::new() };
        actix_rt::System::new().block_on(async {
            // It does not hear of it by the signal.
            let tree = bench.start(true, LONG);
            ready(&tree, 1).await;
            let old = bench.holder().unwrap();
            let lives = || test_kill_process(raw(old).unwrap()).is_ok();
            tree.request_shutdown();
            while tree.observe().await.first().is_some_and(|s| s.state == Phase::Ready) {
                tokio::task::yield_now().await;
            }
            let connections = bench.drain();
            if drain == Drain::Alone {
                tree.finished().await;
                assert!(lives(), "it was not waited for, nor killed");
                drop(connections);
                while lives() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            } else {
                drop(connections);
                tree.finished().await;
                assert!(!lives());
            }
        });
        assert_eq!(bench.starts.load(Ordering::Relaxed), 1, "none in its place");
    }
}

#[test]
fn a_process_that_lives_is_adopted_and_its_end_is_noticed() {
    let bench = Bench::new();
    let mut orphan = spawn_stand_in(&bench.pid_file, false).unwrap();
    while bench.holder() != Some(orphan.id()) {
        std::thread::yield_now();
    }
    actix_rt::System::new().block_on(async {
        let tree = bench.start(false, LONG);
        let status = ready(&tree, 1).await;
        assert_eq!(status.observed, json!({ "pid": orphan.id(), "adopted": true }));
        assert_eq!(bench.starts.load(Ordering::Relaxed), 0, "not started twice");
        orphan.kill().unwrap();
        let status = ready(&tree, 2).await;
        assert_eq!(status.observed["adopted"], false);
        tree.shutdown().await;
    });
    assert_eq!((bench.holder(), bench.starts.load(Ordering::Relaxed)), (None, 1));
    assert_reaped(orphan);
}

#[test]
fn an_adopted_process_is_stopped_too() {
    let bench = Bench::new();
    let orphan = spawn_stand_in(&bench.pid_file, false).unwrap();
    while bench.holder() != Some(orphan.id()) {
        std::thread::yield_now();
    }
    actix_rt::System::new().block_on(async {
        let tree = bench.start(false, LONG);
        ready(&tree, 1).await;
        tree.shutdown().await;
    });
    assert_eq!(bench.holder(), None);
    assert_reaped(orphan);
}

/// Its number may be another process's here.
#[test]
fn one_that_is_adopted_from_elsewhere_is_never_signalled() {
    let bench = Bench::new();
    let mut orphan = spawn_stand_in(&bench.pid_file, false).unwrap();
    while bench.holder() != Some(orphan.id()) {
        std::thread::yield_now();
    }
    std::fs::write(&bench.pid_file, format!("{}\nelsewhere\n", orphan.id())).unwrap();
    actix_rt::System::new().block_on(async {
        let tree = bench.start(false, Duration::from_millis(50));
        ready(&tree, 1).await;
        tree.shutdown().await;
    });
    assert_eq!(bench.holder(), Some(orphan.id()));
    orphan.kill().unwrap();
    // Whoever waits for its lock may have been first.
    let _ = orphan.wait();
}

/// It was a child of this process, as after a change of the root's program in place: no zombie is
/// left.
fn assert_reaped(mut orphan: OsChild) {
    let error = orphan.wait().unwrap_err();
    assert_eq!(rustix::io::Errno::from_io_error(&error), Some(rustix::io::Errno::CHILD));
}

#[test]
fn a_process_that_ignores_sigterm_is_killed_at_the_deadline() {
    let mut bench = Bench::new();
    actix_rt::System::new().block_on(async {
        let tree = bench.start(true, Duration::from_millis(50));
        let pid = ready(&tree, 1).await.observed["pid"].as_u64().unwrap();
        assert_eq!(bench.holder().map(u64::from), Some(pid));
        tree.shutdown().await;
    });
    PidLock::wait_released(&bench.pid_file).unwrap();
    let killed = |e: &JournalEntry| e.event == "exited" && e.cause.as_deref() == Some("killed");
    assert!(bench.entries().iter().any(killed));
}

#[test]
fn a_program_that_can_not_be_started_is_tried_again() {
    let bench = Bench::new();
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let spec = ProcessSpec {
        alive: Arc::new(|| Answer::Alive),
        asker: Asker::default(),
        drain: Drain::None,
        pid_file: bench.pid_file.clone(),
        inherited: Arc::default(),
        start: Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Command::new("/nonexistent/program").spawn()
        }),
    };
    actix_rt::System::new().block_on(async {
        let log = Logger::root(slog::Discard, slog::o!());
        let fast = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
        let tree = supervisor::start(
            TreeSpec::new("root", log, bench.journal.clone())
                .intensity(None)
                .backoff(fast)
                .lanes(Lanes::current())
                .child(ChildSpec::actor("it", Slot::default(), move |birth| {
                    ProcessActor::new(birth, spec.clone())
                })),
        );
        while tries.load(Ordering::Relaxed) < 5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let status = tree.observe().await.remove(0);
        assert!(status.last_exit.unwrap().contains("could not be started"));
        tree.shutdown().await;
    });
}
