//! What the client of MQTT is given of the configuration.

use std::time::Duration;

use rumqttc::{LastWill, MqttOptions, QoS, TlsConfiguration, Transport};

use crate::database::Database;
use crate::gateway::config::MqttConfig;
use crate::gateway::web_files;

/// How long a connection may be silent until the broker is asked whether it is there, and how long it has to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Largest message that is taken, in bytes, with its topic.
const INCOMING_BYTES_MAX: usize = 1 << 20;

/// What the protocol allows, in bytes; the configuration says less.
const OUTGOING_BYTES_MAX: usize = 256 << 20;

/// What is said of a gateway that is there, and by the broker of one that is not.
pub(super) const ONLINE: &str = "online";
pub(super) const OFFLINE: &str = "offline";

/// The settings of a connection, from the files as they are now.
///
/// # Errors
/// A file cannot be read or used, in words.
pub(super) fn options(config: &MqttConfig, client: &str, inflight: u16) -> Result<MqttOptions, String> {
    let mut options = MqttOptions::new(client, config.broker.host.clone(), config.broker.port);
    options.set_keep_alive(KEEP_ALIVE);
    options.set_inflight(inflight);
    options.set_max_packet_size(INCOMING_BYTES_MAX, OUTGOING_BYTES_MAX);
    // The broker keeps messages for who subscribes and is away; what we publish we know ourselves.
    options.set_clean_session(config.topics.is_empty());
    // A message is confirmed when its document is on the medium.
    options.set_manual_acks(true);
    if let Some((user, password)) = &config.web.user {
        let told = |error: crate::gateway::secret::SecretError| format!("{error}; {}", error.advice());
        options.set_credentials(user, password.line().map_err(told)?.as_str());
    }
    if config.broker.is_tls {
        let tls = web_files::client_tls(&config.web, &config.broker.to_string());
        let tls = tls.map_err(|error| error.to_string())?;
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    }
    if !config.availability.is_empty() {
        options.set_last_will(LastWill::new(&config.availability, OFFLINE, QoS::AtLeastOnce, true));
    }
    Ok(options)
}

/// A broker knows a client by it: the same from run to run, and another for each database.
pub(super) fn client_id(db: &Database, name: &str) -> String {
    let source = crc32fast::hash(format!("{:?}/{name}", db.source()).as_bytes());
    format!("gattway-{source:08x}")
}
