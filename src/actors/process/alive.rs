//! How long a process may be silent, and who asks it.

use std::fmt;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::beat::{self, PERIOD};

/// Silences in a row that make a process frozen: 10 s, and the patience of each question.
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

/// Asks everybody in one go, on a thread of its own, which wakes no actor unless one is frozen. Clones
/// share.
#[derive(Clone, Debug, Default)]
pub struct Asker(Arc<Mutex<Rounds>>);

#[derive(Debug, Default)]
struct Rounds {
    watched: Vec<Watched>,
    /// There is a thread; it ends when nobody is watched any more.
    running: bool,
}

struct Watched {
    question: Question,
    patience: Patience,
    /// Closed by who does not want to know any more.
    frozen: oneshot::Sender<()>,
}

impl Asker {
    /// The receiver is told once, when it is frozen.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn watch(&self, question: Question) -> io::Result<oneshot::Receiver<()>> {
        let (frozen, told) = oneshot::channel();
        let mut rounds = self.lock();
        if !rounds.running {
            let asker = self.clone();
            let thread = thread::Builder::new().name("ask".to_owned()).stack_size(64 * 1024);
            thread.spawn(move || asker.live())?;
            rounds.running = true;
        }
        rounds.watched.push(Watched { question, patience: Patience::default(), frozen });
        Ok(told)
    }

    fn live(&self) {
        let mut rest = beat::until(PERIOD);
        loop {
            thread::sleep(rest);
            // The lock is not held while they are asked.
            let watched = mem::take(&mut self.lock().watched);
            let (left, answers) = round(watched);
            let mut rounds = self.lock();
            rounds.watched.extend(left);
            if rounds.watched.is_empty() {
                rounds.running = false;
                return;
            }
            // Who says nothing has a whole period to think of something.
            let silent = answers.contains(&Answer::Silent);
            rest = if silent { PERIOD } else { beat::until(PERIOD) };
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Rounds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One question each; who is to be asked again, and what they said.
fn round(watched: Vec<Watched>) -> (Vec<Watched>, Vec<Answer>) {
    let (mut left, mut answers) = (Vec::new(), Vec::new());
    for mut one in watched.into_iter().filter(|one| !one.frozen.is_closed()) {
        let asked = Instant::now();
        // A panic must not leave the others without anybody who asks.
        let answer = catch_unwind(AssertUnwindSafe(|| (one.question)()));
        let answer = answer.unwrap_or(Answer::Unknown);
        answers.push(answer);
        if one.patience.step(answer, asked.elapsed()) {
            let _ = one.frozen.send(());
        } else {
            left.push(one);
        }
    }
    (left, answers)
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("patience", &self.patience).finish_non_exhaustive()
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

    #[test]
    fn one_that_is_frozen_is_told_of_once_and_one_that_nobody_watches_is_not_asked() {
        let one = |answer: Answer| {
            let (frozen, told) = oneshot::channel();
            let question: Question = Arc::new(move || answer);
            (Watched { question, patience: Patience::default(), frozen }, told)
        };
        let ((well, well_told), (ill, mut ill_told)) = (one(Answer::Alive), one(Answer::Silent));
        let (forgotten, nobody) = one(Answer::Alive);
        drop(nobody);
        let mut watched = vec![well, ill, forgotten];
        for _ in 1..SILENCES {
            let answers;
            (watched, answers) = round(watched);
            assert_eq!(answers, [Answer::Alive, Answer::Silent]);
            assert_eq!(ill_told.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        }
        (watched, _) = round(watched);
        assert_eq!((watched.len(), ill_told.try_recv()), (1, Ok(())));
        assert!(round(watched).1 == [Answer::Alive]);
        drop(well_told);
    }

    #[test]
    fn a_question_that_panics_is_asked_again() {
        let (frozen, told) = oneshot::channel();
        let question: Question = Arc::new(|| panic!("a test's"));
        let watched = vec![Watched { question, patience: Patience::default(), frozen }];
        let (watched, answers) = round(watched);
        assert_eq!((watched.len(), answers), (1, vec![Answer::Unknown]));
        drop(told);
    }
}
