//! Who will not have our certificate, and who never saw it.

use super::*;
use crate::config::HostPattern;
use crate::meter::ca::{Ca, Known};

#[tokio::test]
async fn a_client_that_refuses_our_certificate_is_left_alone_next_time() {
    let origin = http_origin();
    let mut world = World::new(&origin).await;
    let refused = world.connect_distrusting("api.example.com").await;
    assert!(refused.is_err());
    world.wait(|s| s.rejected_by_client == 1 && s.bypass.len() == 1).await;
    let mut offered = world.offer("api.example.com", &[]).await;
    assert_eq!(offered.answer(&mut world).await, Answer::Decline(Decline::Bypassed));
    assert!(matches!(look(&offered.unread().await), Look::Whole(_)));
}

#[tokio::test]
async fn a_client_that_leaves_after_the_handshake_is_left_alone_in_the_end() {
    let origin = http_origin();
    let mut world = World::new(&origin).await;
    for leaves in 1..=2 {
        let mut client = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
        client.shutdown().await.unwrap();
        world.wait(|s| s.rejected_by_client == leaves).await;
    }
    let mut offered = world.offer("api.example.com", &[]).await;
    assert_eq!(offered.answer(&mut world).await, Answer::Decline(Decline::Bypassed));
}

#[tokio::test]
async fn a_client_that_left_before_our_certificate_has_not_refused_it() {
    let origin = http_origin();
    let mut world = World::new(&origin).await;
    for _ in 0..3 {
        let mut offered = world.offer("api.example.com", &["http/1.1"]).await;
        assert_eq!(offered.answer(&mut world).await, Answer::Commit);
        offered.leave();
        world.verdict(&offered, true).await;
        world.idle().await;
    }
    let snapshot = world.tap.snapshot();
    assert_eq!((snapshot.rejected_by_client, snapshot.bypass.len()), (0, 0));
    let mut client = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
    ask(&mut client).await;
}

/// Its files as they were at that moment.
fn backdate(home: &crate::home::Home, at: std::time::SystemTime) {
    for path in [home.next_ca_cert(), home.ca_bundle()] {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
    }
}

#[tokio::test]
async fn a_host_that_only_the_next_authority_signs_is_left_to_who_began_before_it() {
    let origin = Origin::new().named("*.example.com").start(|tls| async move {
        tokio::spawn(answers(tls));
        Vec::new()
    });
    let mut home = None;
    let adjust = |deps: &mut TapDeps| {
        let hosts = ["api.example.com", "new.example.com"];
        let hosts: Vec<_> = hosts.iter().map(|h| HostPattern::parse(h).unwrap()).collect();
        let ca = Ca::load_or_create(&deps.home, &hosts, &deps.log).unwrap();
        ca.write_bundle(&deps.home, &[]).unwrap();
        deps.ca.store(Arc::new(ca));
        let mut config = crate::config::Config::clone(&deps.config.load());
        config.meter.hosts = hosts;
        deps.config.store(Arc::new(config));
        home = Some(deps.home.clone());
    };
    let mut world = World::with(&origin, adjust, follower).await;
    let home = home.unwrap();
    // This process began before the bundle held the next one.
    let now = std::time::SystemTime::now();
    backdate(&home, now + Duration::from_secs(1));
    let mut early = world.offer("new.example.com", &["http/1.1"]).await;
    assert_eq!(early.answer(&mut world).await, Answer::Decline(Decline::UnknownAuthority));
    assert!(matches!(look(&early.unread().await), Look::Whole(_)));
    let mut known = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
    ask(&mut known).await;
    if crate::platform::owner::AVAILABLE {
        backdate(&home, now - Duration::from_secs(24 * 3600));
        let mut late = world.offer("new.example.com", &["http/1.1"]).await;
        assert_eq!(late.answer(&mut world).await, Answer::Commit);
    }
}

/// As after `uninstall`, which takes the key: a CA had to be made at once.
#[tokio::test]
async fn an_authority_that_was_made_anew_is_not_shown_to_who_began_before_it() {
    let origin = Origin::new().named("*.example.com").start(|tls| async move {
        tokio::spawn(answers(tls));
        Vec::new()
    });
    for (made_ago, expected) in [
        (Duration::ZERO, Answer::Decline(Decline::UnknownAuthority)),
        (Duration::from_secs(24 * 3600), Answer::Commit),
    ] {
        let adjust = |deps: &mut TapDeps| {
            let hosts = [HostPattern::parse("api.example.com").unwrap()];
            std::fs::remove_file(deps.home.ca_key()).unwrap();
            let load = || Ca::load_or_create(&deps.home, &hosts, &deps.log).unwrap();
            let Known::Since(made) = load().known("api.example.com") else { panic!("not anew") };
            let file = deps.home.ca_dir().join("made-anew");
            let text = std::fs::read_to_string(&file).unwrap();
            let ms = |at: std::time::SystemTime| {
                at.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis().to_string()
            };
            // This process began long before, or long after.
            let then = made + Duration::from_secs(1) - made_ago;
            std::fs::write(&file, text.replace(&ms(made), &ms(then))).unwrap();
            let ca = load();
            ca.write_bundle(&deps.home, &[]).unwrap();
            deps.ca.store(Arc::new(ca));
        };
        if made_ago > Duration::ZERO && !crate::platform::owner::AVAILABLE {
            continue;
        }
        let mut world = World::with(&origin, adjust, follower).await;
        let mut offered = world.offer("api.example.com", &["http/1.1"]).await;
        assert_eq!(offered.answer(&mut world).await, expected, "{made_ago:?}");
    }
}

/// For the look for a connection's process, which has to be open.
const SEEN: Duration = Duration::from_millis(100);

/// One that serves more than one connection at a time.
fn busy_origin() -> Origin {
    Origin::new().start(|tls| async move {
        tokio::spawn(answers(tls));
        Vec::new()
    })
}

async fn spares(world: &mut World, count: usize) -> Vec<kit::Client> {
    let mut spares = Vec::new();
    for _ in 0..count {
        spares.push(world.connect("api.example.com", &["http/1.1"]).await.unwrap());
    }
    spares
}

async fn close(world: &World, spares: Vec<kit::Client>, still_open: usize) {
    for mut spare in spares {
        spare.shutdown().await.unwrap();
    }
    world.wait(|s| s.open == still_open).await;
}

/// As Go dials eight times for its first eight requests, and HTTP/2 then needs one connection.
#[tokio::test]
async fn spare_connections_of_a_client_that_speaks_are_no_refusal() {
    let origin = busy_origin();
    for spares_close_first in [false, true] {
        let mut world = World::new(&origin).await;
        let mut client = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
        let others = spares(&mut world, 7).await;
        if spares_close_first {
            sleep(SEEN).await;
            close(&world, others, 1).await;
            ask(&mut client).await;
        } else {
            ask(&mut client).await;
            sleep(SEEN).await;
            close(&world, others, 1).await;
        }
        let snapshot = world.tap.snapshot();
        assert!(snapshot.bypass.iter().all(|entry| entry.until.is_none()), "{snapshot:?}");
        if crate::platform::owner::AVAILABLE {
            world.wait(|s| s.bypass.is_empty()).await;
            // It goes on without a pause.
            for _ in 0..3 {
                let spare = spares(&mut world, 1).await;
                sleep(SEEN).await;
                close(&world, spare, 1).await;
            }
            assert_eq!(world.tap.snapshot().bypass, []);
        }
        let mut next = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
        ask(&mut next).await;
    }
}

/// As undici opens another connection for each that an abort has cost it, and then the program ends.
#[tokio::test]
async fn spare_connections_after_aborts_are_no_refusal() {
    let origin = busy_origin();
    let mut world = World::new(&origin).await;
    let mut others = Vec::new();
    for _ in 0..8 {
        let mut client = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
        ask(&mut client).await;
        sleep(SEEN / 2).await;
        client.get_ref().0.set_zero_linger().unwrap();
        drop(client);
        others.append(&mut spares(&mut world, 1).await);
    }
    sleep(SEEN).await;
    drop(others);
    world.idle().await;
    let snapshot = world.tap.snapshot();
    assert!(snapshot.bypass.iter().all(|entry| entry.until.is_none()), "{snapshot:?}");
    let mut next = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
    ask(&mut next).await;
}

/// As undici dials in the place of each connection that went with an aborted answer, and finds that nobody
/// waits.
#[tokio::test]
async fn who_dials_anew_after_an_abort_and_breaks_off_has_not_refused_us() {
    const BEGUN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nso far";
    let origin = Origin::new().start(|mut tls| async move {
        tokio::spawn(async move {
            let mut request = [0; 1024];
            while tls.read(&mut request).await.is_ok_and(|n| n > 0) {
                tls.write_all(BEGUN).await.unwrap();
                tls.flush().await.unwrap();
            }
        });
        Vec::new()
    });
    let mut world = World::new(&origin).await;
    for _ in 0..4 {
        let mut client = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        client.flush().await.unwrap();
        client.read_exact(&mut [0; BEGUN.len()]).await.unwrap();
        sleep(SEEN).await;
        drop(client);
        let anew = spares(&mut world, 1).await;
        sleep(SEEN).await;
        drop(anew);
        world.idle().await;
    }
    if crate::platform::owner::AVAILABLE {
        let snapshot = world.tap.snapshot();
        assert_eq!((snapshot.rejected_by_client, snapshot.bypass), (0, Vec::new()));
    }
}

#[tokio::test]
async fn who_has_spoken_and_then_says_that_it_refuses_us_is_believed() {
    let origin = busy_origin();
    let mut world = World::new(&origin).await;
    let mut client = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
    ask(&mut client).await;
    assert!(world.connect_distrusting("api.example.com").await.is_err());
    world.wait(|s| s.bypass.iter().any(|entry| entry.until.is_some())).await;
    let mut offered = world.offer("api.example.com", &[]).await;
    assert_eq!(offered.answer(&mut world).await, Answer::Decline(Decline::Bypassed));
}

/// As Node and Java refuse: they break off, and what accepts us in the same process goes on beside.
#[tokio::test]
async fn part_of_a_process_that_refuses_us_is_left_alone_in_the_end() {
    if !crate::platform::owner::AVAILABLE {
        return;
    }
    let origin = busy_origin();
    let mut world = World::new(&origin).await;
    for _ in 0..3 {
        let mut accepts = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
        ask(&mut accepts).await;
        sleep(SEEN).await;
        let refuses = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
        sleep(SEEN).await;
        drop(refuses);
        world.wait(|s| s.open == 1).await;
        drop(accepts);
        world.idle().await;
    }
    let mut offered = world.offer("api.example.com", &[]).await;
    assert_eq!(offered.answer(&mut world).await, Answer::Decline(Decline::Bypassed));
    let stays = world.tap.snapshot().bypass;
    assert!(stays.iter().all(|entry| entry.until.is_some()), "{stays:?}");
}
