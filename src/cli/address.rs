//! Where peers are: the addresses that `serve` and `sync` take.

use std::fmt;
use std::str::FromStr;

use crate::transport::stream::Address;

/// What stands before a Bluetooth address.
const BLE: &str = "ble";

/// Where a peer is, or where to listen for peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PlaceAddress {
    /// A byte stream.
    Stream(Address),
    /// Bluetooth LE: a peer (address, name or `any`) to sync with, or an adapter to listen on; empty where none was
    /// named.
    Ble(String),
}

#[cfg(feature = "bluetooth")]
impl PlaceAddress {
    /// Whether it is reached by Bluetooth.
    pub(super) fn is_ble(&self) -> bool {
        matches!(self, PlaceAddress::Ble(_))
    }

    /// Whether it is any Bluetooth neighbour.
    pub(super) fn is_any_ble(&self) -> bool {
        matches!(self, PlaceAddress::Ble(peer) if peer.is_empty() || peer.eq_ignore_ascii_case("any"))
    }
}

impl FromStr for PlaceAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<PlaceAddress, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        if scheme != BLE {
            return text.parse().map(PlaceAddress::Stream).map_err(
                |e: crate::transport::stream::AddressError| format!("{}{}", e.reason(), hint(scheme, rest)),
            );
        }
        if cfg!(not(feature = "bluetooth")) {
            return Err(
                "this gattway was built without Bluetooth; build it with the feature `bluetooth`".to_owned()
            );
        }
        Ok(PlaceAddress::Ble(rest.to_owned()))
    }
}

/// What was meant, perhaps.
fn hint(scheme: &str, rest: &str) -> String {
    let forms = "write tcp:HOST:PORT, unix:PATH, stdio or ble:PEER";
    match scheme {
        "tcp" | "unix" => format!("; {forms}"),
        _ if rest.parse::<u16>().is_ok() => format!("; perhaps tcp:{scheme}:{rest} is meant; {forms}"),
        _ => format!("; {forms}"),
    }
}

impl fmt::Display for PlaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlaceAddress::Stream(address) => address.fmt(f),
            PlaceAddress::Ble(rest) if rest.is_empty() => f.write_str(BLE),
            PlaceAddress::Ble(rest) => write!(f, "{BLE}:{rest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_and_print() {
        let mut addresses = vec!["tcp:127.0.0.1:4985", "unix:/run/gateway.sock", "stdio"];
        if cfg!(feature = "bluetooth") {
            addresses.extend(["ble", "ble:hci0", "ble:AA:BB:CC:DD:EE:FF", "ble:any"]);
        }
        for text in addresses {
            assert_eq!(text.parse::<PlaceAddress>().map(|a| a.to_string()), Ok(text.to_owned()));
        }
        assert!("carrier:pigeon".parse::<PlaceAddress>().is_err());
        let hint = "gateway:4985".parse::<PlaceAddress>().unwrap_err();
        assert!(hint.contains("perhaps tcp:gateway:4985 is meant"), "{hint}");
    }
}
