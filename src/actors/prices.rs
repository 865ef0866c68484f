//! Loads the price book and publishes it to whoever prices a request.

use actix::{Actor, Context};
use serde_json::{Value, json};

use super::meter::Meter;
use crate::meter::price::Book;
use crate::supervisor::{Birth, Child};

/// The actor.
#[derive(Debug)]
pub struct Prices {
    birth: Birth,
    meter: Meter,
}

impl Prices {
    #[must_use]
    pub fn new(birth: Birth, meter: Meter) -> Self {
        Self { birth, meter }
    }
}

impl Actor for Prices {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.meter.publish_book(Book::builtin());
        self.birth.ready();
    }
}

impl Child for Prices {
    fn observe(&self) -> Value {
        json!({ "loaded": self.meter.prices_loaded() })
    }
}
