//! Who knows a CA that had to be made at once.

use super::*;

fn since(ca: &Ca) -> Option<SystemTime> {
    match ca.known("a.example") {
        Known::Since(made) => Some(made),
        Known::ToAll | Known::WithNext => None,
    }
}

#[test]
fn one_in_place_of_another_is_not_known_to_what_runs_until_one_was_published_first() {
    let (_dir, home) = home();
    let list = hosts(&["a.example"]);
    let load = || Ca::load_or_create(&home, &list, &log()).unwrap();
    load();
    assert_eq!(since(&load()), None, "the first one");
    // As `uninstall` leaves it.
    fs::remove_file(home.ca_key()).unwrap();
    let before = SystemTime::now();
    let made = since(&load()).unwrap();
    assert!(made + Duration::from_millis(1) > before && made <= SystemTime::now());
    assert_eq!(since(&load()), Some(made), "whoever loads it");
    let held = Ca::load_unasked(&home, &list, &log()).unwrap();
    assert_eq!(since(&held), Some(made));

    let longer = hosts(&["a.example", "b.example"]);
    let both = Ca::load_or_create(&home, &longer, &log()).unwrap();
    assert_eq!((since(&both), both.known("b.example")), (Some(made), Known::WithNext));
    rotate::finish(&home, &list).unwrap();
    assert_eq!(since(&load()), None, "it had its time");
}

#[test]
fn what_a_purge_has_left_tells_that_there_was_another() {
    let (_dir, home) = home();
    let list = hosts(&["a.example"]);
    fs::write(home.ca_bundle(), "roots").unwrap();
    assert!(since(&Ca::load_or_create(&home, &list, &log()).unwrap()).is_some());
}

#[test]
fn it_is_among_the_files_that_are_written_again() {
    let (_dir, home) = home();
    let list = hosts(&["a.example"]);
    let load = || Ca::load_or_create(&home, &list, &log()).unwrap();
    load();
    fs::remove_file(home.ca_key()).unwrap();
    let made = since(&load()).unwrap();
    let mut kept = KeptFiles::default();
    kept.note(&home).unwrap();
    fs::remove_dir_all(home.path()).unwrap();
    home.create().unwrap();
    assert!(kept.restore(&home).unwrap());
    assert_eq!(since(&load()), Some(made));
}
