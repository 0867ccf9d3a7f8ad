//! What a node tells: typed events, given to callbacks at once and to streams that keep a bounded number of them.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use super::error::ListenError;
use crate::endpoint::MessagingError;
use crate::replicator::{ConflictReport, DocumentReplication, ListenerError, ReplicatorStatus};
use crate::secure::{Established, PeerId};
use crate::trust::GroupNews;

/// Events that a stream keeps for a reader that is slow; of more the oldest are left out and counted.
pub const STREAM_EVENTS_MAX: usize = 1024;

/// One connection of a peer to this node, from [`NodeEvent::Connected`] on; never used again in the life of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(super) u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something that happened at a [`Node`](super::Node). `Display` gives one line for a log; what peers chose (names, IDs,
/// reasons) stands in it as they sent it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NodeEvent {
    /// Peers can connect now.
    #[non_exhaustive]
    Listening {
        /// Where; for TCP with the real port.
        address: String,
    },
    /// It does not listen there now, and tries again after a pause. Told once for each cause.
    #[non_exhaustive]
    ListenFailed {
        /// Where, as it was configured.
        address: String,
        /// Why.
        error: ListenError,
    },
    /// A peer has proven who it is and may come in. Not where nobody proves anything.
    #[non_exhaustive]
    Authenticated {
        /// Where it came from.
        label: String,
        /// Who it is, and what it may do.
        peer: Box<Established>,
    },
    /// A peer was refused before it became a connection.
    #[non_exhaustive]
    Refused {
        /// Where it came from.
        label: String,
        /// Who it is, if it came so far as to prove it.
        peer: Option<PeerId>,
        /// Why.
        error: MessagingError,
    },
    /// A peer that may come in has a connection.
    #[non_exhaustive]
    Connected {
        /// Names it in later events.
        connection: ConnectionId,
        /// What people call the peer: its name and the beginning of its ID, or where it came from.
        peer: Arc<str>,
        /// The ID in full that it has proven.
        uid: Option<String>,
    },
    /// A connection was taken back, for there was no room for it. The peer is told.
    #[non_exhaustive]
    Declined {
        /// Which one.
        connection: ConnectionId,
        /// The peer.
        peer: Arc<str>,
        /// Why.
        error: ListenerError,
    },
    /// A connection changed its state; [`ReplicatorActivity::Stopped`](crate::replicator::ReplicatorActivity) is its last.
    #[non_exhaustive]
    Status {
        /// Which one.
        connection: ConnectionId,
        /// The peer.
        peer: Arc<str>,
        /// Its state now.
        status: ReplicatorStatus,
    },
    /// A document was not replicated; where the node reports documents, also each that was.
    #[non_exhaustive]
    Document {
        /// With which peer.
        peer: Arc<str>,
        /// The document.
        document: DocumentReplication,
    },
    /// Both sides had changed a document.
    #[non_exhaustive]
    Conflict {
        /// With which peer.
        peer: Arc<str>,
        /// The conflict.
        conflict: ConflictReport,
    },
    /// Something has become of the secret of this database's group.
    Group(GroupNews),
    /// A Bluetooth connection was made, or something of it has changed.
    #[cfg(feature = "bluetooth")]
    Radio(crate::transport::bluez::radio::RadioStatus),
}

impl fmt::Display for NodeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeEvent::Listening { address } => write!(f, "listening on {address}"),
            NodeEvent::ListenFailed { error, .. } => write!(f, "{error}; will try again"),
            NodeEvent::Authenticated { label, peer } => {
                write!(f, "{label}: {}, encrypted", super::access::peer_name(&peer.peer, &peer.grant))
            }
            NodeEvent::Refused { label, peer: None, error } => write!(f, "{label}: refused: {error}"),
            NodeEvent::Refused { label, peer: Some(peer), error } => {
                write!(f, "{label}: {peer}: refused: {error}")
            }
            NodeEvent::Connected { peer, .. } => write!(f, "{peer}: connected"),
            NodeEvent::Declined { peer, error, .. } => write!(f, "{peer}: refused: {error}"),
            NodeEvent::Status { peer, status, .. } => write!(f, "{peer}: {}", StatusText(status)),
            NodeEvent::Document { peer, document } => write!(f, "{peer}: {}", DocumentText(document)),
            NodeEvent::Conflict { peer, conflict } => write!(f, "{peer}: {}", ConflictText(conflict)),
            NodeEvent::Group(news) => news.fmt(f),
            #[cfg(feature = "bluetooth")]
            NodeEvent::Radio(status) => write!(f, "radio: {status}"),
        }
    }
}

/// A state as one line.
pub(super) struct StatusText<'a>(pub(super) &'a ReplicatorStatus);

impl fmt::Display for StatusText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = self.0.progress;
        let activity = format!("{:?}", self.0.activity).to_lowercase();
        write!(f, "{activity}, {} of {} done", progress.completed, progress.total)?;
        match &self.0.error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

/// A document as one line.
pub(super) struct DocumentText<'a>(pub(super) &'a DocumentReplication);

impl fmt::Display for DocumentText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DocumentReplication { collection, id, direction, error, .. } = self.0;
        let direction = format!("{direction:?}").to_lowercase();
        match error {
            None => write!(f, "{direction} {id:?} of {collection}"),
            Some(error) => write!(f, "{id:?} of {collection} was not {direction}: {error}"),
        }
    }
}

/// A conflict as one line.
pub(super) struct ConflictText<'a>(pub(super) &'a ConflictReport);

impl fmt::Display for ConflictText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConflictReport { collection, id, outcome } = self.0;
        write!(f, "both sides have changed {id:?} of {collection}: {outcome:?}")
    }
}

/// Is told of each event, from the task where it happens: it must not block.
pub(super) type Observer<T> = Arc<dyn Fn(&T) + Send + Sync>;

/// Where events are told. When it is dropped, its streams end.
pub(super) struct Hub<T> {
    observers: Vec<Observer<T>>,
    streams: Mutex<Vec<Arc<Queue<T>>>>,
}

impl<T: Clone> Hub<T> {
    pub(super) fn new(observers: Vec<Observer<T>>) -> Hub<T> {
        Hub { observers, streams: Mutex::default() }
    }

    /// Tells everybody.
    pub(super) fn emit(&self, event: T) {
        self.observers.iter().for_each(|observer| observer(&event));
        let mut streams = lock(&self.streams);
        // The stream itself has the other reference.
        streams.retain(|queue| Arc::strong_count(queue) > 1);
        streams.iter().for_each(|queue| queue.push(event.clone()));
    }

    /// A stream of the events from now on.
    pub(super) fn stream(&self) -> EventStream<T> {
        let queue = Arc::new(Queue { state: Mutex::new(QueueState::default()) });
        lock(&self.streams).push(Arc::clone(&queue));
        EventStream { queue }
    }
}

impl<T> Hub<T> {
    /// Ends the streams, once they are read.
    pub(super) fn close(&self) {
        lock(&self.streams).iter().for_each(|queue| queue.close());
    }
}

impl<T> Drop for Hub<T> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Events that wait for the reader of one stream.
struct Queue<T> {
    state: Mutex<QueueState<T>>,
}

struct QueueState<T> {
    events: VecDeque<T>,
    missed: u64,
    is_closed: bool,
    reader: Option<Waker>,
}

impl<T> Default for QueueState<T> {
    fn default() -> Self {
        QueueState { events: VecDeque::new(), missed: 0, is_closed: false, reader: None }
    }
}

impl<T> Queue<T> {
    fn push(&self, event: T) {
        let mut state = lock(&self.state);
        if state.events.len() >= STREAM_EVENTS_MAX {
            state.events.pop_front();
            state.missed += 1;
        }
        state.events.push_back(event);
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = lock(&self.state);
        match state.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if state.is_closed => Poll::Ready(None),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The events from the moment it was asked for, oldest first; ends with what tells them. It keeps [`STREAM_EVENTS_MAX`]
/// that were not read, and holds nothing up.
pub struct EventStream<T> {
    queue: Arc<Queue<T>>,
}

impl<T> EventStream<T> {
    /// The next event; `None` when there will be no more. May be dropped and called again without loss.
    pub async fn next(&mut self) -> Option<T> {
        poll_fn(|cx| self.queue.poll(cx)).await
    }

    /// How many events were left out so far, because they were not read in time.
    pub fn missed(&self) -> u64 {
        lock(&self.queue.state).missed
    }
}

impl<T> Stream for EventStream<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.queue.poll(cx)
    }
}

impl<T> fmt::Debug for EventStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("missed", &self.missed()).finish_non_exhaustive()
    }
}

/// No code of a user runs under these locks, so a poisoned one is as good as another.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_gets_the_newest_and_learns_how_many_it_has_missed() {
        let hub = Hub::new(Vec::new());
        let mut events = hub.stream();
        (0..STREAM_EVENTS_MAX + 3).for_each(|event| hub.emit(event));
        assert_eq!(events.missed(), 3);
        assert_eq!(events.next().await, Some(3));
        drop(hub);
        let mut last = None;
        while let Some(event) = events.next().await {
            last = Some(event);
        }
        assert_eq!(last, Some(STREAM_EVENTS_MAX + 2), "what was told before the end is not lost");
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_by_an_event_and_by_the_end() {
        let hub = Hub::new(Vec::new());
        let (mut first, mut second) = (hub.stream(), hub.stream());
        let reader = tokio::spawn(async move { (first.next().await, first.next().await) });
        tokio::task::yield_now().await;
        hub.emit(7);
        assert_eq!(second.next().await, Some(7));
        tokio::task::yield_now().await;
        drop(hub);
        assert_eq!(reader.await.expect("no panic"), (Some(7), None));
    }
}
