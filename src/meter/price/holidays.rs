//! Public holidays of a country, on which nothing costs more than at night.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;
use serde::Deserialize;

/// As the book lists them, by the country's own days.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Holidays {
    /// The hours that its clocks are ahead of UTC.
    ahead: i8,
    /// The last day of which it is known.
    until: Date,
    dates: Vec<Date>,
}

impl Holidays {
    pub(super) fn contains(&self, at: Timestamp) -> bool {
        self.dates.contains(&self.day(at))
    }

    pub(super) fn knows(&self, at: Timestamp) -> bool {
        self.day(at) <= self.until
    }

    pub(super) fn until(&self) -> Date {
        self.until
    }

    fn day(&self, at: Timestamp) -> Date {
        let offset = Offset::from_hours(self.ahead).unwrap_or(Offset::UTC);
        offset.to_datetime(at).date()
    }
}
