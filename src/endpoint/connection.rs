//! One connection as its two sides see it: the transport's trait, the library's handle, and the bounded queue between.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore};

use super::{AccessRule, Message, MessagingError};

/// Bytes that the library takes from a transport before [`ReplicatorConnection::receive`] waits, unless configured
/// otherwise. A few of the largest frames; more adds memory, not speed.
pub const INBOUND_BYTES_MAX: usize = 256 * 1024;

/// What a queued message costs beside its bytes, so that many tiny ones are bounded too.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// One connection of a transport; implemented by the application.
///
/// The library calls `open` once, then `send` one call at a time, and `close` exactly once. Each call is bounded by a
/// time limit; when it passes, the future is dropped.
#[async_trait]
pub trait MessageEndpointConnection: Send + Sync {
    /// Connects, keeps `connection`, and returns when bytes can flow.
    ///
    /// # Errors
    /// The connection could not be made; [`close`](Self::close) follows.
    async fn open(&self, connection: ReplicatorConnection) -> Result<(), MessagingError>;

    /// Takes one message; completes when the transport can take the next. That is the library's flow control.
    ///
    /// # Errors
    /// The connection has failed; [`close`](Self::close) follows.
    async fn send(&self, message: Message) -> Result<(), MessagingError>;

    /// Disconnects after delivering what was sent, if `error` is `None`; at once otherwise.
    ///
    /// # Errors
    /// Logged, no more: the connection counts as closed.
    async fn close(&self, error: Option<MessagingError>) -> Result<(), MessagingError>;

    /// Whether [`close`](Self::close) without an error tells the peer, after all that was sent, that this was all, and waits
    /// until the peer has it. Then the end of a replication does not wait for the peer's last word, which costs a slow
    /// radio a round trip.
    fn close_is_answered(&self) -> bool {
        false
    }

    /// Who the peer has proven to be, in a name that outlives its addresses; asked once `open` has returned, and by a passive
    /// side also before, where the transport may know it already. What was
    /// synced is then remembered under it rather than under [`MessageEndpoint::uid`](super::MessageEndpoint::uid).
    fn peer_uid(&self) -> Option<String> {
        None
    }

    /// What the peer may do here, if the transport knows who it is; asked once `open` has returned. An active side asks no
    /// more of it; a passive side is told when it accepts the connection.
    fn access(&self) -> Option<AccessRule> {
        None
    }
}

/// The library's end of one connection, for the transport to keep.
///
/// Clones are the same connection. Dropping the last one equals [`close(None)`](Self::close).
#[derive(Clone)]
pub struct ReplicatorConnection {
    handle: Arc<Handle>,
}

impl ReplicatorConnection {
    /// A connection without a replicator behind it: what the transport gives comes out of the [`Inbound`].
    ///
    /// For the tests of a transport, and for whoever wants to use a transport alone. `limit_bytes` bounds what is
    /// queued; a longer message is taken when nothing else is.
    #[doc(hidden)]
    pub fn detached(limit_bytes: usize) -> (ReplicatorConnection, Inbound) {
        let limit = limit_bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { messages: VecDeque::new(), closed: None }),
            room: Semaphore::new(limit),
            limit,
            readable: Notify::new(),
            closing: Notify::new(),
        });
        let inbound = Inbound { shared: Arc::clone(&shared) };
        (ReplicatorConnection { handle: Arc::new(Handle { shared }) }, inbound)
    }

    /// Gives the library bytes from the other peer, in order. Waits while the library has enough.
    ///
    /// Ignored after the connection was closed by either side. A transport that reads and awaits this in one loop
    /// passes the library's back-pressure on to its peer.
    pub async fn receive(&self, message: Message) {
        if message.is_empty() {
            return;
        }
        let shared = &self.handle.shared;
        // Fails only when the connection is closed.
        if let Ok(room) = shared.room.acquire_many(shared.cost(&message)).await {
            room.forget();
            shared.push(message);
        }
    }

    /// As [`receive`](Self::receive), for a transport that must not wait.
    ///
    /// # Errors
    /// Gives the message back when the library has enough; nothing was taken, and it must be offered again before any
    /// later one.
    pub fn try_receive(&self, message: Message) -> Result<(), Message> {
        if message.is_empty() {
            return Ok(());
        }
        let shared = &self.handle.shared;
        match shared.room.try_acquire_many(shared.cost(&message)) {
            Ok(room) => {
                room.forget();
                shared.push(message);
                Ok(())
            }
            Err(tokio::sync::TryAcquireError::Closed) => Ok(()),
            Err(tokio::sync::TryAcquireError::NoPermits) => Err(message),
        }
    }

    /// Tells the library that the connection has ended: in order (`None`) or by an error. The library takes what was
    /// received before, then calls [`MessageEndpointConnection::close`]. Only the first call counts.
    pub fn close(&self, error: Option<MessagingError>) {
        self.handle.shared.close(error);
    }

    /// Whether either side has closed it.
    pub fn is_closed(&self) -> bool {
        self.handle.shared.lock().closed.is_some()
    }
}

impl fmt::Debug for ReplicatorConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicatorConnection").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// What all clones of one [`ReplicatorConnection`] share.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close(None);
    }
}

/// The library's side of the queue. Dropping it closes the connection: what is received later is ignored.
pub struct Inbound {
    shared: Arc<Shared>,
}

impl Inbound {
    /// The next message in order; `None` when the connection is closed and everything before it was taken.
    /// May be dropped and called again without loss.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            // Created first, so that a message pushed after the look is not missed.
            let readable = self.shared.readable.notified();
            {
                let mut queue = self.shared.lock();
                if let Some(message) = queue.messages.pop_front() {
                    drop(queue);
                    self.shared.release(&message);
                    return Some(message);
                }
                if queue.closed.is_some() {
                    return None;
                }
            }
            readable.await;
        }
    }

    /// The next message, if there is one now.
    pub fn try_next(&mut self) -> Option<Message> {
        let message = self.shared.lock().messages.pop_front()?;
        self.shared.release(&message);
        Some(message)
    }

    /// Completes when the transport has closed, whatever is still queued.
    pub async fn wait_closed(&self) {
        loop {
            let closing = self.shared.closing.notified();
            if self.shared.lock().closed.is_some() {
                return;
            }
            closing.await;
        }
    }

    /// Whether the transport has closed, and with which error.
    pub fn closed(&self) -> Option<Option<MessagingError>> {
        self.shared.lock().closed.clone()
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.shared.close(None);
        self.shared.lock().messages.clear();
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound")
            .field("messages", &self.shared.lock().messages.len())
            .finish_non_exhaustive()
    }
}

struct Queue {
    messages: VecDeque<Message>,
    closed: Option<Option<MessagingError>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// One permit for each byte that may be queued; closed with the connection.
    room: Semaphore,
    limit: usize,
    readable: Notify,
    closing: Notify,
}

impl Shared {
    /// Nothing under this lock can panic halfway through a change, so a poisoned lock is as good as another.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Permits that a message takes: all of them if it is longer than the limit, so that it can pass at all.
    fn cost(&self, message: &Message) -> u32 {
        (message.len() + MESSAGE_OVERHEAD_BYTES).min(self.limit) as u32
    }

    fn push(&self, message: Message) {
        let mut queue = self.lock();
        if queue.closed.is_none() {
            queue.messages.push_back(message);
            drop(queue);
            self.readable.notify_one();
        }
    }

    fn release(&self, message: &Message) {
        self.room.add_permits(self.cost(message) as usize);
    }

    fn close(&self, error: Option<MessagingError>) {
        let mut queue = self.lock();
        if queue.closed.is_none() {
            queue.closed = Some(error);
            drop(queue);
            self.room.close();
            self.readable.notify_one();
            self.closing.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize) -> Message {
        Message::from_bytes(vec![7; len])
    }

    #[tokio::test]
    async fn receive_waits_while_the_library_has_enough_and_try_receive_refuses() {
        let (connection, mut inbound) = ReplicatorConnection::detached(1000);
        connection.receive(message(800)).await;
        assert_eq!(connection.try_receive(message(200)), Err(message(200)));
        let waiting = tokio::spawn({
            let connection = connection.clone();
            async move { connection.receive(message(5000)).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert_eq!(inbound.next().await, Some(message(800)));
        assert_eq!(inbound.next().await, Some(message(5000)), "longer than the limit passes alone");
        waiting.await.expect("receive");
    }

    #[tokio::test]
    async fn tiny_messages_are_bounded_too() {
        let (connection, _inbound) = ReplicatorConnection::detached(10_000);
        let taken = (0..10_000).take_while(|_| connection.try_receive(message(1)).is_ok()).count();
        assert!((100..=200).contains(&taken), "{taken}");
    }

    #[tokio::test]
    async fn what_came_before_a_close_is_taken_and_what_comes_after_is_ignored() {
        let (connection, mut inbound) = ReplicatorConnection::detached(1000);
        connection.receive(message(1)).await;
        connection.close(Some(MessagingError::permanent("first")));
        connection.close(None);
        connection.receive(message(2)).await;
        assert_eq!(connection.try_receive(message(2)), Ok(()));
        assert_eq!(inbound.next().await, Some(message(1)));
        assert_eq!(inbound.next().await, None);
        assert_eq!(inbound.closed().flatten().expect("an error").message(), "first");
    }

    #[tokio::test]
    async fn dropping_either_side_equals_closing() {
        let (connection, mut inbound) = ReplicatorConnection::detached(1000);
        let clone = connection.clone();
        drop(connection);
        assert!(inbound.closed().is_none());
        drop(clone);
        assert_eq!(inbound.next().await, None);

        let (connection, inbound) = ReplicatorConnection::detached(100);
        connection.receive(message(50)).await;
        let waiting = tokio::spawn({
            let connection = connection.clone();
            async move { connection.receive(message(90)).await }
        });
        tokio::task::yield_now().await;
        drop(inbound);
        waiting.await.expect("a waiting receive returns");
        assert!(connection.is_closed());
    }
}
