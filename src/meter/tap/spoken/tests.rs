use proptest::prelude::*;

use super::*;

const CA: CertificateDer<'_> = der(b"one");
const NEXT: CertificateDer<'_> = der(b"another");

const fn der(bytes: &'static [u8]) -> CertificateDer<'static> {
    CertificateDer::from_slice(bytes)
}

fn at(now: Instant) -> Tried {
    Tried { began: now, ended: now }
}

/// Whether an end in order is excused.
fn spares(
    spoken: &mut Spoken,
    process: &Process,
    authority: &CertificateDer<'_>,
    now: Instant,
) -> bool {
    spoken.excuses(process, authority, Strike::Closed, at(now), now) == Excuse::Spare
}

fn process(pid: u32) -> Process {
    Process { host: "h".to_owned(), pid, program: "node".to_owned() }
}

#[test]
fn who_has_spoken_is_excused_while_it_does_and_for_a_while_after() {
    let mut spoken = Spoken::default();
    let start = Instant::now();
    assert!(!spares(&mut spoken, &process(1), &CA, start), "it has said nothing yet");
    let number = spoken.begin(process(1), &CA, at(start), start).unwrap();
    assert!(spares(&mut spoken, &process(1), &CA, start + KEPT * 9), "still open");
    spoken.end(&process(1), number, start + KEPT * 9);
    assert!(spares(&mut spoken, &process(1), &CA, start + KEPT * 10 - Duration::from_millis(1)));
    assert!(!spares(&mut spoken, &process(1), &CA, start + KEPT * 10));
}

#[test]
fn other_processes_hosts_and_authorities_have_to_speak_for_themselves() {
    let mut spoken = Spoken::default();
    let now = Instant::now();
    let number = spoken.begin(process(1), &CA, at(now), now).unwrap();
    assert!(!spares(&mut spoken, &process(2), &CA, now), "another script of that interpreter");
    assert!(!spares(&mut spoken, &Process { host: "i".to_owned(), ..process(1) }, &CA, now));
    assert!(!spares(&mut spoken, &Process { program: "bun".to_owned(), ..process(1) }, &CA, now));
    assert!(!spares(&mut spoken, &process(1), &NEXT, now), "it has not seen that one");
    spoken.begin(process(2), &NEXT, at(now), now).unwrap();
    assert!(!spares(&mut spoken, &process(1), &NEXT, now));
    // The end of a connection of before is not that of a new one.
    spoken.begin(process(1), &NEXT, at(now), now).unwrap();
    spoken.end(&process(1), number, now);
    assert!(spares(&mut spoken, &process(1), &NEXT, now + KEPT));
}

#[test]
fn ends_in_order_without_a_word_in_between_are_no_spare_ones_any_more() {
    let mut spoken = Spoken::default();
    let now = Instant::now();
    for _ in 0..2 {
        spoken.begin(process(1), &CA, at(now), now).unwrap();
        for spare in 0..=MOST_CLOSED {
            assert_eq!(spares(&mut spoken, &process(1), &CA, now), spare < MOST_CLOSED, "{spare}");
        }
    }
}

/// What a process does: it dials and speaks, or breaks off, from one moment to another (in ms).
#[derive(Clone, Copy, Debug)]
enum Act {
    Speaks(u64, u64),
    BreaksOff(u64, u64),
    Closes(u64, u64),
    /// It aborts an answer, at that moment.
    Aborts(u64),
}

/// How many of those that broke off were excused before the first that was not.
fn excused(acts: impl IntoIterator<Item = Act>) -> (usize, bool) {
    let (mut spoken, start) = (Spoken::default(), Instant::now());
    let ms = |ms| start + Duration::from_millis(ms);
    let tried = |began, ended| Tried { began: ms(began), ended: ms(ended) };
    let (mut excused, mut number) = (0, 0);
    for act in acts {
        let (how, began, ended) = match act {
            Act::Speaks(began, ended) => {
                number = spoken.begin(process(1), &CA, tried(began, ended), ms(ended)).unwrap();
                continue;
            }
            Act::Aborts(at) => {
                spoken.abort(&process(1), number, ms(at));
                continue;
            }
            Act::BreaksOff(began, ended) => (Strike::Vanished, began, ended),
            Act::Closes(began, ended) => (Strike::Closed, began, ended),
        };
        match spoken.excuses(&process(1), &CA, how, tried(began, ended), ms(ended)) {
            Excuse::Spare => excused += 1,
            Excuse::Divided => return (excused, true),
            Excuse::Stranger => panic!("{act:?}"),
        }
    }
    (excused, false)
}

#[test]
fn part_of_a_process_may_refuse_us_and_is_soon_believed() {
    use Act::{BreaksOff, Closes, Speaks};
    let turns = |turns: u64, of: &dyn Fn(u64) -> Vec<Act>| {
        excused((0..turns).flat_map(|turn| of(turn * 1000)))
    };
    // One that accepts us and one that does not, in turns (https-proxy-agent, Java).
    let in_turns = turns(12, &|t| vec![Speaks(t, t + 40), BreaksOff(t + 100, t + 110)]);
    assert_eq!(in_turns, (MOST_ALONE, true));
    // Once an hour it may be chance.
    let hourly = |t| vec![Speaks(t * 3600, t * 3600 + 40), BreaksOff(t * 3600 + 50, t * 3600 + 60)];
    assert_eq!(turns(12, &hourly), (12, false));
    // One that speaks all the while, and one that tries ten times at once, again and again.
    let burst = |t| (0..10).map(move |n| BreaksOff(t + n, t + 20 + n));
    let beside_a_long_one = |t: u64| {
        let long = (t == 0).then_some(Speaks(0, 1));
        long.into_iter().chain(burst(t + 100)).collect()
    };
    assert_eq!(turns(9, &beside_a_long_one), (MOST_ALONE * 10, true));
    // Always both at once: that looks like giving up, for longer.
    let both = |t: u64| vec![BreaksOff(t, t + 10), Speaks(t, t + 40)];
    let first = std::iter::once(Speaks(0, 1));
    let both = excused(first.chain((1..40).flat_map(|turn| both(turn * 1000))));
    assert_eq!(both, (MOST_BROKEN, true));

    // Go's and Java's spare connections, of one burst after the other.
    let spares = |t: u64| {
        let first = std::iter::once(Speaks(t, t + 40));
        first.chain((0..7).map(|n| Closes(t + n, t + 41 + n))).collect()
    };
    assert_eq!(turns(100, &spares), (700, false));
    // undici gives up while it dials, beside others.
    let aborts = |t: u64| vec![BreaksOff(t, t + 3), BreaksOff(t + 1, t + 8), Speaks(t, t + 40)];
    let aborts =
        excused(std::iter::once(Speaks(0, 1)).chain((1..12).flat_map(|turn| aborts(turn * 1000))));
    assert_eq!(aborts, (22, false));
    // A process that ends takes all along.
    let end = (0..8).map(|n| BreaksOff(500 + n, 900));
    assert_eq!(excused(std::iter::once(Speaks(0, 400)).chain(end)), (8, false));
}

/// What undici does: a connection for each of two clients, answers that are aborted, and a dial in the
/// place of each connection that went with one, which it breaks off as nobody waits.
#[test]
fn what_is_dialled_in_the_place_of_an_aborted_one_is_no_refusal() {
    use Act::{Aborts, BreaksOff, Speaks};
    let turns = |of: &dyn Fn(u64) -> Vec<Act>| excused((0..40).flat_map(|turn| of(turn * 3000)));
    let told = |t: u64| vec![Speaks(t, t + 40), Aborts(t + 1459), BreaksOff(t + 1461, t + 1542)];
    assert_eq!(turns(&told), (40, false));
    // Dialled before we hear of the end, or broken off before.
    let late = |t: u64| vec![Speaks(t, t + 40), Aborts(t + 1465), BreaksOff(t + 1461, t + 1542)];
    assert_eq!(turns(&late), (40, false));
    let later = |t: u64| vec![Speaks(t, t + 40), BreaksOff(t + 1461, t + 1482), Aborts(t + 1459)];
    assert_eq!(turns(&later), (40, false));
    // Two at once.
    let both = |t: u64| {
        let dials = [BreaksOff(t + 202, t + 240), BreaksOff(t + 260, t + 290)];
        let aborts = [Speaks(t, t + 40), Speaks(t + 60, t + 90), Aborts(t + 200), Aborts(t + 201)];
        aborts.into_iter().chain(dials).collect()
    };
    assert_eq!(turns(&both), (80, false));
    // Beside a client that aborts and then speaks again there may be one that refuses us,
    let other = |t: u64| {
        let first = [Speaks(t, t + 40), Aborts(t + 50), Speaks(t + 52, t + 90)];
        first.into_iter().chain([BreaksOff(t + 100, t + 110)]).collect()
    };
    assert_eq!(turns(&other), (MOST_ALONE, true));
    // or one that does much later, or twice.
    let long_ago = |t: u64| vec![Speaks(t, t + 10), Aborts(t + 20), BreaksOff(t + 2020, t + 2030)];
    assert_eq!(turns(&long_ago), (MOST_ALONE, true));
    let twice = |t: u64| {
        let first = [Speaks(t, t + 40), Aborts(t + 50), BreaksOff(t + 52, t + 90)];
        first.into_iter().chain([BreaksOff(t + 100, t + 110)]).collect()
    };
    assert_eq!(turns(&twice), (2 * MOST_ALONE + 1, true));
}

#[test]
fn memory_is_bounded() {
    let mut spoken = Spoken::default();
    let now = Instant::now();
    let bound = u32::try_from(MAX_PROCESSES).unwrap();
    for pid in 0..3 * bound {
        let number = spoken.begin(process(pid), &CA, at(now), now).unwrap();
        spoken.end(&process(pid), number, now + Duration::from_secs(u64::from(pid)));
    }
    assert_eq!(spoken.processes.len(), MAX_PROCESSES);
    assert!(spares(&mut spoken, &process(3 * bound - 1), &CA, now));
    assert!(!spares(&mut spoken, &process(0), &CA, now), "the oldest made room");
    let mut spoken = Spoken::default();
    for pid in 0..bound {
        spoken.begin(process(pid), &CA, at(now), now).unwrap();
    }
    assert_eq!(
        spoken.begin(process(bound), &CA, at(now + KEPT), now + KEPT),
        None,
        "all are in use"
    );
    assert!(spoken.begin(process(0), &CA, at(now), now).is_some());
}

proptest! {
    /// Against a list of all that has happened.
    #[test]
    fn excused_is_who_has_one_open_or_has_had_it_lately(
        steps in proptest::collection::vec((0u32..3, 0u8..3, 0u32..400), 0..60),
    ) {
        let mut spoken = Spoken::default();
        let mut now = Instant::now();
        let mut open: Vec<(u32, u64)> = Vec::new();
        let mut last: HashMap<u32, Instant> = HashMap::new();
        for (pid, step, wait) in steps {
            now += Duration::from_secs(u64::from(wait));
            match step {
                0 => {
                    open.push((pid, spoken.begin(process(pid), &CA, at(now), now).unwrap()));
                    last.insert(pid, now);
                }
                1 => if let Some(at) = open.iter().position(|(whose, _)| *whose == pid) {
                    spoken.end(&process(pid), open.remove(at).1, now);
                    last.insert(pid, now);
                },
                _ => {}
            }
            for pid in 0..3 {
                // Not what is counted here.
                spoken.processes.values_mut().for_each(|proof| proof.closed = 0);
                let lately = last.get(&pid).is_some_and(|at| now.duration_since(*at) < KEPT);
                let expected = lately || open.iter().any(|(whose, _)| *whose == pid);
                prop_assert_eq!(spares(&mut spoken, &process(pid), &CA, now), expected);
            }
        }
    }
}
