//! Messages in a form in which what may differ from run to run is the same: IDs of the run, sizes (a hint), versions
//! made by the run, what only one side announces.

use std::collections::{BTreeMap, HashSet};

use gattway::lab::blip::{ErrorReply, IncomingReply, IncomingRequest, Properties};
use gattway::lab::replicator::extension;
use gattway::lab::replicator::messages::trees::CLOSED_BRANCHES;
use serde_json::{Value, json};

use crate::recording::RecordedMessage;

/// Stands for any version that a side made during the run.
const NEW_VERSION: &str = "new@me";

/// Properties that say nothing about the conversation: IDs of the run, and announcements of what only one of the two
/// implementations can do.
const IGNORED_PROPERTIES: [&str; 5] =
    ["uuid", "client", extension::PROPERTY, extension::FORMAT_PROPERTY, CLOSED_BRANCHES];

#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub urgent: bool,
    pub no_reply: bool,
    pub properties: BTreeMap<String, String>,
    pub body: Value,
}

impl Request {
    pub fn profile(&self) -> &str {
        self.properties.get("Profile").map_or("", String::as_str)
    }

    /// Whether this is a list without entries, which says "that is all".
    pub fn is_empty_list(&self) -> bool {
        matches!(self.profile(), "changes" | "proposeChanges") && self.body == json!([])
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Success {
        properties: BTreeMap<String, String>,
        body: Value,
    },
    /// Texts are each implementation's own.
    Error {
        domain: String,
        code: i32,
    },
}

/// Knows which versions were made during the run.
#[derive(Debug, Default)]
pub struct Vocabulary {
    /// The author that makes versions on our side, as `@source`.
    pub own_suffix: String,
    /// Recorded versions made during the recorded run.
    pub recorded: HashSet<String>,
    /// Documents whose conflict was resolved: what it came to has another sequence here.
    pub resolved: HashSet<String>,
    /// Whether the active side has nothing yet: the original then asks for no tombstones, which only spares bytes.
    pub first_pull: bool,
}

impl Vocabulary {
    pub fn recorded_request(&self, message: &RecordedMessage) -> Request {
        let flags = message.flags;
        self.request(flags.urgent(), flags.no_reply(), &message.properties, &message.body)
    }

    pub fn our_request(&self, request: &IncomingRequest) -> Request {
        self.request(request.urgent, request.no_reply, &request.properties, &request.body)
    }

    fn request(&self, urgent: bool, no_reply: bool, properties: &Properties, body: &[u8]) -> Request {
        let mut properties = self.properties(properties);
        if self.first_pull {
            properties.remove("activeOnly");
        }
        let profile = properties.get("Profile").cloned().unwrap_or_default();
        if profile == "rev" && properties.get("id").is_some_and(|id| self.resolved.contains(id)) {
            properties.remove("sequence");
        }
        let body = self.texts(json_of(body));
        let body = match profile.as_str() {
            "getCollections" => {
                json!({"collections": body["collections"], "checkpoints": count(&body["checkpoint_ids"])})
            }
            // Document, revision, what the peer has; the size is a hint.
            "proposeChanges" => columns(&body, |item| json!([item[0], current(&item[1]), current(&item[2])])),
            // Sequence, document, revision, flags; the size is a hint.
            "changes" => columns(&body, |item| {
                json!([item[0], item[1], current(&item[2]), item[3].as_u64().unwrap_or(0)])
            }),
            _ => body,
        };
        Request { urgent, no_reply, properties, body }
    }

    pub fn recorded_reply(&self, profile: &str, message: &RecordedMessage) -> Reply {
        if message.flags.kind().code() == 2 {
            return self.error(&ErrorReply::from_message(&message.properties, &message.body));
        }
        self.success(profile, &message.properties, &message.body)
    }

    pub fn our_reply(&self, profile: &str, result: &Result<IncomingReply, ErrorReply>) -> Reply {
        match result {
            Ok(reply) => self.success(profile, &reply.properties, &reply.body),
            Err(error) => self.error(error),
        }
    }

    fn error(&self, error: &ErrorReply) -> Reply {
        Reply::Error { domain: error.domain.clone(), code: error.code }
    }

    fn success(&self, profile: &str, properties: &Properties, body: &[u8]) -> Reply {
        let mut body = self.texts(json_of(body));
        if profile == "getCollections" {
            // `_rev` is `rev` once more, for servers.
            for checkpoint in body.as_array_mut().into_iter().flatten() {
                if let Some(checkpoint) = checkpoint.as_object_mut() {
                    checkpoint.remove("_rev");
                }
            }
        }
        if let Some(list) = body.as_array_mut().filter(|_| matches!(profile, "changes" | "proposeChanges")) {
            while list.last().is_some_and(|last| *last == json!(0)) {
                list.pop();
            }
        }
        Reply::Success { properties: self.properties(properties), body }
    }

    fn properties(&self, properties: &Properties) -> BTreeMap<String, String> {
        let told = properties.iter().filter(|(key, _)| !IGNORED_PROPERTIES.contains(key));
        told.map(|(key, value)| (key.to_owned(), self.text(value))).collect()
    }

    fn texts(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(list) => list.into_iter().map(|value| self.texts(value)).collect(),
            Value::Object(object) => {
                object.into_iter().map(|(key, value)| (key, self.texts(value))).collect()
            }
            other => other,
        }
    }

    /// Puts [`NEW_VERSION`] for every version made during the run.
    pub fn text(&self, text: &str) -> String {
        if !text.contains('@') {
            return text.to_owned();
        }
        let part = |part: &str| {
            let is_new = part.ends_with(&self.own_suffix) || self.recorded.contains(part);
            if is_new { NEW_VERSION.to_owned() } else { part.to_owned() }
        };
        let commas = |side: &str| side.split(", ").map(part).collect::<Vec<_>>().join(", ");
        // A `;` stands before a space or at the end.
        text.split(';')
            .map(|side| match side.strip_prefix(' ') {
                Some(rest) => format!(" {}", commas(rest)),
                None => commas(side),
            })
            .collect::<Vec<_>>()
            .join(";")
    }
}

/// A body as JSON; a blob as text.
fn json_of(body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into())
}

/// The current version of a vector, which may stand for all of it in lists.
fn current(vector: &Value) -> &str {
    vector.as_str().and_then(|vector| vector.split([',', ';']).next()).unwrap_or_default()
}

fn count(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}

fn columns(body: &Value, select: impl Fn(&Value) -> Value) -> Value {
    body.as_array().expect("a list").iter().map(select).collect()
}
