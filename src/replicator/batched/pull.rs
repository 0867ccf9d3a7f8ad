//! Pulling by the extension: the peer's feed comes in `revs` messages.

use super::unit_tracker::UnitTracker;
use crate::replicator::config::EXPECTED_REVS_HIGH;
use crate::replicator::error::SessionError;
use crate::replicator::extension::answer::RevAnswer;
use crate::replicator::in_flight::RevsReceived;
use crate::replicator::protocol::pull::PullProtocol;
use crate::replicator::sequences::RemoteSequence;

/// Most offers that may be wanted and not here.
const OFFERS_MAX: usize = 16 * EXPECTED_REVS_HIGH;

/// One collection that comes in `revs` messages.
pub(in crate::replicator) struct BatchPull {
    tracker: UnitTracker,
    /// Where the peer's feed ended when the session began.
    peer_last: u64,
}

impl BatchPull {
    /// From this sequence of the peer on.
    pub fn new(since: u64, peer_last: u64) -> BatchPull {
        BatchPull { tracker: UnitTracker::new(since), peer_last }
    }
}

impl PullProtocol for BatchPull {
    fn begin_revs(
        &mut self,
        received: &RevsReceived,
        outstanding: usize,
        last: bool,
    ) -> Result<(), SessionError> {
        if received.asked {
            return Ok(());
        }
        let wanted = |(sequence, answer): &(u64, Option<RevAnswer>)| {
            matches!(answer, Some(RevAnswer::Wanted)).then_some(*sequence)
        };
        let wanted: Vec<u64> = received.answers.iter().filter_map(wanted).collect();
        let actual = self.tracker.expected() + wanted.len();
        if actual > OFFERS_MAX {
            return Err(SessionError::TooMany { what: "offers", max: OFFERS_MAX, actual });
        }
        self.tracker.begin(received.from, received.through, outstanding + wanted.len(), last)?;
        for sequence in wanted {
            self.tracker.want(received.from, sequence);
        }
        Ok(())
    }

    fn settle_revs(&mut self, received: &RevsReceived, committed: &[bool]) {
        for ((sequence, answer), committed) in received.answers.iter().zip(committed) {
            let done = !matches!(answer, Some(RevAnswer::Failed(error)) if error.code == 500);
            if received.asked {
                if let Some(unit) = self.tracker.arrived(*sequence) {
                    self.tracker.settle(unit, done);
                }
            } else if *committed {
                self.tracker.settle(received.from, done);
            }
        }
    }

    fn peer_has(&mut self, sequence: u64) {
        self.tracker.peer_has(sequence);
    }

    fn is_complete(&self) -> bool {
        self.tracker.is_caught_up()
    }

    fn is_owed(&self) -> bool {
        !self.tracker.is_settled() || !self.tracker.is_caught_up()
    }

    fn unread(&self) -> u64 {
        self.peer_last.saturating_sub(self.tracker.announced())
    }

    fn position(&self) -> RemoteSequence {
        RemoteSequence::Number(self.tracker.position())
    }
}
