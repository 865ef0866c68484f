//! How long a process may be silent.

use std::sync::Arc;
use std::time::Duration;

/// Between two questions.
pub const PERIOD: Duration = Duration::from_secs(2);
/// Silences in a row that make a process frozen: about 15 s with the patience of each question.
const SILENCES: u32 = 5;
/// A question that took longer was slept through, with the machine or with us, and says nothing.
const SLEPT: Duration = Duration::from_secs(6);

/// Asks a process, blocking for a moment.
pub type Question = Arc<dyn Fn() -> Answer + Send + Sync>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    Alive,
    /// It took the question and said nothing.
    Silent,
    /// It could not be asked.
    Unknown,
}

/// Counts silences, pure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    silences: u32,
}

impl Patience {
    /// True: it is frozen.
    pub fn step(&mut self, answer: Answer, took: Duration) -> bool {
        match answer {
            Answer::Silent if took > SLEPT => {}
            Answer::Silent => self.silences += 1,
            Answer::Alive | Answer::Unknown => self.silences = 0,
        }
        self.silences >= SILENCES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_silence_in_a_row_is_frozen() {
        let mut patience = Patience::default();
        for _ in 1..SILENCES {
            assert!(!patience.step(Answer::Silent, SECOND));
        }
        assert!(!patience.step(Answer::Silent, SLEPT * 2), "slept through");
        assert!(!patience.step(Answer::Alive, SECOND));
        for _ in 1..SILENCES {
            assert!(!patience.step(Answer::Silent, SECOND));
        }
        assert!(!patience.step(Answer::Unknown, SECOND), "not to be asked is not silent");
        for _ in 1..SILENCES {
            assert!(!patience.step(Answer::Silent, SECOND));
        }
        assert!(patience.step(Answer::Silent, SECOND));
    }
}
