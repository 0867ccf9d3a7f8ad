//! Discovery that stalls: bluetoothd says that it scans, and nothing is heard any more (bluez #1554, #367).
//!
//! There is no error to see, only silence, and silence may also mean that nobody is there. So the means get stronger slowly:
//! the scan is started anew, then the adapter is switched off and on, and that ever more seldom.

use std::time::Duration;

/// Silence after which the scan is started anew. BlueZ itself scans for 10.24 s and begins again.
const SILENCE_RESTART: Duration = Duration::from_secs(12);
/// New starts of the scan without a report before the adapter is switched off and on.
const RESTARTS_MAX: u32 = 2;
/// Scanning in silence between two power cycles at first; doubles up to [`CYCLE_PAUSE_MAX`].
const CYCLE_PAUSE_MIN: Duration = Duration::from_secs(300);
/// The longest such time: nobody may be near for weeks.
const CYCLE_PAUSE_MAX: Duration = Duration::from_secs(3600);

/// What to do about the silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing yet.
    Wait,
    /// Start the scan anew.
    RestartScan,
    /// Switch the adapter off and on, if nobody is connected on it.
    PowerCycle,
}

/// Counts the time of scanning without any report. No clock of its own.
#[derive(Debug, Default)]
pub(super) struct StallWatch {
    silent: Duration,
    restarts: u32,
    /// Scanning in silence that has to pass before the next power cycle, and that has passed since the last.
    cycle_pause: Duration,
    since_cycle: Duration,
}

impl StallWatch {
    /// Any advert, of whomever, was reported.
    pub(super) fn heard(&mut self) {
        *self = StallWatch::default();
    }

    /// `elapsed` of scanning has passed since the last call.
    pub(super) fn scanned(&mut self, elapsed: Duration) -> Remedy {
        self.silent += elapsed;
        self.since_cycle += elapsed;
        if self.silent < SILENCE_RESTART {
            return Remedy::Wait;
        }
        self.silent = Duration::ZERO;
        if self.restarts < RESTARTS_MAX {
            self.restarts += 1;
            return Remedy::RestartScan;
        }
        if self.since_cycle < self.cycle_pause {
            return Remedy::RestartScan;
        }
        self.cycle_pause = (self.cycle_pause * 2).clamp(CYCLE_PAUSE_MIN, CYCLE_PAUSE_MAX);
        self.since_cycle = Duration::ZERO;
        Remedy::PowerCycle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of silence at which the adapter was switched, in a scan of `hours`.
    fn cycles(watch: &mut StallWatch, hours: u64) -> Vec<u64> {
        let second = Duration::from_secs(1);
        (1..=hours * 3600).filter(|_| watch.scanned(second) == Remedy::PowerCycle).collect()
    }

    #[test]
    fn the_scan_is_restarted_first_and_the_adapter_switched_ever_more_seldom() {
        let mut watch = StallWatch::default();
        let first: Vec<_> = (1..=36).map(|_| watch.scanned(Duration::from_secs(1))).collect();
        assert_eq!(first.iter().filter(|r| **r == Remedy::RestartScan).count(), 2);
        assert_eq!(first[35], Remedy::PowerCycle);
        let later = cycles(&mut watch, 10);
        assert!(later.len() >= 9 && later.len() <= 13, "{later:?}");
        assert!(later.windows(3).all(|w| w[2] - w[1] + 24 >= w[1] - w[0]), "{later:?}");
    }

    #[test]
    fn a_single_report_begins_anew() {
        let mut watch = StallWatch::default();
        for _ in 0..10 {
            assert_eq!(watch.scanned(Duration::from_secs(11)), Remedy::Wait);
            watch.heard();
        }
    }
}
