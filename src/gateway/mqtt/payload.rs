//! Messages of documents: JSON with `_id`, and `_time`, the time of the reading.

use serde_json::{Map, Value};

use crate::database::{Change, DocumentPath as Path, moment, moment_text};
use crate::gateway::config::MqttConfig;
use crate::gateway::topics::{Name, Pattern, TOPIC_BYTES_MAX, one_level, text_at, value_at};
use crate::replica::revision::RevId;

/// A message for one change.
#[derive(Debug, PartialEq)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
}

/// What becomes of a change.
#[derive(Debug, PartialEq)]
pub(super) enum Made {
    Message(Message),
    /// Nothing is to be said of it.
    Nothing,
    /// It cannot be published: why, in words that go behind the document's ID.
    Skipped(String),
}

/// What is published of a change, as the configuration says.
pub(super) fn message(
    config: &MqttConfig,
    database: &str,
    collection: &str,
    change: &Change,
    body: &Map<String, Value>,
) -> Made {
    if change.deleted && (!config.retain || config.topic.has_values()) {
        // Whose topic has values of the body: a tombstone has none.
        return Made::Nothing;
    }
    let topic = match topic(&config.topic, database, collection, &change.id, body) {
        Ok(topic) => topic,
        Err(why) => return Made::Skipped(why),
    };
    // An empty message takes a retained one away.
    let payload = if change.deleted { Vec::new() } else { payload(config, change, body) };
    if payload.len() as u64 > config.largest {
        return Made::Skipped(format!("has {} bytes, `largest` allows {}", payload.len(), config.largest));
    }
    Made::Message(Message { topic, payload })
}

/// The topic of a document.
pub(super) fn topic(
    pattern: &Pattern,
    database: &str,
    collection: &str,
    id: &str,
    body: &Map<String, Value>,
) -> Result<String, String> {
    let value = |name: &Name| match name {
        Name::Id => Some(id.to_owned()),
        Name::Collection => Some(collection.to_owned()),
        Name::Database => Some(database.to_owned()),
        Name::Value(path) => text_at(body, path),
        Name::Topic | Name::Level(_) => None,
    };
    let topic =
        pattern.fill(value, one_level).map_err(|name| format!("has no text or number at {name:?}"))?;
    match topic.len() {
        0 => Err("has an empty topic".into()),
        1..=TOPIC_BYTES_MAX if topic.starts_with('$') => {
            Err("has a topic that begins with `$`, which are the broker's own".into())
        }
        1..=TOPIC_BYTES_MAX => Ok(topic),
        bytes => Err(format!("has a topic of {bytes} bytes, at most {TOPIC_BYTES_MAX} can be")),
    }
}

fn payload(config: &MqttConfig, change: &Change, body: &Map<String, Value>) -> Vec<u8> {
    let mut message = Map::new();
    message.insert("_id".into(), change.id.clone().into());
    if let Some(time) = time_of(config.time.as_ref(), change, body).and_then(moment_text) {
        message.insert("_time".into(), time.into());
    }
    if config.fields.is_empty() {
        message.extend(body.iter().map(|(name, value)| (name.clone(), value.clone())));
    } else {
        let values = config.fields.iter().filter_map(|path| Some((path, value_at(body, path)?)));
        message.extend(values.map(|(path, value)| (path.text().to_owned(), value.clone())));
    }
    Value::Object(message).to_string().into_bytes()
}

/// The time of the reading, milliseconds since 1970: what the document says, else when it was written, by the clock of whoever
/// wrote it.
fn time_of(path: Option<&Path>, change: &Change, body: &Map<String, Value>) -> Option<i64> {
    let said = path.and_then(|path| value_at(body, path)).and_then(moment);
    said.or_else(|| match change.revision.id() {
        RevId::Version(version) => i64::try_from(version.time / 1_000_000).ok(),
        RevId::Tree(_) => None,
    })
}
