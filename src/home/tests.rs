use super::*;

#[test]
fn a_home_is_where_it_is_whatever_directory_one_works_in() {
    let here = std::env::current_dir().unwrap();
    let of = |home: &'static str, user: &'static str| {
        Home::from_vars(|name| Some(if name == HOME_VAR { home } else { user }.into()))
    };
    assert_eq!(of("./hm", "/u").unwrap().path(), here.join("hm"));
    assert_eq!(of("/hm", "/u").unwrap().path(), Path::new("/hm"));
    assert_eq!(of("", "u").unwrap().path(), here.join("u/.halton-meter"));
    assert!(matches!(of("", ""), Err(HomeError::Unknown)));
}

#[test]
fn root_makes_no_home_where_another_user_is_at_home() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("a/b"));
    home.is_ours().unwrap();
    if std::os::unix::fs::chown(dir.path(), Some(65534), None).is_err() {
        return;
    }
    let Err(HomeError::ForeignOwner { path, uid: 65534 }) = home.create() else { panic!() };
    assert_eq!((path.as_path(), dir.path().join("a").exists()), (dir.path(), false));
    fs::create_dir_all(home.path()).unwrap();
    home.create().unwrap();
}

#[test]
fn directories_are_private_and_tightened() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("h"));
    home.create().unwrap();
    fs::set_permissions(home.ca_dir(), fs::Permissions::from_mode(0o755)).unwrap();
    home.create().unwrap();
    for d in [home.path().to_path_buf(), home.ca_dir(), home.run_dir()] {
        assert_eq!(fs::metadata(&d).unwrap().permissions().mode() & 0o777, 0o700, "{d:?}");
    }
}

#[test]
fn a_file_in_the_place_of_a_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("h"));
    home.create().unwrap();
    assert!(home.in_the_way().is_none());
    fs::remove_dir(home.log_dir()).unwrap();
    assert!(home.in_the_way().is_none(), "it is made");
    fs::write(home.log_dir(), "").unwrap();
    for error in [home.create().unwrap_err(), home.in_the_way().unwrap()] {
        let said = error.to_string();
        assert!(said.contains("/logs") && said.contains("no directory"), "{said}");
    }
}

#[test]
fn pid_lock_is_held_by_one_and_released_by_drop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.pid");
    assert_eq!(PidLock::holder(&path).unwrap(), None);
    let lock = PidLock::acquire(&path).unwrap().expect("free");
    assert!(PidLock::acquire(&path).unwrap().is_none());
    assert_eq!(PidLock::holder(&path).unwrap(), Some(std::process::id()));
    assert!(PidLock::acquire_waiting(&path, || false).unwrap().is_none());
    let mut lock = Some(lock);
    let release = || {
        lock = None;
        true
    };
    assert!(PidLock::acquire_waiting(&path, release).unwrap().is_some());
    assert_eq!(PidLock::holder(&path).unwrap(), None);
}

#[test]
fn an_end_is_announced_by_whoever_holds_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root.pid");
    assert!(!PidLock::is_ending(&path), "nobody");
    let lock = PidLock::acquire(&path).unwrap().expect("free");
    let said = fs::read_to_string(&path).unwrap();
    assert!(!PidLock::is_ending(&path));
    lock.announce_end().unwrap();
    assert!(PidLock::is_ending(&path));
    // The rest is as it was.
    assert_eq!(PidLock::holder_here(&path), Some(std::process::id()));
    assert!(!PidLock::is_elsewhere(&path));
    // Of two roots that ended one after the other, and a third whose own line is cut off only now.
    let rest = fs::read_to_string(&path).unwrap().replacen(&said, "", 1);
    fs::write(&path, format!("{said}{}", rest.replacen("ending ", "ending 1", 1))).unwrap();
    assert!(!PidLock::is_ending(&path), "another one's");
    fs::write(&path, format!("{}\n{rest}", std::process::id())).unwrap();
    assert!(PidLock::is_ending(&path), "where nobody can tell a boot");
    assert_eq!(PidLock::holder_here(&path), Some(std::process::id()));
    drop(lock);
    assert!(!PidLock::is_ending(&path), "it has ended");
    let _next = PidLock::acquire(&path).unwrap().expect("free");
    assert!(!PidLock::is_ending(&path));
}

#[test]
fn a_holder_elsewhere_is_told_from_one_here() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.pid");
    let lock = PidLock::acquire(&path).unwrap().expect("free");
    let us = Some(std::process::id());
    let told = || (PidLock::holder(&path).unwrap(), PidLock::holder_here(&path));
    assert_eq!(told(), (us, us));
    let said = fs::read_to_string(&path).unwrap();
    let pid = said.lines().next().unwrap();
    // As an older version writes it; the same number on another machine.
    fs::write(&path, format!("{pid}\n")).unwrap();
    assert_eq!(told(), (us, us));
    fs::write(&path, format!("{pid}\nanother boot pid:[1]\n")).unwrap();
    let can_be_told = crate::platform::place_of_pids().is_some();
    assert_eq!(told(), (us, us.filter(|_| !can_be_told)));
    drop(lock);
    assert_eq!(told(), (None, None));
}

/// On macOS a program is asked which boot this is: meanwhile the file is the last boot's.
#[test]
fn a_lock_whose_holder_is_about_to_say_where_it_is_is_not_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.pid");
    assert!(!PidLock::is_elsewhere(&path), "nobody");
    let _lock = PidLock::acquire(&path).unwrap().expect("free");
    let said = fs::read(&path).unwrap();
    assert!(!PidLock::is_elsewhere(&path));
    fs::write(&path, "1\nthe last boot\n").unwrap();
    let can_be_told = crate::platform::place_of_pids().is_some();
    assert_eq!(PidLock::is_elsewhere(&path), can_be_told);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            fs::write(&path, said).unwrap();
        });
        assert!(!PidLock::is_elsewhere(&path));
    });
}

#[test]
fn a_longer_pid_of_before_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.pid");
    fs::write(&path, "12345678901\n").unwrap();
    let _lock = PidLock::acquire(&path).unwrap().expect("free");
    assert_eq!(PidLock::holder(&path).unwrap(), Some(std::process::id()));
}

#[test]
fn a_lock_that_cannot_be_held_is_known_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.pid");
    assert!(PidLock::can_be_held(&path));
    let _lock = PidLock::acquire(&path).unwrap().expect("a look leaves it free");
    assert!(PidLock::can_be_held(&path), "by whoever");
    // As a home's that is another user's, for root too: it can't be opened for writing.
    let path = dir.path().join("root.pid");
    fs::create_dir(&path).unwrap();
    assert!(!PidLock::can_be_held(&path) && PidLock::acquire(&path).is_err());
    assert!(!PidLock::can_be_held(&dir.path().join("none/edge.pid")));
}

#[test]
fn atomic_write_replaces_and_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    write_atomic(&path, b"one").unwrap();
    write_atomic(&path, b"two").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_link_to_a_file_that_people_keep_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    write_kept(&real, b"one").unwrap();
    std::os::unix::fs::symlink("real", &link).unwrap();
    write_kept(&link, b"two").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&real).unwrap(), b"two");
}

#[test]
fn what_could_not_be_written_whole_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // A directory can't be replaced by a file.
    assert!(write_atomic(&dir.path().join("."), b"x").is_err());
    fs::create_dir(dir.path().join("d")).unwrap();
    assert!(write_atomic(&dir.path().join("d"), b"x").is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_path_that_no_socket_can_have_is_told() {
    let home = |n: usize| Home::at(format!("/{}", "h".repeat(n)));
    assert!(home(80).holds_sockets().is_ok());
    let told = home(100).holds_sockets().unwrap_err().to_string();
    assert!(told.contains("/run/daemon.sock") && told.contains(HOME_VAR), "{told}");
}

#[test]
fn a_lock_whose_home_is_removed_is_there_again_and_held_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("h"));
    home.create().unwrap();
    let path = home.pid_file("edge");
    let lock = PidLock::acquire(&path).unwrap().expect("free");
    assert_eq!((lock.keep(), lock.beat()), (Kept::AsBefore, Kept::AsBefore));
    // Moved away: who waits at the old file waits on.
    let away = dir.path().join("away");
    fs::rename(home.path(), &away).unwrap();
    assert_eq!(PidLock::holder(&path).unwrap(), None);
    assert_eq!((lock.keep(), lock.keep()), (Kept::Anew, Kept::AsBefore));
    let us = Some(std::process::id());
    assert_eq!(PidLock::holder(&path).unwrap(), us);
    assert_eq!(PidLock::holder(&away.join("run/edge.pid")).unwrap(), us);
    assert_eq!(fs::metadata(home.run_dir()).unwrap().permissions().mode() & 0o777, 0o700);
    // Back again: its sign of life is there, not at the one in between.
    fs::remove_dir_all(home.path()).unwrap();
    fs::rename(&away, home.path()).unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(lock.beat(), Kept::AsBefore);
    assert_ne!(fs::metadata(&path).unwrap().modified().unwrap(), long_ago);
    // Another one's by now.
    fs::remove_file(&path).unwrap();
    let other = PidLock::acquire(&path).unwrap().expect("free");
    assert_eq!(lock.beat(), Kept::Lost);
    drop(other);
    assert_eq!(lock.beat(), Kept::Anew);
    // What the next image inherits is the lock that is looked for.
    let next = PidLock::inherited(path.clone(), lock.handle().unwrap().unwrap());
    drop(lock);
    assert_eq!((PidLock::holder(&path).unwrap(), next.keep()), (us, Kept::AsBefore));
    drop(next);
    assert_eq!(PidLock::holder(&path).unwrap(), None);
    // One that could not be taken is taken when it can be.
    let late = PidLock::untaken(path.clone());
    assert!(late.handle().unwrap().is_none());
    let other = PidLock::acquire(&path).unwrap();
    assert_eq!(late.keep(), Kept::Lost);
    drop(other);
    assert_eq!((late.keep(), PidLock::holder(&path).unwrap()), (Kept::Anew, us));
}

#[test]
fn homes_are_told_apart_without_their_paths() {
    let tag = |path: &str| Home::at(path).tag();
    assert_eq!(tag("/home/a/.halton-meter"), tag("/home/a/.halton-meter"));
    assert_ne!(tag("/home/a/.halton-meter"), tag("/home/b/.halton-meter"));
    assert_eq!(tag("/").len(), 4);
}

#[test]
fn a_link_to_a_file_that_is_not_there_yet_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
    let link = at("config.toml");
    std::os::unix::fs::symlink("dots/config.toml", &link).unwrap();
    let missing = write_kept(&link, b"a").unwrap_err().to_string();
    assert!(missing.contains(&at("dots/config.toml").display().to_string()), "{missing}");
    fs::create_dir(at("dots")).unwrap();
    write_kept(&link, b"a").unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("dots/config.toml"));
    assert_eq!(fs::read(at("dots/config.toml")).unwrap(), b"a");
    // Also by way of another link.
    std::os::unix::fs::symlink(at("other"), at("dots/next")).unwrap();
    std::os::unix::fs::symlink("dots/next", at("first")).unwrap();
    assert_eq!(through_links(&at("first")).unwrap(), at("other"));
    assert_eq!(through_links(&at("new")).unwrap(), at("new"));
    std::os::unix::fs::symlink("loop", at("loop")).unwrap();
    assert!(through_links(&at("loop")).is_err());
}
