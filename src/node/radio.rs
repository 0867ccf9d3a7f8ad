//! What a node tells of its Bluetooth connections.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::event::NodeEvent;
use super::hub::Hub;
use crate::task;
use crate::transport::bluez::Bluez;
use crate::transport::bluez::radio::RadioStatus;

/// How often radio connections are looked at.
const RADIO_INTERVAL: Duration = Duration::from_secs(2);
/// Change of signal strength that is told.
const RSSI_STEP_DB: u8 = 6;

/// Tells of each radio connection when it is made and when something of it has changed, from the first use of Bluetooth until
/// it is dropped.
pub(super) struct Reporter {
    events: Weak<Hub<NodeEvent>>,
    bluez: Bluez,
    task: Mutex<Option<JoinHandle<()>>>,
    /// The connections, as they were looked at last.
    now: Arc<watch::Sender<Vec<RadioStatus>>>,
}

impl Reporter {
    pub(super) fn new(events: &Arc<Hub<NodeEvent>>, bluez: Bluez) -> Reporter {
        let now = Arc::new(watch::Sender::new(Vec::new()));
        Reporter { events: Arc::downgrade(events), bluez, task: Mutex::default(), now }
    }

    /// The connections, as they were looked at last.
    pub(super) fn watch(&self) -> watch::Receiver<Vec<RadioStatus>> {
        self.now.subscribe()
    }

    pub(super) fn start(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        task.get_or_insert_with(|| {
            task::spawn(report_radio(self.events.clone(), self.bluez.clone(), Arc::clone(&self.now)))
        });
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

async fn report_radio(
    events: Weak<Hub<NodeEvent>>,
    bluez: Bluez,
    shown: Arc<watch::Sender<Vec<RadioStatus>>>,
) {
    bluez.watch_radio();
    let mut tick = tokio::time::interval(RADIO_INTERVAL);
    let mut before: Vec<RadioStatus> = Vec::new();
    loop {
        tick.tick().await;
        let now = bluez.radio_status().await;
        let Some(events) = events.upgrade() else { return };
        for connection in now.iter().filter(|connection| !before.iter().any(|old| resembles(old, connection)))
        {
            tracing::info!("radio: {connection}");
            events.emit(NodeEvent::Radio(connection.clone()));
        }
        shown.send_if_modified(|shown| {
            let is_other = *shown != now;
            shown.clone_from(&now);
            is_other
        });
        before = now;
    }
}

/// Whether nothing worth telling has changed.
fn resembles(old: &RadioStatus, new: &RadioStatus) -> bool {
    let near = match (old.rssi_dbm, new.rssi_dbm) {
        (Some(old), Some(new)) => old.abs_diff(new) < RSSI_STEP_DB,
        (old, new) => old == new,
    };
    near && RadioStatus { rssi_dbm: None, ..old.clone() } == RadioStatus { rssi_dbm: None, ..new.clone() }
}
