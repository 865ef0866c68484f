//! Where connections take their time.

use super::*;

/// It is alive, but what it dials is not there for it; it says yes too late.
#[tokio::test(start_paused = true)]
async fn who_is_slow_to_reach_for_the_daemon_only_is_reached_without_it() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let before = Instant::now();
        let work = async {
            let mut channel = daemon.accept().await;
            let (offer, fd) = next_offer(&mut channel).await;
            while before.elapsed() < Duration::from_secs(6) {
                sleep(MS * 200).await;
                channel.send(&ToEdge::Progress { id: offer.id }, None).await.unwrap();
            }
            channel.send(&ToEdge::Commit { id: offer.id }, None).await.unwrap();
            assert_eq!(verdict(&mut channel).await, (offer.id, false));
            (fd, channel)
        };
        let (mut client, _daemon) = tokio::join!(world.hello(), work);
        world.assert_raw(&mut client).await;
        assert_eq!(world.spooled(1).await[0].reason, "no_answer");
        assert_eq!(world.verdict(), health::Verdict::Healthy);
    })
    .await;
}
