//! What many connections share: one verdict, one probe, one deadline.

use std::cell::Cell;

use super::*;

#[tokio::test(start_paused = true)]
async fn fifty_connections_at_a_frozen_daemon_pay_one_deadline_together() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let (first, channel) = tokio::join!(world.connect(), daemon.accept());
        let mut clients = vec![first];
        for _ in 1..50 {
            clients.push(world.connect().await);
        }
        // Frozen from here on: it reads nothing and says nothing.
        let before = Instant::now();
        for client in &mut clients {
            client.write_all(HELLO).await.unwrap();
        }
        for _ in 0..clients.len() {
            let (mut server, _) = world.origin.accept().await.unwrap();
            still(async {
                server.read_exact(&mut vec![0; HELLO.len()]).await.unwrap();
                server.write_all(b"from the origin").await.unwrap();
            })
            .await;
        }
        for client in &mut clients {
            let mut answer = Vec::new();
            still(client.read_to_end(&mut answer)).await.unwrap();
            assert_eq!(answer, b"from the origin");
        }
        let took = before.elapsed();
        let one = offer::SILENCE;
        assert!(took >= one - MS && took < one + MS * 10, "one deadline for all: {took:?}");
        drop(clients);
        let lines = world.spooled(50).await;
        assert!(lines.iter().all(|l| l.reason == "daemon_frozen"));
        drop(channel);
    })
    .await;
}

/// A port that takes connections and never answers; counts them.
struct Silent {
    probes: Rc<Cell<u32>>,
    most_at_once: Rc<Cell<u32>>,
}

impl Silent {
    fn serve(listener: TcpListener) -> Self {
        let (probes, most_at_once) = (Rc::default(), Rc::default());
        let silent = Self { probes, most_at_once };
        let (probes, most) = (Rc::clone(&silent.probes), Rc::clone(&silent.most_at_once));
        let now = Rc::new(Cell::new(0));
        tokio::task::spawn_local(async move {
            loop {
                let (mut probe, _) = listener.accept().await.unwrap();
                let now = Rc::clone(&now);
                probes.set(probes.get() + 1);
                now.set(now.get() + 1);
                most.set(most.get().max(now.get()));
                tokio::task::spawn_local(async move {
                    let _ = probe.read_to_end(&mut Vec::new()).await;
                    now.set(now.get() - 1);
                });
            }
        });
        silent
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_daemon_is_asked_by_one_probe_at_a_time_and_never_hot() {
    in_world(|mut world| async move {
        let silent = Silent::serve(world.api.take().unwrap());
        let began = Instant::now();
        // A connection every few milliseconds, for a while.
        for _ in 0..400 {
            let mut client = world.hello().await;
            world.assert_raw(&mut client).await;
            sleep(MS * 5).await;
        }
        let round = probe::DEADLINE + health::UNHEALTHY_TTL;
        let most = began.elapsed().as_millis() / round.as_millis() + 2;
        let probes = silent.probes.get();
        assert!(probes >= 2 && u128::from(probes) <= most, "{probes} probes, {most} are enough");
        assert_eq!(silent.most_at_once.get(), 1);
        // Nobody asks for it: nobody is asked.
        sleep(Duration::from_secs(600)).await;
        assert!(silent.probes.get() <= probes + 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_good_verdict_stands_for_as_long_as_the_setting_says() {
    in_world_of("edge_health_ttl_ms = 5000", |mut world| async move {
        let daemon = world.daemon();
        let (client, _channel) = tokio::join!(world.connect(), daemon.accept());
        let mut clients = vec![client];
        let fresh = || world.edge.shared.health.read().fresh;
        while !fresh() {
            sleep(MS).await;
        }
        let began = Instant::now();
        assert_eq!(daemon.probes.get(), 1);
        sleep(MS * 1500).await;
        clients.push(world.connect().await);
        sleep(MS * 300).await;
        assert!(daemon.probes.get() == 1 && fresh(), "asked again after {:?}", began.elapsed());
        sleep(MS * 3300).await;
        assert!(!fresh());
        clients.push(world.connect().await);
        sleep(MS * 300).await;
        assert!(daemon.probes.get() == 2 && fresh(), "{} probes", daemon.probes.get());
    })
    .await;
}
