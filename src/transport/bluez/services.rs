//! The services of a peer that is connected.
//!
//! BlueZ tells all that it knows in one answer; asked for one by one, as bluer does, the names of our nine characteristics took
//! twenty answers of a busy bluetoothd.

use std::collections::HashMap;
use std::time::Duration;

use bluer::gatt::remote::Characteristic;
use bluer::{Device, Uuid};
use dbus::Path;
use dbus::arg::{PropMap, prop_cast};
use dbus::nonblock::Proxy;
use dbus::nonblock::stdintf::org_freedesktop_dbus::ObjectManager;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout};

use super::adapter::Adapter;
use super::daemon::{ANSWER_LIMIT, BLUEZ, answer};
use super::error::BluetoothError;
use super::profile::SERVICE;

/// A connection that BlueZ reports as gone just after it was made may still come (`firmware-notes/bluez.md`, connecting).
const FLICKER: Duration = Duration::from_secs(1);
/// How often BlueZ is asked whether it has the services, should it not tell.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// What is asked.
const WHAT: &str = "read the peer's services";

/// Objects of BlueZ: path, interface, properties.
type Objects = HashMap<Path<'static>, HashMap<String, PropMap>>;

/// The characteristics of our service, once BlueZ has resolved it.
pub(super) async fn resolve(
    adapter: &Adapter,
    device: &Device,
) -> Result<Vec<(Uuid, Characteristic)>, BluetoothError> {
    wait_until_resolved(device).await?;
    let objects = answer(WHAT, async {
        let root = Proxy::new(BLUEZ, "/", ANSWER_LIMIT, &**adapter.daemon().connection());
        let failed = |error: dbus::Error| BluetoothError::NoDaemon { message: error.to_string() };
        root.get_managed_objects().await.map_err(failed)
    })
    .await?;
    let path =
        format!("/org/bluez/{}/dev_{}", adapter.name(), device.address().to_string().replace(':', "_"));
    let mut found = Vec::new();
    for (uuid, service, characteristic) in characteristics(&objects, &path) {
        let service = device.service(service).await.map_err(BluetoothError::bluez(WHAT))?;
        found
            .push((uuid, service.characteristic(characteristic).await.map_err(BluetoothError::bluez(WHAT))?));
    }
    if found.is_empty() {
        let peer = device.address().to_string();
        return Err(BluetoothError::NoService { peer, message: format!("service {SERVICE} is missing") });
    }
    Ok(found)
}

async fn wait_until_resolved(device: &Device) -> Result<(), BluetoothError> {
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

/// UUID, number of the service and own number of each characteristic of our service on the device at `path`.
fn characteristics(objects: &Objects, path: &str) -> Vec<(Uuid, u16, u16)> {
    let ours = |interfaces: &HashMap<String, PropMap>, interface: &str| -> Option<Uuid> {
        prop_cast::<String>(interfaces.get(interface)?, "UUID")?.parse().ok()
    };
    let found = objects.iter().filter_map(|(object, interfaces)| {
        let numbers = object.strip_prefix(path)?.strip_prefix("/service")?;
        let (service, characteristic) = numbers.split_once("/char")?;
        let parent = Path::new(format!("{path}/service{service}")).ok()?;
        if ours(objects.get(&parent)?, "org.bluez.GattService1") != Some(SERVICE) {
            return None;
        }
        let uuid = ours(interfaces, "org.bluez.GattCharacteristic1")?;
        let number = |text| u16::from_str_radix(text, 16).ok();
        Some((uuid, number(service)?, number(characteristic)?))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use dbus::arg::Variant;

    use super::*;
    use crate::transport::bluez::profile::INFORMATION;

    fn object(objects: &mut Objects, path: &str, interface: &str, uuid: Uuid) {
        let mut properties = PropMap::new();
        properties.insert("UUID".to_owned(), Variant(Box::new(uuid.to_string())));
        let path = Path::new(path.to_owned()).expect("a path");
        objects.entry(path).or_default().insert(interface.to_owned(), properties);
    }

    #[test]
    fn only_characteristics_of_our_service_on_this_device_count() {
        let (service, characteristic) = ("org.bluez.GattService1", "org.bluez.GattCharacteristic1");
        let device = "/org/bluez/hci0/dev_00_AA_01_00_00_00";
        let mut objects = Objects::new();
        let other = Uuid::from_u128(1);
        object(&mut objects, &format!("{device}/service000a"), service, SERVICE);
        object(&mut objects, &format!("{device}/service000a/char000b"), characteristic, INFORMATION);
        object(
            &mut objects,
            &format!("{device}/service000a/char000b/desc000c"),
            "org.bluez.GattDescriptor1",
            other,
        );
        object(&mut objects, &format!("{device}/service0001"), service, other);
        object(&mut objects, &format!("{device}/service0001/char0002"), characteristic, INFORMATION);
        object(&mut objects, "/org/bluez/hci1/dev_00_AA_01_00_00_00/service000a", service, SERVICE);
        object(
            &mut objects,
            "/org/bluez/hci1/dev_00_AA_01_00_00_00/service000a/char000f",
            characteristic,
            other,
        );
        assert_eq!(characteristics(&objects, device), [(INFORMATION, 0x0a, 0x0b)]);
    }
}
