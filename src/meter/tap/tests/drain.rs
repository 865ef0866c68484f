//! What a drain waits for.

use super::*;

#[tokio::test]
async fn a_head_that_has_begun_is_waited_for() {
    let origin = http_origin();
    let mut world = World::new(&origin).await;
    let mut client = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
    ask(&mut client).await;
    client.write_all(b"GET / HTTP/1.1\r\nHos").await.unwrap();
    client.flush().await.unwrap();
    let tap = Arc::clone(&world.tap);
    let drain = tokio::spawn(async move { tap.drain(Duration::from_secs(60)).await });
    assert!(world.heard_draining().await);
    // Several times as long as one that is idle is left.
    sleep(Duration::from_millis(500)).await;
    client.write_all(b"t: api.example.com\r\n\r\n").await.unwrap();
    client.read_exact(&mut vec![0; ANSWER.len()]).await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "a clean goodbye");
    drop(client);
    assert!(drain.await.unwrap());
}
