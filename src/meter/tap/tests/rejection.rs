//! Who will not have our certificate, and who never saw it.

use super::*;

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
