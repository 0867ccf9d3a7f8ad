//! Where peers are: the addresses that `serve`, `sync` and the configuration take.

use std::fmt;
use std::str::FromStr;

use crate::transport::stream::{Address, AddressError};
#[cfg(feature = "websocket")]
use crate::transport::websocket::WebSocketUrl;

/// What stands before a Bluetooth address.
const BLE: &str = "ble";

/// Where a peer is, or where to listen for peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PlaceAddress {
    /// A byte stream.
    Stream(Address),
    /// Bluetooth LE: a peer (address, name or `any`) to sync with, or an adapter to listen on; empty where none was
    /// named.
    Ble(String),
    /// A database at a URL, or where to serve one.
    #[cfg(feature = "websocket")]
    WebSocket(WebSocketUrl),
}

#[cfg(feature = "bluetooth")]
impl PlaceAddress {
    /// Whether it is reached by Bluetooth.
    pub(crate) fn is_ble(&self) -> bool {
        matches!(self, PlaceAddress::Ble(_))
    }

    /// Whether it is any Bluetooth neighbour.
    pub(crate) fn is_any_ble(&self) -> bool {
        matches!(self, PlaceAddress::Ble(peer) if peer.is_empty() || peer.eq_ignore_ascii_case("any"))
    }
}

impl FromStr for PlaceAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<PlaceAddress, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        if let "ws" | "wss" = scheme {
            #[cfg(feature = "websocket")]
            return text.parse().map(PlaceAddress::WebSocket).map_err(|e: AddressError| {
                format!("{}; write ws://HOST:PORT/DATABASE, or wss:// for TLS", e.reason())
            });
            #[cfg(not(feature = "websocket"))]
            return Err(
                "this gattway was built without WebSocket; build it with the feature `websocket`".into()
            );
        }
        if scheme != BLE {
            return text
                .parse()
                .map(PlaceAddress::Stream)
                .map_err(|e: AddressError| format!("{}{}", e.reason(), hint(scheme, rest)));
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
    let forms = "write tcp:HOST:PORT, unix:PATH, stdio, ble:PEER or ws://HOST:PORT/DATABASE";
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
            #[cfg(feature = "websocket")]
            PlaceAddress::WebSocket(url) => url.fmt(f),
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
        if cfg!(feature = "websocket") {
            addresses.extend(["ws://gateway.local:4984/plant", "wss://[::1]:0/plant"]);
        }
        for text in addresses {
            assert_eq!(text.parse::<PlaceAddress>().map(|a| a.to_string()), Ok(text.to_owned()));
        }
        if cfg!(feature = "websocket") {
            let secret = "wss://me:hush@gateway/plant".parse::<PlaceAddress>().unwrap_err();
            assert!(secret.contains("password") && !secret.contains("hush"), "{secret}");
        }
        assert!("carrier:pigeon".parse::<PlaceAddress>().is_err());
        let hint = "gateway:4985".parse::<PlaceAddress>().unwrap_err();
        assert!(hint.contains("perhaps tcp:gateway:4985 is meant"), "{hint}");
    }
}
