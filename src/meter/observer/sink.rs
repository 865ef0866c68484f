//! Where what was observed goes.

use jiff::Timestamp;
use uuid::Uuid;

use crate::meter::bodies::{Capture, Keeper};
use crate::meter::ledger::Intake;
use crate::meter::row::Row;

/// Where rows go. Must not block: it is called between two chunks of a live connection.
pub trait RowSink: Send + Sync {
    /// Writes the row; the same id again replaces it.
    fn record(&self, row: Row);

    /// Calls `then` when everything recorded so far is kept.
    fn when_kept(&self, then: Box<dyn FnOnce() + Send>) {
        then();
    }

    /// What comes on this connection from now on is seen by nobody.
    fn lost_sight(&self, _connection: Uuid, _at: Timestamp, _host: &str) {}

    /// For an exchange whose bodies are wanted too.
    fn begin_bodies(&self) -> Option<Capture> {
        None
    }

    /// Its bodies, now that it is over.
    fn keep_bodies(&self, _id: Uuid, _bodies: Capture) {}

    /// Whether rows can be taken at all; if not, new connections stay raw.
    fn accepts(&self) -> bool {
        true
    }
}

impl RowSink for Intake {
    fn record(&self, row: Row) {
        Self::record(self, row);
    }

    fn when_kept(&self, then: Box<dyn FnOnce() + Send>) {
        Self::when_kept(self, then);
    }

    fn lost_sight(&self, connection: Uuid, at: Timestamp, host: &str) {
        Self::lost_sight(self, connection, at, host);
    }

    fn accepts(&self) -> bool {
        self.stats().degraded.is_none()
    }
}

/// Rows to the ledger, bodies to who keeps them.
#[derive(Clone, Debug)]
pub struct Recorder {
    pub rows: Intake,
    pub bodies: Keeper,
}

impl RowSink for Recorder {
    fn record(&self, row: Row) {
        self.rows.record(row);
    }

    fn when_kept(&self, then: Box<dyn FnOnce() + Send>) {
        self.rows.when_kept(then);
    }

    fn lost_sight(&self, connection: Uuid, at: Timestamp, host: &str) {
        self.rows.lost_sight(connection, at, host);
    }

    fn begin_bodies(&self) -> Option<Capture> {
        self.bodies.begin()
    }

    fn keep_bodies(&self, id: Uuid, bodies: Capture) {
        self.bodies.keep(id, bodies);
    }

    fn accepts(&self) -> bool {
        RowSink::accepts(&self.rows)
    }
}
