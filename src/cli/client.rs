//! Asks the processes themselves, over localhost HTTP: a frozen daemon must not read as healthy.

mod agent;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use self::agent::agent;
use super::intruder::{self, UNHEARD};
use super::{Context, Exit, Failure, status};
use crate::actors::ask::{self, AskError};
use crate::config::Stamp;
use crate::edge::door;
use crate::home::{Home, PidLock};
use crate::meter::ledger::DISK_FULL;
use crate::platform;

/// For the edge to hand out its socket, which takes it no time.
const NEAR: Duration = Duration::from_millis(300);

/// For the last rows. Who asks waits no longer, whatever the daemon does.
const SETTLE: Duration = Duration::from_millis(300);

/// For prices to be taken over: it is a matter of milliseconds.
const PRICES: Duration = Duration::from_secs(2);

/// For processes to find a home again that was removed under them. The edge takes longest.
const FOUND: Duration = Duration::from_secs(10);

/// The ledger's disk is full with less room than that.
const FULL: u64 = 1 << 20;

/// How the daemon answered `/health`.
#[derive(Clone, Debug)]
pub enum Health {
    Ok(Value),
    Degraded(Value),
    /// Somebody answers, but not the process that holds our lock.
    Foreign,
    /// Our process lives, but says nothing: nobody listens, or takes the time.
    Silent,
    Down,
}

/// What lives, and what it says.
#[derive(Clone, Debug)]
pub struct Tree {
    pub root: Option<u32>,
    pub edge: Option<u32>,
    pub daemon: Option<u32>,
    pub watchdog: Option<u32>,
    /// The edge's own status; `None` when the port's owner is not our edge, or silent.
    pub edge_answer: Option<Value>,
    /// An edge of this home that its lock does not tell of.
    pub lost_edge: Option<u32>,
    /// Something of it runs on another machine, or in another container, that has the same home: its pids
    /// are no processes of ours.
    pub foreign: bool,
    /// The root is on its way out, and takes the port with it.
    pub ending: bool,
    pub health: Health,
}

/// What to say of a root that ends.
pub const ENDING: &str = "the processes are ending (`edge stop`, or the end of an `up`), once answers in flight are through";

/// What our edge has made of `config.toml` as it is now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settings {
    /// Or there is nothing to be taken over, or nobody to do it.
    InForce,
    Refused,
    Unread,
}

/// What to say of a home that is another machine's too.
pub const FOREIGN: &str = "another machine or container runs from this home; set HALTON_METER_HOME to a directory of this one";

impl Tree {
    /// Looks at locks and asks edge and daemon, each within `patience`.
    pub fn look(ctx: &Context, patience: Duration) -> Self {
        // First: who is seen to have written its pid only now has written it for the others too.
        let foreign = runs_elsewhere(&ctx.home, &PROCESSES);
        let holder = |name: &str| PidLock::holder(&ctx.home.pid_file(name)).ok().flatten();
        let (edge, daemon) = (holder("edge"), holder("daemon"));
        let edge_answer = edge.and_then(|pid| edge_status(ctx, pid, patience));
        let lost_edge = if edge.is_none() { lost_edge(ctx, patience) } else { None };
        let answer = ask_for(&agent(patience), api_url(ctx, ask::HEALTH));
        let health = judge(daemon, instance(ctx).as_deref(), answer);
        let (root, watchdog) = (holder("root"), holder("watchdog"));
        // Last: what has answered may have been told to end since.
        let ending = PidLock::is_ending(&ctx.home.pid_file("root"));
        Self { root, edge, daemon, watchdog, edge_answer, lost_edge, foreign, ending, health }
    }

    /// Before anything of it is signalled.
    pub fn is_ours(&self) -> Result<(), Failure> {
        ours(self.foreign)
    }

    /// The same, after a home that was removed under its processes is theirs again.
    pub fn look_when_found(ctx: &Context, patience: Duration) -> Self {
        await_lost(ctx, patience);
        Self::look(ctx, patience)
    }

    /// The daemon is well, and the edge knows it. (Asking the edge makes it look.) It lasts.
    pub fn metering(&self) -> bool {
        if self.ending {
            return false;
        }
        let verdict = self.edge_answer.as_ref().and_then(|a| a.get("verdict"));
        verdict.and_then(Value::as_str) == Some("healthy") && matches!(self.health, Health::Ok(_))
    }

    /// The daemon has no room for rows, and there is none: waiting makes none. Where somebody has made
    /// some, the daemon notices it within seconds.
    pub fn disk_is_full(&self, ctx: &Context) -> bool {
        status::reasons(&self.health).iter().any(|reason| reason.ends_with(DISK_FULL))
            && ctx.home.room().is_some_and(|room| room < FULL)
    }

    pub fn settings(&self, ctx: &Context) -> Settings {
        let answer = self.edge_answer.as_ref().filter(|_| !self.foreign);
        let now = Stamp::of(&ctx.home.config_file()).filter(|_| ctx.loaded.problems.is_empty());
        answer.zip(now).map_or(Settings::InForce, |(answer, now)| judge_settings(answer, &now))
    }

    /// Where our edge serves, if that is not where the configuration has it: it keeps the port that it
    /// was started with.
    pub fn edge_elsewhere(&self, ctx: &Context) -> Option<SocketAddr> {
        if self.edge.is_none() || self.edge_answer.is_some() {
            return None;
        }
        edge_serves(ctx).filter(|addr| *addr != ctx.loaded.config.edge.addr())
    }
}

fn judge_settings(edge: &Value, now: &Stamp) -> Settings {
    let now = Value::String(now.to_string());
    match (edge.get("config"), edge.get("config_refused")) {
        // An older one does not say.
        (None, _) => Settings::InForce,
        (Some(taken), _) if *taken == now => Settings::InForce,
        (Some(_), Some(refused)) if *refused == now => Settings::Refused,
        (Some(_), _) => Settings::Unread,
    }
}

const PROCESSES: [&str; 4] = ["root", "edge", "daemon", "watchdog"];

/// Whether one of these processes of this home has a pid that is nobody's here.
#[must_use]
pub fn runs_elsewhere(home: &Home, processes: &[&str]) -> bool {
    processes.iter().any(|process| PidLock::is_elsewhere(&home.pid_file(process)))
}

/// Before files change that a running process has to be told of.
pub fn can_be_told(home: &Home) -> Result<(), Failure> {
    ours(runs_elsewhere(home, &PROCESSES))
}

fn ours(foreign: bool) -> Result<(), Failure> {
    if foreign { Err(Failure::new(Exit::UNAVAILABLE, FOREIGN)) } else { Ok(()) }
}

/// Pid of an edge that serves this home on the configured port, although nothing in the home tells of
/// it: somebody removed the home, or moved it away.
pub fn lost_edge(ctx: &Context, patience: Duration) -> Option<u32> {
    let url = format!("http://{}{}", ctx.loaded.config.edge.addr(), ask::HEALTH);
    let (_, body) = ask_for(&agent(patience), url).ok()?;
    is_lost(&body, &ctx.home.tag())
}

fn is_lost(body: &Value, home: &str) -> Option<u32> {
    let says = |name: &str| body.get(name).and_then(Value::as_str);
    let ours = says("process") == Some("edge") && says("home") == Some(home);
    body.get("pid").and_then(Value::as_u64).filter(|_| ours).and_then(|pid| pid.try_into().ok())
}

/// Such an edge looks for its home every few seconds: what is done before it has found it would not reach
/// it, and a new CA would not be the one that it leads to.
pub fn await_lost(ctx: &Context, patience: Duration) {
    let edge = || PidLock::holder(&ctx.home.pid_file("edge")).ok().flatten();
    if edge().is_some() || lost_edge(ctx, patience).is_none() {
        return;
    }
    let deadline = Instant::now() + FOUND;
    while edge().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whose answer it is. A pid can be guessed: it takes the instance, too, to speak for the daemon.
fn judge(
    daemon: Option<u32>,
    instance: Option<&str>,
    answer: Result<(u16, Value), AskError>,
) -> Health {
    match (daemon, answer) {
        (_, Ok((status, body))) if ask::speaks_for(daemon, instance, &body) => {
            if status == 200 {
                Health::Ok(body)
            } else {
                Health::Degraded(body)
            }
        }
        (_, Ok(_) | Err(AskError::Foreign)) => Health::Foreign,
        (Some(_), Err(AskError::Refused | AskError::Timeout | AskError::Broken)) => Health::Silent,
        (None, Err(AskError::Refused | AskError::Timeout | AskError::Broken)) => Health::Down,
    }
}

/// What the daemon wrote down about itself, where only this user reads.
fn instance(ctx: &Context) -> Option<String> {
    std::fs::read_to_string(ctx.home.instance_file()).ok()
}

/// Who listens there, if that can be told and is not this process.
pub fn other_listener(addr: SocketAddr, process: Option<u32>) -> Option<String> {
    let who = platform::listener_on(addr)?;
    (!process.is_some_and(|pid| who.ends_with(&format!(" pid {pid}")))).then_some(who)
}

/// What to say, and to do, of another program on the daemon's port.
pub fn api_port_taken(ctx: &Context, daemon: Option<u32>) -> String {
    let addr = ctx.loaded.config.daemon.api_addr();
    let who = match other_listener(addr, daemon) {
        Some(who) => format!("another program ({who}): end it, or"),
        None if intruder::is_unheard(addr) => format!("{UNHEARD}. If it stays,"),
        None => "another program: end it, or".to_owned(),
    };
    format!(
        "port {} is held by {who} `halton-meter config set daemon.api_port N` with a free port; \
         then `halton-meter restart`",
        addr.port()
    )
}

/// Where the running edge serves, by its own listening socket.
pub fn edge_serves(ctx: &Context) -> Option<SocketAddr> {
    door::ask(&ctx.home.edge_socket(), NEAR).ok()?.local_addr().ok()
}

/// What the edge with this pid says of itself, on the configured port.
pub fn edge_status(ctx: &Context, pid: u32, patience: Duration) -> Option<Value> {
    edge_status_at(ctx.loaded.config.edge.addr(), pid, patience)
}

/// The same for the edge that serves there.
pub fn edge_status_at(edge: SocketAddr, pid: u32, patience: Duration) -> Option<Value> {
    let url = format!("http://{edge}{}", ask::HEALTH);
    let (_, body) = ask_for(&agent(patience), url).ok()?;
    (body.get("pid").and_then(Value::as_u64) == Some(u64::from(pid))).then_some(body)
}

/// What its edge lets pass to metered hosts now; an older one does not tell.
pub fn edge_passing(ctx: &Context) -> Option<Value> {
    let url = format!("http://{}{}", ctx.loaded.config.edge.addr(), ask::PASSING);
    let (status, body) = ask_for(&agent(NEAR), url).ok()?;
    (status == 200).then_some(body)
}

/// A call of the admin API with the token of the run directory.
pub fn api(ctx: &Context, path: &str, patience: Duration) -> Result<Value, String> {
    call(ctx, Method::Get, path, patience)
}

/// Before the ledger is read: what has just ended is written first. Without a daemon that answers, the
/// ledger is told as it is.
pub fn settle_ledger(ctx: &Context) {
    let _ = api(ctx, "/v1/flush", SETTLE);
}

/// Lets the clients try again that stay raw because they did not accept our certificate.
pub fn clear_bypass(ctx: &Context, patience: Duration) -> Result<u64, String> {
    let answer = call(ctx, Method::Delete, "/v1/bypass", patience)?;
    answer
        .get("cleared")
        .and_then(Value::as_u64)
        .ok_or_else(|| "an answer without sense".to_owned())
}

/// Has the daemon take the user's own prices over. `None`: it does not run, and will read them when it does.
pub fn take_prices(ctx: &Context) -> Option<Result<(), String>> {
    PidLock::holder(&ctx.home.pid_file("daemon")).ok().flatten()?;
    let taken = call(ctx, Method::Post, "/v1/pricing", PRICES).and_then(|answer| {
        match answer.get("problem").and_then(Value::as_str) {
            Some(problem) => Err(problem.to_owned()),
            None => Ok(()),
        }
    });
    Some(taken)
}

/// What a browser logs in with: a path with a code in it that is good once.
#[derive(Clone, Debug, Deserialize)]
pub struct LoginCode {
    pub path: String,
    pub expires_in_s: u64,
}

pub fn login_code(ctx: &Context, patience: Duration) -> Result<LoginCode, String> {
    let answer = call(ctx, Method::Post, "/v1/login-codes", patience)?;
    login(answer).ok_or_else(|| "an answer without sense".to_owned())
}

/// It goes behind our address: what is no path could make another address of it.
fn login(answer: Value) -> Option<LoginCode> {
    let code: LoginCode = serde_json::from_value(answer).ok()?;
    (code.path.starts_with('/') && !code.path.starts_with("//")).then_some(code)
}

#[derive(Clone, Copy, Debug)]
enum Method {
    Get,
    Delete,
    Post,
}

fn call(ctx: &Context, method: Method, path: &str, patience: Duration) -> Result<Value, String> {
    let Some(daemon) = PidLock::holder(&ctx.home.pid_file("daemon")).ok().flatten() else {
        return Err("the daemon is not running".to_owned());
    };
    // The token outlives the daemon, and is for nobody else: so first, without it, who is there. The
    // second question goes over the same connection.
    let agent = agent(patience);
    let known = ask_for(&agent, api_url(ctx, ask::KNOWN));
    let unheard = known.as_ref().err().copied();
    match judge(Some(daemon), instance(ctx).as_deref(), known) {
        Health::Ok(_) | Health::Degraded(_) => {}
        Health::Foreign => return Err(api_port_taken(ctx, Some(daemon))),
        Health::Silent | Health::Down => {
            return Err(unheard.unwrap_or(AskError::Broken).to_string());
        }
    }
    let token = std::fs::read_to_string(ctx.home.token_file())
        .map_err(|e| format!("{}: {e}", ctx.home.token_file().display()))?;
    let bearer = format!("Bearer {}", token.trim());
    let url = api_url(ctx, path);
    let answer = match method {
        Method::Get => agent.get(url).header("authorization", bearer).call(),
        Method::Delete => agent.delete(url).header("authorization", bearer).call(),
        Method::Post => agent.post(url).header("authorization", bearer).send_empty(),
    };
    match read(answer).map_err(|e| e.to_string())? {
        (200, body) => Ok(body),
        (status, body) => {
            let detail = body.get("detail").or(body.get("title")).and_then(Value::as_str);
            Err(format!("the daemon answered {status}: {}", detail.unwrap_or("no detail")))
        }
    }
}

fn api_url(ctx: &Context, path: &str) -> String {
    format!("http://{}{path}", ctx.loaded.config.daemon.api_addr())
}

fn ask_for(agent: &ureq::Agent, url: String) -> Result<(u16, Value), AskError> {
    read(agent.get(url).call())
}

fn read(
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<(u16, Value), AskError> {
    let mut response = answer.map_err(|e| unheard(&e))?;
    let body = response.body_mut().read_json().map_err(|e| unheard(&e))?;
    Ok((response.status().as_u16(), body))
}

/// Why there is no answer; what was said, and is no answer of ours, is another program's.
fn unheard(error: &ureq::Error) -> AskError {
    let kind = if let ureq::Error::Io(e) = error {
        Some(e.kind())
    } else if let ureq::Error::Json(e) = error {
        e.io_error_kind()
    } else {
        None
    };
    match kind {
        _ if matches!(error, ureq::Error::Timeout(_)) => AskError::Timeout,
        _ if matches!(error, ureq::Error::ConnectionFailed) => AskError::Refused,
        Some(ErrorKind::ConnectionRefused) => AskError::Refused,
        Some(ErrorKind::TimedOut | ErrorKind::WouldBlock) => AskError::Timeout,
        Some(_) => AskError::Broken,
        None => AskError::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_who_holds_the_lock_and_knows_the_instance_is_the_daemon() {
        let says = |pid: u32, instance: &str| Ok((200, json!({"pid": pid, "instance": instance})));
        let judge = |daemon, answer| match judge(daemon, Some("a"), answer) {
            Health::Ok(_) => "ok",
            Health::Degraded(_) => "degraded",
            Health::Foreign => "foreign",
            Health::Silent => "silent",
            Health::Down => "down",
        };
        let ill = Ok((503, json!({"pid": 7, "instance": "a"})));
        for (daemon, answer, expected) in [
            (Some(7), says(7, "a"), "ok"),
            (Some(7), ill, "degraded"),
            (Some(7), says(7, "b"), "foreign"),
            (Some(7), says(8, "a"), "foreign"),
            (Some(7), Ok((200, json!([]))), "foreign"),
            (Some(7), Err(AskError::Foreign), "foreign"),
            (Some(7), Err(AskError::Refused), "silent"),
            (Some(7), Err(AskError::Timeout), "silent"),
            (Some(7), Err(AskError::Broken), "silent"),
            (None, says(7, "a"), "foreign"),
            (None, Err(AskError::Foreign), "foreign"),
            (None, Err(AskError::Refused), "down"),
            (None, Err(AskError::Timeout), "down"),
        ] {
            let shown = format!("{daemon:?} {answer:?}");
            assert_eq!(judge(daemon, answer), expected, "{shown}");
        }
    }

    #[test]
    fn a_login_stays_on_our_address() {
        let path = |path: &str| login(json!({"path": path, "expires_in_s": 60})).map(|c| c.path);
        assert_eq!(path("/#login=0a").as_deref(), Some("/#login=0a"));
        for bad in ["", "@evil.example/", ".evil.example/", "1/", "//evil.example/"] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_edge_says_which_state_of_the_file_it_has_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let now = Stamp::of(file.path()).unwrap();
        let says = |taken: Value, refused: Value| {
            judge_settings(&json!({ "config": taken, "config_refused": refused }), &now)
        };
        let this = || Value::from(now.to_string());
        assert_eq!(says(this(), Value::Null), Settings::InForce);
        assert_eq!(says("1".into(), this()), Settings::Refused);
        assert_eq!(says("1".into(), Value::Null), Settings::Unread);
        assert_eq!(says(Value::Null, Value::Null), Settings::Unread, "it began with none");
        assert_eq!(judge_settings(&json!({}), &now), Settings::InForce, "an old one");
    }

    #[test]
    fn only_an_edge_of_this_home_is_lost() {
        let edge = json!({ "process": "edge", "pid": 7, "home": "00aa" });
        assert_eq!(is_lost(&edge, "00aa"), Some(7));
        assert_eq!(is_lost(&edge, "00ab"), None, "another home's");
        assert_eq!(is_lost(&json!({ "process": "edge", "pid": 7 }), "00aa"), None, "an old one");
        assert_eq!(is_lost(&json!({ "pid": 7, "home": "00aa" }), "00aa"), None);
        assert_eq!(is_lost(&json!([]), "00aa"), None);
    }
}
