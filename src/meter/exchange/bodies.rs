//! The bodies of an exchange, for who wants them kept.

use super::Exchange;
use crate::meter::bodies::Capture;

impl Exchange {
    /// Holds the bodies too; [`Exchange::captured`] gives them.
    pub fn capture(&mut self, capture: Option<Capture>) {
        self.capture = capture;
    }

    /// The bodies, once it is over and if they were wanted.
    pub fn captured(&mut self) -> Option<Capture> {
        if !self.is_finished() {
            return None;
        }
        let mut capture = self.capture.take().filter(|capture| !capture.is_empty())?;
        let response = &mut capture.response;
        response.unread = response.unread.take().or_else(|| self.response.lossy());
        Some(capture)
    }
}
