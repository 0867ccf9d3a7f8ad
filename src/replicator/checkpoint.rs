//! Checkpoints: how far a replication has come, as both sides remember it.
//!
//! The active side writes one for each collection, keeps a copy and gives one to the peer. Only what both agree on
//! counts: if either database was replaced or put back to an older state, the replication starts from what is left.
//! Source: `firmware-notes/replication.md`, checkpoints.

#![deny(clippy::disallowed_methods)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use super::config::{CollectionConfig, ReplicatorType};
use super::sequences::{RemoteSequence, SequenceSet};
use crate::replica::revision::SourceId;

/// Most ranges of sequences behind the first gap that a checkpoint holds; the oldest are left out beyond that, which
/// only costs that their documents are proposed once more.
const COMPLETED_RANGES_MAX: usize = 200;

/// Before the ID of the note that says what an interrupted run had begun.
pub const NOTE_PREFIX: &str = "own/note/";

/// How far the replication of one collection has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Local sequences that the peer has, or need not have.
    pub local: SequenceSet,
    /// Everything of the peer's feed up to here is durable here.
    pub remote: RemoteSequence,
}

impl Default for Checkpoint {
    fn default() -> Checkpoint {
        Checkpoint { local: SequenceSet::up_to(0), remote: RemoteSequence::START }
    }
}

impl Checkpoint {
    /// The newest local sequence up to which nothing is left to push.
    pub fn local_sequence(&self) -> u64 {
        self.local.prefix()
    }

    /// From the JSON object a peer or the store kept; whatever is missing or malformed counts as not done.
    pub fn from_json(body: &[u8]) -> Checkpoint {
        let Ok(value) = serde_json::from_slice::<Value>(body) else { return Checkpoint::default() };
        Checkpoint::from_value(&value)
    }

    /// As [`Checkpoint::from_json`].
    pub fn from_value(value: &Value) -> Checkpoint {
        let mut local = SequenceSet::up_to(value.get("local").and_then(Value::as_u64).unwrap_or(0));
        let completed = value.get("localCompleted").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for pair in completed.chunks_exact(2).take(COMPLETED_RANGES_MAX) {
            if let (Some(first), Some(count)) = (pair[0].as_u64(), pair[1].as_u64())
                && count > 0
            {
                local.insert_range(first..=first.saturating_add(count - 1));
            }
        }
        let remote = match value.get("remote") {
            None | Some(Value::Null) => RemoteSequence::START,
            Some(remote) => RemoteSequence::from_json(&remote.to_string()),
        };
        Checkpoint { local, remote }
    }

    /// As JSON, as Couchbase Lite writes it: `local` and `remote` unless 0, `localCompleted` (first, count, ...) only if
    /// there are gaps.
    pub fn to_json(&self) -> String {
        Value::Object(self.to_object()).to_string()
    }

    /// As [`Checkpoint::to_json`], for more to be added: whoever holds a checkpoint for another keeps all of it.
    pub fn to_object(&self) -> serde_json::Map<String, Value> {
        let mut object = serde_json::Map::new();
        let local = self.local_sequence();
        if local > 0 {
            object.insert("local".into(), json!(local));
        }
        if self.local.range_count() > 1 {
            let skip = (self.local.range_count() - 1).saturating_sub(COMPLETED_RANGES_MAX);
            let mut completed = vec![json!(0), json!(local.saturating_add(1))];
            for range in self.local.ranges().skip(1 + skip) {
                completed.push(json!(range.start()));
                completed.push(json!(range.end() - range.start() + 1));
            }
            object.insert("localCompleted".into(), Value::Array(completed));
        }
        if self.remote != RemoteSequence::START {
            let remote = serde_json::from_str(&self.remote.to_string()).unwrap_or(Value::Null);
            object.insert("remote".into(), remote);
        }
        object
    }

    /// What two copies agree on.
    #[must_use]
    pub fn agreed(&self, other: &Checkpoint) -> Checkpoint {
        let remote = match (&self.remote, &other.remote) {
            (RemoteSequence::Number(a), RemoteSequence::Number(b)) => RemoteSequence::Number(*a.min(b)),
            (a, b) if a == b => a.clone(),
            _ => RemoteSequence::START,
        };
        Checkpoint { local: self.local.intersection(&other.local), remote }
    }
}

/// What an interrupted run with a gattway peer had begun: revisions up to here were perhaps sent or received, so
/// that they are offered before they are sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunNote {
    /// The newest local sequence that was sent.
    pub sent: u64,
    /// The newest sequence of the peer that was received.
    pub received: u64,
}

impl RunNote {
    /// From the store.
    pub fn from_json(body: &[u8]) -> RunNote {
        let value = serde_json::from_slice::<Value>(body).unwrap_or(Value::Null);
        let field = |name| value.get(name).and_then(Value::as_u64).unwrap_or(0);
        RunNote { sent: field("sent"), received: field("received") }
    }

    /// For the store.
    pub fn to_json(self) -> String {
        json!({"sent": self.sent, "received": self.received}).to_string()
    }
}

/// The ID under which both sides keep the checkpoint: `cp-` and a hash of everything that changes what is replicated.
pub fn checkpoint_id(
    source: SourceId,
    peer_uid: &str,
    direction: ReplicatorType,
    collection: &CollectionConfig,
) -> String {
    let mut hash = Sha1::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    field(&source.0);
    field(peer_uid.as_bytes());
    field(collection.name.as_bytes());
    field(&[u8::from(direction.pushes()), u8::from(direction.pulls()), u8::from(collection.skip_deleted)]);
    field(&[u8::from(collection.push_filter.is_some()), u8::from(collection.pull_filter.is_some())]);
    field(collection.remote_filter.as_deref().unwrap_or_default().as_bytes());
    if let Some(ids) = &collection.document_ids {
        let mut ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        ids.sort_unstable();
        ids.iter().for_each(|id| field(id.as_bytes()));
    }
    if !collection.channels.is_empty() {
        let mut channels: Vec<&str> = collection.channels.iter().map(String::as_str).collect();
        channels.sort_unstable();
        field(b"channels");
        channels.iter().for_each(|channel| field(channel.as_bytes()));
    }
    format!("cp-{}", STANDARD.encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_the_form_of_the_original() {
        let text = r#"{"local":1,"localCompleted":[0,2,3,1],"remote":2}"#;
        let checkpoint = Checkpoint::from_json(text.as_bytes());
        assert_eq!(checkpoint.local_sequence(), 1);
        assert!(checkpoint.local.contains(3) && !checkpoint.local.contains(2));
        assert_eq!(checkpoint.to_json(), text);
        let plain = Checkpoint::from_json(br#"{"time":1795383311,"local":3,"remote":"17:4"}"#);
        assert_eq!(plain.to_json(), r#"{"local":3,"remote":"17:4"}"#);
        for garbage in ["", "[]", "{oops", r#"{"local":-1,"remote":null,"localCompleted":[1]}"#] {
            assert_eq!(Checkpoint::from_json(garbage.as_bytes()), Checkpoint::default(), "{garbage}");
        }
        let most = Checkpoint::from_json(
            br#"{"local":18446744073709551615,"localCompleted":[18446744073709551615,5,7,0]}"#,
        );
        assert_eq!(most.local_sequence(), u64::MAX);
        most.to_json();
    }

    #[test]
    fn only_what_both_copies_say_counts() {
        let a = Checkpoint::from_json(br#"{"local":9,"remote":7}"#);
        let b = Checkpoint::from_json(br#"{"local":5,"localCompleted":[0,6,8,4],"remote":11}"#);
        let agreed = a.agreed(&b);
        assert_eq!(agreed.to_json(), r#"{"local":5,"localCompleted":[0,6,8,2],"remote":7}"#);
        assert_eq!(a.agreed(&Checkpoint::default()), Checkpoint::default());
        // What is no number has no order: only the same counts.
        let [c, d] =
            [br#"{"remote":"17:4"}"#, br#"{"remote":"17:5"}"#].map(|text| Checkpoint::from_json(text));
        assert_eq!(c.agreed(&c), c);
        assert_eq!((c.agreed(&d), c.agreed(&a).remote), (Checkpoint::default(), RemoteSequence::START));
    }

    #[test]
    fn the_identity_depends_on_everything_that_matters() {
        let source = SourceId([7; 16]);
        let plain = CollectionConfig::new("_default");
        let id = checkpoint_id(source, "peer", ReplicatorType::PushAndPull, &plain);
        assert_eq!(id.len(), 3 + 28);
        let filtered = CollectionConfig { document_ids: Some(vec!["a".into()]), ..plain.clone() };
        let channels = |names: &[&str]| {
            let channels = names.iter().map(|name| (*name).to_owned()).collect();
            CollectionConfig { channels, ..plain.clone() }
        };
        let of =
            |names: &[&str]| checkpoint_id(source, "peer", ReplicatorType::PushAndPull, &channels(names));
        assert_eq!(of(&["x", "y"]), of(&["y", "x"]));
        assert_ne!(of(&["x", "y"]), of(&["x"]));
        for other in [
            of(&["a"]),
            checkpoint_id(SourceId([8; 16]), "peer", ReplicatorType::PushAndPull, &plain),
            checkpoint_id(source, "peer2", ReplicatorType::PushAndPull, &plain),
            checkpoint_id(source, "peer", ReplicatorType::Push, &plain),
            checkpoint_id(source, "peer", ReplicatorType::PushAndPull, &CollectionConfig::new("a.b")),
            checkpoint_id(source, "peer", ReplicatorType::PushAndPull, &filtered),
        ] {
            assert_ne!(id, other);
        }
    }
}
