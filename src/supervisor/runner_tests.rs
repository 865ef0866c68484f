//! The runner under a real actix System, with time that stands still unless everybody waits.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message};
use serde_json::{Value, json};

use super::faults::Fault;
use super::replay::replay;
use super::step::{Mode, Phase};
use super::*;

mod kit;

use kit::*;

#[test]
fn a_panic_gives_a_new_instance_with_fresh_state() {
    world(|| async {
        let (bench, slot) = (Bench::new(), Slot::new());
        let tree = start(bench.tree().child(worker("a", &slot)));
        let addr = up(&slot, 1).await;
        addr.send(Do(Order::Count)).await.unwrap();
        assert_eq!(tree.observe().await[0].observed, json!({ "count": 1 }));
        assert!(addr.send(Do(Order::Panic)).await.is_err());
        up(&slot, 2).await;
        let status = &tree.observe().await[0];
        assert_eq!(status.observed, json!({ "count": 0 }));
        assert_eq!((status.generation, status.restarts), (2, 1));
        let exit = status.last_exit.clone().unwrap();
        assert!(exit.contains("runner_tests") && exit.contains("ordered"), "{exit}");
        tree.shutdown().await;
        bench.check();
    });
}

#[test]
fn the_first_reason_of_a_failure_counts() {
    world(|| async {
        let (bench, slot) = (Bench::new(), Slot::new());
        let tree = start(bench.tree().child(worker("a", &slot)));
        let addr = up(&slot, 1).await;
        addr.try_send(Do(Order::Fail("disk gone"))).unwrap();
        addr.try_send(Do(Order::Fail("the rest"))).unwrap();
        up(&slot, 2).await;
        assert_eq!(bench.cause("exited").unwrap(), "failed: disk gone");
        tree.shutdown().await;
        bench.check();
    });
}

#[test]
fn a_child_that_is_not_ready_in_time_is_stopped_and_started_again() {
    world(|| async {
        let (bench, slot) = (Bench::new(), Slot::<Worker>::new());
        let births = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&births);
        let spec = ChildSpec::actor("slow", slot.clone(), move |birth| {
            let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            Worker { silent: first, ..Worker::new(birth) }
        });
        let tree = start(bench.tree().child(spec.start_deadline(Duration::from_secs(3))));
        up(&slot, 2).await;
        assert_eq!(bench.cause("exited").unwrap(), "failed: not ready within 3s");
        tree.shutdown().await;
        bench.check();
    });
}

#[test]
fn a_hanging_child_is_killed_and_a_protected_one_is_not() {
    world(|| async {
        let (bench, a, b) = (Bench::new(), Slot::new(), Slot::new());
        let tree = start(bench.tree().child(worker("a", &a)).child(worker("b", &b)));
        up(&b, 1).await.try_send(Do(Order::HangProtected)).unwrap();
        up(&a, 1).await.try_send(Do(Order::Hang)).unwrap();
        up(&a, 2).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(bench.cause("exited").unwrap(), "stalled");
        let status = tree.observe().await;
        assert_eq!(status[0].last_exit.as_deref(), Some("stalled"), "first fault wins");
        assert_eq!((status[1].generation, status[1].state), (1, Phase::Ready));
        tree.shutdown().await;
        bench.check();
    });
}

#[test]
fn too_many_restarts_escalate_after_everyone_was_stopped() {
    world(|| async {
        let (bench, a, b) = (Bench::new(), Slot::new(), Slot::new());
        let limit = Intensity { restarts: 2, period: Duration::from_secs(60) };
        let tree = start(
            bench.tree().intensity(Some(limit)).child(worker("a", &a)).child(worker("b", &b)),
        );
        for generation in 1..=3 {
            up(&a, generation).await.try_send(Do(Order::Fail("again"))).unwrap();
        }
        let expected = Cause::Intensity { child: "a".into(), exit: Exit::Failed("again".into()) };
        assert_eq!(tree.escalated().await, expected);
        assert_eq!(tree.finished().await, Outcome::Escalated(expected));
        assert!(a.get().is_err() && b.get().is_err());
        bench.check();
    });
}

#[test]
fn failures_that_are_far_apart_do_not_escalate() {
    world(|| async {
        let (bench, a) = (Bench::new(), Slot::new());
        let limit = Intensity { restarts: 1, period: Duration::from_secs(60) };
        let tree = start(bench.tree().intensity(Some(limit)).child(worker("a", &a)));
        for generation in 1..=5 {
            up(&a, generation).await.try_send(Do(Order::Fail("again"))).unwrap();
            tokio::time::sleep(Duration::from_secs(61)).await;
        }
        assert_eq!(tree.observe().await[0].generation, 6);
        tree.shutdown().await;
        bench.check();
    });
}

#[test]
fn rest_for_one_restarts_the_later_ones_in_order() {
    world(|| async {
        let (bench, a, b, c) = (Bench::new(), Slot::new(), Slot::new(), Slot::new());
        let tree = start(
            bench
                .tree()
                .strategy(Strategy::RestForOne)
                .child(worker("a", &a))
                .child(worker("b", &b))
                .child(worker("c", &c)),
        );
        up(&c, 1).await;
        up(&b, 1).await.try_send(Do(Order::Fail("x"))).unwrap();
        up(&c, 2).await;
        assert_eq!(a.get().unwrap().0, 1);
        tree.shutdown().await;
        assert_eq!(
            bench.said(),
            [
                " tree_started",
                "a#1 starting",
                "a#1 ready",
                "b#1 starting",
                "b#1 ready",
                "c#1 starting",
                "c#1 ready",
                "b#1 exited",
                "c#1 exited",
                "b#1 restart_due",
                "b#2 starting",
                "b#2 ready",
                "c#2 starting",
                "c#2 ready",
                " shutdown_requested",
                "c#2 exited",
                "b#2 exited",
                "a#1 exited",
            ]
        );
        bench.check();
    });
}

#[test]
fn a_child_that_does_not_stop_is_aborted_at_its_deadline() {
    world(|| async {
        let (bench, slot) = (Bench::new(), Slot::<Worker>::new());
        let spec = ChildSpec::actor("a", slot.clone(), |birth| Worker {
            stubborn: true,
            ..Worker::new(birth)
        });
        let tree = start(bench.tree().child(spec.shutdown(Duration::from_secs(7))));
        up(&slot, 1).await;
        let began = tokio::time::Instant::now();
        tree.shutdown().await;
        assert_eq!(began.elapsed().as_secs(), 7);
        assert_eq!(bench.cause("exited").unwrap(), "killed");
        bench.check();
    });
}

#[test]
fn a_transient_child_ends_for_good_and_a_permanent_one_comes_back() {
    world(|| async {
        let (bench, a, b) = (Bench::new(), Slot::new(), Slot::new());
        let tree = start(
            bench.tree().child(worker("a", &a).restart(Restart::Transient)).child(worker("b", &b)),
        );
        up(&b, 1).await.try_send(Do(Order::End)).unwrap();
        up(&a, 1).await.try_send(Do(Order::End)).unwrap();
        up(&b, 2).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let status = tree.observe().await;
        assert_eq!((status[0].state, status[1].state), (Phase::Ended, Phase::Ready));
        tree.shutdown().await;
        bench.check();
    });
}

#[test]
fn a_requested_restart_is_no_failure() {
    world(|| async {
        let (bench, slot) = (Bench::new(), Slot::new());
        let none = Some(Intensity { restarts: 0, period: Duration::from_secs(60) });
        let tree = start(bench.tree().intensity(none).child(worker("a", &slot)));
        up(&slot, 1).await;
        tree.restart("a");
        up(&slot, 2).await;
        assert_eq!(tree.observe().await[0].restarts, 0);
        tree.shutdown().await;
        bench.check();
    });
}

#[test]
fn a_supervisor_is_a_child_whose_escalation_is_a_failure() {
    world(|| async {
        let (bench, inner, after) = (Bench::new(), Slot::new(), Slot::new());
        let slot = inner.clone();
        let limit = Some(Intensity { restarts: 0, period: Duration::from_secs(60) });
        let nested = ChildSpec::tree("meter", move |birth| {
            TreeSpec::nested(birth).intensity(limit).child(worker("ledger", &slot))
        });
        let tree = start(bench.tree().child(nested).child(worker("health", &after)));
        up(&after, 1).await;
        assert!(inner.get().is_ok(), "a nested tree is ready when its children are");
        let observed = tree.observe().await[0].observed.clone();
        assert_eq!(observed[0]["observed"], json!({ "count": 0 }));
        up(&inner, 1).await.try_send(Do(Order::Panic)).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        up(&inner, 1).await;
        let status = &tree.observe().await[0];
        assert_eq!((status.generation, status.state), (2, Phase::Ready));
        assert!(status.last_exit.as_deref().unwrap().contains("too many restarts"));
        tree.shutdown().await;
        assert!(bench.said().iter().any(|s| s == "meter.ledger#1 exited"), "{:?}", bench.said());
        bench.check();
    });
}

/// A supervisor in which each generation counts itself while it lives.
fn counting(living: &Arc<AtomicU32>, slot: &Slot<Worker>) -> ChildSpec {
    struct Living(Arc<AtomicU32>);
    impl Drop for Living {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let (living, slot) = (Arc::clone(living), slot.clone());
    ChildSpec::tree("meter", move |birth| {
        let living = Arc::clone(&living);
        let child = ChildSpec::actor("ledger", slot.clone(), move |birth| {
            assert_eq!(living.fetch_add(1, Ordering::SeqCst), 0, "two generations at once");
            let guard = Living(Arc::clone(&living));
            Worker { alive: Some(Box::new(guard)), ..Worker::new(birth) }
        });
        TreeSpec::nested(birth).child(child)
    })
}

#[test]
fn whoever_loses_its_supervisor_ends() {
    world(|| async {
        let (bench, slot, living) = (Bench::new(), Slot::new(), Arc::default());
        let nested = counting(&living, &slot).shutdown(Duration::from_secs(1));
        let tree = start(bench.tree().child(nested));
        up(&slot, 1).await;
        // Panics, then is killed at its deadline: neither way its child survives it.
        for (i, fault) in [Fault::Panic, Fault::Hang].into_iter().enumerate() {
            tree.fault("meter".to_owned(), fault);
            tokio::time::sleep(Duration::from_secs(1)).await;
            if fault == Fault::Hang {
                tree.restart("meter");
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
            let status = &tree.observe().await[0];
            assert_eq!((status.generation, status.state), (i as u64 + 2, Phase::Ready));
            assert_eq!(living.load(Ordering::SeqCst), 1);
        }
        tree.shutdown().await;
        assert_eq!(living.load(Ordering::SeqCst), 0);
        assert!(replay(&bench.entries.borrow()).unwrap().gaps.is_empty());
    });
}

#[test]
fn a_suspect_is_replaced_like_one_that_misses_its_heartbeat() {
    world(|| async {
        let (bench, slot) = (Bench::new(), Slot::new());
        let tree = start(bench.tree().child(worker("a", &slot).heartbeat(None)));
        up(&slot, 1).await.try_send(Do(Order::Hang)).unwrap();
        tree.suspect("a");
        up(&slot, 2).await;
        assert_eq!(bench.cause("exited").unwrap(), "stalled");
        tree.shutdown().await;
        bench.check();
    });
}

/// Real threads and real time: it can't be started anew on the thread that is blocked.
#[test]
fn a_blocked_thread_below_a_nested_supervisor_ends_the_whole_tree() {
    actix_rt::System::new().block_on(async {
        let (bench, slot) = (Bench::new(), Slot::new());
        let inner = slot.clone();
        let nested = ChildSpec::tree("meter", move |birth| {
            let beat = Some(Duration::from_millis(200));
            TreeSpec::nested(birth).child(worker("ledger", &inner).heartbeat(beat))
        });
        let tree = start(bench.tree().lanes(Lanes::threads()).child(nested));
        let gate = Arc::new(Gate::default());
        up(&slot, 1).await.try_send(Do(Order::Block(Arc::clone(&gate)))).unwrap();
        assert_eq!(tree.escalated().await, Cause::Unkillable { child: "meter.ledger".into() });
        assert!(matches!(tree.finished().await, Outcome::Escalated(_)));
        gate.open();
        bench.check();
    });
}

/// Real threads and real time: a thread that is blocked can't be killed.
#[test]
fn a_child_that_blocks_its_thread_escalates_and_spares_the_other_lane() {
    let ticks = Arc::new(AtomicU64::new(0));
    let blocked = Arc::new(AtomicBool::new(false));
    actix_rt::System::new().block_on(async {
        let (bench, a, b) = (Bench::new(), Slot::new(), Slot::new());
        let beat = Some(Duration::from_millis(200));
        let tree = start(
            bench
                .tree()
                .lanes(Lanes::threads())
                .child(worker("a", &a).heartbeat(beat))
                .child(worker("b", &b).lane(Lane::Control)),
        );
        up(&b, 1).await;
        let gate = Arc::new(Gate::default());
        up(&a, 1).await.try_send(Do(Order::Block(Arc::clone(&gate)))).unwrap();
        blocked.store(true, Ordering::Relaxed);
        up(&b, 1).await.send(Do(Order::Count)).await.unwrap();
        ticks.fetch_add(1, Ordering::Relaxed);
        assert_eq!(tree.escalated().await, Cause::Unkillable { child: "a".into() });
        assert!(matches!(tree.finished().await, Outcome::Escalated(_)));
        gate.open();
        bench.check();
    });
}
