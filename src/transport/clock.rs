//! The clock of the drivers: tokio's, at another pace if wanted.
//!
//! With tokio's paused clock, all that runs on it runs in virtual time.

use std::time::Duration;

use crate::task;
use crate::time::Instant;

/// Turns tokio's time into the [`Instant`]s that sans-IO cores are given. Copies are the same clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: tokio::time::Instant,
    pace: f64,
}

impl Clock {
    /// A clock that begins now and runs at the pace of tokio's.
    pub fn new() -> Clock {
        Clock::scaled(1.0)
    }

    /// A clock that runs `pace` times as fast as tokio's: more than 1 to see a slow radio in less time.
    ///
    /// Tokio's timers have a resolution of 1 ms; a pace above 10 makes hosts slow to react compared to their radio.
    pub fn scaled(pace: f64) -> Clock {
        let pace = if pace.is_finite() { pace.max(f64::MIN_POSITIVE) } else { 1.0 };
        Clock { origin: tokio::time::Instant::now(), pace }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        let elapsed = self.origin.elapsed();
        let micros = if self.pace == 1.0 {
            elapsed.as_micros() as u64
        } else {
            (elapsed.as_secs_f64() * self.pace * 1e6) as u64
        };
        Instant::from_micros(micros)
    }

    /// Sleeps until `at`.
    pub async fn sleep_until(&self, at: Instant) {
        tokio::time::sleep_until(self.to_tokio(at)).await;
    }

    /// Sleeps until `at`; for ever if there is no such time.
    pub async fn sleep_until_some(&self, at: Option<Instant>) {
        task::sleep_until(at.map(|at| self.to_tokio(at))).await;
    }

    /// Sleeps for `duration` of this clock.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now() + duration).await;
    }

    /// The same point in tokio's time, at most a century ahead.
    pub fn to_tokio(&self, at: Instant) -> tokio::time::Instant {
        const CENTURY_SECS: f64 = 100.0 * 365.25 * 86_400.0;
        let elapsed = if self.pace == 1.0 {
            Duration::from_micros(at.as_micros()).min(Duration::from_secs(CENTURY_SECS as u64))
        } else {
            // Rounded up, so that the clock has reached `at` after the sleep.
            Duration::from_secs_f64((at.as_micros() as f64 / 1e6 / self.pace).min(CENTURY_SECS))
                + Duration::from_micros(1)
        };
        self.origin + elapsed
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}
