//! The edge in process, against a fake daemon. Time is paused: it moves only when nothing else
//! can happen, so the deadlines are exact and a slow machine changes nothing.

use std::os::fd::{AsFd, OwnedFd};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{Instant, sleep};

use super::*;
use crate::config::{self, Config};
use crate::handover::channel::{Channel, DaemonChannel};
use crate::handover::{Decline, Offer, OfferId, ToDaemon, ToEdge, VERSION};

mod kit;
mod passing;
mod plain;
mod roots;
mod settings;
mod shared;
mod slow;

use kit::*;

#[tokio::test(start_paused = true)]
async fn without_a_daemon_the_same_request_goes_raw_and_is_noted() {
    in_world(|mut world| async move {
        world.api = None;
        let before = Instant::now();
        let mut client = world.hello().await;
        world.assert_raw(&mut client).await;
        assert!(before.elapsed() < health::LONGEST_WAIT, "{:?}", before.elapsed());
        let lines = world.spooled(1).await;
        assert_eq!(lines[0].reason, "daemon_not_running");
        assert_eq!((&*lines[0].host, lines[0].port), ("api.anthropic.com", 443));
        let end = lines[0].end.unwrap();
        assert_eq!((end.bytes_up, end.bytes_down, end.aborted), (HELLO.len() as u64, 15, false));
        let status = world.status().await;
        assert_eq!(status["verdict"], "unhealthy");
        assert_eq!(status["passed_metered_total"], 1);
        assert_eq!(status["tunnels"]["raw_total"], 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_committed_connection_is_the_daemons_from_the_first_byte() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let work = async {
            let mut channel = daemon.accept().await;
            let (offer, fd) = next_offer(&mut channel).await;
            assert_eq!((offer.host.as_str(), offer.port), ("api.anthropic.com", 443));
            assert!(rustix::net::sockopt::tcp_nodelay(&fd).unwrap());
            channel.send(&ToEdge::Commit { id: offer.id }, None).await.unwrap();
            assert_eq!(verdict(&mut channel).await, (offer.id, true));
            (socket(fd), channel, offer)
        };
        let (mut client, (mut taken, _channel, offer)) = tokio::join!(world.hello(), work);
        assert_eq!(offer.client, client.local_addr().unwrap());
        assert_eq!(offer.local, world.addr);
        world.edge.shared.counters.drained().await;
        let mut got = vec![0; HELLO.len()];
        taken.read_exact(&mut got).await.unwrap();
        assert_eq!(got, HELLO);
        taken.write_all(b"from the daemon").await.unwrap();
        drop(taken);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "from the daemon", "the edge's copy is closed");
        let status = world.status().await;
        assert_eq!(status["verdict"], "healthy");
        assert_eq!(status["tunnels"]["handed_total"], 1);
        assert_eq!(status["passed_metered_total"], 0);
        let counters = &world.edge.shared.counters;
        counters.no_way_nearby();
        assert_eq!(world.status().await["local_network_failures"], 1);
        counters.reached_nearby();
        assert_eq!(world.status().await["local_network_failures"], 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn progress_keeps_an_offer_open_while_the_provider_is_slow() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let work = async {
            let mut channel = daemon.accept().await;
            let (offer, fd) = next_offer(&mut channel).await;
            for _ in 0..20 {
                sleep(MS * 200).await;
                channel.send(&ToEdge::Progress { id: offer.id }, None).await.unwrap();
            }
            channel.send(&ToEdge::Commit { id: offer.id }, None).await.unwrap();
            assert_eq!(verdict(&mut channel).await, (offer.id, true));
            (fd, channel)
        };
        let (_client, _daemon) = tokio::join!(world.hello(), work);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_declined_connection_goes_on_raw() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let work = async {
            let mut channel = daemon.accept().await;
            let (offer, fd) = next_offer(&mut channel).await;
            drop(fd);
            let reason = Decline::UpstreamTls;
            channel.send(&ToEdge::Decline { id: offer.id, reason }, None).await.unwrap();
            channel
        };
        let (mut client, _channel) = tokio::join!(world.hello(), work);
        world.assert_raw(&mut client).await;
        assert_eq!(world.spooled(1).await[0].reason, "declined_upstream_tls");
        assert_eq!(world.verdict(), health::Verdict::Healthy);
        assert_eq!(world.status().await["tunnels"]["declined_total"], 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_in_the_middle_of_its_hello_is_no_gap() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let work = async {
            let mut channel = daemon.accept().await;
            let (offer, _) = next_offer(&mut channel).await;
            (channel, offer.id)
        };
        let (mut client, (mut channel, id)) = tokio::join!(world.hello(), work);
        client.shutdown().await.unwrap();
        sleep(MS).await;
        let reason = Decline::NotTls;
        channel.send(&ToEdge::Decline { id, reason }, None).await.unwrap();
        let (mut server, _) = world.origin.accept().await.unwrap();
        let mut got = Vec::new();
        still(server.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, HELLO, "what it said goes on as without us");
        drop(server);
        world.edge.shared.counters.drained().await;
        let status = world.status().await;
        assert_eq!(status["tunnels"]["raw_total"], 1);
        assert_eq!(status["passed_metered_total"], 0);
        // The next one is not gone, and is one.
        let work = async {
            let (offer, _) = next_offer(&mut channel).await;
            channel.send(&ToEdge::Decline { id: offer.id, reason }, None).await.unwrap();
        };
        let (mut client, ()) = tokio::join!(world.hello(), work);
        world.assert_raw(&mut client).await;
        assert_eq!(world.spooled(1).await[0].reason, "declined_not_tls");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_killed_in_mid_offer_costs_nothing() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let work = async {
            let mut channel = daemon.accept().await;
            let (_offer, fd) = next_offer(&mut channel).await;
            (channel, fd)
        };
        let (mut client, (channel, fd)) = tokio::join!(world.hello(), work);
        daemon.health.abort();
        let before = Instant::now();
        drop((channel, fd, daemon.socket));
        world.assert_raw(&mut client).await;
        assert!(before.elapsed() < MS * 5);
        assert_eq!(
            world.verdict(),
            health::Verdict::Unhealthy(health::Cause::ChannelLost),
            "unhealthy at once"
        );
        let mut next = world.hello().await;
        world.assert_raw(&mut next).await;
        let reasons: Vec<_> = world.spooled(2).await.into_iter().map(|l| l.reason).collect();
        assert_eq!(reasons, ["channel_lost", "channel_lost"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dying_daemon_is_heard_before_its_channel_and_granted_nothing() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let (alive, canary) = std::os::unix::net::UnixStream::pair().unwrap();
        let work = async {
            let mut channel = daemon.accept().await;
            channel.send(&ToEdge::Canary, Some(canary.as_fd())).await.unwrap();
            let (offer, fd) = next_offer(&mut channel).await;
            (channel, offer, fd)
        };
        let (mut client, (mut channel, offer, _fd)) = tokio::join!(world.hello(), work);
        drop(alive);
        channel.send(&ToEdge::Commit { id: offer.id }, None).await.unwrap();
        world.assert_raw(&mut client).await;
        assert_eq!(world.verdict(), health::Verdict::Unhealthy(health::Cause::ChannelLost));
        assert!(channel.recv().await.unwrap().is_none(), "no verdict, and hung up");
        assert_eq!(world.spooled(1).await[0].reason, "channel_lost");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_frozen_daemon_costs_one_deadline_and_wakes_up_too_late() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let (mut first, mut channel) = tokio::join!(world.hello(), daemon.accept());
        let (offer, fd) = next_offer(&mut channel).await;
        let before = Instant::now();
        sleep(MS * 100).await;
        let mut second = world.hello().await;
        let (offer2, fd2) = next_offer(&mut channel).await;

        // The one that came later need not find out by itself.
        tokio::join!(world.assert_raw(&mut first), world.assert_raw(&mut second));
        assert!(before.elapsed() >= offer::SILENCE - MS, "{:?}", before.elapsed());
        assert!(before.elapsed() < MS * 260, "{:?}", before.elapsed());
        assert_eq!(world.verdict(), health::Verdict::Unhealthy(health::Cause::Frozen));
        let mut third = world.hello().await;
        world.assert_raw(&mut third).await;
        assert!(before.elapsed() < MS * 260, "{:?}", before.elapsed());

        for id in [offer.id, offer2.id] {
            channel.send(&ToEdge::Commit { id }, None).await.unwrap();
            assert_eq!(verdict(&mut channel).await, (id, false));
        }
        drop((fd, fd2));
        let reasons: Vec<_> = world.spooled(3).await.into_iter().map(|l| l.reason).collect();
        assert_eq!(reasons, ["daemon_frozen"; 3]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn silence_about_one_offer_is_not_a_frozen_daemon() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let (mut first, mut channel) = tokio::join!(world.hello(), daemon.accept());
        let (_offer, _fd) = next_offer(&mut channel).await;
        sleep(MS * 100).await;
        let _second = world.hello().await;
        let (offer2, _fd2) = next_offer(&mut channel).await;
        let talk = async {
            for _ in 0..5 {
                channel.send(&ToEdge::Progress { id: offer2.id }, None).await.unwrap();
                sleep(MS * 50).await;
            }
        };
        let first_raw = async {
            let (mut server, _) = world.origin.accept().await.unwrap();
            still(async {
                server.read_exact(&mut vec![0; HELLO.len()]).await.unwrap();
                server.shutdown().await.unwrap();
                first.read_to_end(&mut Vec::new()).await.unwrap();
            })
            .await;
        };
        tokio::join!(talk, first_raw);
        assert_eq!(world.verdict(), health::Verdict::Healthy);
        channel.send(&ToEdge::Commit { id: offer2.id }, None).await.unwrap();
        assert_eq!(verdict(&mut channel).await, (offer2.id, true));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_foreign_program_on_the_health_port_is_not_our_daemon() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let impostor = daemon.accept_as(Uuid::new_v4());
        let (mut client, _channel) = tokio::join!(world.hello(), impostor);
        world.assert_raw(&mut client).await;
        assert_eq!(world.spooled(1).await[0].reason, "daemon_foreign");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_comes_back_is_used_again() {
    in_world(|mut world| async move {
        let api = world.api.take();
        let mut client = world.hello().await;
        // Nobody answers on the port: the probe runs into its deadline, the client does not.
        let before = Instant::now();
        world.assert_raw(&mut client).await;
        assert!(before.elapsed() <= health::LONGEST_WAIT + MS * 10, "{:?}", before.elapsed());
        sleep(probe::DEADLINE).await;
        assert_eq!(world.verdict(), health::Verdict::Unhealthy(health::Cause::Timeout));

        world.api = api;
        let daemon = world.daemon();
        sleep(health::UNHEALTHY_TTL).await;
        assert!(world.edge.shared.health.refresh());
        let mut channel = daemon.accept().await;
        sleep(MS).await;
        assert_eq!(world.verdict(), health::Verdict::Healthy);
        let _client = world.hello().await;
        next_offer(&mut channel).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_new_generation_of_the_health_cache_takes_over() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let (_client, mut channel) = tokio::join!(world.hello(), daemon.accept());
        let (offer, _fd) = next_offer(&mut channel).await;
        channel.send(&ToEdge::Commit { id: offer.id }, None).await.unwrap();
        assert_eq!(verdict(&mut channel).await, (offer.id, true));
        world.edge.tree.restart("health_cache");
        sleep(Duration::from_secs(10)).await;
        // Stale: used as it is, and renewed by the new generation over the same link.
        let _client = world.hello().await;
        next_offer(&mut channel).await;
        sleep(MS).await;
        assert!(world.edge.shared.health.read().fresh);
        let children = world.edge.tree.observe().await;
        assert_eq!((children[0].generation, &children[0].observed["probes"]), (2, &1.into()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_draining_daemon_gets_no_offers_but_finishes_those_it_has() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let (_first, mut channel) = tokio::join!(world.hello(), daemon.accept());
        let (offer, _fd) = next_offer(&mut channel).await;
        channel.send(&ToEdge::Draining, None).await.unwrap();
        channel.send(&ToEdge::Commit { id: offer.id }, None).await.unwrap();
        assert_eq!(verdict(&mut channel).await, (offer.id, true));
        let mut second = world.hello().await;
        world.assert_raw(&mut second).await;
        assert_eq!(world.spooled(1).await[0].reason, "daemon_draining");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_hello_sent_along_with_the_request_stays_whole() {
    in_world(|mut world| async move {
        world.api = None;
        let request = [format!("CONNECT {HOST} HTTP/1.0\r\n\r\n").as_bytes(), HELLO].concat();
        for cut in 1..request.len() {
            let mut client = TcpStream::connect(world.addr).await.unwrap();
            client.set_nodelay(true).unwrap();
            client.write_all(&request[..cut]).await.unwrap();
            sleep(MS).await;
            client.write_all(&request[cut..]).await.unwrap();
            client.read_exact(&mut vec![0; ESTABLISHED.len()]).await.unwrap();
            world.assert_raw(&mut client).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_metered_connection_is_not_offered_before_it_speaks() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let (mut client, mut channel) = tokio::join!(world.connect(), daemon.accept());
        sleep(Duration::from_secs(3600)).await;
        client.write_all(HELLO).await.unwrap();
        let (offer, _fd) = next_offer(&mut channel).await;
        assert_eq!(offer.id, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_served_gets_a_line() {
    in_world(|world| async move {
        let own = format!("CONNECT localhost:{} HTTP/1.1\r\n\r\n", world.addr.port());
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = unused.local_addr().unwrap();
        drop(unused);
        let dead = format!("CONNECT {dead} HTTP/1.1\r\n\r\n");
        let through = format!("GET http://127.1:{}/ HTTP/1.1\r\n\r\n", world.addr.port());
        for (request, status) in [
            (own.as_bytes(), "508 Loop Detected"),
            (through.as_bytes(), "508 Loop Detected"),
            (dead.as_bytes(), "502 Bad Gateway"),
            (HELLO, "400 Bad Request"),
            (b"CONNECT h HTTP/1.1\r\n\r\n", "400 Bad Request"),
            (b"GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
            (b"", "408 Request Timeout"),
        ] {
            let answer = world.exchange(request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
            let body = answer.split_once("\r\n\r\n").unwrap().1;
            assert!(body.starts_with("halton-meter: ") && body.lines().count() == 1, "{body}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_leads_back_to_us_is_found_out() {
    in_world(|world| async move {
        let mut config = (**world.edge.shared.config.load()).clone();
        let rule = config::ConnectRule::parse("loop.example:443", &world.addr.to_string());
        config.upstream.connect.insert(0, rule.unwrap());
        world.edge.shared.config.store(Arc::new(config));
        let answer = world.exchange(b"CONNECT loop.example:443 HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 508 "), "{answer}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn plain_http_is_forwarded() {
    in_world(|world| async move {
        let serve = async {
            let (mut server, _) = world.origin.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let n = server.read(&mut request).await.unwrap();
            server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
            String::from_utf8(request[..n].to_vec()).unwrap()
        };
        let ask = world.exchange(b"GET http://plain.example/a HTTP/1.1\r\nAccept: */*\r\n\r\n");
        let (request, answer) = tokio::join!(serve, ask);
        assert_eq!(
            request,
            "GET /a HTTP/1.1\r\nHost: plain.example\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        let expected = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
        assert_eq!(answer, expected);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_at_rest_is_small() {
    in_world(|world| async move {
        let stage = live::Stage::Over;
        let task = size_of_val(&serve::serve(Rc::clone(&world.edge.shared), stage));
        let tunnel = size_of::<tunnel::Tunnel>();
        assert!(task <= 192 && tunnel <= 112, "task {task}, tunnel {tunnel}");
    })
    .await;
}
