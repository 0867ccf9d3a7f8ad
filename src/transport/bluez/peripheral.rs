//! The peripheral role on bluer: GATT application, advertisement, and one packet channel for each central.
//!
//! Both characteristics use BlueZ's socket (Io) mode: bluer's callback mode runs writes out of order and stalls on
//! notifications sent flat out (`firmware-notes/bluez.md`). BlueZ's end of the write socket blocks, so whoever takes a
//! channel must always drain it; the link refuses credit instead.

use std::sync::Arc;
use std::time::Duration;

use bluer::adv::{Advertisement, AdvertisementHandle};
use bluer::gatt::local::{
    Application, ApplicationHandle, Characteristic, CharacteristicControlHandle, CharacteristicNotify,
    CharacteristicNotifyMethod, CharacteristicRead, CharacteristicWrite, CharacteristicWriteMethod, ReqError,
    Service, characteristic_control,
};
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tracing::debug;

use super::adapter::Adapter;
use super::advertise::AdvertOrder;
use super::error::BluetoothError;
use super::lane::{LaneTask, Lanes};
use super::profile::{AdvertBytes, INFORMATION, Information, LANES, SERVICE, from_peripheral, to_peripheral};
use super::security::{LinkSecurity, SecurityLevel};
use crate::transport::packet::PacketChannel;

/// Channels that wait to be taken; more centrals than that are turned away.
const INCOMING_MAX: usize = 8;
/// Registering an advertisement can fail right after a disconnect (bluez #644).
const ADVERTISE_ATTEMPTS: u32 = 5;
/// Pause between two attempts to advertise.
const ADVERTISE_PAUSE: Duration = Duration::from_millis(500);
/// Longest interval of a legacy advert.
const INTERVAL_MAX: Duration = Duration::from_millis(10_240);

/// A running peripheral; dropping it takes the application and the advertisement away.
pub struct Peripheral {
    adapter: Adapter,
    incoming: mpsc::Receiver<PacketChannel>,
    name: Option<String>,
    advertisement: Option<AdvertisementHandle>,
    _application: ApplicationHandle,
}

impl Peripheral {
    /// Registers the application and advertises as `advert` says, with `name` in the scan response.
    ///
    /// # Errors
    /// [`BluetoothError`]; nothing stays registered.
    pub async fn start(
        adapter: &Adapter,
        information: Information,
        name: Option<String>,
        advert: AdvertOrder,
        security: LinkSecurity,
    ) -> Result<Peripheral, BluetoothError> {
        let lanes = Arc::new(Lanes::default());
        let reading =
            Reading { information, lanes: Arc::clone(&lanes), adapter: adapter.bluer().clone(), security };
        let mut characteristics = vec![information_characteristic(reading)];
        let mut controls = Vec::new();
        for lane in 0..LANES {
            let (writes, writes_handle) = characteristic_control();
            let (notifies, notifies_handle) = characteristic_control();
            characteristics.extend([
                write_characteristic(lane, security.level, writes_handle),
                notify_characteristic(lane, notifies_handle),
            ]);
            controls.push((lane, writes, notifies));
        }
        let service = Service { uuid: SERVICE, primary: true, characteristics, ..Default::default() };
        let application = Application { services: vec![service], ..Default::default() };
        let application = adapter
            .bluer()
            .serve_gatt_application(application)
            .await
            .map_err(BluetoothError::bluez("register GATT application"))?;
        let (sender, incoming) = mpsc::channel(INCOMING_MAX);
        for (lane, writes, notifies) in controls {
            let (adapter, lanes, channels) = (adapter.clone(), Arc::clone(&lanes), sender.clone());
            let task = LaneTask { lane, adapter, security, lanes, channels };
            tokio::spawn(task.run(Box::pin(writes), Box::pin(notifies)));
        }
        drop(sender); // the lanes have theirs: when all have ended, so has the service
        let mut peripheral = Peripheral {
            adapter: adapter.clone(),
            incoming,
            name,
            advertisement: None,
            _application: application,
        };
        peripheral.advertise(advert).await?;
        Ok(peripheral)
    }

    /// The next central that has subscribed and written; `None` when BlueZ has dropped the application (it was
    /// restarted): start a new peripheral then.
    pub async fn accept(&mut self) -> Option<PacketChannel> {
        self.incoming.recv().await
    }

    /// Advertises as `advert` says instead of what was advertised, or withdraws that. Also needed after a disconnect: BlueZ stops
    /// a connectable advertisement of a controller that is connected and does not always resume it.
    ///
    /// # Errors
    /// [`BluetoothError::BlueZ`] after some attempts; nothing is advertised then.
    pub async fn advertise(&mut self, advert: AdvertOrder) -> Result<(), BluetoothError> {
        self.advertisement = None;
        let AdvertOrder { state, interval: Some(interval) } = advert else { return Ok(()) };
        let mut attempt = 1;
        loop {
            match self.adapter.bluer().advertise(advertisement(self.name.clone(), state, interval)).await {
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

fn advertisement(name: Option<String>, state: AdvertBytes, interval: Duration) -> Advertisement {
    Advertisement {
        service_data: [(SERVICE, state.to_vec())].into(),
        discoverable: Some(true),
        local_name: name,
        min_interval: Some(interval),
        max_interval: Some((interval * 3 / 2).min(INTERVAL_MAX).max(interval)),
        ..Default::default()
    }
}

/// What the information is made of, at each reading.
struct Reading {
    information: Information,
    lanes: Arc<Lanes>,
    adapter: bluer::Adapter,
    security: LinkSecurity,
}

/// Tells what is offered, and gives the central that reads it a lane. It is read first, so it is where a central learns that
/// it has to pair.
fn information_characteristic(reading: Reading) -> Characteristic {
    let (level, reading) = (reading.security.level, Arc::new(reading));
    let read = CharacteristicRead {
        read: true,
        encrypt_read: level == SecurityLevel::Encrypt,
        encrypt_authenticated_read: level == SecurityLevel::Authenticate,
        fun: Box::new(move |request| {
            let reading = Arc::clone(&reading);
            async move {
                if !reading.security.admits(&reading.adapter, request.device_address).await {
                    return Err(ReqError::NotAuthorized);
                }
                let lane = reading.lanes.reserve(request.device_address);
                debug!(peer = %request.device_address, ?lane, mtu = request.mtu, "information read");
                Ok(Information { lane, ..reading.information }.encode())
            }
            .boxed()
        }),
        ..Default::default()
    };
    Characteristic { uuid: INFORMATION, read: Some(read), ..Default::default() }
}

fn write_characteristic(
    lane: u8,
    level: SecurityLevel,
    control_handle: CharacteristicControlHandle,
) -> Characteristic {
    let write = CharacteristicWrite {
        write_without_response: true,
        encrypt_write: level == SecurityLevel::Encrypt,
        encrypt_authenticated_write: level == SecurityLevel::Authenticate,
        method: CharacteristicWriteMethod::Io,
        ..Default::default()
    };
    Characteristic { uuid: to_peripheral(lane), write: Some(write), control_handle, ..Default::default() }
}

fn notify_characteristic(lane: u8, control_handle: CharacteristicControlHandle) -> Characteristic {
    let notify =
        CharacteristicNotify { notify: true, method: CharacteristicNotifyMethod::Io, ..Default::default() };
    Characteristic { uuid: from_peripheral(lane), notify: Some(notify), control_handle, ..Default::default() }
}
