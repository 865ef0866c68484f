use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::super::Restart;
use super::super::event::{Event, Exit, Timer};
use super::super::spec::{Backoff, Intensity, Strategy as Restarts};
use super::super::step::{ChildPlan, Plan};
use super::*;

const LONG: Duration = Duration::from_secs(30);

#[test]
fn lines_of_several_processes_are_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let (a, b) = (Journal::open(&path, "edge"), Journal::open(&path, "daemon"));
    for i in 0..50 {
        a.append(Note::new("one").cause(i));
        b.append(Note::new("two").cause(i));
    }
    a.flush(LONG);
    b.flush(LONG);
    let entries = read_all(&path).unwrap();
    assert_eq!(entries.len(), 100);
    for process in ["edge", "daemon"] {
        let seqs: Vec<_> = entries.iter().filter(|e| e.process == process).map(|e| e.seq).collect();
        assert_eq!(seqs, (1..=50).collect::<Vec<_>>());
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_broken_line_is_skipped_and_takes_no_other_along() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    fs::write(&path, b"{\"seq\":1,\"at\n\xff\xff\n\n{\"seq\":2,\"at").unwrap();
    let journal = Journal::open(&path, "edge");
    journal.append(Note::new("fine"));
    journal.flush(LONG);
    let entries = read_all(&path).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].event, "fine");
}

#[test]
fn a_line_after_one_that_failed_is_a_line_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    fs::create_dir(&path).unwrap();
    let journal = Journal::open(&path, "edge");
    journal.append(Note::new("lost"));
    journal.flush(LONG);
    assert_eq!(journal.lost(), 1);
    // As if it had failed in the middle.
    fs::remove_dir(&path).unwrap();
    fs::write(&path, b"{\"seq\":1,\"at").unwrap();
    journal.append(Note::new("fine"));
    journal.append(Note::new("finer"));
    journal.flush(LONG);
    let events: Vec<_> = read_all(&path).unwrap().into_iter().map(|e| e.event).collect();
    assert_eq!(events, ["fine", "finer"]);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
}

#[test]
fn rotation_keeps_what_was_written_and_a_tail_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let (one, two) = (Journal::open(&path, "edge"), Journal::open(&path, "daemon"));
    one.append(Note::new("before"));
    one.flush(LONG);
    let mut tail = Tail::at_start(&path);
    assert_eq!(tail.poll().len(), 1);
    // Grow the file over the limit with something that is no entry.
    let filler = vec![b'x'; usize::try_from(write::ROTATE_AT).unwrap()];
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&filler).unwrap();
    file.write_all(b"\n").unwrap();
    two.append(Note::new("after"));
    two.flush(LONG);
    one.append(Note::new("last"));
    one.flush(LONG);
    let events: Vec<_> = read_all(&path).unwrap().into_iter().map(|e| e.event).collect();
    assert_eq!(events, ["before", "after", "last"]);
    assert!(fs::metadata(&path).unwrap().len() < 4096, "a new file");
    let events: Vec<_> = tail.poll().into_iter().map(|e| e.event).collect();
    assert_eq!(events, ["after", "last"]);
}

#[test]
fn an_unwritable_place_is_counted_and_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing").join("events.jsonl");
    let journal = Journal::open(&path, "edge");
    let mut listener = journal.listen();
    journal.append(Note::new("lost"));
    journal.flush(LONG);
    assert_eq!(journal.lost(), 1);
    assert_eq!(listener.try_recv().unwrap().event, "lost");
}

fn any_exit() -> impl Strategy<Value = Exit> {
    prop_oneof![
        Just(Exit::Normal),
        any::<String>().prop_map(Exit::Failed),
        any::<String>().prop_map(Exit::Panicked),
        Just(Exit::Stalled),
        Just(Exit::Killed),
        any::<String>().prop_map(Exit::Unkillable),
    ]
}

fn any_timer() -> impl Strategy<Value = Timer> {
    prop_oneof![
        Just(Timer::StartDeadline),
        Just(Timer::RestartDue),
        Just(Timer::ShutdownDeadline),
        Just(Timer::AbortDeadline),
    ]
}

/// Each of them.
fn any_event() -> impl Strategy<Value = Event> {
    let one = || (any::<usize>(), any::<u64>());
    prop_oneof![
        Just(Event::TreeStarted),
        one().prop_map(|(child, generation)| Event::ChildStarting { child, generation }),
        one().prop_map(|(child, generation)| Event::ChildReady { child, generation }),
        (one(), any_exit()).prop_map(|((child, generation), exit)| Event::ChildExited {
            child,
            generation,
            exit
        }),
        one().prop_map(|(child, generation)| Event::HeartbeatMissed { child, generation }),
        (one(), any_timer()).prop_map(|((child, generation), timer)| Event::TimerFired {
            timer,
            child,
            generation
        }),
        any::<usize>().prop_map(|child| Event::RestartRequested { child }),
        Just(Event::ShutdownRequested),
    ]
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let restart =
        prop_oneof![Just(Restart::Permanent), Just(Restart::Transient), Just(Restart::Temporary)];
    let backoff = (any::<bool>(), any::<Duration>(), any::<u32>(), any::<Duration>())
        .prop_map(|(immediate, first, factor, max)| Backoff { immediate, first, factor, max });
    let child = (any::<String>(), restart, any::<Duration>(), any::<Duration>(), backoff).prop_map(
        |(id, restart, start_deadline, shutdown, backoff)| ChildPlan {
            id,
            restart,
            start_deadline,
            shutdown,
            backoff,
        },
    );
    let intensity = (any::<u32>(), any::<Duration>())
        .prop_map(|(restarts, period)| Intensity { restarts, period });
    let strategy = prop_oneof![Just(Restarts::OneForOne), Just(Restarts::RestForOne)];
    (strategy, of(intensity), vec(child, 0..3)).prop_map(|(strategy, intensity, children)| Plan {
        strategy,
        intensity,
        children,
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    (any::<String>(), any::<u64>(), any::<u64>(), any_event(), of(any_plan()))
        .prop_map(|(tree, run, micros, event, plan)| Step { tree, run, micros, event, plan })
}

proptest! {
    /// A line that is not read again is a step that nobody judges.
    #[test]
    fn every_entry_is_read_as_it_was_written(
        (seq, nanos) in (any::<u64>(), 0..i128::from(i64::MAX)),
        (process, instance, event) in any::<(String, String, String)>(),
        (child, cause) in any::<(Option<String>, Option<String>)>(),
        (generation, delay_ms) in any::<(Option<u64>, Option<u64>)>(),
        step in of(any_step()),
    ) {
        let at = Timestamp::from_nanosecond(nanos).unwrap();
        let entry = JournalEntry {
            seq, at, process, instance, child, generation, event, cause, delay_ms, step,
        };
        let line = serde_json::to_vec(&entry).unwrap();
        prop_assert!(!line.contains(&b'\n'));
        prop_assert_eq!(read::parse(&line), Some(entry));
    }
}
