use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::meter::bodies::MARGIN;

const PATIENCE: Duration = Duration::from_secs(20);
const WANTED: Bodies =
    Bodies { enabled: true, body_bytes: 64, total_bytes: 1 << 20, retention_days: 7 };

fn keeper(wanted: Bodies) -> (tempfile::TempDir, Home, Keeper) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("h"));
    home.create().unwrap();
    let keeper = Keeper::start(&home, wanted, &crate::log::silent());
    (dir, home, keeper)
}

fn said(keeper: &Keeper, request: &[u8], response: &[u8]) -> Option<Capture> {
    let mut capture = keeper.begin()?;
    capture.request(request);
    capture.response(response);
    (capture.request.whole, capture.response.whole) = (true, true);
    Some(capture)
}

#[test]
fn bodies_are_kept_cut_and_without_secrets() {
    let (_dir, home, keeper) = keeper(WANTED);
    let id = Uuid::now_v7();
    // The secret lies across the border of what is kept.
    let request = format!("{}sk-ant-api03-{} more", "x ".repeat(29), "A".repeat(40));
    keeper.keep(id, said(&keeper, request.as_bytes(), b"\xff\xfe\x00image").unwrap());
    assert!(keeper.flush(PATIENCE));
    let kept = Shelf::of(&home).read(id).unwrap().unwrap();
    let text = kept.request.text.unwrap();
    assert_eq!(text, format!("{}[REDACTED:anthropic_key]", "x ".repeat(29)));
    assert!(kept.request.cut);
    assert_eq!(kept.request.bytes, request.len() as u64);
    assert_eq!(kept.request.redacted["anthropic_key"], 1);
    assert_eq!((kept.response.text, kept.response.bytes), (None, 8));
    assert_eq!(kept.response.missing.as_deref(), Some("it is not text"));
    assert_eq!(keeper.stats(), Stats { enabled: true, kept: 1, dropped: 0 });
}

#[test]
fn off_is_off_at_once_also_for_what_is_in_hand() {
    let (_dir, home, keeper) = keeper(Bodies { enabled: false, ..WANTED });
    assert!(keeper.begin().is_none());
    keeper.want(WANTED);
    let capture = said(&keeper, b"a", b"b").unwrap();
    keeper.turn_off();
    keeper.keep(Uuid::now_v7(), capture);
    assert!(keeper.begin().is_none() && keeper.flush(PATIENCE));
    assert!(!home.bodies_dir().exists());
}

#[test]
fn a_disk_that_can_not_be_written_costs_bodies_and_nothing_else() {
    let (_dir, home, keeper) = keeper(WANTED);
    std::fs::write(home.bodies_dir(), "in the way").unwrap();
    keeper.keep(Uuid::now_v7(), said(&keeper, b"a", b"b").unwrap());
    assert!(keeper.flush(PATIENCE));
    assert_eq!(keeper.stats(), Stats { enabled: true, kept: 0, dropped: 1 });
    std::fs::remove_file(home.bodies_dir()).unwrap();
    let id = Uuid::now_v7();
    keeper.keep(id, said(&keeper, b"a", b"b").unwrap());
    assert!(keeper.flush(PATIENCE));
    assert!(Shelf::of(&home).has(id));
    let mode = std::fs::metadata(home.bodies_dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn all_of_them_stay_below_the_bound() {
    let (_dir, home, keeper) = keeper(Bodies { total_bytes: 4000, body_bytes: 1000, ..WANTED });
    let ids: Vec<Uuid> = (0..20)
        .map(|_| {
            let id = Uuid::now_v7();
            keeper.keep(id, said(&keeper, &[b'a'; 500], &[b'b'; 500]).unwrap());
            id
        })
        .collect();
    assert!(keeper.flush(PATIENCE));
    let shelf = Shelf::of(&home);
    let stock = shelf.stock().unwrap();
    assert!(stock.bytes <= 4000 && stock.files >= 2, "{stock:?}");
    assert!(shelf.has(*ids.last().unwrap()) && !shelf.has(ids[0]), "the oldest go first");
}

#[test]
fn what_is_broken_off_in_the_middle_of_a_word_loses_it() {
    let body = |text: &str, whole| Body {
        held: text.as_bytes().to_vec(),
        bytes: text.len() as u64,
        unread: None,
        whole,
    };
    let said = |text: &str, whole| kept(&body(text, whole), MARGIN).text.unwrap();
    assert_eq!(said("the key is AKIA12", false), "the key is ");
    assert_eq!(said("the key is AKIA12", true), "the key is AKIA12");
    assert_eq!(said("{\"a\":\"b\"}", false), "{\"a\":\"b\"}");
}
