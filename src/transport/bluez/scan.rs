//! Neighbours, from adverts that were received just now.
//!
//! BlueZ keeps devices it saw long ago on the bus; only an event that a fresh report causes (RSSI or service data
//! changed) counts as seen (bluez #191, bleak #882).

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use bluer::{AdapterEvent, Address, DeviceEvent, DeviceProperty, DiscoveryFilter, DiscoveryTransport};
use futures_util::stream::{SelectAll, Stream, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::adapter::Adapter;
use super::error::BluetoothError;
use super::profile::{AdvertState, SERVICE};

/// One neighbour as its last advert told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its Bluetooth address.
    pub address: Address,
    /// Its name, if it gave one.
    pub name: Option<String>,
    /// Signal strength in dBm at this report.
    pub rssi: Option<i16>,
    /// What it says of itself.
    pub state: AdvertState,
}

/// Whom to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The first neighbour that is one of ours.
    Any,
    /// This address.
    Address(Address),
    /// This advertised name.
    Name(String),
}

impl Wanted {
    /// An address where `text` is one, `any`, or a name.
    pub fn parse(text: &str) -> Wanted {
        match text.parse() {
            Ok(address) => Wanted::Address(address),
            Err(_) if text.eq_ignore_ascii_case("any") => Wanted::Any,
            Err(_) => Wanted::Name(text.to_owned()),
        }
    }

    fn fits(&self, neighbour: &Neighbour) -> bool {
        match self {
            Wanted::Any => true,
            Wanted::Address(address) => neighbour.address == *address,
            Wanted::Name(name) => neighbour.name.as_deref() == Some(name),
        }
    }
}

type DeviceEvents = Pin<Box<dyn Stream<Item = (Address, DeviceEvent)> + Send>>;

/// A running scan; dropping it stops the discovery.
pub struct Scan {
    adapter: Adapter,
    found: Pin<Box<dyn Stream<Item = AdapterEvent> + Send>>,
    changes: SelectAll<DeviceEvents>,
    names: HashMap<Address, Option<String>>,
}

impl Scan {
    /// Starts an LE scan that reports each advert.
    ///
    /// # Errors
    /// [`BluetoothError`]; no scan is running then.
    pub async fn start(adapter: &Adapter) -> Result<Scan, BluetoothError> {
        let filter =
            DiscoveryFilter { transport: DiscoveryTransport::Le, duplicate_data: true, ..Default::default() };
        let bluer = adapter.bluer();
        bluer.set_discovery_filter(filter).await.map_err(BluetoothError::bluez("set discovery filter"))?;
        let found = bluer.discover_devices().await.map_err(BluetoothError::bluez("start discovery"))?;
        Ok(Scan {
            adapter: adapter.clone(),
            found: Box::pin(found),
            changes: SelectAll::new(),
            names: HashMap::new(),
        })
    }

    /// The next fresh report of one of our peripherals; `None` if BlueZ ended the discovery.
    pub async fn next(&mut self) -> Option<Neighbour> {
        loop {
            let (address, fresh) = tokio::select! {
                event = self.found.next() => match event? {
                    AdapterEvent::DeviceAdded(address) => (address, self.watch(address).await),
                    AdapterEvent::DeviceRemoved(address) => {
                        self.names.remove(&address);
                        continue;
                    }
                    AdapterEvent::PropertyChanged(_) => continue,
                },
                Some((address, event)) = self.changes.next(), if !self.changes.is_empty() => {
                    (address, is_report(&event))
                }
            };
            if fresh && let Some(neighbour) = self.look(address).await {
                return Some(neighbour);
            }
        }
    }

    /// Watches a device's changes. Returns whether it was heard just now: a device that BlueZ only remembers has no
    /// signal strength.
    async fn watch(&mut self, address: Address) -> bool {
        let Ok(device) = self.adapter.bluer().device(address) else { return false };
        if self.names.insert(address, None).is_none()
            && let Ok(events) = device.events().await
        {
            self.changes.push(Box::pin(events.map(move |event| (address, event))));
        }
        device.rssi().await.ok().flatten().is_some()
    }

    async fn look(&mut self, address: Address) -> Option<Neighbour> {
        let device = self.adapter.bluer().device(address).ok()?;
        let data = device.service_data().await.ok().flatten()?;
        let state = AdvertState::decode(data.get(&SERVICE)?)?;
        let name = device.name().await.ok().flatten();
        let rssi = device.rssi().await.ok().flatten();
        Some(Neighbour { address, name, rssi, state })
    }
}

fn is_report(event: &DeviceEvent) -> bool {
    let DeviceEvent::PropertyChanged(property) = event;
    matches!(property, DeviceProperty::Rssi(_) | DeviceProperty::ServiceData(_))
}

/// Scans until `wanted` is seen.
///
/// # Errors
/// [`BluetoothError::NotSeen`] after `within`; the scan has stopped then.
pub async fn find(adapter: &Adapter, wanted: &Wanted, within: Duration) -> Result<Neighbour, BluetoothError> {
    let deadline = Instant::now() + within;
    let mut scan = Scan::start(adapter).await?;
    loop {
        match timeout_at(deadline, scan.next()).await {
            Ok(Some(neighbour)) if wanted.fits(&neighbour) => return Ok(neighbour),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return Err(BluetoothError::NotSeen { peer: format!("{wanted:?}"), within }),
        }
    }
}
