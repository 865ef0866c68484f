//! What an edge writes down for the next image of itself, and how that reads it.
//!
//! One JSON document with numbers of descriptors, then the bytes that it refers to. The format has
//! a number of its own: an image that does not know it says so at its preflight, and the old one
//! goes on.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::Instant;
use uuid::Uuid;

use super::connect::{Reader, Request, Target};
use super::live::{Asked, Head, Live, Metered, Passed, Raw, Stage, Started};
use super::route::{self, Reason};
use super::status::Totals;
use super::tunnel::{Packed, Tunnel};
use super::tunnels::Rest;
use crate::inherit::{self, Number};

/// Of the document.
pub const FORMAT: u32 = 1;

/// A whole edge.
#[derive(Debug, Deserialize, Serialize)]
pub struct State {
    pub format: u32,
    /// Of the program that wrote it.
    pub version: String,
    /// How many images this process has had.
    pub image: u64,
    pub listener: Number,
    /// Of the pid file.
    pub lock: Option<Number>,
    pub totals: Totals,
    connections: Vec<Connection>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", tag = "stage")]
enum Connection {
    Head { client: Number, taken: Blob },
    Asked { client: Number, target: Target, forward: Option<Blob> },
    Metered { client: Number, target: Target, started: Moment },
    Tunnel { client: Number, server: Number, tunnel: Box<Packed<Blob>>, passed: Option<PassedBy> },
}

/// Bytes behind the document.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Blob {
    at: usize,
    len: usize,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Moment {
    id: Uuid,
    at: Timestamp,
    age_us: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct PassedBy {
    target: Target,
    started: Moment,
    reason: String,
}

impl State {
    /// Writes down every live connection and lets its descriptors live on. After a failure, or if
    /// the upgrade fails later, [`keep`] takes the latter back; nothing else has changed.
    ///
    /// # Errors
    /// When a descriptor or a pipe's content can't be had.
    pub fn pack(
        listener: Number,
        lock: Option<Number>,
        image: u64,
        totals: Totals,
        live: &Live,
        tunnels: &Rest<'_>,
    ) -> io::Result<Vec<u8>> {
        let mut blobs = Vec::new();
        let mut connections = Vec::new();
        let mut failed = None;
        live.for_each(|stage| match pack_stage(stage, &mut blobs) {
            Ok(connection) => connections.extend(connection),
            Err(e) => failed = Some(e),
        });
        tunnels.for_each(|tunnel, passed| match pack_tunnel(tunnel, passed, &mut blobs) {
            Ok(connection) => connections.push(connection),
            Err(e) => failed = Some(e),
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let state = Self { format: FORMAT, version, image, listener, lock, totals, connections };
        state.written(&blobs)
    }

    fn written(&self, blobs: &[u8]) -> io::Result<Vec<u8>> {
        let document = serde_json::to_vec(self)?;
        let length = (document.len() as u64).to_le_bytes();
        Ok([&length[..], &document, blobs].concat())
    }

    /// Reads what [`State::pack`] wrote: the state, and the connections as stages to go on from.
    /// One that can't be restored is left out and counted.
    ///
    /// # Errors
    /// When it is not the state of an edge of this format.
    pub fn unpack(content: &[u8]) -> io::Result<(Self, Vec<Stage>, usize)> {
        Self::unpack_with(content, &mut inherit::take)
    }

    fn unpack_with(content: &[u8], take: Take<'_>) -> io::Result<(Self, Vec<Stage>, usize)> {
        let broken = || io::Error::other("not the state of an edge");
        let (length, rest) = content.split_first_chunk::<8>().ok_or_else(broken)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(io::Error::other)?;
        let (document, blobs) = rest.split_at_checked(length).ok_or_else(broken)?;
        let mut state: Self = serde_json::from_slice(document)?;
        if state.format != FORMAT {
            return Err(io::Error::other(format!("state of format {}", state.format)));
        }
        let connections = std::mem::take(&mut state.connections);
        let all = connections.len();
        let stages: Vec<_> =
            connections.into_iter().filter_map(|c| unpack_stage(c, blobs, take).ok()).collect();
        let left_out = all - stages.len();
        Ok((state, stages, left_out))
    }
}

/// Takes back that the descriptors of live connections live on.
pub fn keep(live: &Live, tunnels: &Rest<'_>) {
    let both = |tunnel: &Tunnel| {
        let (client, server) = tunnel.sockets();
        stay(client);
        stay(server);
    };
    live.for_each(|stage| match stage {
        Stage::Head(head) => stay(&head.client),
        Stage::Asked(asked) => stay(&asked.client),
        Stage::Metered(metered) => stay(&metered.client),
        Stage::Tunnel(raw) => both(&raw.tunnel),
        Stage::Secure | Stage::Over => {}
    });
    tunnels.for_each(|tunnel, _| both(tunnel));
}

fn stay(socket: impl AsFd) {
    // It could be set, so it can be set back.
    let _ = inherit::leave(socket, false);
}

fn pack_stage(stage: &mut Stage, blobs: &mut Vec<u8>) -> io::Result<Option<Connection>> {
    if stage.stays() {
        // No request is to end for an upgrade.
        return Err(io::Error::other(
            "a request for an https:// address in absolute form is under way",
        ));
    }
    let number = |socket: &TcpStream| inherit::leave(socket, true);
    Ok(Some(match stage {
        Stage::Head(head) => Connection::Head {
            client: number(&head.client)?,
            taken: put(blobs, head.reader.taken()),
        },
        Stage::Asked(asked) => {
            let client = number(&asked.client)?;
            match &asked.request {
                Request::Connect(target) => {
                    Connection::Asked { client, target: target.clone(), forward: None }
                }
                Request::Forward { target, head, secure: _ } => Connection::Asked {
                    client,
                    target: target.clone(),
                    forward: Some(put(blobs, head)),
                },
                Request::Health | Request::Passing => return Ok(None),
            }
        }
        Stage::Metered(metered) => {
            let (client, target) = (number(&metered.client)?, metered.target.clone());
            match &metered.head {
                // Nothing is answered yet: as good as just asked.
                Some(head) => Connection::Asked { client, target, forward: Some(put(blobs, head)) },
                None => Connection::Metered { client, target, started: metered.started.into() },
            }
        }
        Stage::Tunnel(raw) => pack_tunnel(&mut raw.tunnel, raw.passed.as_ref(), blobs)?,
        Stage::Secure | Stage::Over => return Ok(None),
    }))
}

fn pack_tunnel(
    tunnel: &mut Tunnel,
    passed: Option<&Passed>,
    blobs: &mut Vec<u8>,
) -> io::Result<Connection> {
    let (client, server) = tunnel.sockets();
    Ok(Connection::Tunnel {
        client: inherit::leave(client, true)?,
        server: inherit::leave(server, true)?,
        tunnel: Box::new(tunnel.pack()?.map(|bytes| put(blobs, &bytes))),
        passed: passed.map(PassedBy::from),
    })
}

fn unpack_stage(connection: Connection, blobs: &[u8], take: Take<'_>) -> io::Result<Stage> {
    Ok(match connection {
        Connection::Head { client, taken } => Stage::Head(Box::new(Head {
            client: socket(client, take)?,
            reader: Reader::resume(get(blobs, taken)?),
        })),
        Connection::Asked { client, target, forward } => Stage::Asked(Box::new(Asked {
            client: socket(client, take)?,
            request: match forward {
                Some(head) => Request::Forward { target, head: get(blobs, head)?, secure: false },
                None => Request::Connect(target),
            },
        })),
        Connection::Metered { client, target, started } => Stage::Metered(Box::new(Metered {
            client: socket(client, take)?,
            target,
            started: started.into(),
            head: None,
            how: route::Asked::Tunnel,
        })),
        Connection::Tunnel { client, server, tunnel, passed } => {
            let (client, server) = (plain_socket(client, take)?, plain_socket(server, take)?);
            let packed = tunnel.try_map(|blob| get(blobs, blob))?;
            let tunnel = Tunnel::unpack(client, server, packed);
            Stage::Tunnel(Box::new(Raw { tunnel, passed: passed.and_then(PassedBy::read) }))
        }
    })
}

/// Turns a number that the last image left into a descriptor.
type Take<'a> = &'a mut dyn FnMut(Number) -> io::Result<OwnedFd>;

fn socket(number: Number, take: Take<'_>) -> io::Result<TcpStream> {
    TcpStream::from_std(plain_socket(number, take)?)
}

fn plain_socket(number: Number, take: Take<'_>) -> io::Result<std::net::TcpStream> {
    let socket = std::net::TcpStream::from(take(number)?);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn put(blobs: &mut Vec<u8>, bytes: &[u8]) -> Blob {
    let at = blobs.len();
    blobs.extend_from_slice(bytes);
    Blob { at, len: bytes.len() }
}

fn get(blobs: &[u8], blob: Blob) -> io::Result<Vec<u8>> {
    let end = blob.at.checked_add(blob.len);
    let bytes = end.and_then(|end| blobs.get(blob.at..end));
    bytes.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Reads a state and writes it down again, then lets its connections go on a bit, for the fuzzer.
/// `take` stands for what `execve` left.
#[cfg(any(test, fuzzing))]
pub(crate) fn again(content: &[u8], take: Take<'_>) -> io::Result<Vec<u8>> {
    let (mut state, mut stages, _) = State::unpack_with(content, take)?;
    let mut blobs = Vec::new();
    for stage in &mut stages {
        state.connections.extend(pack_stage(stage, &mut blobs)?);
    }
    let written = state.written(&blobs)?;
    for stage in stages {
        match stage {
            Stage::Head(mut head) => drop(head.reader.feed(b"\r\n\r\n")),
            Stage::Tunnel(mut raw) => drop(raw.tunnel.run()),
            Stage::Asked(_) | Stage::Metered(_) | Stage::Secure | Stage::Over => {}
        }
    }
    Ok(written)
}

impl From<Started> for Moment {
    fn from(started: Started) -> Self {
        let age = started.clock.elapsed().as_micros();
        Self { id: started.id, at: started.at, age_us: u64::try_from(age).unwrap_or(u64::MAX) }
    }
}

impl From<Moment> for Started {
    fn from(moment: Moment) -> Self {
        let now = Instant::now();
        let clock = now.checked_sub(Duration::from_micros(moment.age_us)).unwrap_or(now);
        Self { id: moment.id, at: moment.at, clock }
    }
}

impl From<&Passed> for PassedBy {
    fn from(passed: &Passed) -> Self {
        Self {
            target: passed.target.clone(),
            started: passed.started.into(),
            reason: passed.reason.as_str().to_owned(),
        }
    }
}

impl PassedBy {
    fn read(self) -> Option<Passed> {
        let reason = Reason::parse(&self.reason)?;
        Some(Passed { target: self.target, started: self.started.into(), reason })
    }
}

#[cfg(test)]
#[path = "takeover_tests.rs"]
mod tests;
