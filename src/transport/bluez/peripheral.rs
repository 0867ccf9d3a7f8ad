//! The peripheral role on bluer: GATT application, advertisement, and one packet channel for each central.
//!
//! Both characteristics use BlueZ's socket (Io) mode: bluer's callback mode runs writes out of order and stalls on
//! notifications sent flat out (`firmware-notes/bluez.md`). BlueZ's end of the write socket blocks, so whoever takes a
//! channel must always drain it; the link refuses credit instead.

use std::collections::HashMap;
use std::time::Duration;

use bluer::Address;
use bluer::adv::{Advertisement, AdvertisementHandle};
use bluer::gatt::local::{
    Application, ApplicationHandle, Characteristic, CharacteristicControl, CharacteristicControlEvent,
    CharacteristicControlHandle, CharacteristicNotify, CharacteristicNotifyMethod, CharacteristicRead,
    CharacteristicWrite, CharacteristicWriteMethod, Service, characteristic_control,
};
use bluer::gatt::{CharacteristicReader, CharacteristicWriter};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::adapter::Adapter;
use super::error::BluetoothError;
use super::packets::{CharacteristicSink, CharacteristicSource, packet_size};
use super::profile::{AdvertState, FROM_PERIPHERAL, INFORMATION, Information, SERVICE, TO_PERIPHERAL};
use crate::transport::packet::PacketChannel;

/// Channels that wait to be taken; more centrals than that are turned away.
const INCOMING_MAX: usize = 8;
/// Halves of channels that wait for their other half; one goes when there is no room for another.
const HALVES_MAX: usize = 16;
/// Registering an advertisement can fail right after a disconnect (bluez #644).
const ADVERTISE_ATTEMPTS: u32 = 5;
/// Pause between two attempts to advertise.
const ADVERTISE_PAUSE: Duration = Duration::from_millis(500);
/// Advertising interval: short enough to be found within a scan window or two.
const ADVERTISING_INTERVAL: Duration = Duration::from_millis(100);

/// A running peripheral; dropping it takes the application and the advertisement away.
pub struct Peripheral {
    adapter: Adapter,
    incoming: mpsc::Receiver<PacketChannel>,
    name: Option<String>,
    advertisement: Option<AdvertisementHandle>,
    _application: ApplicationHandle,
}

impl Peripheral {
    /// Registers the application and advertises `state`, with `name` in the scan response.
    ///
    /// # Errors
    /// [`BluetoothError`]; nothing stays registered.
    pub async fn start(
        adapter: &Adapter,
        information: Information,
        name: Option<String>,
        state: AdvertState,
    ) -> Result<Peripheral, BluetoothError> {
        let (writes, writes_handle) = characteristic_control();
        let (notifies, notifies_handle) = characteristic_control();
        let application = Application {
            services: vec![service(information, writes_handle, notifies_handle)],
            ..Default::default()
        };
        let application = adapter
            .bluer()
            .serve_gatt_application(application)
            .await
            .map_err(BluetoothError::bluez("register GATT application"))?;
        let (sender, incoming) = mpsc::channel(INCOMING_MAX);
        tokio::spawn(pair_halves(writes, notifies, sender));
        let mut peripheral = Peripheral {
            adapter: adapter.clone(),
            incoming,
            name,
            advertisement: None,
            _application: application,
        };
        peripheral.advertise(state).await?;
        Ok(peripheral)
    }

    /// The next central that has subscribed and written; `None` when BlueZ has dropped the application (it was
    /// restarted): start a new peripheral then.
    pub async fn accept(&mut self) -> Option<PacketChannel> {
        self.incoming.recv().await
    }

    /// Advertises `state` instead of what was advertised. Also needed after a disconnect: BlueZ stops a connectable
    /// advertisement of a controller that is connected and does not always resume it.
    ///
    /// # Errors
    /// [`BluetoothError::BlueZ`] after some attempts; nothing is advertised then.
    pub async fn advertise(&mut self, state: AdvertState) -> Result<(), BluetoothError> {
        self.advertisement = None;
        let mut attempt = 1;
        loop {
            match self.adapter.bluer().advertise(advertisement(self.name.clone(), state)).await {
                Ok(handle) => {
                    self.advertisement = Some(handle);
                    return Ok(());
                }
                Err(error) if attempt < ADVERTISE_ATTEMPTS => {
                    debug!(%error, attempt, "advertisement refused, trying again");
                    attempt += 1;
                    tokio::time::sleep(ADVERTISE_PAUSE).await;
                }
                Err(error) => return Err(BluetoothError::bluez("advertise")(error)),
            }
        }
    }
}

fn advertisement(name: Option<String>, state: AdvertState) -> Advertisement {
    Advertisement {
        service_data: [(SERVICE, state.encode().to_vec())].into(),
        discoverable: Some(true),
        local_name: name,
        min_interval: Some(ADVERTISING_INTERVAL),
        max_interval: Some(ADVERTISING_INTERVAL * 3 / 2),
        ..Default::default()
    }
}

fn service(
    information: Information,
    writes: CharacteristicControlHandle,
    notifies: CharacteristicControlHandle,
) -> Service {
    let value = information.encode();
    Service {
        uuid: SERVICE,
        primary: true,
        characteristics: vec![
            Characteristic {
                uuid: TO_PERIPHERAL,
                write: Some(CharacteristicWrite {
                    write_without_response: true,
                    method: CharacteristicWriteMethod::Io,
                    ..Default::default()
                }),
                control_handle: writes,
                ..Default::default()
            },
            Characteristic {
                uuid: FROM_PERIPHERAL,
                notify: Some(CharacteristicNotify {
                    notify: true,
                    method: CharacteristicNotifyMethod::Io,
                    ..Default::default()
                }),
                control_handle: notifies,
                ..Default::default()
            },
            Characteristic {
                uuid: INFORMATION,
                read: Some(CharacteristicRead {
                    read: true,
                    fun: Box::new(move |_request| {
                        let value = value.clone();
                        async move { Ok(value) }.boxed()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            },
        ],
        ..Default::default()
    }
}

/// What has come of a central's channel so far.
#[derive(Default)]
struct Halves {
    reader: Option<CharacteristicReader>,
    writer: Option<CharacteristicWriter>,
}

/// Joins each central's two sockets to a channel, whichever comes first.
async fn pair_halves(
    mut writes: CharacteristicControl,
    mut notifies: CharacteristicControl,
    sender: mpsc::Sender<PacketChannel>,
) {
    let mut halves: HashMap<Address, Halves> = HashMap::new();
    loop {
        let address = tokio::select! {
            event = writes.next() => match event {
                Some(CharacteristicControlEvent::Write(request)) => {
                    let address = request.device_address();
                    match request.accept() {
                        Ok(reader) => entry(&mut halves, address).reader = Some(reader),
                        Err(error) => warn!(%address, %error, "no socket for a central's writes"),
                    }
                    address
                }
                Some(_) => continue,
                None => return,
            },
            event = notifies.next() => match event {
                Some(CharacteristicControlEvent::Notify(writer)) => {
                    let address = writer.device_address();
                    entry(&mut halves, address).writer = Some(writer);
                    address
                }
                Some(_) => continue,
                None => return,
            },
            () = sender.closed() => return,
        };
        let complete = halves.get(&address).is_some_and(|h| h.reader.is_some() && h.writer.is_some());
        if !complete {
            continue;
        }
        if let Some(Halves { reader: Some(reader), writer: Some(writer) }) = halves.remove(&address) {
            let channel = channel(address, reader, writer);
            info!(peer = %address, packet = channel.size.bytes(), "central connected");
            if sender.try_send(channel).is_err() {
                warn!(peer = %address, "too many centrals at once, turned away");
            }
        }
    }
}

fn entry(halves: &mut HashMap<Address, Halves>, address: Address) -> &mut Halves {
    let full = halves.len() >= HALVES_MAX && !halves.contains_key(&address);
    if full && let Some(other) = halves.keys().next().copied() {
        halves.remove(&other);
    }
    halves.entry(address).or_default()
}

fn channel(address: Address, reader: CharacteristicReader, writer: CharacteristicWriter) -> PacketChannel {
    let size = packet_size(writer.mtu());
    PacketChannel {
        sink: Box::new(CharacteristicSink { writer, _guard: None }),
        source: Box::new(CharacteristicSource::new(reader)),
        size,
        label: format!("gatt {address}"),
    }
}
