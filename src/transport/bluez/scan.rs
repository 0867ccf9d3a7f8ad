//! Neighbours, from adverts that were received just now.
//!
//! BlueZ keeps devices it saw long ago on the bus; only an event that a fresh report causes (RSSI or service data
//! changed) counts as seen (bluez #191, bleak #882).

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use bluer::{
    AdapterEvent, AdapterProperty, Address, DeviceEvent, DeviceProperty, DiscoveryFilter, DiscoveryTransport,
};
use futures_util::stream::{SelectAll, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tracing::debug;

use super::adapter::Adapter;
use super::daemon::answer;
use super::error::BluetoothError;
use super::profile::{AdvertBytes, SERVICE, advert_state};
use super::stall::Remedy;

/// How often a scan looks whether adapter and daemon are still there, and whether anything is heard.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Reports that wait to be taken.
const REPORTS_MAX: usize = 64;
/// Limit of stopping a scan, a power cycle in progress included.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Devices that a scan keeps in mind; with more, those that are not ours are forgotten.
const SEEN_MAX: usize = 1024;

/// One neighbour as its last advert told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its Bluetooth address.
    pub address: Address,
    /// Its name, if it gave one.
    pub name: Option<String>,
    /// Signal strength in dBm at this report.
    pub rssi: Option<i16>,
    /// What it says of itself, for a codec to read.
    pub state: AdvertBytes,
}

/// A running scan, in a task of its own; dropping it stops the discovery.
pub struct Scan {
    reports: mpsc::Receiver<Result<Neighbour, BluetoothError>>,
    task: JoinHandle<()>,
}

impl Scan {
    /// Starts an LE scan that reports each advert. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BluetoothError`]; no scan is running then.
    pub async fn start(adapter: &Adapter) -> Result<Scan, BluetoothError> {
        let mut check = interval(CHECK_INTERVAL);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let scanner = Scanner {
            adapter: adapter.clone(),
            found: Some(discover(adapter).await?),
            changes: SelectAll::new(),
            seen: HashMap::new(),
            check,
            checked: Instant::now(),
        };
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        Ok(Scan { reports, task: tokio::spawn(scanner.run(sender)) })
    }

    /// The next fresh report of one of our peripherals. May be dropped and called again without loss.
    ///
    /// # Errors
    /// [`BluetoothError::AdapterLost`], or of BlueZ when the discovery cannot be started again: the scan is over.
    pub async fn next(&mut self) -> Result<Neighbour, BluetoothError> {
        // The task ends with an error or when nobody listens.
        let over = BluetoothError::AdapterLost { adapter: "of the scan".to_owned() };
        self.reports.recv().await.unwrap_or(Err(over))
    }

    /// Stops the discovery and waits until it has ended: a connect right after a scan would be aborted (bleak #1255).
    pub async fn stop(self) {
        drop(self.reports);
        if timeout(STOP_LIMIT, self.task).await.is_err() {
            debug!("the discovery does not end");
        }
    }
}

type DeviceEvents = Pin<Box<dyn Stream<Item = (Address, DeviceEvent)> + Send>>;
type Found = Pin<Box<dyn Stream<Item = AdapterEvent> + Send>>;

/// What the task of a scan works on.
struct Scanner {
    adapter: Adapter,
    found: Option<Found>,
    changes: SelectAll<DeviceEvents>,
    seen: HashMap<Address, Seen>,
    check: Interval,
    checked: Instant,
}

/// What a device has told in this scan.
#[derive(Default)]
struct Seen {
    name: Option<String>,
    rssi: Option<i16>,
    state: Option<AdvertBytes>,
}

impl Scanner {
    /// Reports until nobody listens any more or something has failed.
    async fn run(mut self, reports: mpsc::Sender<Result<Neighbour, BluetoothError>>) {
        loop {
            let report = tokio::select! {
                report = self.next() => report,
                () = reports.closed() => break,
            };
            let failed = report.is_err();
            // Whoever is too slow hears the next advert.
            let _ = if failed {
                reports.send(report).await.map_err(|_| ())
            } else {
                reports.try_send(report).map_err(|_| ())
            };
            if failed {
                break;
            }
        }
        self.found = None;
        // bluer stops in the background, and takes a filter only when that is done.
        if let Err(error) = answer("stopping the discovery", set_filter(&self.adapter)).await {
            debug!(%error, "after a scan");
        }
    }

    async fn next(&mut self) -> Result<Neighbour, BluetoothError> {
        loop {
            let Some(found) = &mut self.found else {
                self.found = Some(discover(&self.adapter).await?);
                continue;
            };
            tokio::select! {
                event = found.next() => match event {
                    Some(AdapterEvent::DeviceAdded(address)) => {
                        if self.added(address).await && let Some(neighbour) = self.neighbour(address) {
                            return Ok(neighbour);
                        }
                    }
                    Some(AdapterEvent::DeviceRemoved(address)) => {
                        self.seen.remove(&address);
                    }
                    Some(AdapterEvent::PropertyChanged(AdapterProperty::Powered(false))) => {
                        return Err(BluetoothError::AdapterLost { adapter: self.adapter.name().to_owned() });
                    }
                    Some(AdapterEvent::PropertyChanged(_)) => {}
                    // BlueZ ends an LE discovery after 10.24 s and takes 5 s before it begins the next by itself.
                    None => self.found = None,
                },
                Some((address, event)) = self.changes.next(), if !self.changes.is_empty() => {
                    if self.changed(address, event) && let Some(neighbour) = self.neighbour(address) {
                        return Ok(neighbour);
                    }
                }
                _ = self.check.tick() => self.look_after().await?,
            }
        }
    }

    /// A device is on the bus. Whether it was heard just now: one that BlueZ only remembers has no signal strength.
    async fn added(&mut self, address: Address) -> bool {
        let Ok(device) = self.adapter.bluer().device(address) else { return false };
        let Ok(properties) = device.all_properties().await else { return false };
        if self.seen.len() >= SEEN_MAX {
            self.seen.retain(|_, seen| seen.state.is_some());
        }
        if self.seen.insert(address, Seen::default()).is_none()
            && self.seen.len() < SEEN_MAX
            && let Ok(events) = device.events().await
        {
            self.changes.push(Box::pin(events.map(move |event| (address, event))));
        }
        for property in properties {
            self.take(address, property);
        }
        let heard = self.seen.get(&address).is_some_and(|seen| seen.rssi.is_some());
        if heard {
            self.adapter.shared().stall().heard();
        }
        heard
    }

    /// Something of a device has changed. Whether a report did it.
    fn changed(&mut self, address: Address, event: DeviceEvent) -> bool {
        let DeviceEvent::PropertyChanged(property) = event;
        let report = matches!(property, DeviceProperty::Rssi(_) | DeviceProperty::ServiceData(_));
        self.take(address, property);
        if report {
            self.adapter.shared().stall().heard();
        }
        report
    }

    fn take(&mut self, address: Address, property: DeviceProperty) {
        let Some(seen) = self.seen.get_mut(&address) else { return };
        match property {
            DeviceProperty::Name(name) => seen.name = Some(name),
            DeviceProperty::Rssi(rssi) => seen.rssi = Some(rssi),
            DeviceProperty::ServiceData(data) => {
                seen.state = data.get(&SERVICE).and_then(|data| advert_state(data));
            }
            _ => {}
        }
    }

    fn neighbour(&self, address: Address) -> Option<Neighbour> {
        let seen = self.seen.get(&address)?;
        Some(Neighbour { address, name: seen.name.clone(), rssi: seen.rssi, state: seen.state? })
    }

    /// Looks whether all is still there, and does something about silence.
    async fn look_after(&mut self) -> Result<(), BluetoothError> {
        self.adapter.check().await?;
        let elapsed = self.checked.elapsed();
        self.checked = Instant::now();
        let remedy = self.adapter.shared().stall().scanned(elapsed);
        match remedy {
            Remedy::Wait => {}
            Remedy::RestartScan => {
                debug!(adapter = self.adapter.name(), "nothing is heard: starting the scan anew");
                self.found = None;
            }
            Remedy::PowerCycle => {
                self.found = None;
                let adapter = self.adapter.clone();
                // In a task of its own: an adapter must not stay off because a scan was ended in the middle.
                let _ =
                    tokio::spawn(async move { adapter.power_cycle("nothing is heard any more").await }).await;
            }
        }
        Ok(())
    }
}

async fn set_filter(adapter: &Adapter) -> Result<(), BluetoothError> {
    let filter = DiscoveryFilter {
        transport: DiscoveryTransport::Le,
        duplicate_data: true,
        // While any program scans with a pattern, BlueZ drops whoever does not match one of the patterns, for all programs;
        // everybody matches the empty one (bluez #982).
        pattern: Some(String::new()),
        ..Default::default()
    };
    match adapter.bluer().set_discovery_filter(filter).await {
        // Another scan of this process is running, with the same filter.
        Err(error) if error.kind == bluer::ErrorKind::DiscoveryActive => Ok(()),
        result => result.map_err(BluetoothError::bluez("set discovery filter")),
    }
}

async fn discover(adapter: &Adapter) -> Result<Found, BluetoothError> {
    answer("starting the discovery", async {
        set_filter(adapter).await?;
        let found = adapter.bluer().discover_devices().await;
        Ok(Box::pin(found.map_err(BluetoothError::bluez("start discovery"))?) as Found)
    })
    .await
}
