use std::os::unix::fs::PermissionsExt;

use rustls::pki_types::CertificateDer;

use super::super::{Strike, Tried};
use super::*;
use crate::meter::attribution::Attribution;

fn stand() -> (tempfile::TempDir, Home, Logger) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("h"));
    home.create().unwrap();
    (dir, home, Logger::root(slog::Discard, slog::o!()))
}

fn refuse(file: &BypassFile, program: &str) {
    let now = Instant::now();
    let tried = Tried { began: now, ended: now };
    file.list().strike("h", Some(program), Strike::Refused, tried, now);
}

fn covers(file: &BypassFile, program: &str) -> bool {
    file.list().covers("h", Some(program), Instant::now())
}

#[test]
fn the_next_daemon_knows_who_refused_the_last_one() {
    let (_dir, home, log) = stand();
    let first = BypassFile::open(&home, &log);
    first.save().unwrap();
    assert!(!home.bypass_file().exists(), "nothing to tell");
    refuse(&first, "pinned");
    first.save().unwrap();
    let mode = fs::metadata(home.bypass_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let next = BypassFile::open(&home, &log);
    assert!(covers(&next, "pinned") && !covers(&next, "other"));
    // What has not changed is left alone.
    fs::remove_file(home.bypass_file()).unwrap();
    next.save().unwrap();
    assert!(!home.bypass_file().exists());
    refuse(&next, "other");
    next.save().unwrap();
    assert_eq!(next.list().clear(), 2);
    next.save().unwrap();
    assert!(!home.bypass_file().exists(), "nobody");
    assert!(!covers(&BypassFile::open(&home, &log), "pinned"));
}

#[test]
fn who_accepts_us_is_not_written_down_any_more() {
    let (_dir, home, log) = stand();
    let file = BypassFile::open(&home, &log);
    let whose = Attribution { pid: Some(1), program: Some("go".into()), ..Attribution::default() };
    let authority = CertificateDer::from(&b"ours"[..]);
    let now = Instant::now();
    let tried = Tried { began: now, ended: now };
    let forgive = || file.list().forgive("h", Some("go"), now);
    let vouch = || {
        file.list().vouch("h", &whose, &authority, tried);
    };
    let accepts: [&dyn Fn(); 2] = [&forgive, &vouch];
    for accept in accepts {
        file.list().strike("h", Some("go"), Strike::Vanished, tried, now);
        file.save().unwrap();
        assert!(home.bypass_file().exists());
        accept();
        file.save().unwrap();
        assert!(!home.bypass_file().exists());
    }
}

#[test]
fn who_may_try_again_is_forgotten_once() {
    let (_dir, home, log) = stand();
    let first = BypassFile::open(&home, &log);
    refuse(&first, "pinned");
    fs::write(home.try_again(), "").unwrap();
    // It writes until its end.
    first.save().unwrap();
    let next = BypassFile::open(&home, &log);
    assert!(!covers(&next, "pinned"));
    assert!(!home.try_again().exists() && !home.bypass_file().exists());
    refuse(&next, "pinned");
    next.save().unwrap();
    assert!(covers(&BypassFile::open(&home, &log), "pinned"));
}

#[test]
fn a_file_that_cannot_be_used_is_a_list_without_entries_and_written_over() {
    let (_dir, home, log) = stand();
    let path = home.bypass_file();
    let bad: [&dyn Fn(); 4] = [
        &|| fs::write(&path, "{\"version\":1,\"entr").unwrap(),
        &|| fs::write(&path, [0xff, 0xfe, 0]).unwrap(),
        &|| fs::write(&path, vec![b' '; usize::try_from(text::MOST).unwrap() + 1]).unwrap(),
        // Nobody will ever write there.
        &|| {
            let made = std::process::Command::new("mkfifo").arg(&path).status();
            assert!(made.unwrap().success());
        },
    ];
    for make in bad {
        let _ = fs::remove_file(&path);
        make();
        let why = restore(&home, &Bypass::default()).unwrap_err().to_string();
        assert!(!why.is_empty());
        let file = BypassFile::open(&home, &log);
        assert!(!covers(&file, "pinned"), "{why}");
        refuse(&file, "pinned");
        file.save().unwrap();
        assert!(covers(&BypassFile::open(&home, &log), "pinned"), "{why}");
    }
}

#[test]
fn what_cannot_be_written_is_written_when_it_can() {
    let (_dir, home, log) = stand();
    let path = home.bypass_file();
    fs::create_dir(&path).unwrap();
    let file = BypassFile::open(&home, &log);
    refuse(&file, "pinned");
    assert!(file.save().is_err() && file.save().is_err());
    assert!(covers(&file, "pinned"), "in memory all the same");
    fs::remove_dir(&path).unwrap();
    file.save().unwrap();
    assert!(covers(&BypassFile::open(&home, &log), "pinned"));
}

#[test]
fn a_stay_that_was_cut_off_is_written_down_so() {
    let (_dir, home, log) = stand();
    let first = BypassFile::open(&home, &log);
    refuse(&first, "pinned");
    first.save().unwrap();
    let told = fs::read_to_string(home.bypass_file()).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&told).unwrap();
    json["entries"][0]["until"] = "9000-01-01T00:00:00Z".into();
    fs::write(home.bypass_file(), json.to_string()).unwrap();
    let next = BypassFile::open(&home, &log);
    assert!(covers(&next, "pinned"));
    next.save().unwrap();
    let now = fs::read_to_string(home.bypass_file()).unwrap();
    assert!(!now.contains("9000-"), "{now}");
}

#[tokio::test]
async fn each_change_is_written_down_without_being_asked_for() {
    let (_dir, home, log) = stand();
    let file = BypassFile::open(&home, &log);
    let keeper = tokio::spawn(Arc::clone(&file).keep());
    refuse(&file, "pinned");
    let changes = *file.list().changes.borrow();
    while file.saved.lock().unwrap().changes != changes {
        tokio::task::yield_now().await;
    }
    keeper.abort();
    assert!(covers(&BypassFile::open(&home, &log), "pinned"));
}
