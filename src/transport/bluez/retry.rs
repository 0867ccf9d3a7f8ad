//! Which refusals of BlueZ go away by themselves, and how long to wait for that.

use std::time::Duration;

use bluer::ErrorKind;

/// Attempts of one connect, the first included. 4 with a pause of 500 ms are known to be enough (bleak #1255).
pub(super) const ATTEMPTS: u32 = 4;
/// Limit of one attempt; BlueZ's own is 20 to 40 s. The peer's advert was just heard, so that it takes a few of its intervals, of
/// 1.28 s at most.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(8);
/// Attempts that may end at their limit: the peer may stop advertising for a moment, as ours do while they register anew.
pub(super) const SLOW_ATTEMPTS: u32 = 2;
/// Pause before the second attempt; doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(300);

/// What BlueZ says when trying again soon is known to help.
const TRANSIENT: [&str; 9] = [
    // A scan was still being stopped (bleak #1255); also a peer that went away in the middle.
    "le-connection-abort-by-local",
    "Software caused connection abort",
    // Failed to be established: the peer missed the first events (bleak-retry-connector's list).
    "le-connection-abort-by-remote",
    "le-connection-unknown",
    "br-connection-canceled",
    // The kernel has another connection attempt in progress.
    "Operation already in progress",
    "Resource temporarily unavailable",
    // BlueZ gave up in its own page timeout.
    "Connection timed out",
    "Input/output error",
];

/// Whether an attempt to connect that failed so may succeed when made again at once.
pub(super) fn is_transient(error: &bluer::Error) -> bool {
    matches!(error.kind, ErrorKind::InProgress | ErrorKind::ConnectionAttemptFailed)
        || TRANSIENT.iter().any(|text| error.message.contains(text))
}

/// Pause after the failed attempt `attempt` (1 is the first), half of it random, so that two machines that meet do not keep in
/// step.
pub(super) fn pause(attempt: u32) -> Duration {
    let whole = PAUSE_MIN * (1 << attempt.saturating_sub(1).min(4));
    whole.mul_f64(0.5 + 0.5 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_refusals_are_tried_again() {
        let error = |kind, message: &str| bluer::Error { kind, message: message.to_owned() };
        assert!(is_transient(&error(ErrorKind::Failed, "le-connection-abort-by-local")));
        assert!(is_transient(&error(ErrorKind::InProgress, "")));
        assert!(!is_transient(&error(ErrorKind::NotReady, "Resource Not Ready")));
        assert!(!is_transient(&error(ErrorKind::AuthenticationFailed, "")));
        assert!((1..9).all(|n| (150..=4800).contains(&pause(n).as_millis())));
    }
}
