//! The list by itself: time is what it is told.

use proptest::prelude::*;

use super::*;

impl Bypass {
    /// One try that begins when nothing else is under way.
    fn strike_at(&self, host: &str, program: Option<&str>, how: Strike, now: Instant) {
        self.strike(host, program, how, Tried { began: now, ended: now }, now);
    }
}

#[test]
fn a_refusal_counts_at_once_and_expires_later_each_time() {
    let bypass = Bypass::default();
    let start = Instant::now();
    assert!(!bypass.knows("h"));
    bypass.strike_at("h", Some("pinned"), Strike::Refused, start);
    assert!(bypass.knows("h") && bypass.covers("h", Some("pinned"), start));
    assert!(!bypass.covers("h", Some("other"), start) && !bypass.covers("i", None, start));
    assert!(bypass.covers("h", None, start), "it may be the pinned one");
    let later = start + FIRST;
    assert!(!bypass.covers("h", Some("pinned"), later));
    bypass.strike_at("h", Some("pinned"), Strike::Refused, later);
    assert!(bypass.covers("h", Some("pinned"), later + FIRST));
    assert!(!bypass.covers("h", Some("pinned"), later + FIRST * 2));
}

#[test]
fn a_vanished_client_needs_to_do_it_twice_and_success_forgives() {
    let bypass = Bypass::default();
    let now = Instant::now();
    bypass.strike_at("h", None, Strike::Vanished, now);
    assert!(!bypass.covers("h", None, now));
    bypass.forgive("h", None, now);
    bypass.strike_at("h", None, Strike::Vanished, now);
    assert!(!bypass.covers("h", None, now));
    bypass.strike_at("h", None, Strike::Vanished, now);
    assert!(bypass.covers("h", None, now) && bypass.covers("h", Some("any"), now));
}

#[test]
fn of_two_tries_one_may_be_known_and_the_other_not() {
    let start = Instant::now();
    for order in [[None, Some("bun")], [Some("bun"), None]] {
        let bypass = Bypass::default();
        for program in order {
            bypass.strike_at("h", program, Strike::Vanished, start);
        }
        assert!(bypass.covers("h", Some("bun"), start), "{order:?}");
        assert!(!bypass.covers("h", Some("other"), start), "{order:?}");
        assert_eq!(bypass.entries((start, Timestamp::UNIX_EPOCH)).len(), 1, "{order:?}");
    }
    // Long ago it was somebody else, and of two programs either.
    let bypass = Bypass::default();
    bypass.strike_at("h", None, Strike::Vanished, start);
    bypass.strike_at("h", Some("bun"), Strike::Vanished, start + FIRST);
    bypass.strike_at("h", Some("curl"), Strike::Vanished, start + FIRST);
    bypass.strike_at("h", None, Strike::Vanished, start + FIRST);
    let covered = |program| bypass.covers("h", Some(program), start + FIRST);
    assert!(!covered("bun") && !covered("curl") && !covered("other"));
    // Who refuses in so many words is not taken for another.
    bypass.strike_at("h", None, Strike::Refused, start + FIRST);
    assert!(covered("other"));
}

#[test]
fn an_unknown_client_makes_the_host_raw_for_a_moment_only() {
    let bypass = Bypass::default();
    let mut now = Instant::now();
    let mut stays = Vec::new();
    for _ in 0..7 {
        bypass.strike_at("h", None, Strike::Refused, now);
        let stay = (1..).map(|n| FIRST_UNKNOWN * n);
        let stay = stay.take_while(|s| bypass.covers("h", Some("any"), now + *s)).count() + 1;
        stays.push(FIRST_UNKNOWN * u32::try_from(stay).unwrap());
        now += LONGEST;
    }
    if AVAILABLE {
        let seconds: Vec<_> = stays.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [30, 60, 120, 240, 480, 600, 600]);
    }
    assert!(bypass.knows("h"), "the next ones are looked up before the handshake");
}

/// Else another user's client, which nobody can tell, would fail every few minutes, for ever.
#[test]
fn who_never_can_be_told_fails_once() {
    let bypass = Bypass::default();
    let now = Instant::now();
    bypass.strike_at("h", None, Strike::Vanished, now);
    assert!(!bypass.covers("h", None, now), "once is no pattern");
    bypass.strike_at("h", None, Strike::Refused, now);
    let later = now + Duration::from_secs(3600);
    assert_eq!(bypass.covers("h", None, later), AVAILABLE);
    assert!(!bypass.covers("h", Some("x"), later) && !bypass.covers("i", None, later));
    let shown = bypass.entries((later, Timestamp::UNIX_EPOCH));
    let shown: Vec<_> = shown.iter().map(|e| (e.until, e.stays, e.lasting)).collect();
    assert_eq!(shown, if AVAILABLE { vec![(None, 1, true)] } else { Vec::new() });
    bypass.clear();
    assert!(!bypass.covers("h", None, now));
    bypass.strike_at("h", Some("x"), Strike::Refused, now);
    assert!(!bypass.covers("h", None, now + LONGEST), "whoever it was can be told");
}

#[test]
fn the_list_is_bounded() {
    let bypass = Bypass::default();
    let now = Instant::now();
    for i in 0..2 * MAX_ENTRIES {
        bypass.strike_at(&format!("h{i}"), None, Strike::Vanished, now);
    }
    assert!(bypass.entries((now, Timestamp::UNIX_EPOCH)).len() <= MAX_ENTRIES);
}

#[test]
fn the_list_shows_who_stays_raw_until_when_and_can_be_cleared() {
    let bypass = Bypass::default();
    let now = Instant::now();
    let wall = Timestamp::from_second(1_790_000_000).unwrap();
    bypass.strike_at("b", Some("pinned"), Strike::Refused, now);
    bypass.strike_at("a", None, Strike::Vanished, now);
    let line = |host: &str, program: Option<&str>, until, strikes, stays| Bypassed {
        host: host.to_owned(),
        program: program.map(str::to_owned),
        until,
        strikes,
        stays,
        lasting: false,
        refused: program.is_some(),
    };
    let end = wall.checked_add(FIRST).unwrap();
    let once = line("a", None, None, 1, 0);
    let pinned = line("b", Some("pinned"), Some(end), 0, 1);
    assert_eq!(bypass.entries((now, wall)), [once.clone(), pinned]);
    assert_eq!(bypass.entries((now + FIRST, wall)), [once], "it may try again");
    assert_eq!(bypass.clear(), 2);
    assert!(!bypass.covers("b", Some("pinned"), now) && !bypass.knows("b"));
    assert_eq!(bypass.entries((now, wall)), []);
}

const MS: Duration = Duration::from_millis(1);
const CA: CertificateDer<'_> = CertificateDer::from_slice(b"authority");

fn whose(pid: u32) -> Attribution {
    Attribution { pid: Some(pid), program: Some("go".to_owned()), ..Attribution::default() }
}

fn between(start: Instant, began: u32, ended: u32) -> Tried {
    Tried { began: start + MS * began, ended: start + MS * ended }
}

/// Go dials eight times, and closes seven of them once the first is there.
#[test]
fn a_burst_of_spare_connections_is_one_strike_whoever_is_known_of_it() {
    for programs in [[Some("go"); 7], [None; 7]] {
        for known in 0..7 {
            let mut programs = programs;
            programs[known] = Some("go");
            let bypass = Bypass::default();
            let start = Instant::now();
            for (spare, program) in (1..).zip(programs) {
                let tried = between(start, spare, 10 + spare);
                bypass.strike("h", program, Strike::Vanished, tried, tried.ended);
            }
            let shown = bypass.entries((start, Timestamp::UNIX_EPOCH));
            assert!(shown.iter().all(|entry| entry.stays == 0), "{known} {shown:?}");
            assert_eq!(shown.iter().map(|entry| entry.strikes).sum::<u32>(), 1, "{shown:?}");
            // One that comes after it is the second.
            bypass.strike_at("h", Some("go"), Strike::Vanished, start + MS * 500);
            assert!(bypass.covers("h", Some("go"), start + MS * 500), "{known}");
        }
    }
}

#[test]
fn refusals_side_by_side_are_one_stay() {
    let bypass = Bypass::default();
    let start = Instant::now();
    for refusal in 0..8 {
        let tried = between(start, refusal, 20 + refusal);
        bypass.strike("h", Some("pinned"), Strike::Refused, tried, tried.ended);
    }
    let shown = bypass.entries((start, Timestamp::UNIX_EPOCH));
    assert_eq!(shown.iter().map(|entry| entry.stays).collect::<Vec<_>>(), [1]);
    // One that says so is believed at once, whatever vanished beside it.
    let bypass = Bypass::default();
    for (how, program) in [(Strike::Vanished, None), (Strike::Refused, Some("pinned"))] {
        bypass.strike("h", program, how, between(start, 0, 20), start + MS * 20);
    }
    assert!(bypass.covers("h", Some("pinned"), start + MS * 20));
}

/// The look for its process takes longer than its next try does.
#[test]
fn a_strike_that_is_told_late_is_one_of_its_own() {
    let bypass = Bypass::default();
    let start = Instant::now();
    bypass.strike("h", Some("bun"), Strike::Vanished, between(start, 500, 510), start + MS * 511);
    bypass.strike("h", Some("bun"), Strike::Vanished, between(start, 0, 10), start + MS * 2010);
    assert!(bypass.covers("h", Some("bun"), start + MS * 2010));
}

#[test]
fn who_speaks_through_our_certificate_has_not_refused_it_by_leaving() {
    let bypass = Arc::new(Bypass::default());
    let now = Instant::now();
    let at = |now| Tried { began: now, ended: now };
    let excused = |who: Option<u32>| {
        let who = who.map(whose);
        bypass.excuses("h", who.as_ref(), &CA, Strike::Closed, at(now)) == Excuse::Spare
    };
    assert!(!excused(Some(1)));
    for _ in 0..2 {
        bypass.strike_at("h", Some("go"), Strike::Vanished, now);
    }
    assert!(bypass.covers("h", Some("go"), now));
    let voucher = bypass.vouch("h", &whose(1), &CA, at(now)).unwrap();
    assert!(!bypass.covers("h", Some("go"), now) && excused(Some(1)));
    drop(voucher);
    assert!(excused(Some(1)), "for a while");
    assert!(!excused(Some(2)) && !excused(None));
    assert!(bypass.vouch("h", &Attribution::default(), &CA, at(now)).is_none());
    // Nobody vouches for one that says in so many words that it refuses us.
    bypass.strike_at("h", Some("go"), Strike::Refused, now);
    let _voucher = bypass.vouch("h", &whose(1), &CA, at(now)).unwrap();
    assert!(bypass.covers("h", Some("go"), now));
}

#[test]
fn a_handshake_from_before_a_stay_does_not_end_it() {
    let bypass = Bypass::default();
    let now = Instant::now();
    bypass.strike_at("h", Some("node"), Strike::Refused, now);
    bypass.forgive("h", Some("node"), now);
    assert!(bypass.covers("h", Some("node"), now));
    bypass.forgive("h", Some("node"), now + FIRST);
    assert!(!bypass.knows("h"));
}

proptest! {
    /// As many as may be, known or not, however long each took: they all began before the first ended.
    #[test]
    fn a_burst_never_makes_a_stay_unless_one_of_it_refuses(
        burst in proptest::collection::vec((0u32..100, 0u32..1000, any::<bool>()), 1..20),
        refused in proptest::option::of(0usize..20),
    ) {
        let bypass = Bypass::default();
        let start = Instant::now();
        let mut burst = burst;
        burst.sort_unstable_by_key(|(_, ended, _)| *ended);
        for (at, (began, ended, known)) in burst.iter().enumerate() {
            let how = if refused == Some(at) { Strike::Refused } else { Strike::Vanished };
            let tried = between(start, *began, 100 + ended);
            bypass.strike("h", known.then_some("go"), how, tried, tried.ended);
        }
        let shown = bypass.entries((start, Timestamp::UNIX_EPOCH));
        let stays: u32 = shown.iter().map(|entry| entry.stays).sum();
        prop_assert_eq!(stays, u32::from(refused.is_some_and(|at| at < burst.len())), "{:?}", shown);
    }

    /// However soon the next one comes.
    #[test]
    fn tries_one_after_the_other_are_strikes_of_their_own(
        waits in proptest::collection::vec(0u32..2000, 2),
    ) {
        let bypass = Bypass::default();
        let mut now = Instant::now();
        for wait in waits {
            let tried = between(now, wait, wait + 10);
            now = tried.ended;
            bypass.strike("h", Some("bun"), Strike::Vanished, tried, now);
        }
        prop_assert!(bypass.covers("h", Some("bun"), now));
    }
}
