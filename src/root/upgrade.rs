//! The root changes to a new program in place: same pid, port and lock kept. Its children are found
//! again by their locks, as after a crash of ours; of an edge, which may live without, it knows the pid.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedReceiver;

use super::port::Port;
use super::{LastImage, Order};
use crate::home::{Home, PidLock};
use crate::inherit::{self, Number};
use crate::supervisor::Journal;
use crate::supervisor::journal::Note;
use crate::threads;

/// Of the state below.
pub const FORMAT: u32 = 1;

#[derive(Debug, Deserialize, Serialize)]
struct State {
    format: u32,
    listener: Option<Number>,
    lock: Number,
    /// Images of before don't tell.
    #[serde(default)]
    shared: bool,
    #[serde(default)]
    edge: Option<u32>,
}

/// Replaces the image, unless another order comes meanwhile; returns why that was not done.
pub(super) async fn run(
    home: &Home,
    port: &Port,
    lock: Option<&PidLock>,
    edge: Option<u32>,
    journal: &Journal,
    orders: &UnboundedReceiver<Order>,
) -> String {
    let Some(lock) = lock else { return "there is no lock to hand on".to_owned() };
    let program = match inherit::requested(home) {
        Ok(program) => program,
        Err(e) => return e.to_string(),
    };
    let asked = program.clone();
    let ready = threads::blocking(move || inherit::preflight(&asked, "root", FORMAT));
    if let Err(why) = ready.await.unwrap_or_else(|e| Err(e.to_string())) {
        return why;
    }
    journal.append(Note::new("upgrading"));
    journal.flush(Duration::from_millis(500));
    let error = (|| {
        let mut file = inherit::state_file(&home.run_dir())?;
        // Closed again if this fails.
        let handle = lock.handle()?.ok_or(io::ErrorKind::NotFound)?;
        let lock = inherit::leave(&handle, true)?;
        let shared = port.is_shared();
        let state = State { format: FORMAT, listener: port.leave(true)?, lock, shared, edge };
        let content = serde_json::to_vec(&state)?;
        let (arguments, told) = (std::env::args_os().skip(1), || !orders.is_empty());
        Err::<(), _>(inherit::replace(&program, arguments, &mut file, &content, told))
    })();
    let _ = port.leave(false);
    error.map_or_else(|e: io::Error| e.to_string(), |()| String::new())
}

/// What the last image held, if there was one; its socket goes to `port`.
pub(super) fn received(home: &Home, port: &Port) -> io::Result<Option<(PidLock, LastImage)>> {
    let Some(content) = inherit::received()? else { return Ok(None) };
    let state: State = serde_json::from_slice(&content)?;
    let lock = PidLock::inherited(home.pid_file("root"), inherit::take(state.lock)?);
    if let Some(listener) = state.listener {
        port.resume(TcpListener::from(inherit::take(listener)?), state.shared);
    }
    Ok(Some((lock, LastImage { edge: state.edge })))
}
