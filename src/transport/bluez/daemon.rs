//! The bluetoothd in use: a D-Bus session, and a look at whether it is still the same daemon.
//!
//! A restart of bluetoothd drops everything that was registered with it and says so only on the bus, by the owner of its name
//! (SignalK #3057). bluer's proxies go by the name and reach the new daemon, which knows nothing of us.

use std::sync::Arc;
use std::time::Duration;

use dbus::nonblock::{Proxy, SyncConnection};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::debug;

use super::error::BluetoothError;

/// Name of bluetoothd on the bus.
pub(super) const BLUEZ: &str = "org.bluez";
/// Limit of a question that needs no radio. A daemon that hangs would keep its callers for bluer's own limit of 120 s.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A session with the bluetoothd that runs now.
#[derive(Clone)]
pub(super) struct Daemon {
    pub(super) session: bluer::Session,
    bus: Arc<Bus>,
    /// Unique name on the bus; a restarted daemon has another one.
    owner: String,
}

/// A connection of our own, for what bluer does not tell.
struct Bus {
    connection: Arc<SyncConnection>,
    task: JoinHandle<()>,
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Daemon {
    /// A session with the present daemon; see [`Bluez::daemon`](super::handle::Bluez::daemon) for one that is kept.
    ///
    /// # Errors
    /// [`BluetoothError::NoDaemon`], [`BluetoothError::NotPermitted`].
    pub(super) async fn open() -> Result<Daemon, BluetoothError> {
        let no_bus = |message: String| BluetoothError::NoDaemon { message };
        // Opening the bus blocks.
        let opened = tokio::task::spawn_blocking(dbus_tokio::connection::new_system_sync).await;
        let (resource, connection) =
            opened.map_err(|e| no_bus(e.to_string()))?.map_err(|e| no_bus(e.to_string()))?;
        let task = tokio::spawn(async move {
            let lost = resource.await;
            debug!(%lost, "connection to D-Bus is over");
        });
        let bus = Arc::new(Bus { connection, task });
        let owner = bus.owner(BLUEZ).await.map_err(|e| daemon_error(&e))?;
        let session = bluer::Session::new().await.map_err(|e| no_bus(e.to_string()))?;
        Ok(Daemon { session, bus, owner })
    }

    /// Its unique name on the bus.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// Whether the daemon of this session still runs; false too if it cannot be asked.
    pub(super) async fn is_present(&self) -> bool {
        if self.bus.task.is_finished() {
            return false;
        }
        let owner = timeout(ANSWER_LIMIT, self.bus.owner(BLUEZ)).await;
        matches!(owner, Ok(Ok(owner)) if owner == self.owner)
    }

    /// A connection to the bus for objects of our own.
    pub(super) fn connection(&self) -> &Arc<SyncConnection> {
        &self.bus.connection
    }
}

impl Bus {
    async fn owner(&self, name: &str) -> Result<String, dbus::Error> {
        let bus =
            Proxy::new("org.freedesktop.DBus", "/org/freedesktop/DBus", ANSWER_LIMIT, &*self.connection);
        let (owner,): (String,) = bus.method_call("org.freedesktop.DBus", "GetNameOwner", (name,)).await?;
        Ok(owner)
    }
}

fn daemon_error(error: &dbus::Error) -> BluetoothError {
    let message = match error.name() {
        Some("org.freedesktop.DBus.Error.NameHasNoOwner") => "it does not run".to_owned(),
        _ => error.to_string(),
    };
    BluetoothError::NoDaemon { message }
}

/// Waits for an answer that needs no radio, for at most [`ANSWER_LIMIT`].
pub(super) async fn answer<T>(
    what: &'static str,
    question: impl Future<Output = Result<T, BluetoothError>>,
) -> Result<T, BluetoothError> {
    timeout(ANSWER_LIMIT, question)
        .await
        .map_err(|_| BluetoothError::TimedOut { what, limit: ANSWER_LIMIT })?
}
