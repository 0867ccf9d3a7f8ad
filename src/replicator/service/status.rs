//! What a replicator or a listener's connection is doing, and the callbacks that are told.

use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::replicator::driver::error::ReplicatorError;
use crate::replicator::unsynced::Unsynced;

/// What a replicator is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplicatorActivity {
    /// Not running, or finished.
    Stopped,
    /// Waiting to try again after a recoverable error.
    Offline,
    /// A connection is being opened.
    Connecting,
    /// Connected; both sides have what the other has.
    Idle,
    /// Connected and exchanging documents.
    Busy,
}

/// How far the current connection has come. Grows; both numbers start again with a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicatorProgress {
    /// Units done, out of `total`. A unit is one revision to move.
    pub completed: u64,
    /// Units known of so far; grows as more are found.
    pub total: u64,
    /// Documents that were really transferred.
    pub documents: u64,
    /// Units of those that were sent and are not confirmed yet, as far as their messages have gone; not in `completed`.
    pub under_way: u64,
    /// Bytes of messages given to the transport, compressed as they go; what the session and the link add is not in it.
    pub bytes_sent: u64,
    /// Bytes of messages that came, likewise.
    pub bytes_received: u64,
}

/// A replicator's state at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReplicatorStatus {
    /// What it is doing.
    pub activity: ReplicatorActivity,
    /// How far it has come.
    pub progress: ReplicatorProgress,
    /// The error it stopped by or is offline for; `None` once a connection stands again.
    pub error: Option<ReplicatorError>,
    /// What could not be synced with the peer, by this connection and those before it.
    pub unsynced: Arc<Unsynced>,
}

impl ReplicatorStatus {
    /// The state of a replicator that was never started.
    pub(crate) fn new(activity: ReplicatorActivity) -> ReplicatorStatus {
        let (progress, unsynced) = (ReplicatorProgress::default(), Arc::default());
        ReplicatorStatus { activity, progress, error: None, unsynced }
    }
}

/// The states of a replicator, see [`Replicator::statuses`](super::Replicator::statuses).
pub struct StatusStream(WatchStream<ReplicatorStatus>);

impl StatusStream {
    pub(super) fn new(status: watch::Receiver<ReplicatorStatus>) -> StatusStream {
        StatusStream(WatchStream::new(status))
    }

    /// The next state; `None` when the replicator is gone. May be dropped and called again without loss.
    pub async fn next(&mut self) -> Option<ReplicatorStatus> {
        poll_fn(|cx| Pin::new(&mut self.0).poll_next(cx)).await
    }
}

impl Stream for StatusStream {
    type Item = ReplicatorStatus;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ReplicatorStatus>> {
        Pin::new(&mut self.0).poll_next(cx)
    }
}

impl fmt::Debug for StatusStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusStream").finish_non_exhaustive()
    }
}

type Callback<T> = Arc<dyn Fn(&T) + Send + Sync>;
type Callbacks<T> = Arc<Vec<(u64, Callback<T>)>>;

/// Callbacks for values of one kind. Called one after the other, with no lock held.
pub(crate) struct Listeners<T> {
    list: Arc<Mutex<(u64, Callbacks<T>)>>,
}

impl<T: 'static> Listeners<T> {
    pub(crate) fn new() -> Listeners<T> {
        Listeners { list: Arc::new(Mutex::new((0, Arc::default()))) }
    }

    pub(crate) fn add(&self, callback: impl Fn(&T) + Send + Sync + 'static) -> ListenerToken {
        let mut list = lock(&self.list);
        list.0 += 1;
        let id = list.0;
        Arc::make_mut(&mut list.1).push((id, Arc::new(callback)));
        let list: Weak<dyn Removable> = Arc::downgrade(&self.list) as _;
        ListenerToken { list, id }
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.list).1.is_empty()
    }

    /// Tells every callback. One that panics is logged and does not disturb the others or the caller.
    pub(crate) fn notify(&self, value: &T) {
        let callbacks = Arc::clone(&lock(&self.list).1);
        for (_, callback) in callbacks.iter() {
            if catch_unwind(AssertUnwindSafe(|| callback(value))).is_err() {
                tracing::error!("a listener's callback panicked");
            }
        }
    }
}

/// A registered callback. Dropping the token leaves it registered.
#[derive(Clone)]
pub struct ListenerToken {
    list: Weak<dyn Removable>,
    id: u64,
}

impl ListenerToken {
    /// Ends the calls; one that is running now may still finish.
    pub fn remove(self) {
        if let Some(list) = self.list.upgrade() {
            list.remove(self.id);
        }
    }
}

impl fmt::Debug for ListenerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListenerToken({})", self.id)
    }
}

trait Removable: Send + Sync {
    fn remove(&self, id: u64);
}

impl<T> Removable for Mutex<(u64, Callbacks<T>)> {
    fn remove(&self, id: u64) {
        let mut list = lock(self);
        Arc::make_mut(&mut list.1).retain(|(other, _)| *other != id);
    }
}

/// No callback and no user code runs under these locks, so a poisoned one is as good as another.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_stream_gives_each_state_and_ends_with_the_replicator() {
        let status = ReplicatorStatus::new;
        let (sender, receiver) = watch::channel(status(ReplicatorActivity::Connecting));
        let mut stream = StatusStream::new(receiver);
        let mut next = || {
            let polled = Pin::new(&mut stream).poll_next(&mut Context::from_waker(Waker::noop()));
            polled.map(|status| status.map(|status| status.activity))
        };
        assert_eq!(next(), Poll::Ready(Some(ReplicatorActivity::Connecting)));
        assert_eq!(next(), Poll::Pending);
        sender.send_replace(status(ReplicatorActivity::Busy));
        assert_eq!(next(), Poll::Ready(Some(ReplicatorActivity::Busy)));
        sender.send_replace(status(ReplicatorActivity::Stopped));
        drop(sender);
        assert_eq!(next(), Poll::Ready(Some(ReplicatorActivity::Stopped)));
        assert_eq!(next(), Poll::Ready(None));
    }

    #[test]
    fn who_is_removed_is_not_called_any_more() {
        let (called, listeners) = (Arc::new(Mutex::new(Vec::new())), Listeners::<u8>::new());
        assert!(listeners.is_empty());
        let tokens = [1, 2].map(|who| {
            let called = Arc::clone(&called);
            listeners.add(move |value: &u8| lock(&called).push((who, *value)))
        });
        assert!(!listeners.is_empty());
        listeners.notify(&7);
        let [one, other] = tokens;
        one.remove();
        listeners.notify(&8);
        other.remove();
        assert!(listeners.is_empty());
        listeners.notify(&9);
        assert_eq!(*lock(&called), [(1, 7), (2, 7), (2, 8)]);
    }
}
