//! A node's own use of Bluetooth, from which adapters are opened.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::daemon::{Daemon, answer};
use super::error::BluetoothError;
use super::radio::{Radio, RadioStatus};
use super::shared::SharedAdapter;

/// A session with bluetoothd, the radio connections that were made with it, and the adapters that it has used. A clone is the
/// same one.
#[derive(Clone, Default)]
pub struct Bluez(Arc<Used>);

#[derive(Default)]
struct Used {
    /// Kept, because each session is a connection to the bus with tasks of its own, and a central that looks for a lost peer
    /// opens its adapter every few seconds.
    daemon: tokio::sync::Mutex<Option<Daemon>>,
    radio: Arc<Radio>,
    adapters: Mutex<HashMap<String, Arc<SharedAdapter>>>,
}

impl Bluez {
    /// The session with the present daemon.
    ///
    /// # Errors
    /// [`BluetoothError::NoDaemon`], [`BluetoothError::NotPermitted`], [`BluetoothError::TimedOut`].
    pub(super) async fn daemon(&self) -> Result<Daemon, BluetoothError> {
        let mut kept = self.0.daemon.lock().await;
        if let Some(daemon) = kept.as_ref()
            && daemon.is_present().await
        {
            return Ok(daemon.clone());
        }
        *kept = None;
        let daemon = answer("reaching bluetoothd", Daemon::open()).await?;
        debug!(owner = daemon.owner(), "bluetoothd reached");
        Ok(kept.insert(daemon).clone())
    }

    /// What all nodes of this process share of the adapter named `name`.
    pub(super) fn adapter(&self, name: &str) -> Arc<SharedAdapter> {
        // Nothing under this lock can be left half done.
        let mut adapters = self.0.adapters.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(adapters.entry(name.to_owned()).or_insert_with(|| SharedAdapter::of(name)))
    }

    /// The radio connections that are made with this handle.
    pub(super) fn radio(&self) -> &Arc<Radio> {
        &self.0.radio
    }

    /// Listens to the kernel's monitor from now on, if it may, for what it tells of connections; those made before stay
    /// unknown. Needs a tokio runtime.
    pub fn watch_radio(&self) {
        self.0.radio.watch();
    }

    /// All radio connections made with this handle that there are now.
    pub async fn radio_status(&self) -> Vec<RadioStatus> {
        self.0.radio.status().await
    }

    /// Waits until no adapter that was used is ending a connection, for at most `limit`. To be called before the process
    /// ends: it would leave the peer connected and its slot taken.
    pub async fn wait_for_disconnects(&self, limit: Duration) {
        let adapters: Vec<Arc<SharedAdapter>> =
            self.0.adapters.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let deadline = Instant::now() + limit;
        for adapter in adapters {
            let _ = timeout_at(deadline, adapter.wait_for_disconnects(limit)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bluer::Address;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn two_nodes_share_an_adapter_and_tell_of_their_own_connections() {
        let (one, other) = (Bluez::default(), Bluez::default());
        assert!(Arc::ptr_eq(&one.adapter("test-handle"), &other.adapter("test-handle")));
        assert!(!Arc::ptr_eq(&one.adapter("test-handle"), &one.adapter("test-handle-2")));
        let peer = Address([1, 2, 3, 4, 5, 6]);
        let announced = one.radio().announce("test-handle", peer, false, "gatt", Some(247), 244);
        assert_eq!(one.clone().radio_status().await.len(), 1);
        assert_eq!(other.radio_status().await, []);
        drop(announced);
        assert_eq!(one.radio_status().await, []);
        // A node waits for the adapters that it has used, and no other.
        let ends = std::future::pending::<()>();
        one.adapter("test-handle-2").begin_disconnect(peer, ends);
        let began = Instant::now();
        other.wait_for_disconnects(Duration::from_secs(2)).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        one.wait_for_disconnects(Duration::from_secs(2)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(2));
    }
}
