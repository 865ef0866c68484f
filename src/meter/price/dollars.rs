//! An amount as people write it: prices and budgets of their own.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::money::{nano_from_decimal, usd};

/// An amount that is kept in nano-dollars and written as a decimal number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Dollars(pub(super) u64);

impl Dollars {
    #[must_use]
    pub fn nano(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Dollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&usd(i64::try_from(self.0).unwrap_or(i64::MAX)))
    }
}

impl std::str::FromStr for Dollars {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().trim_start_matches('$');
        let nano = nano_from_decimal(text).and_then(|nano| u64::try_from(nano).ok());
        nano.map(Self).ok_or("expected dollars, like 1.25")
    }
}

impl Serialize for Dollars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Dollars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;
        impl Visitor<'_> for Amount {
            type Value = Dollars;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("dollars, like 1.25 or \"1.25\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Dollars, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, whole: i64) -> Result<Dollars, E> {
                self.visit_str(&whole.to_string())
            }

            // The shortest text of a float is what the user wrote.
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Dollars, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Amount)
    }
}
