use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::proxy::{schemes, status};
use super::*;
use crate::config::{ConnectRule, NoProxy, OwnPorts};

const SOON: Duration = Duration::from_secs(5);

fn upstream() -> Upstream {
    Upstream {
        proxy: None,
        http_proxy: None,
        http_apart: false,
        no_proxy: NoProxy::default(),
        extra_ca_file: None,
        connect: Vec::new(),
        own: OwnPorts { edge: 1, api: 2 },
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

#[tokio::test]
async fn a_connect_rule_needs_no_name() {
    let (listener, addr) = listener().await;
    let mut config = upstream();
    config.connect.push(ConnectRule::parse("no.such.host.invalid:443", &addr.to_string()).unwrap());
    let (dialled, accepted) =
        tokio::join!(dial(&config, "no.such.host.invalid", 443, SOON), listener.accept());
    assert_eq!(dialled.unwrap().peer_addr().unwrap(), addr);
    accepted.unwrap();
}

#[test]
fn out_of_descriptors_is_told_from_other_failures() {
    let short = || io::Error::from(rustix::io::Errno::MFILE);
    let hidden = || io::Error::other("failed to lookup address information");
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    for error in
        [DialError::Connect(short()), DialError::Resolve(short()), DialError::Proxy(short())]
    {
        assert!(error.is_shortage(), "{error:?}");
    }
    // There are descriptors, so it is what it says.
    for error in [
        DialError::Resolve(hidden()),
        DialError::Proxy(hidden()),
        DialError::Connect(refused()),
        DialError::Timeout,
    ] {
        assert!(!error.is_shortage(), "{error:?}");
    }
}

#[test]
fn no_way_to_the_local_network_is_told_from_other_failures() {
    let no_way = || io::Error::from(rustix::io::Errno::HOSTUNREACH);
    let [near, far] = ["192.168.1.9:80", "1.1.1.1:80"].map(|addr| addr.parse().unwrap());
    let error = failed(no_way(), &[far, near]);
    assert!(error.is_no_way_nearby() && error.status() == 502, "{error:?}");
    assert_eq!(error.to_string(), DialError::Connect(no_way()).to_string());
    assert!(DialError::Proxy(no_way()).is_no_way_nearby());
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    for error in [failed(no_way(), &[far]), failed(refused(), &[near]), DialError::Proxy(refused())]
    {
        assert!(!error.is_no_way_nearby(), "{error:?}");
    }
}

/// A link-local address of this machine, where that can be told and there is one.
fn link_local() -> Option<String> {
    let all = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    all.lines().filter(|line| line.starts_with("fe80")).find_map(|line| {
        let mut fields = line.split_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        Some(format!("{}%{}", std::net::Ipv6Addr::from_bits(address), fields.last()?))
    })
}

#[tokio::test]
async fn an_address_with_a_zone_is_dialled_there() {
    let Some(host) = link_local() else { return };
    let listener = TcpListener::bind("[::]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut config = upstream();
    // No proxy knows the zone.
    config.proxy = UpstreamProxy::parse("http://proxy.invalid:3128");
    let (dialled, accepted) = tokio::join!(dial(&config, &host, port, SOON), listener.accept());
    assert_eq!(dialled.unwrap().peer_addr().unwrap().port(), port);
    accepted.unwrap();
}

#[tokio::test]
async fn refusal_is_a_502() {
    let (listener, addr) = listener().await;
    drop(listener);
    let error = dial(&upstream(), "127.0.0.1", addr.port(), SOON).await.unwrap_err();
    assert!(matches!(error, DialError::Connect(_)), "{error:?}");
    assert_eq!(error.status(), 502);
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    let (listener, addr) = listener().await;
    let (gone, dead) = self::listener().await;
    drop(gone);
    let rest = [addr];
    let (stream, _) = tokio::join!(race(dead, &rest), listener.accept());
    assert_eq!(stream.unwrap().peer_addr().unwrap(), addr);
    assert!(matches!(race(dead, &[dead]).await, Err(DialError::Connect(_))));
}

#[test]
fn families_take_turns() {
    let found = ["[::1]:1", "[::2]:1", "1.1.1.1:1", "1.1.1.2:1"];
    let sorted = alternate(&found.map(|a| a.parse().unwrap()));
    let text: Vec<_> = sorted.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1"]);
}

#[tokio::test]
async fn the_upstream_proxy_is_asked_and_nothing_behind_its_head_is_taken() {
    let (listener, addr) = listener().await;
    let mut config = upstream();
    config.proxy = UpstreamProxy::parse(&format!("http://u:p@{addr}"));
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 1024];
        let n = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nVia: x\r\n").await.unwrap();
        stream.write_all(b"\r\nfirst words").await.unwrap();
        (String::from_utf8(head[..n].to_vec()).unwrap(), stream)
    };
    let (dialled, (asked, _far)) = tokio::join!(dial(&config, "::1", 443, SOON), serve);
    assert_eq!(
        asked,
        "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\
         Proxy-Authorization: Basic dTpw\r\n\r\n"
    );
    let mut dialled = dialled.unwrap();
    assert!(sockopt::socket_keepalive(&dialled).unwrap());
    assert_eq!(sockopt::tcp_keepidle(&dialled).unwrap(), KEEPALIVE);
    assert_eq!(sockopt::tcp_keepintvl(&dialled).unwrap(), Duration::from_secs(60));
    assert_eq!(sockopt::tcp_keepcnt(&dialled).unwrap(), 5);
    let mut first = [0; 11];
    dialled.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"first words");
}

#[tokio::test]
async fn a_refusing_proxy_is_named_by_its_status_and_what_it_wants() {
    let refused = async |answer: &str| {
        let (listener, addr) = listener().await;
        let mut config = upstream();
        config.proxy = UpstreamProxy::parse(&format!("http://{addr}"));
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream
        };
        let (dialled, _far) = tokio::join!(dial(&config, "h.example", 443, SOON), serve);
        dialled.unwrap_err()
    };
    let error = refused("HTTP/1.1 403 No\r\n\r\n").await;
    assert!(matches!(error, DialError::ProxyStatus(403)), "{error:?}");
    let basic = "HTTP/1.1 407 Auth\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
    let basic = refused(basic).await;
    assert_eq!(basic.status(), 502);
    assert!(basic.to_string().ends_with("(Basic): set user and password in upstream.proxy"));
    let domain =
        "HTTP/1.1 407 A\r\nProxy-Authenticate: Negotiate\r\nproxy-authenticate: NTLM\r\n\r\n";
    let domain = refused(domain).await.to_string();
    assert!(domain.contains("(Negotiate, NTLM): a local helper"), "{domain}");
    let odd = refused("HTTP/1.1 407 A\r\nProxy-Authenticate: <b>\r\n\r\n").await.to_string();
    assert!(odd.contains("does not name"), "{odd}");
}

#[tokio::test]
async fn of_a_proxy_that_lets_us_through_its_first_line_counts() {
    let answered = async |headers: String| {
        let (listener, addr) = listener().await;
        let mut config = upstream();
        config.proxy = UpstreamProxy::parse(&format!("http://{addr}"));
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = format!("HTTP/1.1 200 Connection established\r\n{headers}\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream
        };
        let (dialled, _far) = tokio::join!(dial(&config, "h.example", 443, SOON), serve);
        dialled
    };
    let many = (0..200).map(|n| format!("X-Trace-{n}: {n}\r\n")).collect();
    assert!(answered(many).await.is_ok());
    assert!(answered("what is this\r\n".to_owned()).await.is_ok());
    let login = "HTTP/1.1 407 A\r\nProxy-Authenticate: Basic\r\n".to_owned();
    let many: String = (0..200).map(|n| format!("X-{n}: {n}\r\n")).collect();
    assert_eq!(schemes(format!("{login}{many}\r\n").as_bytes()), "Basic");
    assert_eq!(status(b"HTTP/1.0 200\n\n"), Some(200));
    for none in [&b"SSH-2.0-x\r\n\r\n"[..], b"\r\n\r\n", b"HTTP/1.1 2\r\n\r\n"] {
        assert_eq!(status(none), None);
    }
}

/// By a name that nobody can know for ours before it is looked up, or by the system's setting.
#[tokio::test]
async fn a_proxy_that_leads_back_to_us_is_gone_past() {
    let (_us, own) = listener().await;
    let (there, target) = listener().await;
    let host = target.ip().to_string();
    for from_system in [false, true] {
        let mut config = left_behind(own, from_system);
        config.own.edge = own.port();
        let proxy = config.proxy.clone().unwrap();
        let (dialled, accepted) =
            tokio::join!(dial(&config, &host, target.port(), SOON), there.accept());
        assert_eq!(dialled.unwrap().peer_addr().unwrap(), target);
        accepted.unwrap();
        let forward = dial_proxy(config.own, &proxy, &host, target.port(), SOON).await;
        assert!(matches!(forward, Ok((_, false))), "{forward:?}");
        assert!(is_us(config.own, &proxy, SOON).await);
        assert!(!is_us(OwnPorts { edge: 1, api: 2 }, &proxy, SOON).await);
    }
}

/// The proxy of another network: nobody is at its address.
fn left_behind(gone: SocketAddr, from_system: bool) -> Upstream {
    let mut config = upstream();
    config.proxy = UpstreamProxy::parse(&format!("http://{gone}"));
    config.proxy = config.proxy.map(|proxy| UpstreamProxy { from_system, ..proxy });
    config
}

#[tokio::test]
async fn a_systems_proxy_that_is_not_there_is_gone_past_and_a_chosen_one_is_not() {
    let (there, target) = listener().await;
    let (nobody, gone) = listener().await;
    drop(nobody);
    let config = left_behind(gone, true);
    let proxy = config.proxy.clone().unwrap();
    let host = target.ip().to_string();
    for _ in 0..2 {
        let (dialled, accepted) =
            tokio::join!(dial(&config, &host, target.port(), SOON), there.accept());
        assert_eq!(dialled.unwrap().peer_addr().unwrap(), target);
        accepted.unwrap();
        assert!(goes_past(&proxy));
    }
    let (forward, to_proxy) =
        dial_proxy(config.own, &proxy, &host, target.port(), SOON).await.unwrap();
    assert_eq!((forward.peer_addr().unwrap(), to_proxy), (target, false));

    // Neither way: the proxy's error, as ever.
    drop((there, forward));
    let error = dial(&config, &host, target.port(), SOON).await.unwrap_err();
    assert!(matches!(error, DialError::Proxy(_)), "{error:?}");
    // The proxy is there again, and the target is not: nothing is refused for what was before.
    let back = TcpListener::bind(gone).await.unwrap();
    let serve = async {
        let (mut stream, _) = back.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        stream
    };
    let (dialled, _far) = tokio::join!(dial(&config, &host, target.port(), SOON), serve);
    assert_eq!(dialled.unwrap().peer_addr().unwrap(), gone);
    assert!(!goes_past(&proxy));

    drop(back);
    let (_there, target) = listener().await;
    let chosen = left_behind(gone, false);
    let error = dial(&chosen, &host, target.port(), SOON).await.unwrap_err();
    assert!(matches!(error, DialError::Proxy(_)), "{error:?}");
    assert_eq!(error.status(), 502);
}

#[tokio::test]
async fn what_a_systems_proxy_says_is_not_gone_past() {
    let (listener, addr) = listener().await;
    let (_there, target) = self::listener().await;
    let config = left_behind(addr, true);
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 403 No\r\n\r\n").await.unwrap();
        stream
    };
    let (dialled, _far) = tokio::join!(dial(&config, "127.0.0.1", target.port(), SOON), serve);
    assert!(matches!(dialled, Err(DialError::ProxyStatus(403))));
}

#[tokio::test]
async fn a_silent_proxy_is_waited_for_beside_the_target() {
    let never = std::future::pending::<Result<TcpStream, DialError>>;
    let (_there, addr) = listener().await;
    let connect = async || TcpStream::connect(addr).await.map_err(DialError::Connect);
    let late = async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        connect().await
    };
    let refused = async || Err(DialError::Connect(io::ErrorKind::ConnectionRefused.into()));
    let soon = Duration::from_millis(10);
    let end = Instant::now() + Duration::from_secs(10);
    assert!(matches!(past::either(never(), connect(), soon, end, |_| true).await, Ok((_, false))));
    assert!(
        matches!(past::either(late(), refused(), soon, end, |_| true).await, Ok((_, true))),
        "slow, and there"
    );
    let end = Instant::now() + Duration::from_millis(500);
    let both = past::either(never(), never(), soon, end, |_| true).await;
    assert!(matches!(both, Err((DialError::Timeout, Some(DialError::Timeout)))), "{both:?}");
}

#[test]
fn head_end_in_every_split() {
    let text = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nrest";
    let whole = text.len() - 4;
    for cut in 0..whole {
        let mut end = HeadEnd::default();
        assert_eq!(end.feed(&text[..cut]), None, "{cut}");
        assert_eq!(end.feed(&text[cut..]), Some(whole - cut), "{cut}");
    }
}
