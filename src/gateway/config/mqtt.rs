//! The sections `[mqtt.NAME]`, `[topics.NAME]` and `[sensors.NAME]`.

use std::collections::BTreeMap;

use super::keys::{MQTT, SENSORS, TOPICS};
use super::problem::Problems;
use super::rules;
use super::section::Section;
use super::shared::{collections, web_client, which_database};
use super::tree::Table;
use super::types::{DatabaseConfig, MqttConfig, SensorConfig, TopicConfig};
use crate::database::{DocumentPath, canonical_collection_name};
use crate::gateway::topics::{BrokerAddress, Name, Of, Pattern, TopicFilter, may_meet};

/// Largest message that may be allowed, in bytes: what the protocol can carry.
const LARGEST_MAX: u64 = 256 << 20;

/// Reads all of them into their databases.
pub(super) fn read(root: &Table, problems: &Problems<'_>, databases: &mut BTreeMap<String, DatabaseConfig>) {
    let mut unnamed = Vec::new();
    for (name, section) in Section::all(&MQTT, root, problems) {
        let config = broker(&section);
        let (Some(database), Some(config)) = (which_database(&section, databases), config) else { continue };
        rules::are_known(&section, &config.collections, database);
        if !section.has("availability") {
            unnamed.push(name.clone());
        }
        database.mqtt.insert(name, config);
    }
    for (database, config) in databases.iter_mut() {
        for (name, mqtt) in config.mqtt.iter_mut().filter(|(name, _)| unnamed.contains(name)) {
            mqtt.availability = format!("gattway/{database}/{name}/availability");
        }
    }
    for (name, section) in Section::all(&TOPICS, root, problems) {
        let topic = topic(&section);
        let (Some(config), Some(topic)) = (which_mqtt(&section, databases), topic) else { continue };
        if config.publishes && may_meet(&topic.filter, &config.topic) {
            let what = "what this gateway publishes passes this filter, so it would come back as a document";
            section.wrong("topic", what, "another topic here, or in [mqtt.NAME]");
        }
        config.topics.insert(name, topic);
    }
    for (name, section) in Section::all(&SENSORS, root, problems) {
        let sensor = sensor(&section);
        let (Some(config), Some(sensor)) = (which_mqtt(&section, databases), sensor) else { continue };
        if !config.publishes || config.topic.has(&Name::Id) {
            let what = "a sensor needs one topic for all its documents";
            section.wrong("device", what, "a topic in [mqtt.NAME], without {_id}");
        }
        config.sensors.insert(name, sensor);
    }
}

/// The broker that a section belongs to.
fn which_mqtt<'a>(
    section: &Section<'_>,
    databases: &'a mut BTreeMap<String, DatabaseConfig>,
) -> Option<&'a mut MqttConfig> {
    let known = databases.values().flat_map(|database| database.mqtt.keys().cloned());
    let known: Vec<String> = known.collect();
    let names = known.join(", ");
    let name = match section.text("mqtt") {
        Some(name) if known.contains(&name) => name,
        Some(name) => {
            let right = if names.is_empty() { "write [mqtt.NAME]".into() } else { format!("one of {names}") };
            section.wrong("mqtt", format!("there is no section mqtt.{name}"), right);
            return None;
        }
        None => match known.as_slice() {
            [one] => one.clone(),
            [] => {
                section.wrong(
                    "mqtt",
                    "there is no broker",
                    "write [mqtt.NAME] with broker = \"mqtt://HOST\"",
                );
                return None;
            }
            _ => {
                let what = "which broker is meant is not said, and there are several";
                section.wrong("mqtt", what, format!("write mqtt = \"NAME\", with one of {names}"));
                return None;
            }
        },
    };
    databases.values_mut().find_map(|database| database.mqtt.get_mut(&name))
}

fn broker(section: &Section<'_>) -> Option<MqttConfig> {
    let right = "mqtt://HOST:PORT or mqtts://HOST:PORT";
    let web = web_client(section);
    let largest = section.size("largest");
    if largest == 0 || largest > LARGEST_MAX {
        section.wrong("largest", format!("{largest} bytes cannot be used"), "at most \"256M\"");
    }
    let expected = "a text with names in braces, as \"plant/{sensor}\"";
    let (topic, text) = section
        .parsed("topic", expected, |text| Ok((Pattern::parse(text, Of::Document)?, text.to_owned())))?;
    let to_publish = |key: &str, text: &str| {
        if text.starts_with('$') || text.contains(['+', '#', '\0']) {
            section.wrong(key, "this is no topic to publish to", "no + or #, and no $ at the beginning");
        }
    };
    let availability = section.text("availability").unwrap_or_default();
    let discovery = section.text("discovery").unwrap_or_default();
    to_publish("topic", &text);
    to_publish("availability", &availability);
    to_publish("discovery", &discovery);
    let broker: BrokerAddress = section.parsed("broker", right, |text| text.parse())?;
    let has_certificates = !web.roots.is_empty() || web.pin_cert.is_some() || web.client_cert.is_some();
    if !broker.is_tls && has_certificates {
        section.wrong(
            "broker",
            "certificates are for mqtts://",
            "mqtts://HOST:PORT, or leave those keys out",
        );
    }
    let path = |text: &str| DocumentPath::parse(text).map_err(|error| error.to_string());
    let time = section.parsed("time", "a path, as \"time\"", path);
    let mut fields = Vec::new();
    for text in section.texts("fields") {
        match path(&text) {
            Ok(field) => fields.push(field),
            Err(what) => section.wrong("fields", what, "paths, as [\"celsius\", \"position.room\"]"),
        }
    }
    let stamps = web.stamps();
    Some(MqttConfig {
        broker,
        web,
        client_id: section.text("client-id").filter(|id| !id.is_empty()),
        publishes: !text.is_empty(),
        collections: collections(section),
        topic,
        time,
        fields,
        retain: section.flag("retain"),
        largest,
        availability,
        discovery,
        topics: BTreeMap::new(),
        sensors: BTreeMap::new(),
        stamps,
    })
}

fn topic(section: &Section<'_>) -> Option<TopicConfig> {
    let right = "a filter, as \"plant/+/set\" or \"plant/#\"";
    let filter = section.parsed("topic", right, TopicFilter::parse);
    let collection = section.parsed("collection", "SCOPE.NAME, or _default", |text| {
        canonical_collection_name(text).map_err(|error| error.to_string())
    });
    let id = pattern(section, "id", Of::Message);
    Some(TopicConfig { filter: filter?, collection: collection?, id: id? })
}

fn sensor(section: &Section<'_>) -> Option<SensorConfig> {
    let field = section.parsed("field", "a path, as \"celsius\"", |text| {
        DocumentPath::parse(text).map_err(|error| error.to_string())
    });
    let device = pattern(section, "device", Of::Document);
    Some(SensorConfig {
        name: section.text("name"),
        unit: section.text("unit"),
        device_class: section.text("device-class"),
        state_class: section.text("state-class"),
        field: field?,
        device: device?,
    })
}

fn pattern(section: &Section<'_>, key: &str, of: Of) -> Option<Pattern> {
    section.parsed(key, "a text with names in braces, as \"plant/{sensor}\"", |text| Pattern::parse(text, of))
}

#[cfg(test)]
mod tests {
    use crate::gateway::config::load;

    /// What is wrong with a configuration, a line each.
    fn problems(text: &str) -> usize {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("gattway.toml");
        std::fs::write(&file, format!("[databases.plant]\n[mqtt.home]\nbroker = 'mqtt://b'\n{text}"))
            .expect("written");
        load(&file).map_or_else(|problems| problems.len(), |_| 0)
    }

    #[test]
    fn a_key_that_is_wrong_is_told_once() {
        for text in [
            "",
            "topic = ''",
            "availability = ''",
            "topic = 'plant/{_id}'\n[topics.x]\ntopic = 'x/#'\ncollection = 'c'",
        ] {
            assert_eq!(problems(text), 0, "{text}");
        }
        for text in [
            "topic = 5",
            "topic = 'a/{'",
            "topic = 'a/+'",
            "topic = '$SYS/x'",
            "availability = 5",
            "availability = '#'",
            "discovery = 5",
            "database = 5",
            "largest = 0",
            "root-certs = ['x.pem']",
            "topic = 'plant/x'\n[topics.x]\ntopic = 'plant/#'\ncollection = 'c'",
            "topic = '{_id}'\n[sensors.x]\nfield = 'a'\ndevice = 'b'",
        ] {
            assert_eq!(problems(text), 1, "{text}");
        }
    }
}
