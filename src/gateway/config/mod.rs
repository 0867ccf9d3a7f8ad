//! The configuration: one file and those in `conf.d` beside it, read whole, checked whole, and told whole.
//!
//! `keys` says what there is, `tree` merges the files, `section` reads one section, `build` makes a [`Config`] of all, `load` does
//! one after the other; `text` writes one with all defaults and shows what is in force.

mod adverts;
mod build;
mod http;
mod keys;
mod load;
#[cfg(feature = "mqtt")]
mod mqtt;
mod problem;
mod rules;
mod section;
mod shared;
mod source;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod types;

pub(crate) use self::build::default_socket;
pub(crate) use self::load::load;
pub(crate) use self::problem::Problem;
pub(crate) use self::section::parse_size;
pub(crate) use self::text::{init_text, show};
pub(crate) use self::types::{
    BluetoothConfig, Config, DatabaseConfig, HttpConfig, LinkLevel, ListenerConfig, NodeConfig,
    RetentionConfig, StoreConfig, UpstreamConfig,
};
#[cfg(feature = "mqtt")]
pub(crate) use self::types::{MqttConfig, SensorConfig, TopicConfig};

/// The one broker of a configuration in TOML, for tests.
#[cfg(all(test, feature = "mqtt"))]
pub(crate) fn mqtt_of(text: &str) -> MqttConfig {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("gattway.toml");
    std::fs::write(&file, format!("[databases.plant]\n{text}")).expect("written");
    let config = load(&file).expect("a right configuration");
    let mut brokers = config.databases["plant"].mqtt.values();
    brokers.next().expect("a broker").clone()
}

/// Where the configuration is, unless another is named.
pub(crate) const PATH: &str = "/etc/gattway/gattway.toml";
