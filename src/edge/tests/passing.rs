//! What is raw for the moment, told when somebody asks.

use super::*;

async fn passing(world: &World) -> serde_json::Value {
    let answer = world.exchange(b"GET /passing HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_from_before_the_daemon_was_there_is_told_of_until_it_ends() {
    in_world(|world| async move {
        assert_eq!(passing(&world).await, serde_json::json!([]));
        let mut client = world.hello().await;
        let own = client.local_addr().unwrap().to_string();
        while passing(&world).await == serde_json::json!([]) {
            sleep(MS).await;
        }
        let host = HOST.split(':').next().unwrap();
        let told = serde_json::json!([{ "host": host, "client": own }]);
        assert_eq!(passing(&world).await, told);
        world.assert_raw(&mut client).await;
        still(world.edge.shared.counters.drained()).await;
        assert_eq!(passing(&world).await, serde_json::json!([]));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_about_us_has_not_come_by() {
    in_world(|world| async move {
        let asked = || async { world.status().await["last_asked_at"].as_str().unwrap().to_owned() };
        let first = asked().await;
        assert_eq!(asked().await, first);
        let own = format!("CONNECT localhost:{} HTTP/1.1\r\n\r\n", world.addr.port());
        world.exchange(own.as_bytes()).await;
        assert_ne!(asked().await, first);
    })
    .await;
}
