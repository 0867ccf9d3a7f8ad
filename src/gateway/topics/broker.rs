//! Where a broker is: `mqtt://HOST:PORT`, or `mqtts://HOST:PORT` for TLS.

use std::fmt;
use std::str::FromStr;

/// The port of MQTT, and that of MQTT over TLS.
const PORT: u16 = 1883;
const PORT_TLS: u16 = 8883;

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BrokerAddress {
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) is_tls: bool,
}

impl FromStr for BrokerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<BrokerAddress, String> {
        let wrong = || format!("{text:?} is no address of a broker");
        let (rest, is_tls) = match (text.strip_prefix("mqtt://"), text.strip_prefix("mqtts://")) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            _ => return Err(wrong()),
        };
        if rest.contains('@') {
            return Err("a user has no place in the address: `user` and `password-file` name it".into());
        }
        let url: hyper::Uri = format!("http://{rest}").parse().map_err(|_| wrong())?;
        let host = url.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(format!("{text:?} has something behind host and port"));
        }
        // Colons in brackets belong to an IPv6 address.
        let behind = rest.rsplit(']').next().unwrap_or_default();
        let port = match (behind.contains(':'), url.port_u16()) {
            (true, None) => return Err(wrong()),
            (_, port) => port.unwrap_or(if is_tls { PORT_TLS } else { PORT }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(BrokerAddress { host, port, is_tls })
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "mqtts" } else { "mqtt" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_told() {
        for (text, told) in [
            ("mqtt://broker.example", "mqtt://broker.example:1883"),
            ("mqtts://broker.example/", "mqtts://broker.example:8883"),
            ("mqtt://10.0.0.7:2883", "mqtt://10.0.0.7:2883"),
            ("mqtt://[::1]:1884", "mqtt://[::1]:1884"),
        ] {
            let address: BrokerAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), told);
        }
        for text in [
            "broker.example",
            "tcp://broker.example",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://host:",
            "mqtt://host:99999",
            "mqtt://user:secret@host",
            "mqtt://host/topic",
            "mqtt://host?x",
            "mqtt://ho st",
        ] {
            assert!(text.parse::<BrokerAddress>().is_err(), "{text}");
        }
    }
}
