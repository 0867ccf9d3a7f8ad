//! One adapter: found by name or address, switched on, and asked to do one delicate thing at a time.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::BluetoothError;

/// Connections one adapter is trusted with; small USB adapters manage about 5, Broadcom's about 7
/// (`firmware-notes/bluez.md`, connection slots).
pub const SLOTS_DEFAULT: usize = 5;

/// An open adapter that is powered, with its limits.
#[derive(Clone)]
pub struct Adapter {
    session: bluer::Session,
    adapter: bluer::Adapter,
    limits: Arc<Limits>,
}

/// Shared by everything in the process that uses the same adapter.
struct Limits {
    /// Concurrent connects lose services (bluez #195): one connect-and-resolve at a time.
    connecting: Arc<Semaphore>,
    /// Connection slots; when all are in use the target just vanishes from the bus (bleak-retry-connector #67).
    slots: Arc<Semaphore>,
}

static LIMITS: LazyLock<Mutex<HashMap<String, Arc<Limits>>>> = LazyLock::new(Mutex::default);

impl Adapter {
    /// Opens the adapter named `wanted` (`hci0` or its address), or the first one, and switches it on.
    ///
    /// # Errors
    /// [`BluetoothError::NoDaemon`], [`BluetoothError::NoAdapter`], [`BluetoothError::PoweredOff`].
    pub async fn open(wanted: Option<&str>) -> Result<Adapter, BluetoothError> {
        let session =
            bluer::Session::new().await.map_err(|e| BluetoothError::NoDaemon { message: e.to_string() })?;
        let names =
            session.adapter_names().await.map_err(|e| BluetoothError::NoDaemon { message: e.to_string() })?;
        let mut present = Vec::new();
        let mut found = None;
        for name in names {
            let adapter = session.adapter(&name).map_err(BluetoothError::bluez("open adapter"))?;
            let address = adapter.address().await.map(|a| a.to_string()).unwrap_or_default();
            let fits = wanted.is_none_or(|w| w == name || w.eq_ignore_ascii_case(&address));
            if fits && found.is_none() {
                found = Some(adapter);
            }
            present.push(format!("{name} ({address})"));
        }
        let adapter = found.ok_or_else(|| BluetoothError::NoAdapter {
            wanted: wanted.unwrap_or("at all").to_owned(),
            present: if present.is_empty() { "none".to_owned() } else { present.join(", ") },
        })?;
        let opened = Adapter { session, limits: Limits::of(adapter.name()), adapter };
        opened.power_on().await?;
        Ok(opened)
    }

    /// Switches the adapter on unless it is.
    pub async fn power_on(&self) -> Result<(), BluetoothError> {
        if !self.adapter.is_powered().await.map_err(BluetoothError::bluez("read adapter power"))? {
            self.adapter.set_powered(true).await.map_err(|e| BluetoothError::PoweredOff {
                adapter: self.adapter.name().to_owned(),
                message: e.to_string(),
            })?;
        }
        Ok(())
    }

    /// How many advertisements are registered; `None` if the adapter is off or gone.
    pub(super) async fn advertisements(&self) -> Option<u8> {
        if !self.adapter.is_powered().await.unwrap_or(false) {
            return None;
        }
        self.adapter.active_advertising_instances().await.ok()
    }

    /// bluer's handle.
    pub fn bluer(&self) -> &bluer::Adapter {
        &self.adapter
    }

    /// bluer's session, for agents and bus events.
    pub fn session(&self) -> &bluer::Session {
        &self.session
    }

    /// Its name, `hci0`.
    pub fn name(&self) -> &str {
        self.adapter.name()
    }

    /// Waits for the right to connect: one at a time.
    pub(super) async fn connecting(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.limits.connecting).acquire_owned().await {
            Ok(permit) => permit,
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }

    /// Takes a connection slot, held as long as the connection.
    ///
    /// # Errors
    /// [`BluetoothError::SlotsFull`] at once; the caller may try again later.
    pub(super) fn slot(&self) -> Result<OwnedSemaphorePermit, BluetoothError> {
        Arc::clone(&self.limits.slots)
            .try_acquire_owned()
            .map_err(|_| BluetoothError::SlotsFull { adapter: self.name().to_owned(), slots: SLOTS_DEFAULT })
    }
}

impl Limits {
    fn of(adapter: &str) -> Arc<Limits> {
        let mut all = LIMITS.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = all.entry(adapter.to_owned()).or_insert_with(|| {
            Arc::new(Limits {
                connecting: Arc::new(Semaphore::new(1)),
                slots: Arc::new(Semaphore::new(SLOTS_DEFAULT)),
            })
        });
        Arc::clone(limits)
    }
}
