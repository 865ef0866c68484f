//! Serves the API's connections, on a thread of its own.
//!
//! actix-http keeps a clock that ticks twice a second for as long as it is there. So it is there only
//! while somebody asks more than edge and watchdog do: what those send is known byte for byte, and is
//! answered here.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_http::HttpService;
use actix_rt::Arbiter;
use actix_service::{IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, map_config};
use actix_web::dev::AppConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::places::{Place, Places};
use super::reads::READERS;
use super::routes::{self, Api, Ends, REQUEST};
use crate::actors::ask;

/// For the queries, and as many for what never takes long: streams, flushes.
const BLOCKING_THREADS: usize = 2 * READERS;
/// For the client's own end of a connection that we close.
const GOODBYE: Duration = Duration::from_secs(1);
/// When we are told to end: for what is being answered.
const LAST: Duration = Duration::from_secs(1);
/// actix-http goes when nobody has asked for so long.
const IDLE: Duration = Duration::from_secs(10);
/// Out of descriptors, most likely: those in use will be given back.
const PAUSE: Duration = Duration::from_millis(50);

/// The handle. Dropped, it ends everything at once.
#[derive(Debug)]
pub(super) struct Server {
    arbiter: Arbiter,
    stop: watch::Sender<bool>,
}

impl Server {
    /// The receiver is told, or closed, when it has ended, however that came.
    ///
    /// # Errors
    /// When there can be no thread, or the listener is not usable.
    pub(super) fn start(
        listener: StdListener,
        api: Arc<Api>,
    ) -> io::Result<(Self, oneshot::Receiver<()>)> {
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let arbiter = Arbiter::try_with_tokio_rt(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(BLOCKING_THREADS)
                .build()
        })?;
        let ((stop, stopped), (ended, end)) = (watch::channel(false), oneshot::channel());
        arbiter.spawn_fn(move || {
            actix_rt::spawn(async move {
                serve(listener, Rc::new(Desk::new(addr, api)), stopped).await;
                let _ = ended.send(());
            });
        });
        Ok((Self { arbiter, stop }, end))
    }

    /// No more connections; what is being answered has a moment.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.arbiter.stop();
    }
}

async fn serve(listener: StdListener, desk: Rc<Desk>, mut stopped: watch::Receiver<bool>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let places = Rc::clone(&desk.places);
    loop {
        tokio::select! {
            biased;
            // Also when the handle is gone.
            _ = stopped.wait_for(|stopped| *stopped) => break,
            accepted = listener.accept() => match accepted {
                // At once, however many there are: one of them may be ours.
                Ok((stream, peer)) => {
                    let place = places.enter(Some(peer));
                    actix_rt::spawn(connection(Rc::clone(&desk), stream, place));
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
    let _ = timeout(LAST, places.empty()).await;
}

async fn connection(desk: Rc<Desk>, stream: TcpStream, place: Place) {
    tokio::select! {
        biased;
        () = place.gone() => {}
        () = attend(&desk, stream, &place) => {}
    }
}

async fn attend(desk: &Rc<Desk>, stream: TcpStream, place: &Place) {
    // Too slow, or gone: nobody waits for an answer.
    let Ok(Ok(asked)) = timeout(REQUEST, desk.asked(&stream)).await else { return };
    match asked {
        Asked::Health { known } => {
            place.is_ours();
            let _ = desk.answer(stream, known).await;
        }
        Asked::More => {
            if place.pass_on() {
                desk.pass_on(stream).await;
            }
        }
    }
}

/// What the first bytes ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
    Health { known: bool },
    More,
}

type Ended = Pin<Box<dyn Future<Output = ()>>>;
type Web = dyn Fn(TcpStream) -> Ended;

struct Desk {
    api: Arc<Api>,
    /// What our own processes send, and the query's meaning.
    questions: [(String, bool); 2],
    places: Rc<Places>,
    web: RefCell<Option<Rc<Web>>>,
    /// Connections that it has, and has had.
    open: Cell<u32>,
    taken: Cell<u64>,
}

impl Desk {
    fn new(addr: SocketAddr, api: Arc<Api>) -> Self {
        let questions = [(ask::HEALTH, false), (ask::KNOWN, true)]
            .map(|(path, known)| (ask::question(addr, path), known));
        Self {
            api,
            questions,
            places: Rc::default(),
            web: RefCell::default(),
            open: Cell::default(),
            taken: Cell::default(),
        }
    }

    /// A question of ours is taken out of the stream; anything else stays in it, for actix-http to read.
    async fn asked(&self, stream: &TcpStream) -> io::Result<Asked> {
        let mut start = [0; 128];
        let n = stream.peek(&mut start).await?;
        let start = start.get_mut(..n).unwrap_or_default();
        let question = self.questions.iter().find(|(text, _)| text.as_bytes() == start);
        let Some((_, known)) = question else { return Ok(Asked::More) };
        stream.try_read(start)?;
        Ok(Asked::Health { known: *known })
    }

    async fn answer(&self, mut stream: TcpStream, known: bool) -> io::Result<()> {
        let (status, answer) = self.api.asked_health(known).await;
        let body = serde_json::to_string(&answer)?;
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncache-control: no-store\r\n\
             x-content-type-options: nosniff\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        self.api.answered.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn pass_on(self: &Rc<Self>, stream: TcpStream) {
        let _open = Open::one(self);
        let web = self.web.borrow().clone();
        let web = match web {
            Some(web) => web,
            None => {
                let Some(web) = self.start_web().await else { return };
                actix_rt::spawn(Rc::clone(self).forget_web());
                Rc::clone(self.web.borrow_mut().insert(web))
            }
        };
        web(stream).await;
    }

    async fn start_web(&self) -> Option<Rc<Web>> {
        let app = routes::app(Arc::clone(&self.api)).into_factory();
        // The guard's refusals are errors with a response.
        let app = app.map_err(|e: actix_web::Error| e.error_response());
        let app = map_config(app, |()| AppConfig::default());
        let places = Rc::clone(&self.places);
        let service = HttpService::build()
            .on_connect_ext(move |stream: &TcpStream, data| {
                let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
                    return;
                };
                if let Some(shown) = places.shown(peer) {
                    data.insert(shown);
                }
                data.insert(Ends { peer, local });
            })
            .client_request_timeout(REQUEST)
            .client_disconnect_timeout(GOODBYE)
            // Who ends its side waits for nothing: its query ends, its stream gives its place back.
            .h1_allow_half_closed(false)
            .finish(app)
            .tcp();
        let service = Rc::new(service.new_service(()).await.ok()?);
        Some(Rc::new(move |stream| -> Ended {
            let service = Rc::clone(&service);
            Box::pin(async move {
                if poll_fn(|cx| service.poll_ready(cx)).await.is_ok() {
                    // What went wrong with it is the client's own business.
                    let _ = service.call(stream).await;
                }
            })
        }))
    }

    async fn forget_web(self: Rc<Self>) {
        loop {
            let before = self.taken.get();
            sleep(IDLE).await;
            if self.open.get() == 0 && self.taken.get() == before {
                *self.web.borrow_mut() = None;
                return;
            }
        }
    }
}

/// A connection that actix-http has, for as long as it has it.
struct Open(Rc<Desk>);

impl Open {
    fn one(desk: &Rc<Desk>) -> Self {
        desk.open.set(desk.open.get() + 1);
        desk.taken.set(desk.taken.get() + 1);
        Self(Rc::clone(desk))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokio::io::AsyncReadExt;

    use super::super::tests::bench;
    use super::*;
    use crate::actors::health::Check;

    /// What a connection on which this was said got as an answer.
    async fn say(desk: &Rc<Desk>, listener: &TcpListener, pieces: &[&str]) -> String {
        let addr = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(addr).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let place = desk.places.enter(stream.peer_addr().ok());
        let serving = actix_rt::spawn(connection(Rc::clone(desk), stream, place));
        for piece in pieces {
            client.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        serving.await.unwrap();
        answer
    }

    fn without_date(answer: &str) -> (Vec<&str>, Value) {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut head: Vec<_> = head.lines().filter(|line| !line.starts_with("date: ")).collect();
        head.sort_unstable();
        (head, serde_json::from_str(body).unwrap())
    }

    #[actix::test]
    async fn our_own_questions_are_answered_as_actix_would_and_without_it() {
        let bench = bench();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        bench.api.set_port(addr.port());
        let desk = || Rc::new(Desk::new(addr, Arc::clone(&bench.api)));
        for fault in [None, Some("refused".to_owned())] {
            for path in [ask::HEALTH, ask::KNOWN] {
                let checks = vec![Check { name: "tap", fault: fault.clone() }];
                bench.api.health.publish(checks, tokio::time::Instant::now());
                let question = ask::question(addr, path);
                let quick = desk();
                let answer = say(&quick, &listener, &[&question]).await;
                assert!(quick.web.borrow().is_none(), "{path} woke it");
                // The same in two pieces is nothing that we know.
                let (start, end) = question.split_at(9);
                let slow = desk();
                let theirs = say(&slow, &listener, &[start, end]).await;
                assert!(slow.web.borrow().is_some());
                assert_eq!(without_date(&answer), without_date(&theirs));
                assert!(answer.starts_with(if fault.is_none() {
                    "HTTP/1.1 200 OK"
                } else {
                    "HTTP/1.1 503 "
                }));
            }
        }
        assert_eq!(bench.api.answered.load(Ordering::Relaxed), 8);
    }

    #[actix::test]
    async fn who_is_not_us_is_judged_and_actix_goes_when_nobody_asks() {
        let bench = bench();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        bench.api.set_port(addr.port());
        let desk = Rc::new(Desk::new(addr, Arc::clone(&bench.api)));
        let question = ask::question(addr, ask::HEALTH);
        let foreign = question.replace(&addr.to_string(), "evil.example");
        assert!(say(&desk, &listener, &[&foreign]).await.starts_with("HTTP/1.1 421 "));
        let page = question.replace("\r\n\r\n", "\r\nOrigin: http://evil.example\r\n\r\n");
        assert!(say(&desk, &listener, &[&page]).await.starts_with("HTTP/1.1 403 "));
        let status = ask::question(addr, "/v1/status");
        assert!(say(&desk, &listener, &[&status]).await.starts_with("HTTP/1.1 401 "));
        assert!(desk.web.borrow().is_some());
        tokio::time::pause();
        sleep(IDLE * 3).await;
        assert!(desk.web.borrow().is_none());
    }

    #[actix::test]
    async fn who_hangs_up_is_asked_about_no_more() {
        let bench = bench();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        bench.api.set_port(addr.port());
        let desk = Rc::new(Desk::new(addr, Arc::clone(&bench.api)));
        let question = format!(
            "GET /v1/events HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {}\r\n\r\n",
            bench.api.token.reveal()
        );
        // Every place for a query is taken, so that one more waits.
        let _all = bench.api.readers.all().await;
        let waits = question.replace("/v1/events", "/v1/requests");
        for text in [&question, &waits] {
            let client = silent_after(addr, text).await;
            let (stream, _) = listener.accept().await.unwrap();
            let place = desk.places.enter(stream.peer_addr().ok());
            let serving = actix_rt::spawn(connection(Rc::clone(&desk), stream, place));
            drop(client);
            timeout(Duration::from_secs(30), serving).await.expect("it ends").unwrap();
        }
    }

    /// Connects, says this and no more.
    async fn silent_after(addr: SocketAddr, text: &str) -> TcpStream {
        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(text.as_bytes()).await.unwrap();
        client
    }

    #[actix::test]
    async fn who_says_half_a_request_keeps_nobody_waiting() {
        const PATIENCE: Duration = Duration::from_secs(20);
        let bench = bench();
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        bench.api.set_port(addr.port());
        let (stop, stopped) = watch::channel(false);
        let desk = Rc::new(Desk::new(addr, Arc::clone(&bench.api)));
        let serving = actix_rt::spawn(serve(listener, desk, stopped));
        // The user's own connection, which stays open.
        let status = format!(
            "GET /readyz HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {}\r\n\r\n",
            bench.api.token.reveal()
        );
        let mut user = silent_after(addr, &status).await;
        let mut answer = [0; 12];
        user.read_exact(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 "));

        let half = format!(
            "POST /v1/session HTTP/1.1\r\nHost: {addr}\r\nOrigin: http://{addr}\r\n\
             Content-Type: application/json\r\nContent-Length: 4000\r\n\r\n{{"
        );
        let began = std::time::Instant::now();
        let (mut posts, mut silent) = (Vec::new(), Vec::new());
        for _ in 0..300 {
            posts.push(silent_after(addr, &half).await);
            silent.push(silent_after(addr, "").await);
        }
        for path in [ask::KNOWN, ask::HEALTH] {
            let (status, _) = ask::get(addr, path, PATIENCE).await.unwrap();
            assert!([200, 503].contains(&status));
        }
        // On a busy machine it may have been idle for too long.
        if began.elapsed() < REQUEST / 2 {
            user.write_all(status.as_bytes()).await.unwrap();
            assert!(user.read(&mut [0; 4096]).await.unwrap() > 0);
        }

        tokio::time::pause();
        let mut told = 0;
        for mut post in posts {
            // Who made room for another gets no answer.
            let mut answer = Vec::new();
            let _ =
                timeout(REQUEST * 4, post.read_to_end(&mut answer)).await.expect("it is closed");
            told += u32::from(answer.starts_with(b"HTTP/1.1 408 "));
        }
        assert!(told >= 200, "{told}");
        for mut silent in silent {
            let closed = timeout(REQUEST * 4, silent.read(&mut [0])).await;
            assert!(matches!(closed, Ok(Ok(0) | Err(_))));
        }
        drop(user);
        stop.send_replace(true);
        serving.await.unwrap();
    }
}
