use std::path::Path;

use super::*;
use crate::meter::ledger::fixture::{at, home};
use crate::meter::ledger::unfinished::pending;

const T: &str = "2026-11-24T11:00:00Z";

fn late() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn registers(home: &Home) -> Vec<PathBuf> {
    lines::files(&home.spool_dir(), PREFIX, SUFFIX)
}

/// What is found when the process is killed now: a copy, as the lock goes with the process.
fn after_a_kill(home: &Home, elsewhere: &Path) -> Vec<(u128, u64, String)> {
    for path in registers(home) {
        fs::copy(&path, elsewhere.join(path.file_name().unwrap())).unwrap();
    }
    pending(elsewhere).iter().map(|(id, u)| (id.as_u128(), u.requests, u.host.clone())).collect()
}

/// Returns when all that was changed before is in the file.
async fn written(register: &Register) {
    let entry = register.enter(Uuid::from_u128(999), at(T), "marker").await;
    let shared = register.0.clone().unwrap();
    entry.leave();
    while !shared.lock().changed.is_empty() || shared.lock().slots.iter().any(|s| s.changed) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_is_in_hand_is_in_the_file_with_their_requests() {
    let (dir, home) = home();
    let register = Register::create(&home, crate::log::silent()).unwrap();
    let first = register.enter(Uuid::from_u128(1), at(T), "a.example").await;
    let second = register.enter(Uuid::from_u128(2), at(T), "b.example").await;
    second.seen(2);
    first.leave();
    // The slot is somebody else's now: the one who left has no say in it.
    let third = register.enter(Uuid::from_u128(3), at(T), "c.example").await;
    first.seen(1);
    first.leave();
    third.seen(1);
    let shared = register.0.clone().unwrap();
    assert_eq!(shared.lock().slots.len(), 2);
    register.close(late());
    assert_eq!(
        after_a_kill(&home, dir.path()),
        [(2, 2, "b.example".to_owned()), (3, 1, "c.example".to_owned())]
    );
}

#[tokio::test]
async fn a_living_daemons_register_is_not_read_and_an_empty_one_is_removed() {
    let (dir, home) = home();
    let register = Register::create(&home, crate::log::silent()).unwrap();
    let entry = register.enter(Uuid::from_u128(1), at(T), "a.example").await;
    written(&register).await;
    assert!(pending(&home.spool_dir()).is_empty(), "locked");
    assert_eq!(after_a_kill(&home, dir.path()).len(), 1);
    entry.leave();
    register.close(late());
    assert!(registers(&home).is_empty());
}

#[tokio::test]
async fn holes_and_long_names_do_not_shift_the_lines() {
    let (dir, home) = home();
    let register = Register::create(&home, crate::log::silent()).unwrap();
    let mut entries = Vec::new();
    for n in 0..100 {
        let name = if n == 50 { "x".repeat(10_000) } else { format!("{n}.{}", "é".repeat(100)) };
        entries.push(register.enter(Uuid::from_u128(n), at(T), &name).await);
    }
    entries.iter().step_by(3).for_each(Entry::leave);
    register.close(late());
    let found = after_a_kill(&home, dir.path());
    let want: Vec<u128> = (0..100).filter(|n| n % 3 != 0 && *n != 50).collect();
    assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), want);
}

#[tokio::test]
async fn without_a_file_or_a_slot_connections_go_on() {
    let (_dir, home) = home();
    fs::remove_dir(home.spool_dir()).unwrap();
    assert!(Register::create(&home, crate::log::silent()).is_err());
    let entry = Register::none().enter(Uuid::from_u128(1), at(T), "a").await;
    entry.seen(1);
    entry.leave();
    assert_eq!(entry.id(), Uuid::from_u128(1));

    home.create().unwrap();
    let register = Register::create(&home, crate::log::silent()).unwrap();
    let shared = register.0.clone().unwrap();
    shared.lock().slots.resize_with(SLOTS, Slot::default);
    assert!(register.enter(Uuid::from_u128(1), at(T), "a").await.slot.is_none());
    register.close(late());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_behind_one_who_waited_in_vain() {
    let (_dir, home) = home();
    // Its thread does not run: as if the disk hung.
    let shared = Arc::new(Shared {
        path: home.spool_dir().join("x"),
        log: crate::log::silent(),
        table: Mutex::default(),
        to_thread: Condvar::new(),
        from_thread: Condvar::new(),
        slow: AtomicBool::new(false),
    });
    let register = Register(Some(shared));
    let start = tokio::time::Instant::now();
    for n in 0..100 {
        register.enter(Uuid::from_u128(n), at(T), "a").await;
    }
    assert_eq!(start.elapsed(), PATIENCE);
    register.close(Instant::now());
}
