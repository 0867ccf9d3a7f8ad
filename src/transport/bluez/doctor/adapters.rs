//! What bluetoothd and the kernel say of each adapter.

use std::fs;

use super::finding::{Finding, Level};
use crate::transport::bluez::adapter::SLOTS_DEFAULT;
use crate::transport::bluez::error::{BluetoothError, is_denied};
use crate::transport::bluez::handle::Bluez;
use crate::transport::bluez::kernel;

pub(super) async fn adapters() -> Vec<Finding> {
    let daemon = match Bluez::default().daemon().await {
        Ok(daemon) => daemon,
        Err(error) => {
            let advice = match &error {
                BluetoothError::NotPermitted { .. } => PERMISSION,
                BluetoothError::NoDaemon { message } if message.contains("does not run") => {
                    "start it: systemctl enable --now bluetooth"
                }
                BluetoothError::TimedOut { .. } => "it hangs: systemctl restart bluetooth",
                _ => "is D-Bus running? systemctl start dbus",
            };
            return vec![Finding::new("bluetoothd", Level::Problem, error.to_string(), advice)];
        }
    };
    let mut names = match daemon.session.adapter_names().await {
        Ok(names) => names,
        Err(error) if is_denied(&error) => {
            return vec![Finding::new("d-bus", Level::Problem, error.to_string(), PERMISSION)];
        }
        Err(error) => {
            let advice = "restart it: systemctl restart bluetooth";
            return vec![Finding::new("bluetoothd", Level::Problem, error.to_string(), advice)];
        }
    };
    names.sort();
    let mut findings = vec![Finding::new("bluetoothd", Level::Ok, "running, permission granted", "")];
    if names.is_empty() {
        let advice = "plug in a Bluetooth 5 adapter, or see with `dmesg` why the built-in one did not start";
        findings.push(Finding::new("adapter", Level::Problem, "none", advice));
    }
    for name in names {
        match daemon.session.adapter(&name) {
            Ok(adapter) => findings.extend(adapter_findings(&adapter).await),
            Err(error) => {
                findings.push(Finding::new(&name, Level::Problem, error.to_string(), "unplug, plug in again"))
            }
        }
    }
    findings
}

const PERMISSION: &str = "run as root, or add the user to the group `bluetooth` and log in again";

/// Versions of the specification by the number that the Link Layer has for them.
const SPECIFICATIONS: [(u8, &str); 10] = [
    (6, "4.0"),
    (7, "4.1"),
    (8, "4.2"),
    (9, "5.0"),
    (10, "5.1"),
    (11, "5.2"),
    (12, "5.3"),
    (13, "5.4"),
    (14, "6.0"),
    (15, "6.1"),
];

/// Makers of whose adapters it is known how many connections they hold (`firmware-notes/bluez.md`, slots).
const SLOTS: [(u16, &str, usize); 2] = [(10, "Cambridge Silicon Radio", 5), (15, "Broadcom", 7)];

async fn adapter_findings(adapter: &bluer::Adapter) -> Vec<Finding> {
    let name = adapter.name();
    let address = adapter.address().await.map(|a| a.to_string()).unwrap_or_default();
    let mut findings = vec![match adapter.is_powered().await {
        Ok(true) => Finding::new(name, Level::Ok, format!("{address}, on"), ""),
        Ok(false) => Finding::new(
            name,
            Level::Warning,
            format!("{address}, off"),
            "it is switched on when used; or: bluetoothctl power on",
        ),
        Err(error) => Finding::new(name, Level::Problem, error.to_string(), "unplug it and plug it in again"),
    }];
    if let Some(controller) = kernel::controller_number(name) {
        findings.extend(controller_findings(name, controller).await);
    }
    let sets = adapter.supported_advertising_instances().await.unwrap_or(0)
        + adapter.active_advertising_instances().await.unwrap_or(0);
    findings.push(if sets > 0 {
        Finding::new(name, Level::Ok, format!("can advertise ({sets} sets): peripheral role"), "")
    } else {
        Finding::new(
            name,
            Level::Warning,
            "cannot advertise: central role only",
            "use another adapter to serve",
        )
    });
    if let Ok(Some(capabilities)) = adapter.supported_advertising_capabilities().await {
        let bytes = capabilities.max_advertisement_length;
        findings.push(Finding::new(name, Level::Ok, format!("adverts of up to {bytes} bytes"), ""));
    }
    findings
}

/// What the kernel tells of a controller, each as far as this user may know it.
async fn controller_findings(name: &str, controller: u16) -> Vec<Finding> {
    let info = match kernel::controller_info(controller).await {
        Ok(info) => info,
        Err(error) => {
            return vec![Finding::new(name, Level::Advice, format!("its features are unknown: {error}"), "")];
        }
    };
    let version = SPECIFICATIONS.iter().find(|(number, _)| *number == info.version).map_or("?", |(_, v)| v);
    let slots = SLOTS.iter().find(|(maker, ..)| *maker == info.manufacturer);
    let maker =
        slots.map_or_else(|| format!("company {}", info.manufacturer), |(_, maker, _)| (*maker).to_owned());
    let mut findings = vec![if info.supported & kernel::settings::LE == 0 {
        Finding::new(name, Level::Problem, "no Low Energy", "use another adapter, of Bluetooth 4.0 or newer")
    } else if info.current & kernel::settings::LE == 0 {
        let advice = "set ControllerMode = dual or le under [General] of main.conf";
        Finding::new(name, Level::Problem, "Low Energy is switched off", advice)
    } else if info.version < SPECIFICATIONS[2].0 {
        let advice = "a Bluetooth 5 adapter is up to five times as fast";
        Finding::new(
            name,
            Level::Advice,
            format!("Bluetooth {version}, {maker}: packets of 27 octets only"),
            advice,
        )
    } else {
        Finding::new(name, Level::Ok, format!("Bluetooth {version} with Low Energy, {maker}"), "")
    }];
    let told = fs::read_to_string(format!("/sys/kernel/debug/bluetooth/{name}/features")).ok();
    findings.extend(feature_findings(name, told.as_deref().and_then(le_features)));
    if let Ok((supported, selected)) = kernel::phy_configuration(controller).await
        && supported & kernel::phys::LE_2M == kernel::phys::LE_2M
    {
        let coded = if supported & kernel::phys::LE_CODED == 0 { "" } else { ", and coded" };
        findings.push(if selected & kernel::phys::LE_2M == 0 {
            let advice = "btmgmt phy LE1MTX LE1MRX LE2MTX LE2MRX allows it, until the next start";
            Finding::new(name, Level::Advice, format!("Linux does not ask for the 2M PHY{coded}"), advice)
        } else {
            Finding::new(name, Level::Ok, format!("2M PHY is allowed{coded}"), "")
        });
    }
    if info.current & kernel::settings::SECURE_CONNECTIONS == 0 {
        let advice = "set SecureConnections = on under [General] of main.conf, if the adapter can do it";
        findings.push(Finding::new(
            name,
            Level::Advice,
            "no Secure Connections: pairing without elliptic curves",
            advice,
        ));
    }
    findings.push(if info.current & kernel::settings::PRIVACY == 0 {
        let advice = "set Privacy = device under [General] of main.conf where nobody may follow this device; peers then find it by \
            ble:any or the name that they gave it, no longer by its address";
        Finding::new(name, Level::Advice, "the address stays the same: anybody can follow it", advice)
    } else {
        Finding::new(name, Level::Ok, "the address changes (Privacy)", "")
    });
    let text = match slots {
        Some((_, maker, slots)) => format!("connection slots: about {slots} ({maker}); --slots {slots}"),
        None => {
            format!("connection slots: no adapter tells; {SLOTS_DEFAULT} are assumed, --slots changes it")
        }
    };
    findings.push(Finding::new(name, Level::Ok, text, ""));
    findings
}

/// The octets of LE features in the kernel's debug file of a controller: bit 5 data length, bit 8 2M, bit 12 extended
/// advertising.
pub(super) fn le_features(file: &str) -> Option<u64> {
    let octets = file.lines().find_map(|line| line.trim().strip_prefix("LE:"))?;
    let octets: Vec<u8> = octets
        .split_whitespace()
        .map(|octet| u8::from_str_radix(octet.trim_start_matches("0x"), 16))
        .collect::<Result<_, _>>()
        .ok()?;
    let mut features = [0; 8];
    features.get_mut(..octets.len())?.copy_from_slice(&octets);
    Some(u64::from_le_bytes(features))
}

pub(super) fn feature_findings(name: &str, features: Option<u64>) -> Vec<Finding> {
    let Some(features) = features else {
        let found = "data length, 2M PHY and extended advertising are unknown";
        return vec![Finding::new(name, Level::Ok, found, "run as root with debugfs mounted to see them")];
    };
    let each = [
        (
            5,
            "data length extension",
            "packets of 27 octets cost half the speed or more: use a Bluetooth 4.2 adapter or newer",
        ),
        (8, "2M PHY", "half the speed: a Bluetooth 5 adapter has it"),
        (12, "extended advertising", ""),
    ];
    let judge = |(bit, what, advice): (u32, &str, &str)| match features >> bit & 1 {
        1 => Finding::new(name, Level::Ok, what, ""),
        _ if advice.is_empty() => Finding::new(name, Level::Ok, format!("no {what}"), ""),
        _ => Finding::new(name, Level::Advice, format!("no {what}"), advice),
    };
    each.into_iter().map(judge).collect()
}
