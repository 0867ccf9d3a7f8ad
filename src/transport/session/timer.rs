//! The one timer of a driver.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use crate::time::Instant;
use crate::transport::clock::Clock;

/// Tokio's timers know no shorter time; also keeps a deadline that has just been served from being served again and again.
const TIMER_RESOLUTION: Duration = Duration::from_millis(1);

/// A sleep that rings no later than what is due.
#[derive(Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When it rings, while it has not.
    armed: Option<Instant>,
}

impl Timer {
    /// Ready when `due` has come, or sooner: deadlines move with each packet, and setting the sleep anew each time costs more
    /// than a ring in vain now and then. What is due now was served in this turn and is looked at again a little later.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        clock: &Clock,
        now: Instant,
        due: Option<Instant>,
    ) -> Poll<()> {
        let Some(due) = due else { return Poll::Pending };
        let due = due.max(now + TIMER_RESOLUTION);
        let deadline = || clock.to_tokio(due);
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if self.armed.is_none_or(|armed| armed > due) {
                    sleep.as_mut().reset(deadline());
                    self.armed = Some(due);
                }
                sleep
            }
            empty => {
                self.armed = Some(due);
                empty.insert(Box::pin(tokio::time::sleep_until(deadline())))
            }
        };
        ready!(sleep.as_mut().poll(cx));
        self.armed = None;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// When it rings for a deadline at each of these, asked for one after the other, in milliseconds.
    async fn rings(deadlines: &[u64]) -> Vec<u64> {
        let (clock, mut timer, mut rung) = (Clock::new(), Timer::default(), Vec::new());
        for due in deadlines {
            let due = Instant::from_micros(due * 1000);
            // Once in vain, as a packet comes; then until it rings.
            let asked = poll_fn(|cx| Poll::Ready(timer.poll(cx, &clock, clock.now(), Some(due)))).await;
            assert!(asked.is_pending(), "nothing is due yet");
        }
        let last = Instant::from_micros(deadlines.last().expect("a deadline") * 1000);
        while clock.now() < last {
            poll_fn(|cx| timer.poll(cx, &clock, clock.now(), Some(last))).await;
            rung.push(clock.now().as_micros() / 1000);
        }
        rung
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_away_rings_in_vain_once_and_one_that_comes_nearer_rings_in_time() {
        assert_eq!(rings(&[40]).await, [40]);
        assert_eq!(rings(&[40, 5000, 60, 7000]).await, [40, 7000], "set once, and once more after it rang");
        assert_eq!(rings(&[5000, 40]).await, [40]);
    }
}
