//! What was granted is served, whatever happens to the channel.

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};

use super::kit::{Answer, Client, Handshake, Origin, World};
use super::*;
use crate::descriptors::testing::{alone, none_left};

async fn served(handshake: Handshake) -> Client {
    let mut client = handshake.await.unwrap().expect("it was granted");
    ask(&mut client).await;
    client
}

#[tokio::test]
async fn an_offer_without_room_is_declined_and_nothing_else_suffers() {
    if !alone("meter::tap::tests::loss::an_offer_without_room_is_declined_and_nothing_else_suffers")
    {
        return;
    }
    let origin = http_origin();
    let mut world = World::new(&origin).await;
    let (granted, handshake) = world.asked("api.example.com").await;
    let (client, edge) = world.sockets().await;
    let short = none_left();
    let mut offered = world.offer_these(client, edge).await;
    world.verdict(&granted, true).await;
    assert_eq!(offered.answer(&mut world).await, Answer::Decline(Decline::Overloaded));
    drop(short);
    served(handshake).await;
    // On the same channel, with its own descriptor.
    let client = world.connect("api.example.com", &["http/1.1"]).await;
    ask(&mut client.unwrap()).await;
    assert_eq!((world.tap.snapshot().commits, world.tap.snapshot().offers), (2, 3));
}

#[tokio::test]
async fn a_probe_without_descriptors_says_nothing_of_the_tap() {
    if !alone("meter::tap::tests::loss::a_probe_without_descriptors_says_nothing_of_the_tap") {
        return;
    }
    let origin = Origin::new().start(|_| async { Vec::new() });
    let world = World::new(&origin).await;
    let patience = Duration::from_secs(10);
    // One that gets as far as the queue of those that can't be accepted.
    let caller = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let short = none_left();
    assert!(matches!(world.tap.probe(patience).await, Err(ProbeError::Shortage)));
    let path = world.tap.deps.home.control_socket();
    connect(&caller, &SocketAddrUnix::new(path).unwrap()).unwrap();
    let accepts = || world.tap.counters.shortages.load(Ordering::Relaxed);
    while accepts() == 0 {
        sleep(Duration::from_millis(2)).await;
    }
    drop(short);
    world.tap.probe(patience).await.unwrap();
}

#[tokio::test]
async fn a_broken_channel_is_heard_out() {
    let origin = http_origin();
    let mut world = World::new(&origin).await;
    // In the socket behind what broke it; from an edge that has not seen the end yet.
    for late in [false, true] {
        let (asked, handshake) = world.asked("api.example.com").await;
        world.offer_nothing().await;
        if late {
            world.hung_up().await;
        }
        world.verdict(&asked, true).await;
        drop(served(handshake).await);
        world.hang_up().await;
        world.idle().await;
    }
    assert_eq!((world.tap.snapshot().commits, world.tap.snapshot().refused), (2, 0));
}

#[tokio::test]
async fn what_a_broken_channel_leaves_without_a_verdict_is_the_edge_s() {
    let origin = Origin::new().start(|_| async { Vec::new() });
    let mut world = World::new(&origin).await;
    let mut offered = world.offer("api.example.com", &["h2"]).await;
    assert_eq!(offered.answer(&mut world).await, Answer::Commit);
    world.offer_nothing().await;
    world.hung_up().await;
    assert_eq!(world.tap.snapshot().open, 1, "it may still be granted");
    world.hang_up().await;
    world.idle().await;
    assert!(matches!(look(&offered.unread().await), Look::Whole(_)));
    assert_eq!((world.tap.snapshot().commits, world.tap.snapshot().refused), (0, 1));
}
