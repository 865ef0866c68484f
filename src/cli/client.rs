//! Asks the processes themselves, over localhost HTTP: a frozen daemon must not read as healthy.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use super::Context;
use crate::edge::door;
use crate::home::PidLock;

/// For the edge to hand out its socket, which takes it no time.
const NEAR: Duration = Duration::from_millis(300);

/// For processes to find a home again that was removed under them. The edge takes longest.
const FOUND: Duration = Duration::from_secs(10);

/// How the daemon answered `/health`.
#[derive(Clone, Debug)]
pub enum Health {
    Ok(Value),
    Degraded(Value),
    /// Somebody answers, but not the process that holds our lock.
    Foreign,
    /// Our process lives, but says nothing.
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
    pub health: Health,
}

impl Tree {
    /// Looks at locks and asks edge and daemon, each within `patience`.
    pub fn look(ctx: &Context, patience: Duration) -> Self {
        let holder = |name: &str| PidLock::holder(&ctx.home.pid_file(name)).ok().flatten();
        let (edge, daemon) = (holder("edge"), holder("daemon"));
        let edge_answer = edge.and_then(|pid| edge_status(ctx, pid, patience));
        let lost_edge = if edge.is_none() { lost_edge(ctx, patience) } else { None };
        let answer = get(ctx.loaded.config.daemon.api_addr(), "/health", None, patience);
        let health = match (daemon, answer) {
            (None, Ok(_)) => Health::Foreign,
            (None, Err(_)) => Health::Down,
            (Some(_), Err(_)) => Health::Silent,
            (Some(pid), Ok((status, body))) => {
                if body.get("pid").and_then(Value::as_u64) != Some(u64::from(pid)) {
                    Health::Foreign
                } else if status == 200 {
                    Health::Ok(body)
                } else {
                    Health::Degraded(body)
                }
            }
        };
        Self {
            root: holder("root"),
            edge,
            daemon,
            watchdog: holder("watchdog"),
            edge_answer,
            lost_edge,
            health,
        }
    }

    /// The same, after a home that was removed under its processes is theirs again.
    pub fn look_when_found(ctx: &Context, patience: Duration) -> Self {
        await_lost(ctx, patience);
        Self::look(ctx, patience)
    }

    /// The daemon is well, and the edge knows it. (Asking the edge makes it look.)
    pub fn metering(&self) -> bool {
        let verdict = self.edge_answer.as_ref().and_then(|a| a.get("verdict"));
        verdict.and_then(Value::as_str) == Some("healthy") && matches!(self.health, Health::Ok(_))
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

/// Pid of an edge that serves this home on the configured port, although nothing in the home tells of
/// it: somebody removed the home, or moved it away.
fn lost_edge(ctx: &Context, patience: Duration) -> Option<u32> {
    let (_, body) = get(ctx.loaded.config.edge.addr(), "/health", None, patience).ok()?;
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
    let (_, body) = get(edge, "/health", None, patience).ok()?;
    (body.get("pid").and_then(Value::as_u64) == Some(u64::from(pid))).then_some(body)
}

/// A call of the admin API with the token of the run directory.
pub fn api(ctx: &Context, path: &str, patience: Duration) -> Result<Value, String> {
    call(ctx, Method::Get, path, patience)
}

/// Lets the clients try again that stay raw because they did not accept our certificate.
pub fn clear_bypass(ctx: &Context, patience: Duration) -> Result<u64, String> {
    let answer = call(ctx, Method::Delete, "/v1/bypass", patience)?;
    answer
        .get("cleared")
        .and_then(Value::as_u64)
        .ok_or_else(|| "an answer without sense".to_owned())
}

/// What a browser logs in with: a path with a code in it that is good once.
#[derive(Clone, Debug, Deserialize)]
pub struct LoginCode {
    pub path: String,
    pub expires_in_s: u64,
}

pub fn login_code(ctx: &Context, patience: Duration) -> Result<LoginCode, String> {
    let answer = call(ctx, Method::Post, "/v1/login-codes", patience)?;
    serde_json::from_value(answer).map_err(|_| "an answer without sense".to_owned())
}

#[derive(Clone, Copy, Debug)]
enum Method {
    Get,
    Delete,
    Post,
}

fn call(ctx: &Context, method: Method, path: &str, patience: Duration) -> Result<Value, String> {
    let token = std::fs::read_to_string(ctx.home.token_file())
        .map_err(|e| format!("{}: {e}", ctx.home.token_file().display()))?;
    let addr = ctx.loaded.config.daemon.api_addr();
    match ask(addr, method, path, Some(token.trim()), patience)? {
        (200, body) => Ok(body),
        (status, body) => {
            let detail = body.get("detail").or(body.get("title")).and_then(Value::as_str);
            Err(format!("the daemon answered {status}: {}", detail.unwrap_or("no detail")))
        }
    }
}

fn get(
    addr: SocketAddr,
    path: &str,
    token: Option<&str>,
    patience: Duration,
) -> Result<(u16, Value), String> {
    ask(addr, Method::Get, path, token, patience)
}

fn ask(
    addr: SocketAddr,
    method: Method,
    path: &str,
    token: Option<&str>,
    patience: Duration,
) -> Result<(u16, Value), String> {
    // No proxy: the variables of this environment may point at our own edge.
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(patience))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into();
    let url = format!("http://{addr}{path}");
    let answer = match method {
        Method::Get => bearing(agent.get(url), token).call(),
        Method::Delete => bearing(agent.delete(url), token).call(),
        Method::Post => bearing(agent.post(url), token).send_empty(),
    };
    let mut response = answer.map_err(|e| e.to_string())?;
    let body = response.body_mut().read_json().map_err(|e| e.to_string())?;
    Ok((response.status().as_u16(), body))
}

fn bearing<Body>(
    request: ureq::RequestBuilder<Body>,
    token: Option<&str>,
) -> ureq::RequestBuilder<Body> {
    match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
