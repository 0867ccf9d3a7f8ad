//! What concerns an adapter and not the node that uses it: it connects to one peer at a time, and has few slots.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bluer::Address;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::stall::StallWatch;

/// Limit of ending a connection.
const DISCONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Pause between the end of a connection and the next connect: 5.66 took one back that was asked for 1 ms later, and never
/// answered it (`firmware-notes/bluez.md`, connecting).
const SETTLE: Duration = Duration::from_millis(150);

/// The adapters that nodes of this process use, by name.
///
/// Process-wide, for two nodes of one process may use one adapter and know nothing of each other, and it stays one adapter:
/// two connects at the same time lose services, and a connect is taken for the connection that another node is just ending.
/// An adapter is forgotten with the last node that uses it.
static ADAPTERS: LazyLock<Mutex<HashMap<String, Weak<SharedAdapter>>>> = LazyLock::new(Mutex::default);

/// One adapter, for all of this process that uses it.
pub(super) struct SharedAdapter {
    /// Concurrent connects lose services (bluez #195): one connect-and-resolve at a time.
    connecting: Arc<Semaphore>,
    /// Connections of this process as a central.
    centrals: AtomicUsize,
    /// What is known of its silence.
    stall: Mutex<StallWatch>,
    /// Peers that are being disconnected: a process that ends at once would leave the peer connected and its slot taken.
    disconnects: watch::Sender<Vec<Address>>,
}

impl SharedAdapter {
    /// The adapter of this name.
    pub(super) fn of(name: &str) -> Arc<SharedAdapter> {
        let mut all = ADAPTERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(adapter) = all.get(name).and_then(Weak::upgrade) {
            return adapter;
        }
        all.retain(|_, adapter| adapter.strong_count() > 0);
        let adapter = Arc::new(SharedAdapter {
            connecting: Arc::new(Semaphore::new(1)),
            centrals: AtomicUsize::new(0),
            stall: Mutex::default(),
            disconnects: watch::Sender::new(Vec::new()),
        });
        all.insert(name.to_owned(), Arc::downgrade(&adapter));
        adapter
    }

    /// Waits for the right to connect: one at a time.
    pub(super) async fn connecting(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.connecting).acquire_owned().await {
            Ok(permit) => permit,
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }

    /// What is known of the adapter's silence.
    pub(super) fn stall(&self) -> MutexGuard<'_, StallWatch> {
        self.stall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection slot, unless `slots` are taken; `others` are those that BlueZ counts.
    pub(super) fn slot(self: &Arc<Self>, slots: usize, others: usize) -> Option<Slot> {
        if others.max(self.centrals.load(Ordering::Relaxed)) >= slots {
            return None;
        }
        self.centrals.fetch_add(1, Ordering::Relaxed);
        Some(Slot(Arc::clone(self)))
    }

    /// Runs something that ends the radio connection with `peer` in the background, for at most 10 s, and gives BlueZ a moment then.
    pub(super) fn begin_disconnect(
        self: &Arc<Self>,
        peer: Address,
        end: impl Future<Output = ()> + Send + 'static,
    ) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let under_way = Disconnecting::begin(self, peer);
        runtime.spawn(async move {
            let _ = timeout(DISCONNECT_LIMIT, end).await;
            sleep(SETTLE).await;
            drop(under_way);
        });
    }

    /// Waits until all disconnects are done, for at most `limit`.
    pub(super) async fn wait_for_disconnects(&self, limit: Duration) {
        self.wait_until(limit, Vec::is_empty).await;
    }

    /// Waits until `peer` is not being disconnected any more, for at most `limit`: a connect in between would be taken for the
    /// connection that ends.
    pub(super) async fn wait_for_disconnect(&self, peer: Address, limit: Duration) {
        self.wait_until(limit, |peers| !peers.contains(&peer)).await;
    }

    async fn wait_until(&self, limit: Duration, condition: impl Fn(&Vec<Address>) -> bool) {
        let mut peers = self.disconnects.subscribe();
        // The sender lives as long as this does.
        let _ = timeout(limit, peers.wait_for(|peers| condition(peers))).await;
    }
}

/// A disconnect that is under way; over when dropped, be it because its runtime has ended.
struct Disconnecting {
    adapter: Arc<SharedAdapter>,
    peer: Address,
}

impl Disconnecting {
    fn begin(adapter: &Arc<SharedAdapter>, peer: Address) -> Disconnecting {
        adapter.disconnects.send_modify(|peers| peers.push(peer));
        Disconnecting { adapter: Arc::clone(adapter), peer }
    }
}

impl Drop for Disconnecting {
    fn drop(&mut self) {
        self.adapter.disconnects.send_modify(|peers| {
            if let Some(at) = peers.iter().position(|peer| *peer == self.peer) {
                peers.swap_remove(at);
            }
        });
    }
}

/// A connection slot that is taken; free when dropped.
pub(super) struct Slot(Arc<SharedAdapter>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.centrals.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names are of no real adapter, and each test has its own: the tests of a process run side by side.
    #[tokio::test(start_paused = true)]
    async fn two_nodes_on_one_adapter_connect_one_after_the_other() {
        let (one, other) = (SharedAdapter::of("test-connecting"), SharedAdapter::of("test-connecting"));
        let elsewhere = SharedAdapter::of("test-connecting-elsewhere");
        let permit = one.connecting().await;
        let waits = timeout(Duration::from_secs(1), other.connecting()).await;
        assert!(waits.is_err(), "another node connects on this adapter");
        let _elsewhere = elsewhere.connecting().await;
        drop(permit);
        drop(other.connecting().await);
    }

    #[tokio::test(start_paused = true)]
    async fn one_node_waits_for_what_another_is_ending() {
        let (one, other) = (SharedAdapter::of("test-ending"), SharedAdapter::of("test-ending"));
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        let [peer, another] = [Address([1; 6]), Address([2; 6])];
        one.begin_disconnect(peer, async {
            let _ = end.await;
        });
        let began = tokio::time::Instant::now();
        other.wait_for_disconnect(another, Duration::from_secs(5)).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "another peer may be connected meanwhile");
        let waits =
            timeout(Duration::from_secs(1), other.wait_for_disconnect(peer, Duration::from_secs(5))).await;
        assert!(waits.is_err(), "the same may not");
        let waits = timeout(Duration::from_secs(1), other.wait_for_disconnects(Duration::from_secs(5))).await;
        assert!(waits.is_err(), "it is under way");
        ended.send(()).unwrap();
        let began = tokio::time::Instant::now();
        other.wait_for_disconnects(Duration::from_secs(5)).await;
        assert!((SETTLE..Duration::from_secs(5)).contains(&began.elapsed()), "{:?}", began.elapsed());
    }

    #[test]
    fn slots_are_counted_for_all_nodes_and_forgotten_with_the_last() {
        let (one, other) = (SharedAdapter::of("test-slots"), SharedAdapter::of("test-slots"));
        let slot = one.slot(1, 0).unwrap();
        assert!(other.slot(1, 0).is_none(), "the other node has it");
        assert!(other.slot(2, 0).is_some());
        assert!(other.slot(2, 2).is_none(), "BlueZ counts two of others");
        drop(one);
        assert!(other.slot(1, 0).is_none(), "its connection is still there");
        drop(slot);
        assert!(other.slot(1, 0).is_some());
        let before = Arc::downgrade(&other);
        drop(other);
        assert!(before.upgrade().is_none());
        assert!(SharedAdapter::of("test-slots").slot(1, 0).is_some());
    }
}
