//! Requests of the peer that wait for their answer because the replies before them are not sent yet: those whose answer may be longer than
//! they are.
//!
//! Answering makes more bytes than asking, so this is where a peer that asks and does not read is slowed down first. All that can make a reply
//! so long that it waits for acknowledgements is held here, for nothing else bounds what waits for those.
//! Acknowledgements, replies and revisions still come in meanwhile; only what is held here itself can stop the input.

#![deny(clippy::disallowed_methods)]

use std::collections::VecDeque;

use super::messages::profile;
use crate::blip::IncomingRequest;

/// Memory of a request beside its text, in bytes, roughly.
const REQUEST_OVERHEAD: usize = 256;

/// Requests of the peer in the order in which they came, each still to be answered.
#[derive(Debug, Default)]
pub(super) struct HeldRequests {
    requests: VecDeque<IncomingRequest>,
    bytes: usize,
}

impl HeldRequests {
    /// Whether a request is of the kind that may wait: a list, also the empty one that ends a feed, which must not
    /// overtake others; or one that is answered with checkpoints or a blob.
    pub fn may_hold(request: &IncomingRequest) -> bool {
        matches!(
            request.profile(),
            profile::CHANGES
                | profile::PROPOSE_CHANGES
                | profile::GET_CHECKPOINT
                | profile::GET_COLLECTIONS
                | profile::GET_ATTACHMENT
        )
    }

    /// Adds one behind the others.
    pub fn push(&mut self, request: IncomingRequest) {
        self.bytes += size(&request);
        self.requests.push_back(request);
    }

    /// The next in order.
    pub fn pop(&mut self) -> Option<IncomingRequest> {
        let request = self.requests.pop_front()?;
        self.bytes -= size(&request);
        Some(request)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Memory of what waits, in bytes, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all: the session is over.
    pub fn clear(&mut self) {
        *self = HeldRequests::default();
    }
}

fn size(request: &IncomingRequest) -> usize {
    REQUEST_OVERHEAD + request.properties.as_bytes().len() + request.body.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blip::{MessageNumber, Properties};

    /// What a peer has to be able to send so that this side gets on, and what it may not put before a list, waits for no answer.
    #[test]
    fn only_lists_and_questions_with_long_answers_wait() {
        let of = |profile: &str| IncomingRequest {
            number: MessageNumber(1),
            properties: Properties::of_profile(profile),
            body: bytes::Bytes::new(),
            urgent: false,
            no_reply: false,
            compressed: false,
        };
        let waiting = profile::ALL.iter().copied().filter(|profile| HeldRequests::may_hold(&of(profile)));
        assert_eq!(
            waiting.collect::<Vec<_>>(),
            ["getCollections", "getCheckpoint", "changes", "proposeChanges", "getAttachment"]
        );
    }
}
