//! A Bluetooth adapter as a place where peers connect, and as a way to neighbours.

use std::sync::{Arc, PoisonError};

use super::config::{BluetoothConfig, DatabaseConfig, LinkLevel};
use super::status::{AdapterStatus, AdvertTold, LinkStatus};
use super::{GatewayEvent, Tell};
use crate::node::advertised::Adverts;
use crate::node::{Ble, BlePeer, BlePlace, RadioStatus};
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
    let place = Ble::adapter(config.adapter.clone()).link_security(level, pairing);
    place.advertise_name(config.advertise_name).adverts(config.adverts.clone())
}

/// The adapters of a database, for its status.
pub(super) fn adapters(config: &DatabaseConfig) -> Vec<AdapterStatus> {
    let of = |(name, config): (&String, &BluetoothConfig)| AdapterStatus {
        name: name.clone(),
        adapter: config.adapter.clone(),
        central: config.is_central,
        peripheral: config.is_peripheral,
        slots: config.slots,
        advert: None,
        links: Vec::new(),
    };
    config.bluetooth.iter().map(of).collect()
}

/// How neighbours are reached through the adapter.
pub(super) fn way(config: &BluetoothConfig) -> BlePeer {
    let adapter = (!config.adapter.is_empty()).then(|| config.adapter.clone());
    Ble::peer("any").through(adapter).slots(config.slots).spares_air(config.spares_wifi)
}

/// The adapter that is named so; else the first that is named by its address, or not at all, and may be it.
fn of_name<'a>(
    adapters: &'a mut [AdapterStatus],
    name: &str,
    may_be: impl Fn(&AdapterStatus) -> bool,
) -> Option<&'a mut AdapterStatus> {
    let named = adapters.iter().position(|one| one.adapter == name);
    let other = || adapters.iter().position(|one| may_be(one) && !one.adapter.starts_with("hci"));
    adapters.get_mut(named.or_else(other)?)
}

/// Gives each adapter the connections through it; one that is named by its address, or not at all, those that no other has.
pub(super) fn share_links(radio: &[RadioStatus], adapters: &mut [AdapterStatus]) {
    for connection in radio {
        let Some(adapter) = of_name(adapters, &connection.adapter, |_| true) else { continue };
        adapter.links.push(LinkStatus {
            peer: connection.peer.clone(),
            via: connection.via.to_owned(),
            rssi_dbm: connection.rssi_dbm,
            phy: connection.phy.map(|phy| phy.map(str::to_owned)),
            interval_ms: connection.interval_ms,
        });
    }
}

/// Gives each adapter what it advertises, in the same way.
pub(super) fn share_adverts(adverts: &Adverts, adapters: &mut [AdapterStatus]) {
    let adverts = adverts.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, advert) in adverts.iter() {
        let Some(adapter) = of_name(adapters, name, |one| one.peripheral) else { continue };
        adapter.advert = Some(AdvertTold {
            pace: advert.pace.word().to_owned(),
            pending: advert.pending,
            urgent: advert.is_urgent,
            control: advert.control.word().to_owned(),
        });
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::node::advertised::AdvertStatus;
    use crate::node::advertising::Pace;
    use crate::transport::bluez::advertise::PaceControl;

    /// A connection through this adapter.
    pub(in crate::gateway) fn connection(adapter: &str, peer: &str, rssi_dbm: i8) -> RadioStatus {
        RadioStatus {
            peer: peer.into(),
            adapter: adapter.into(),
            via: "gatt",
            att_mtu: None,
            packet_bytes: 244,
            interval_ms: Some(30.0),
            latency: None,
            supervision_timeout_ms: None,
            phy: Some(["2M", "1M"]),
            data_octets: None,
            rssi_dbm: Some(rssi_dbm),
        }
    }

    #[test]
    fn what_an_adapter_advertises_stands_with_it() {
        let status =
            |pace, pending| AdvertStatus { pace, pending, is_urgent: false, control: PaceControl::Interval };
        let adverts = Adverts::default();
        adverts.lock().expect("lock").insert("hci1".into(), status(Pace::Fast, 3));
        adverts.lock().expect("lock").insert("hci0".into(), status(Pace::Silent, 0));
        let mut adapters = ["", "hci1"].map(|adapter| AdapterStatus {
            adapter: adapter.into(),
            peripheral: true,
            ..AdapterStatus::default()
        });
        share_adverts(&adverts, &mut adapters);
        let told = adapters
            .map(|adapter| adapter.advert.map(|advert| (advert.pace, advert.pending, advert.control)));
        let words = |pace: &str, pending| Some((pace.to_owned(), pending, "interval".to_owned()));
        assert_eq!(told, [words("silent", 0), words("fast", 3)]);
    }

    #[test]
    fn connections_stand_with_the_adapter_that_carries_them() {
        let adapter =
            |name: &str| AdapterStatus { adapter: name.into(), slots: 5, ..AdapterStatus::default() };
        let radio =
            [connection("hci1", "AA", -50), connection("hci0", "BB", -70), connection("hci7", "CC", -90)];
        let mut named = [adapter("hci0"), adapter("hci1")];
        share_links(&radio, &mut named);
        let peers = |adapter: &AdapterStatus| -> Vec<String> {
            adapter.links.iter().map(|link| link.peer.clone()).collect()
        };
        assert_eq!((peers(&named[0]), peers(&named[1])), (vec!["BB".to_owned()], vec!["AA".to_owned()]));
        // The first has no name.
        let mut first = [adapter("hci1"), adapter("")];
        share_links(&radio, &mut first);
        assert_eq!(peers(&first[1]), ["BB", "CC"]);
        assert_eq!((first[1].links[0].rssi_dbm, first[0].links.len()), (Some(-70), 1));
    }
}
