//! The round-trip time of a connection, and the retransmission timeout (RTO) that follows from it.
//!
//! Smoothing as in RFC 6298; the smallest sample is kept as well, to tell an answer to a repeated packet from a late one to
//! the first. Patience has a floor that suits connection intervals: at 400 ms a round trip is 400 to 800 ms, but the
//! first sample, from the handshake, knows that already.

use core::time::Duration;

/// Patience before anything was measured. At intervals of more than 250 ms a greeting may be repeated needlessly, which
/// costs one packet; at the usual 30 to 50 ms a lost one is soon made good.
const RTO_INITIAL: Duration = Duration::from_millis(500);
/// Patience is at least this: a few intervals of 30 to 50 ms, so that one missed connection event costs nothing.
const RTO_MIN: Duration = Duration::from_millis(100);
/// Patience is at most this, however often it was doubled.
const RTO_MAX: Duration = Duration::from_secs(8);
/// The variance term is at least this: the granularity of hosts' timers.
const VARIANCE_MIN: Duration = Duration::from_millis(10);
/// Gives time that a late packet has on top of the round trip before it counts as lost: an eighth, as in RFC 9002, 6.1.2.
const LATE_SHIFT: u32 = 3;

/// Measurements of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    smoothed: Duration,
    variance: Duration,
    smallest: Duration,
    latest: Duration,
}

impl RoundTrip {
    /// Takes a measurement.
    pub(super) fn sample(&mut self, sample: Duration) {
        let sample = sample.max(Duration::from_micros(1));
        self.latest = sample;
        if self.is_empty() {
            (self.smoothed, self.variance, self.smallest) = (sample, sample / 2, sample);
            return;
        }
        self.smallest = self.smallest.min(sample);
        self.variance = (self.variance * 3 + self.smoothed.abs_diff(sample)) / 4;
        self.smoothed = (self.smoothed * 7 + sample) / 8;
    }

    fn is_empty(&self) -> bool {
        self.smoothed.is_zero()
    }

    /// Zero before the first measurement.
    pub(super) fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// As it is now, the larger of the smoothed and the latest; zero before the first measurement.
    pub(super) fn recent(&self) -> Duration {
        self.smoothed.max(self.latest)
    }

    /// Zero before the first measurement.
    pub(super) fn smallest(&self) -> Duration {
        self.smallest
    }

    /// How long to wait for an answer before asking again, the `doubled`th time; `peer_delay` is how long the peer may hold
    /// its answer back.
    pub(super) fn rto(&self, peer_delay: Duration, doubled: u8) -> Duration {
        let once = if self.is_empty() {
            RTO_INITIAL
        } else {
            (self.smoothed + (self.variance * 4).max(VARIANCE_MIN) + peer_delay).max(RTO_MIN)
        };
        once.saturating_mul(1 << u32::from(doubled).min(16)).min(RTO_MAX)
    }

    /// After this time a packet that others have overtaken counts as lost. The peer's delay is in it because a gap that
    /// closes at once is told of only that much later.
    pub(super) fn reorder_window(&self, peer_delay: Duration) -> Duration {
        let round_trip = self.recent();
        round_trip + round_trip / (1 << LATE_SHIFT) + peer_delay.max(VARIANCE_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rto_follows_the_measurements_and_is_bounded() {
        let mut round_trip = RoundTrip::default();
        assert_eq!(round_trip.rto(Duration::ZERO, 0), RTO_INITIAL);
        for _ in 0..50 {
            round_trip.sample(Duration::from_millis(8));
        }
        assert_eq!(round_trip.rto(Duration::ZERO, 0), RTO_MIN);
        for _ in 0..50 {
            round_trip.sample(Duration::from_millis(800));
        }
        let rto = round_trip.rto(Duration::from_millis(40), 0);
        assert!(rto > Duration::from_millis(840) && rto < Duration::from_millis(1000), "{rto:?}");
        assert_eq!(round_trip.rto(Duration::ZERO, 255), RTO_MAX);
        assert_eq!(round_trip.smallest(), Duration::from_millis(8));
    }
}
