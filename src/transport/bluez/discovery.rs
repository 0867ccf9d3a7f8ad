//! Waiting for BlueZ's discovery of a peer's services.

use std::time::Duration;

use bluer::Device;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout};

use super::error::BluetoothError;

/// Limit of BlueZ's discovery, for a disconnection that waits for it: in the middle of it bluetoothd 5.66 has died
/// (`firmware-notes/bluez.md`, crashes).
pub(crate) const DISCOVERY_LIMIT: Duration = Duration::from_secs(5);
/// A connection that BlueZ reports as gone just after it was made may still come (`firmware-notes/bluez.md`, connecting).
const FLICKER: Duration = Duration::from_secs(1);
/// How often BlueZ is asked whether it has the services, should it not tell.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// What is asked.
const WHAT: &str = "read whether the peer's services are known";

/// Waits while BlueZ still discovers; fails when the connection is gone.
pub(super) async fn wait_until_resolved(device: &Device) -> Result<(), BluetoothError> {
    let lost = || BluetoothError::Disconnected { peer: device.address().to_string() };
    let mut events = device.events().await.map_err(BluetoothError::bluez(WHAT))?;
    let mut gone_since = None;
    while !device.is_services_resolved().await.map_err(BluetoothError::bluez(WHAT))? {
        if device.is_connected().await.unwrap_or(false) {
            gone_since = None;
        } else if gone_since.get_or_insert_with(Instant::now).elapsed() > FLICKER {
            return Err(lost());
        }
        // The stream ends with the device.
        if let Ok(None) = timeout(ASK_AGAIN, events.next()).await {
            return Err(lost());
        }
    }
    Ok(())
}
