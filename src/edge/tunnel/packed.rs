//! A tunnel at rest, as an upgrade of the edge writes it down.

use std::io;
use std::net::TcpStream;

use serde::{Deserialize, Serialize};

use super::{Direction, Filter, Flow, Tunnel};
use crate::edge::extent::{Answer, Extent};
use crate::edge::forward::ResponseGate;
use crate::edge::socket::Socket;

/// A tunnel without its sockets: what an upgrade of the edge carries over. `B` holds bytes.
#[derive(Debug, Deserialize, Serialize)]
pub struct Packed<B> {
    up: PackedDirection<B>,
    down: PackedDirection<B>,
    shared_client: bool,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct PackedDirection<B> {
    bytes: u64,
    flow: Flow,
    left: B,
    gate: Option<B>,
    #[serde(default)]
    answer: Answer,
    /// An image that does not know them passes all.
    #[serde(default)]
    extent: Option<Extent>,
    #[serde(default)]
    rest: Option<Extent>,
}

impl Tunnel {
    /// What it holds, as a copy: this tunnel can go on as if nothing had happened.
    ///
    /// # Errors
    /// When the bytes in a pipe can't be read.
    pub fn pack(&mut self) -> io::Result<Packed<Vec<u8>>> {
        let (up, down) = (self.up.pack()?, self.down.pack()?);
        Ok(Packed { up, down, shared_client: self.shared_client })
    }

    /// Goes on where a packed tunnel stood.
    #[must_use]
    pub fn unpack(client: TcpStream, server: TcpStream, packed: Packed<Vec<u8>>) -> Self {
        let Packed { up, down, shared_client } = packed;
        Self {
            client: Socket::new(client),
            server: Socket::new(server),
            up: Direction::unpack(up),
            down: Direction::unpack(down),
            shared_client,
        }
    }
}

impl<B> Packed<B> {
    pub fn map<C>(self, mut to: impl FnMut(B) -> C) -> Packed<C> {
        let Self { up, down, shared_client } = self;
        Packed { up: up.map(&mut to), down: down.map(&mut to), shared_client }
    }

    /// # Errors
    /// The first that `to` gives.
    pub fn try_map<C, E>(self, mut to: impl FnMut(B) -> Result<C, E>) -> Result<Packed<C>, E> {
        let Packed { up, down, shared_client } = self.map(&mut to);
        Ok(Packed { up: up.transpose()?, down: down.transpose()?, shared_client })
    }
}

impl<B> PackedDirection<B> {
    fn new(bytes: u64, flow: Flow, left: B) -> Self {
        let answer = Answer::Open;
        Self { bytes, flow, left, gate: None, answer, extent: None, rest: None }
    }

    fn map<C>(self, to: &mut impl FnMut(B) -> C) -> PackedDirection<C> {
        let Self { bytes, flow, left, gate, answer, extent, rest } = self;
        let (left, gate) = (to(left), gate.map(to));
        PackedDirection { bytes, flow, left, gate, answer, extent, rest }
    }
}

impl<C, E> PackedDirection<Result<C, E>> {
    fn transpose(self) -> Result<PackedDirection<C>, E> {
        let Self { bytes, flow, left, gate, answer, extent, rest } = self;
        let (left, gate) = (left?, gate.transpose()?);
        Ok(PackedDirection { bytes, flow, left, gate, answer, extent, rest })
    }
}

impl Direction {
    pub(super) fn pack(&mut self) -> io::Result<PackedDirection<Vec<u8>>> {
        if let Some(mut pipe) = self.pipe.take() {
            // The pipe ends with this image. Its bytes come behind what was left before.
            let mut bytes = self.left.take().map(|left| left.rest().to_vec()).unwrap_or_default();
            pipe.empty_into(&mut bytes)?;
            self.leave(bytes);
        }
        let left = self.left.as_ref().map(|left| left.rest().to_vec()).unwrap_or_default();
        let mut packed = PackedDirection::new(self.bytes, self.flow, left);
        match self.filter.as_deref() {
            Some(Filter::Gate(gate)) => {
                packed.gate = Some(gate.held().to_vec());
                packed.answer = gate.answer();
            }
            Some(Filter::Extent(extent)) => packed.extent = Some(extent.clone()),
            Some(Filter::Rest(rest)) => packed.rest = Some(rest.clone()),
            None => {}
        }
        Ok(packed)
    }

    pub(super) fn unpack(packed: PackedDirection<Vec<u8>>) -> Self {
        let PackedDirection { bytes, flow, left, gate, answer, extent, rest } = packed;
        let gate = gate.map(|held| Filter::Gate(ResponseGate::resume(held, answer)));
        let filter = gate.or(extent.map(Filter::Extent)).or(rest.map(Filter::Rest));
        let mut direction = Self { bytes, flow, filter: filter.map(Box::new), ..Self::default() };
        direction.leave(left);
        direction
    }
}
