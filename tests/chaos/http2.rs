//! Several requests at once on one HTTP/2 connection.

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::time::{sleep, timeout};

use crate::client::{Answer, PATIENCE, Sums};
use crate::oracle::{Fault, Stage};
use crate::record::{Failed, Kind};
use crate::schedule::Random;
use crate::traffic::{Session, World, messages};

const STREAMS: usize = 5;

/// A connection with some rounds of requests.
pub async fn multiplexed(world: &World, metered: bool, random: &mut Random) {
    let Some((mut session, connection)) = Session::open(world, Kind::Http2, metered).await else {
        return;
    };
    let handshake = h2::client::handshake(connection.io.into_inner());
    let started = world.record.now();
    let (sender, driver) = match timeout(PATIENCE, handshake).await {
        Ok(Ok(both)) => both,
        Ok(Err(e)) => return session.note(started, Err(failed(&e, true))),
        Err(_) => return session.note(started, Err(Failed::timeout(Stage::Exchange))),
    };
    let driver = tokio::spawn(async move {
        // Each stream tells what went wrong.
        let _ = driver.await;
    });
    for _ in 0..2 + random.below(8) {
        if !round(&session, &sender, random).await {
            break;
        }
        session.used();
        sleep(random.millis(20, 300)).await;
    }
    drop(sender);
    let _ = timeout(PATIENCE, driver).await;
}

/// False: the connection is of no more use.
async fn round(session: &Session<'_>, sender: &SendRequest<Bytes>, random: &mut Random) -> bool {
    let mut streams = tokio::task::JoinSet::new();
    let started = session.world.record.now();
    for i in 0..STREAMS {
        let slow = if i == 0 { session.world.load.part.as_millis() / 4 } else { 0 };
        let body = messages(i % 2 == 0, random);
        let request = http::Request::post(format!("https://{}/v1/messages", session.host()))
            .header("x-origin", format!("[[sum slow={slow}]]"))
            .header("content-type", "application/json")
            .body(())
            .expect("request");
        streams.spawn(stream(sender.clone(), request, body));
    }
    let mut alive = true;
    while let Some(result) = streams.join_next().await {
        let result = result.unwrap_or_else(|e| {
            Err(Failed::new(Stage::Exchange, Fault::Wrong, format!("client: {e}")))
        });
        alive &= result.is_ok();
        session.note(started, result);
    }
    alive && !session.world.stop.load(std::sync::atomic::Ordering::Relaxed)
}

async fn stream(
    sender: SendRequest<Bytes>,
    request: http::Request<()>,
    body: String,
) -> Result<(u64, Option<String>), Failed> {
    let mut silent = true;
    let work = async {
        let mut sender = sender.ready().await?;
        let (response, mut out) = sender.send_request(request, false)?;
        out.send_data(Bytes::from(body.clone()), true)?;
        let response = response.await?;
        silent = false;
        let field = |name: &str| {
            response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
        };
        let mut answer = Answer {
            status: response.status().as_u16(),
            body: Vec::new(),
            request_id: field("request-id"),
            sums: Sums {
                body: field("x-sum").and_then(|v| v.parse().ok()),
                got: field("x-got").and_then(|v| v.parse().ok()),
            },
        };
        let mut incoming = response.into_body();
        while let Some(data) = incoming.data().await {
            let data = data?;
            incoming.flow_control().release_capacity(data.len())?;
            answer.body.extend_from_slice(&data);
        }
        Ok::<_, h2::Error>(answer)
    };
    let answer = match timeout(PATIENCE * 2, work).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) => return Err(failed(&e, silent)),
        Err(_) => return Err(Failed { silent, ..Failed::timeout(Stage::Exchange) }),
    };
    answer
        .check(body.as_bytes())
        .map_err(|text| Failed { silent, ..Failed::new(Stage::Exchange, Fault::Wrong, text) })?;
    Ok(((answer.body.len() + body.len()) as u64, answer.request_id))
}

fn failed(error: &h2::Error, silent: bool) -> Failed {
    let failed = match error.get_io() {
        Some(io) => Failed::io(Stage::Exchange, io),
        // An orderly end between two requests; anything else is not what the origin says.
        None if error.is_go_away() && error.is_remote() => {
            Failed::new(Stage::Exchange, Fault::Closed, error.to_string())
        }
        None => Failed::new(Stage::Exchange, Fault::Wrong, error.to_string()),
    };
    Failed { silent, ..failed }
}
