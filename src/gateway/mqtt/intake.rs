//! Documents of messages.

use rumqttc::Publish;
use serde_json::{Map, Value};

use crate::database::{Collection, Database, DatabaseError};
use crate::gateway::config::{MqttConfig, TopicConfig};
use crate::gateway::record::Meta;
use crate::gateway::topics::{Name, text_at};
use crate::replica::clip;

/// What became of messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Documents that were saved.
    pub(super) saved: u64,
    /// Messages that no document can be made of.
    pub(super) refused: u64,
    /// Of the last of those: its topic, and why.
    pub(super) why: Option<String>,
}

/// Makes documents of messages and saves them; when this returns they are on the medium, and may be confirmed.
///
/// # Errors
/// Of the store: none of them may be confirmed, though some may be saved.
pub(super) fn take(db: &Database, config: &MqttConfig, messages: &[Publish]) -> Result<Taken, DatabaseError> {
    let mut taken = Taken::default();
    let refuse = |taken: &mut Taken, topic: &str, why: &str| {
        taken.refused += 1;
        taken.why = Some(format!("a message of {}: {why}", clip(topic)));
    };
    for message in messages {
        // A message that two sections ask for becomes a document of each.
        for section in config.topics.values().filter(|section| section.filter.passes(&message.topic)) {
            let (id, body) = match document(section, message) {
                Ok(document) => document,
                Err(why) => {
                    refuse(&mut taken, &message.topic, &why);
                    continue;
                }
            };
            let collection = open(db, &section.collection)?;
            match save(&collection, &id, body) {
                Ok(saved) => taken.saved += u64::from(saved),
                Err(error) if error.is_of_a_document() => {
                    refuse(&mut taken, &message.topic, &error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
    }
    db.sync()?;
    Ok(taken)
}

fn open(db: &Database, name: &str) -> Result<Collection, DatabaseError> {
    match db.collection(name) {
        Some(collection) => Ok(collection),
        None => db.create_collection(name),
    }
}

/// False: it is there already, as for a message that comes a second time.
fn save(collection: &Collection, id: &str, body: Map<String, Value>) -> Result<bool, DatabaseError> {
    let is_there = collection.get(id)?.is_some_and(|document| *document.body() == body);
    if !is_there {
        collection.put(id, &body)?;
    }
    Ok(!is_there)
}

/// ID and body of a message.
fn document(section: &TopicConfig, message: &Publish) -> Result<(String, Map<String, Value>), String> {
    let text = std::str::from_utf8(&message.payload).map_err(|_| "it is no text".to_owned())?;
    if text.is_empty() {
        return Err("it is empty".into());
    }
    let fields = match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => fields,
        Ok(value) => alone(&message.topic, value),
        Err(_) => alone(&message.topic, text.into()),
    };
    let Meta { id: given, body, deleted, .. } = Meta::take(fields)?;
    if deleted {
        return Err("`_deleted` says nothing in a message".into());
    }
    let value = |name: &Name| match name {
        Name::Topic => Some(message.topic.clone()),
        Name::Level(level) => message.topic.split('/').nth(level - 1).map(str::to_owned),
        Name::Value(path) => text_at(&body, path),
        Name::Id | Name::Collection | Name::Database => None,
    };
    let id = section.id.fill(value, std::convert::identity);
    let id = id.map_err(|name| format!("it has no text or number at {name:?}, which its ID needs"))?;
    if let Some(given) = given.filter(|given| given.as_str() != Some(&id)) {
        return Err(format!(
            "its `_id` is {}, and its ID would be {:?}",
            clip(&given.to_string()),
            clip(&id)
        ));
    }
    Ok((id, body))
}

/// A body for a bare value, which says nothing of where it is from.
fn alone(topic: &str, value: Value) -> Map<String, Value> {
    Map::from_iter([("topic".to_owned(), topic.into()), ("value".to_owned(), value)])
}
