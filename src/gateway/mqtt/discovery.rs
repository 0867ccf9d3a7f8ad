//! What Home Assistant is told of sensors, so that they show there by themselves: a device for each value of a pattern, with one
//! component for each sensor of the configuration (home-assistant.io, MQTT, device discovery).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::payload;
use crate::database::{DocumentPath as Path, PathPlace as Place, PathStep as Step};
use crate::gateway::config::{MqttConfig, SensorConfig};
use crate::gateway::topics::value_at;

/// Devices that are told of in one connection.
const DEVICES_MAX: usize = 4_096;

/// Devices and their components that this connection has told of.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<String, BTreeSet<String>>);

/// One message that tells of a device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) topic: String,
    pub(super) payload: String,
}

impl Told {
    /// The devices that a document is the first to show, or to show something new of.
    pub(super) fn by(
        &mut self,
        config: &MqttConfig,
        (database, collection): (&str, &str),
        (id, body): (&str, &Map<String, Value>),
        topic: &str,
    ) -> Vec<Device> {
        let mut devices: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, sensor) in &config.sensors {
            if value_at(body, &sensor.field).is_none_or(Value::is_null) {
                continue;
            }
            if let Ok(device) = payload::topic(&sensor.device, database, collection, id, body) {
                devices.entry(device).or_default().insert(name.clone());
            }
        }
        let mut told = Vec::new();
        for (device, sensors) in devices {
            if !self.0.contains_key(&device) && self.0.len() >= DEVICES_MAX {
                continue;
            }
            let known = self.0.entry(device.clone()).or_default();
            let before = known.len();
            known.extend(sensors);
            if known.len() > before {
                let sensors = config.sensors.iter().filter(|(name, _)| known.contains(*name));
                told.push(of(config, database, &device, topic, sensors));
            }
        }
        told
    }
}

fn of<'a>(
    config: &MqttConfig,
    database: &str,
    device: &str,
    topic: &str,
    sensors: impl Iterator<Item = (&'a String, &'a SensorConfig)>,
) -> Device {
    let id = identifier(database, device);
    let components =
        sensors.map(|(name, sensor)| (identifier("", name), component(config, &id, name, sensor)));
    let mut told = json!({
        "device": { "identifiers": [id], "name": device },
        "origin": { "name": "gattway", "sw_version": env!("CARGO_PKG_VERSION") },
        "state_topic": topic,
        "qos": 1,
        "components": components.collect::<Map<String, Value>>(),
    });
    if !config.availability.is_empty() {
        told["availability_topic"] = config.availability.clone().into();
    }
    Device { topic: format!("{}/device/{id}/config", config.discovery), payload: told.to_string() }
}

fn component(config: &MqttConfig, device: &str, name: &str, sensor: &SensorConfig) -> Value {
    let mut component = Map::new();
    component.insert("platform".into(), "sensor".into());
    component.insert("unique_id".into(), format!("{device}_{}", identifier("", name)).into());
    component.insert("name".into(), sensor.name.as_deref().unwrap_or(name).into());
    let value = template(config, &sensor.field);
    component.insert("value_template".into(), format!("{{{{ {value} }}}}").into());
    let given = [
        ("unit_of_measurement", &sensor.unit),
        ("device_class", &sensor.device_class),
        ("state_class", &sensor.state_class),
    ];
    for (key, value) in given {
        if let Some(value) = value {
            component.insert(key.into(), value.as_str().into());
        }
    }
    Value::Object(component)
}

/// What takes the value out of a message, in Home Assistant's templates (Jinja). One topic may have documents of other kinds as
/// well: those leave a sensor as it is.
fn template(config: &MqttConfig, path: &Path) -> String {
    let member = |of: &str, name: &str, without: &str| {
        let name = name.replace('\\', "\\\\").replace('\'', "\\'");
        format!("{of}.get('{name}', {without})")
    };
    let mut place = String::from("value_json");
    let steps = match path.place() {
        Place::Body(steps) if config.fields.is_empty() => steps,
        // It was taken out when the message was made.
        _ => return member(&place, path.text(), "this.state"),
    };
    for (nth, step) in steps.iter().enumerate() {
        place = match step {
            Step::Member(name) if nth + 1 == steps.len() => member(&place, name, "this.state"),
            Step::Member(name) => format!("({} or {{}})", member(&place, name, "{}")),
            Step::Item(at) => format!("{place}[{at}]"),
        };
    }
    place
}

/// A name as Home Assistant takes it: letters, digits, `_` and `-`. Names that are alike stay apart.
fn identifier(scope: &str, name: &str) -> String {
    let whole = if scope.is_empty() { name.to_owned() } else { format!("gattway_{scope}_{name}") };
    let fits = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    let fitting: String = whole.chars().map(fits).take(64).collect();
    if fitting == whole { fitting } else { format!("{fitting}_{:08x}", crc32fast::hash(whole.as_bytes())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::config::mqtt_of;

    #[test]
    fn devices_are_told_of_once_and_again_when_they_show_more() {
        let config = mqtt_of(
            "[mqtt.home]\nbroker = 'mqtt://broker'\ntopic = 'plant/{sensor}'\n\
             [sensors.celsius]\nfield = 'celsius'\ndevice = '{sensor}'\nunit = '°C'\ndevice-class = 'temperature'\n\
             [sensors.volt]\nfield = \"power.volt's\"\ndevice = '{sensor}'\n",
        );
        let mut told = Told::default();
        let mut by = |body: Value| {
            let body = body.as_object().expect("an object").clone();
            told.by(&config, ("plant", "_default._default"), ("r-1", &body), "plant/boiler 7")
        };
        let first = by(json!({ "sensor": "boiler 7", "celsius": 71.5 }));
        assert_eq!(first.len(), 1);
        let id = format!("gattway_plant_boiler_7_{:08x}", crc32fast::hash(b"gattway_plant_boiler 7"));
        assert_eq!(first[0].topic, format!("homeassistant/device/{id}/config"));
        let payload: Value = serde_json::from_str(&first[0].payload).expect("JSON");
        assert_eq!(payload["device"], json!({ "identifiers": [id], "name": "boiler 7" }));
        assert_eq!(payload["state_topic"], "plant/boiler 7");
        assert_eq!(payload["availability_topic"], "gattway/plant/home/availability");
        let celsius = &payload["components"]["celsius"];
        assert_eq!(celsius["unit_of_measurement"], "°C");
        assert_eq!(celsius["device_class"], "temperature");
        assert_eq!(celsius["unique_id"], format!("{id}_celsius"));
        assert_eq!(celsius["value_template"], "{{ value_json.get('celsius', this.state) }}");
        assert!(payload["components"].get("volt").is_none());

        assert!(by(json!({ "sensor": "boiler 7", "celsius": 72 })).is_empty());
        assert!(by(json!({ "celsius": 72 })).is_empty(), "of no device");
        assert!(by(json!({ "sensor": "boiler 7", "celsius": null })).is_empty());
        let more = by(json!({ "sensor": "boiler 7", "power": { "volt's": 12 } }));
        let payload: Value = serde_json::from_str(&more[0].payload).expect("JSON");
        let template = r"{{ (value_json.get('power', {}) or {}).get('volt\'s', this.state) }}";
        assert_eq!(payload["components"]["volt"]["value_template"], template);
        assert!(payload["components"].get("celsius").is_some());
    }

    #[test]
    fn names_that_are_alike_stay_apart() {
        assert_eq!(identifier("", "celsius"), "celsius");
        assert_ne!(identifier("", "a b"), identifier("", "a_b"));
        assert_ne!(identifier("", "a b"), identifier("", "a.b"));
    }
}
