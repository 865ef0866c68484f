//! The text by itself: both clocks are what they are told.

use proptest::prelude::*;

use super::super::{AVAILABLE, Bypass, Strike, Tried};
use super::*;

type Now = (Instant, Timestamp);

fn noon() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

/// The next daemon, whose clocks both have gone on.
fn later(now: Now, by: Duration) -> Now {
    (now.0 + by, now.1 + by)
}

fn list(strikes: &[(&str, Option<&str>, Strike)], now: Instant) -> HashMap<Key, Entry> {
    let bypass = Bypass::default();
    for (host, program, how) in strikes {
        bypass.strike(host, *program, *how, Tried { began: now, ended: now }, now);
    }
    bypass.lock().drain().collect()
}

fn left(entries: &HashMap<Key, Entry>, now: Instant) -> Vec<(&str, &str, Duration)> {
    let left = |entry: &Entry| entry.until.map(|until| until.duration_since(now));
    let mut all: Vec<_> = entries
        .iter()
        .map(|((host, program), entry)| (&**host, &**program, left(entry).unwrap_or_default()))
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn the_next_daemon_goes_on_where_the_last_one_ended() {
    let now = (Instant::now(), noon());
    let struck = [
        ("h", Some("pinned"), Strike::Refused),
        ("h", Some("bun"), Strike::Vanished),
        ("i", None, Strike::Refused),
        ("i", Some("go"), Strike::Divided),
    ];
    let text = write(&list(&struck, now.0), now).unwrap();
    let minutes = Duration::from_secs(5 * 60);
    let next = later(now, minutes);
    let (entries, cut) = read(&text, next).unwrap();
    assert!(!cut);
    let unknown = stay("", 1).saturating_sub(minutes);
    let known = stay("go", 1) - minutes;
    let expected = [
        ("h", "bun", Duration::ZERO),
        ("h", "pinned", known),
        ("i", "", unknown),
        ("i", "go", known),
    ];
    assert_eq!(left(&entries, next.0), expected);
    let of = |host: &str, program: &str| &entries[&(host.to_owned(), program.to_owned())];
    let (pinned, bun, go) = (of("h", "pinned"), of("h", "bun"), of("i", "go"));
    assert_eq!((pinned.stays, pinned.refused, pinned.divided), (1, true, false));
    assert_eq!((bun.stays, bun.strikes, bun.refused), (0, 1, false));
    assert_eq!((go.stays, go.refused, go.divided), (1, false, true));
    assert_eq!(of("i", "").lasts(""), AVAILABLE, "its stay is over, not what lasts");
    // The next stay is the second one, and one that broke off once is there after the second time.
    let bypass = Bypass::default();
    *bypass.lock() = entries;
    let at = next.0 + known;
    for (program, how) in [("pinned", Strike::Refused), ("bun", Strike::Vanished)] {
        bypass.strike("h", Some(program), how, Tried { began: at, ended: at }, at);
    }
    let entries = bypass.lock();
    let of_h: Vec<_> = left(&entries, at).into_iter().filter(|(host, ..)| *host == "h").collect();
    assert_eq!(of_h, [("h", "bun", stay("bun", 1)), ("h", "pinned", stay("pinned", 2))]);
}

#[test]
fn a_clock_that_was_set_makes_no_stay_longer() {
    let now = (Instant::now(), noon());
    let text = write(&list(&[("h", Some("pinned"), Strike::Refused)], now.0), now).unwrap();
    let at = |wall| read(&text, (now.0, wall)).unwrap();
    let year = jiff::SignedDuration::from_hours(24 * 365);
    let (back, cut) = at(now.1 - year);
    assert_eq!((left(&back, now.0), cut), (vec![("h", "pinned", stay("pinned", 1))], true));
    let (forward, cut) = at(now.1 + year);
    assert_eq!((left(&forward, now.0), cut), (vec![("h", "pinned", Duration::ZERO)], false));
    assert_eq!(forward.values().map(|e| e.stays).collect::<Vec<_>>(), [1], "known as before");
    for wall in [Timestamp::MIN, Timestamp::MAX] {
        at(wall);
        assert!(write(&back, (now.0, wall)).is_some());
    }
}

#[test]
fn who_is_not_known_for_anything_is_not_written_down() {
    let now = (Instant::now(), noon());
    assert_eq!(write(&HashMap::new(), now), None);
    let entries = list(&[("h", None, Strike::Vanished), ("h", Some("go"), Strike::Refused)], now.0);
    assert_eq!(entries.len(), 2, "one was taken for the other");
    let (kept, _) = read(&write(&entries, now).unwrap(), now).unwrap();
    assert_eq!(left(&kept, now.0), [("h", "go", stay("go", 1))]);
    let long = "p".repeat(LONGEST_NAMES);
    assert_eq!(write(&list(&[("h", Some(&long), Strike::Refused)], now.0), now), None);
}

#[test]
fn the_longest_list_can_be_read() {
    let now = (Instant::now(), noon());
    let names: Vec<_> =
        (0..MAX_ENTRIES).map(|n| format!("{n:04}{}", "\u{1}".repeat(1019))).collect();
    let struck: Vec<_> = names.iter().map(|name| ("h", Some(&**name), Strike::Refused)).collect();
    let text = write(&list(&struck, now.0), now).unwrap();
    assert!(text.len() as u64 <= MOST, "{}", text.len());
    assert_eq!(read(&text, now).unwrap().0.len(), MAX_ENTRIES);
}

#[test]
fn what_cannot_be_used_says_why() {
    let now = (Instant::now(), noon());
    let why = |text: &str| read(text, now).unwrap_err().to_string();
    let good = write(&list(&[("h", Some("go"), Strike::Refused)], now.0), now).unwrap();
    for end in 0..good.len() {
        assert!(read(&good[..end], now).is_err(), "cut off at {end}");
    }
    assert!(why(r#"{"version":2,"list":{}}"#).contains("version 2"));
    assert!(why(r#"{"entries":[]}"#).contains("version"));
    assert!(why(&good.replace(r#""strikes":0"#, r#""strikes":-1"#)).contains("invalid value"));
    assert!(why(&good.replace("2026-", "20260-")).contains("column"));
    let lines: Vec<_> = (0..=MAX_ENTRIES)
        .map(|n| Line::of(&(n.to_string(), String::new()), &Entry::default(), now))
        .collect();
    let many = serde_json::to_string(&Text { version: VERSION, entries: lines }).unwrap();
    assert!(why(&many).contains("513"));
}

prop_compose! {
    fn line()(
        host in "[a-c]",
        program in proptest::option::of("[a-c]?"),
        until in proptest::option::of(any::<i64>()),
        strikes in any::<u32>(),
        stays in prop_oneof![0u32..20, any::<u32>()],
        refused in any::<bool>(),
        divided in any::<bool>(),
    ) -> Line {
        let (first, last) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
        let until = until.map(|at| Timestamp::from_second(at.clamp(first, last)).unwrap());
        Line { host, program, until, strikes, stays, refused, divided }
    }
}

proptest! {
    /// Whatever stands there, and whatever the clock says.
    #[test]
    fn no_stay_is_longer_than_it_may_be(
        entries in proptest::collection::vec(line(), 0..20),
        wall in Timestamp::MIN.as_second()..Timestamp::MAX.as_second(),
        how in prop_oneof![Just(Strike::Refused), Just(Strike::Vanished)],
    ) {
        let now = (Instant::now(), Timestamp::from_second(wall).unwrap());
        let text = serde_json::to_string(&Text { version: VERSION, entries }).unwrap();
        let (entries, _) = read(&text, now).unwrap();
        for ((_, program), entry) in &entries {
            let left = entry.until.map_or(Duration::ZERO, |until| until.duration_since(now.0));
            let longest = if entry.stays == 0 { Duration::ZERO } else { stay(program, entry.stays) };
            prop_assert!(left <= longest && entry.strikes < ENOUGH, "{entry:?}");
        }
        // Written and read again it is the same, and nothing has to be cut off any more.
        let again = write(&entries, now).map(|text| read(&text, now).unwrap());
        let (again, cut) = again.unwrap_or_default();
        prop_assert!(!cut);
        prop_assert_eq!(left(&again, now.0), left(&entries, now.0));
        // It can be gone on with.
        let bypass = Bypass::default();
        *bypass.lock() = entries;
        for program in [None, Some("a")] {
            bypass.strike("a", program, how, Tried { began: now.0, ended: now.0 }, now.0);
        }
        bypass.entries(now);
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}", bytes in any::<Vec<u8>>()) {
        let now = (Instant::now(), noon());
        let _ = read(&text, now);
        let _ = read(&String::from_utf8_lossy(&bytes), now);
    }
}
