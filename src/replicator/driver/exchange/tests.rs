//! How much of what has arrived one turn takes.

use async_trait::async_trait;

use super::*;
use crate::endpoint::{MessageEndpointConnection, ReplicatorConnection};
use crate::replicator::config::PassiveConfig;
use crate::replicator::driver::Traffic;
use crate::replicator::driver::{ConnectionLimits, StopSignal};
use crate::replicator::limits::SessionLimits;
use crate::replicator::memory_store::MemoryStore;
use crate::replicator::session::Session;

/// A transport that nothing is sent over.
struct Idle;

#[async_trait]
impl MessageEndpointConnection for Idle {
    async fn open(&self, _: ReplicatorConnection) -> Result<(), MessagingError> {
        Ok(())
    }

    async fn send(&self, _: Message) -> Result<(), MessagingError> {
        Ok(())
    }

    async fn close(&self, _: Option<MessagingError>) -> Result<(), MessagingError> {
        Ok(())
    }
}

/// A connection over which nothing is sent, and what it has received.
fn exchange(limits: SessionLimits, inbound: Inbound) -> Exchange {
    let setup = Setup {
        connection: Arc::new(Idle),
        session: Session::passive(PassiveConfig::default()).with_limits(limits),
        store: Arc::new(MemoryStore::new(1)),
        role: FramingRole::Passive,
        protocol_type: ProtocolType::ByteStream,
        limits: ConnectionLimits::default(),
        stop: StopSignal::new(watch::channel(0).1, 0),
        allowance: None,
        traffic: Traffic::default(),
    };
    Exchange::new(setup, inbound)
}

/// How many of these messages a turn that begins with the first leaves in the transport, and whether frames of what it took wait.
fn left(messages: Vec<Vec<u8>>, limits: SessionLimits) -> (usize, bool) {
    let (handle, inbound) = ReplicatorConnection::detached(1 << 20);
    let mut messages = messages.into_iter().map(Message::from);
    let first = messages.next().expect("there is one");
    messages.for_each(|message| handle.try_receive(message).expect("there is room"));
    let mut exchange = exchange(limits, inbound);
    exchange.receive(first).expect("nothing is wrong with it");
    let left = std::iter::from_fn(|| exchange.inbound.try_next()).count();
    (left, exchange.framing.has_events())
}

/// Small messages go together, until they are many bytes or frames, or the session has enough.
#[tokio::test]
async fn a_turn_takes_its_share_of_what_has_arrived() {
    let framing = Framing::new(FramingRole::Active, ProtocolType::ByteStream);
    let pong = framing.encode_pong(b"", [1, 2, 3, 4]).expect("a byte stream has them");
    let small = |count: usize| vec![pong.clone(); count];
    let full = SessionLimits { commit_queue_revisions_max: 0, ..SessionLimits::default() };
    let usual = SessionLimits::default;
    assert_eq!(left(small(5), usual()), (0, false));
    assert_eq!(left(small(FRAMES_BEFORE_YIELD + 5), usual()), (5, false));
    assert_eq!(left(vec![pong.repeat(FRAMES_BEFORE_YIELD + 1), pong.clone()], usual()), (1, true));
    assert_eq!(left(small(5), full), (4, false), "the session has enough");
    // The beginning of one long frame.
    let long = framing.encode_frame(&vec![0; 4 * BYTES_BEFORE_YIELD], [1, 2, 3, 4]);
    let pieces = |size: usize, count: usize| long.chunks(size).take(count).map(<[u8]>::to_vec).collect();
    assert_eq!(left(pieces(BYTES_BEFORE_YIELD, 3), usual()), (2, false));
    assert_eq!(left(pieces(BYTES_BEFORE_YIELD / 2, 5), usual()), (3, false));
}

/// What came before a violation is handled first, however many turns that takes.
#[tokio::test]
async fn a_violation_ends_the_connection_after_what_came_before_it() {
    let framing = Framing::new(FramingRole::Active, ProtocolType::ByteStream);
    let pong = framing.encode_pong(b"", [1, 2, 3, 4]).expect("a byte stream has them");
    let (_handle, inbound) = ReplicatorConnection::detached(1 << 20);
    let mut exchange = exchange(SessionLimits::default(), inbound);
    let all = [pong.repeat(2 * FRAMES_BEFORE_YIELD + 1), vec![0xff; 40]].concat();
    exchange.receive(Message::from(all)).expect("the first turn");
    exchange.handle_events(FRAMES_BEFORE_YIELD).expect("the second");
    assert!(exchange.framing.has_events());
    let end = exchange.handle_events(FRAMES_BEFORE_YIELD);
    assert!(matches!(end, Err(ReplicatorError::Framing(_))), "{end:?}");
}
