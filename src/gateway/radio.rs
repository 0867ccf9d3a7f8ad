//! A Bluetooth adapter as a place where peers connect, and as a way to neighbours.

use std::sync::Arc;

use super::config::{BluetoothConfig, DatabaseConfig, LinkLevel};
use super::status::AdapterStatus;
use super::{GatewayEvent, Tell};
use crate::node::{Ble, BlePeer, BlePlace};
use crate::transport::bluez::agent::Pairing;
use crate::transport::bluez::security::SecurityLevel;

/// The adapter, as it is configured.
pub(super) fn place(database: &Arc<str>, config: &BluetoothConfig, tell: &Tell) -> BlePlace {
    let level = match config.link_security {
        LinkLevel::None => SecurityLevel::None,
        LinkLevel::Encrypt => SecurityLevel::Encrypt,
        LinkLevel::Authenticate => SecurityLevel::Authenticate,
    };
    let pairing = match config.link_security {
        _ if config.bonded_only => Some(Pairing::Refused),
        LinkLevel::None => None,
        LinkLevel::Encrypt => Some(Pairing::JustWorks),
        LinkLevel::Authenticate => {
            let (database, tell) = (Arc::clone(database), Arc::clone(tell));
            Some(Pairing::Show(Arc::new(move |passkey| {
                let (database, peer) = (Arc::clone(&database), passkey.peer.clone());
                tell(&GatewayEvent::Passkey { database, peer, code: format!("{:06}", passkey.code) });
            })))
        }
    };
    Ble::adapter(config.adapter.clone()).link_security(level, pairing).advertise_name(config.advertise_name)
}

/// The adapters of a database, for its status.
pub(super) fn adapters(config: &DatabaseConfig) -> Vec<AdapterStatus> {
    let of = |(name, config): (&String, &BluetoothConfig)| AdapterStatus {
        name: name.clone(),
        adapter: config.adapter.clone(),
        central: config.is_central,
        peripheral: config.is_peripheral,
        slots: config.slots,
        links: Vec::new(),
    };
    config.bluetooth.iter().map(of).collect()
}

/// How neighbours are reached through the adapter.
pub(super) fn way(config: &BluetoothConfig) -> BlePeer {
    let adapter = (!config.adapter.is_empty()).then(|| config.adapter.clone());
    Ble::peer("any").through(adapter).slots(config.slots).spares_air(config.spares_wifi)
}
