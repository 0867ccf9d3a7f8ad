//! Who tries the code that a device shows, and how often: many devices beside each other, few guesses in all.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll};

use super::error::PairError;
use crate::secure::pairing::{ATTEMPTS_MAX, PairingError, PairingStep};
use crate::trust::Guesses;
use crate::trust::files::PrivateFileError;

/// Devices that are in a pairing at one time; for one more the oldest gives way that has tried no code.
pub(super) const TALKS_MAX: usize = 32;

/// The guesses that are left, of all devices together.
pub(super) struct Attempts {
    left: AtomicU32,
    /// Where the code outlives this pairing: what is remembered of it.
    durable: Option<Guesses>,
}

impl Attempts {
    /// A code that was made for this pairing and is shown.
    pub(super) fn of_shown_code() -> Attempts {
        Attempts { left: AtomicU32::new(ATTEMPTS_MAX), durable: None }
    }

    /// A code that comes from elsewhere; refused if it was tried before.
    pub(super) fn of_given_code(guesses: Guesses) -> Result<Attempts, PairError> {
        if guesses.is_spent().map_err(PairError::Guesses)? {
            return Err(PairError::CodeSpent);
        }
        Ok(Attempts { left: AtomicU32::new(1), durable: Some(guesses) })
    }

    pub(super) fn left(&self) -> u32 {
        self.left.load(Ordering::Relaxed)
    }

    fn count(&self) -> Result<bool, PrivateFileError> {
        if self.left() == 0 {
            return Ok(false);
        }
        if let Some(guesses) = &self.durable {
            guesses.spend()?;
        }
        // Of all turns, which one task runs, no other has come in between.
        self.left.fetch_sub(1, Ordering::Relaxed);
        Ok(true)
    }

    fn give_back(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
        if let Some(guesses) = &self.durable
            && let Err(error) = guesses.give_back()
        {
            tracing::warn!(%error, "the code was right and counts as spent all the same");
        }
    }
}

/// How far a device has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    Waits,
    Tried,
    /// It has the code.
    Proven,
}

/// The stage of one device, for its talk and for who counts them.
#[derive(Clone, Default)]
struct Progress(Arc<AtomicU8>);

impl Progress {
    fn get(&self) -> Stage {
        match self.0.load(Ordering::Relaxed) {
            0 => Stage::Waits,
            1 => Stage::Tried,
            _ => Stage::Proven,
        }
    }

    fn set(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Relaxed);
    }
}

/// One device's turn at the code.
#[derive(Clone, Default)]
pub(super) struct Turn<'a> {
    /// `None`: the other side counts.
    attempts: Option<&'a Attempts>,
    stage: Progress,
}

impl<'a> Turn<'a> {
    /// The same turn, at this side's code.
    pub(super) fn counted_by(self, attempts: &'a Attempts) -> Turn<'a> {
        Turn { attempts: Some(attempts), ..self }
    }

    /// Counts a guess, before anybody knows whether it is right; false if none is left.
    pub(super) fn count(&self) -> Result<bool, PrivateFileError> {
        self.stage.set(Stage::Tried);
        self.attempts.map_or(Ok(true), Attempts::count)
    }

    /// A right one costs nothing.
    pub(super) fn judged(
        &self,
        verdict: Result<PairingStep, PairingError>,
    ) -> Result<PairingStep, PairingError> {
        if verdict.is_ok() {
            self.stage.set(Stage::Proven);
            if let Some(attempts) = self.attempts {
                attempts.give_back();
            }
        }
        verdict
    }
}

type Talk<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Devices that are in a pairing, oldest first.
pub(super) struct Talks<'a, T> {
    running: VecDeque<(Progress, Talk<'a, T>)>,
}

impl<T> Default for Talks<'_, T> {
    fn default() -> Self {
        Talks { running: VecDeque::new() }
    }
}

impl<'a, T> Talks<'a, T> {
    /// Begins one more. If there are too many, the oldest that has tried no code is dropped; each of the others has cost a
    /// guess, so they are few.
    pub(super) fn begin<F: Future<Output = T> + Send + 'a>(&mut self, talk: impl FnOnce(Turn<'a>) -> F) {
        if self.running.len() >= TALKS_MAX
            && let Some(idle) = self.running.iter().position(|(stage, _)| stage.get() == Stage::Waits)
        {
            drop(self.running.remove(idle));
        }
        let turn = Turn::default();
        self.running.push_back((turn.stage.clone(), Box::pin(talk(turn))));
    }

    /// Whether somebody has the code and is not done yet.
    pub(super) fn has_proven(&self) -> bool {
        self.running.iter().any(|(stage, _)| stage.get() == Stage::Proven)
    }

    /// What became of the next one that ends; pending while there is none.
    pub(super) async fn next(&mut self) -> T {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        for at in 0..self.running.len() {
            if let Poll::Ready(ended) = self.running[at].1.as_mut().poll(cx) {
                drop(self.running.remove(at));
                return Poll::Ready(ended);
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn who_only_waits_gives_way_and_who_has_tried_a_code_does_not() {
        let mut talks = Talks::default();
        let dropped = Arc::new(AtomicUsize::new(0));
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        for n in 0..3 * TALKS_MAX {
            let counted = Counted(Arc::clone(&dropped));
            talks.begin(|turn| async move {
                let _counted = counted;
                if n == 0 {
                    assert!(turn.count().expect("nothing to write"));
                }
                std::future::pending::<usize>().await
            });
            // Lets the first one try its code.
            let _ = tokio::time::timeout(std::time::Duration::ZERO, talks.next()).await;
        }
        assert_eq!((talks.running.len(), dropped.load(Ordering::Relaxed)), (TALKS_MAX, 2 * TALKS_MAX));
        assert_eq!(talks.running[0].0.get(), Stage::Tried, "the one that tried is still there");
        talks.begin(|_| async { 7 });
        assert_eq!(talks.next().await, 7);
    }

    #[test]
    fn guesses_are_counted_over_all_devices_and_before_they_are_judged() {
        let attempts = Attempts::of_shown_code();
        let turn = Turn::default().counted_by(&attempts);
        for left in (0..ATTEMPTS_MAX).rev() {
            assert!(turn.clone().count().expect("nothing to write"));
            assert_eq!(attempts.left(), left);
        }
        assert!(!turn.count().expect("nothing to write"), "one more than there are");
        let _ = turn.judged(Err(PairingError::WrongCode));
        assert_eq!(attempts.left(), 0);
        let _ = turn.judged(Ok(PairingStep::Continue));
        assert_eq!(attempts.left(), 1);
    }
}
