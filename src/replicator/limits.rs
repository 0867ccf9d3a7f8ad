//! What one session may have under way at a time. The values are those of [`config`](super::config); tests scale them down.
//!
//! Two kinds are kept apart, because they end in different ways:
//! - What this side *asks for* (lists, revisions) is limited where it is made. It never stops the peer's input: part of
//!   it waits for acknowledgements, and those are input.
//! - What the peer *causes* (replies, revisions for the store) stops the peer's input when it grows too long, for nothing
//!   else bounds a peer that asks and never reads. What has long answers is held unanswered long before that, so that a peer
//!   that keeps the limits of this file never comes there: two peers that stop reading each other would wait for ever.

use std::time::Duration;

use super::config::{
    COMMIT_QUEUE_BYTES_MAX, COMMIT_QUEUE_REVISIONS_MAX, HELD_REQUESTS_BYTES_MAX, LIST_BYTES,
    LISTS_IN_FLIGHT_MAX, LISTS_IN_FLIGHT_SESSION_MAX, REPLIES_MAX, REPLY_BYTES_HIGH, REPLY_BYTES_MAX,
    REQUEST_INTERVAL, REQUESTS_AT_ONCE_MAX, REV_BYTES_IN_FLIGHT_MAX, REVS_IN_FLIGHT_MAX,
    REVS_IN_FLIGHT_SESSION_MAX, SEND_QUEUE_LOW,
};
use super::extension;

/// The limits of one session.
#[derive(Clone, Debug)]
pub(crate) struct SessionLimits {
    /// Outgoing bytes below which more is read from the store.
    pub send_queue_low: usize,
    /// Change lists awaiting their reply, in each collection and in all of them.
    pub lists_in_flight: (usize, usize),
    /// Bytes of one change list, unless its first entry alone has more.
    pub list_bytes: usize,
    /// Single revisions awaiting their reply, in each collection and in all of them.
    pub revs_in_flight: (usize, usize),
    /// Bytes of single revisions awaiting their reply, in all collections; one more may go below it.
    pub rev_bytes_in_flight: usize,
    /// `revs` messages awaiting their answer, in each collection and in all of them.
    pub batches_in_flight: (usize, usize),
    /// Bytes of `revs` messages awaiting their answer, in all collections; one more may go below it.
    pub batch_bytes_in_flight: usize,
    /// Bytes of replies that are not sent whole, above which further requests with long answers wait for them.
    pub reply_bytes_high: usize,
    /// Bytes of those of them that only wait for the transport, above which input stops.
    pub reply_bytes_max: usize,
    /// Queued replies above which input stops.
    pub replies_max: usize,
    /// Requests that are answered at once and count together, and the time after which one of them counts no more.
    pub requests_at_once: u32,
    pub request_interval: Duration,
    /// Bytes of requests that wait for their answer, above which input stops.
    pub held_requests_bytes_max: usize,
    /// Bytes of revisions waiting for their commit, above which input stops.
    pub commit_queue_bytes_max: usize,
    /// Revisions waiting for their commit, above which input stops.
    pub commit_queue_revisions_max: usize,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits {
            send_queue_low: SEND_QUEUE_LOW,
            lists_in_flight: (LISTS_IN_FLIGHT_MAX, LISTS_IN_FLIGHT_SESSION_MAX),
            list_bytes: LIST_BYTES,
            revs_in_flight: (REVS_IN_FLIGHT_MAX, REVS_IN_FLIGHT_SESSION_MAX),
            rev_bytes_in_flight: REV_BYTES_IN_FLIGHT_MAX,
            batches_in_flight: (extension::REVS_IN_FLIGHT_MAX, extension::REVS_IN_FLIGHT_SESSION_MAX),
            batch_bytes_in_flight: extension::REVS_BYTES_IN_FLIGHT_MAX,
            reply_bytes_high: REPLY_BYTES_HIGH,
            reply_bytes_max: REPLY_BYTES_MAX,
            replies_max: REPLIES_MAX,
            requests_at_once: REQUESTS_AT_ONCE_MAX,
            request_interval: REQUEST_INTERVAL,
            held_requests_bytes_max: HELD_REQUESTS_BYTES_MAX,
            commit_queue_bytes_max: COMMIT_QUEUE_BYTES_MAX,
            commit_queue_revisions_max: COMMIT_QUEUE_REVISIONS_MAX,
        }
    }
}

/// What this side has asked and not yet heard of, in all collections together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InFlight {
    /// Change lists.
    pub lists: usize,
    /// Single revisions.
    pub revs: usize,
    /// Bytes of their bodies.
    pub rev_bytes: usize,
    /// `revs` messages.
    pub batches: usize,
    /// Bytes of theirs.
    pub batch_bytes: usize,
    /// Revisions in both.
    pub revisions: u64,
}
