//! What a recorded conversation needs before it can be played: documents, settings, checkpoints. One file, because all of it is read out
//! of one header and its messages.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use gattway::endpoint::ProtocolType;
use gattway::lab::blip::BlipConfig;
use gattway::lab::endpoint::framing::{Framing, FramingEvent, FramingRole};
use gattway::lab::replica::blobs::BlobDigest;
use gattway::lab::replica::revision::{VersionVector, Versioning};
use gattway::lab::replica::store::{Conflict, ConflictResolver, Resolution};
use gattway::lab::replicator::config::{
    ActiveConfig, CollectionConfig, FilterInput, PassiveConfig, ReplicationFilter, ReplicatorType,
};
use gattway::lab::replicator::resolver::DefaultResolver;
use serde_json::Value;
use sha1::{Digest, Sha1};

use crate::recording::{self, RecordedMessage, Recording, Sent, Side};

/// A document of one side.
#[derive(Clone, Debug)]
pub struct RecordedDocument {
    pub collection: String,
    pub id: String,
    /// The whole vector.
    pub vector: String,
    pub deleted: bool,
    pub sequence: u64,
    pub body: Value,
}

/// A recorded conversation, ready to be played.
pub struct Scenario {
    pub name: String,
    pub header: Value,
    pub messages: Vec<RecordedMessage>,
    pub collections: Vec<String>,
    pub checkpoint_ids: Vec<String>,
    /// The passive side's answer to `getCollections`: `null`, `{}` or a checkpoint.
    pub checkpoints: Vec<Value>,
}

impl Scenario {
    pub fn read(name: &str) -> Scenario {
        let recording = recording::read(name);
        let messages = recording::messages(&blip_frames(&recording));
        let Recording { name, header, .. } = recording;
        let ask =
            messages.iter().find(|m| m.properties.profile() == "getCollections").expect("getCollections");
        let answer =
            messages.iter().find(|m| !m.is_request() && m.number == ask.number && m.from == Side::Passive);
        let ask: Value = serde_json::from_slice(&ask.body).expect("JSON");
        let answer: Value = serde_json::from_slice(&answer.expect("an answer").body).expect("JSON");
        let strings = |value: &Value| -> Vec<String> {
            value.as_array().expect("list").iter().map(|s| s.as_str().expect("text").to_owned()).collect()
        };
        Scenario {
            name,
            collections: strings(&ask["collections"]),
            checkpoint_ids: strings(&ask["checkpoint_ids"]),
            checkpoints: answer.as_array().expect("list").clone(),
            header,
            messages,
        }
    }

    pub fn is_continuous(&self) -> bool {
        self.has_argument(Side::Active, "--continuous")
    }

    /// How a side identifies revisions.
    pub fn versioning(&self, side: Side) -> Versioning {
        let text = self.header["versioning"].as_str().expect("text");
        let (mut active, mut passive) = text.split_once(", ").unwrap_or((text, text));
        if self.name.starts_with("wrong-versioning") {
            // Its header names the active side alone.
            (active, passive) = if text == "vv" { ("vv", "revtree") } else { ("revtree", "vv") };
        }
        let kind = if side == Side::Active { active } else { passive };
        if kind.starts_with("revtree") { Versioning::RevisionTrees } else { Versioning::VersionVectors }
    }

    /// Whether the recorded active side resolved a conflict of this document.
    pub fn resolves(&self, id: &str) -> bool {
        let events = self.header["active_events"].as_array().expect("events");
        events.iter().any(|event| event.as_str().is_some_and(|e| e.starts_with(&format!("RESOLVE {id} "))))
    }

    /// Documents with revision trees whose conflict the recorded active side resolved in this run.
    pub fn resolved_trees(&self) -> HashSet<String> {
        let has_trees = self.versioning(Side::Active) == Versioning::RevisionTrees;
        let ids = self.revisions().filter_map(|message| message.properties.get("id"));
        ids.filter(|id| has_trees && self.resolves(id)).map(str::to_owned).collect()
    }

    /// Whether the recorded run ended well.
    pub fn succeeds(&self) -> bool {
        self.header["active_exit"] == 0
    }

    /// Whether the recorded active side proposes this revision.
    pub fn is_proposed(&self, document: &RecordedDocument) -> bool {
        self.lists("proposeChanges").any(|(_, item)| {
            let rev = item[1].as_str().unwrap_or_default();
            item[0].as_str() == Some(&document.id) && current_of(rev) == current_of(&document.vector)
        })
    }

    /// Index of the first list in which `side` tells the other of a revision.
    pub fn first_list_with(&self, document: &RecordedDocument, side: Side) -> usize {
        let (profile, column) = if side == Side::Active { ("proposeChanges", 0) } else { ("changes", 1) };
        let mut lists = self.lists(profile);
        let found = lists.find(|(_, item)| {
            let rev = item[column + 1].as_str().unwrap_or_default();
            item[column].as_str() == Some(&document.id) && current_of(rev) == current_of(&document.vector)
        });
        found.map_or(0, |(index, _)| index)
    }

    /// The entries of all lists of this profile, with the index of the message.
    fn lists<'a>(&'a self, profile: &'a str) -> impl Iterator<Item = (usize, Value)> + 'a {
        let messages =
            self.messages.iter().enumerate().filter(move |(_, m)| m.properties.profile() == profile);
        messages.flat_map(|(index, message)| {
            let list: Value = serde_json::from_slice(&message.body).expect("JSON");
            let items = list.as_array().expect("list").clone();
            items.into_iter().map(move |item| (index, item))
        })
    }

    fn arguments(&self, side: Side) -> Vec<&str> {
        let key = if side == Side::Active { "active_args" } else { "passive_args" };
        self.header[key].as_array().expect("arguments").iter().filter_map(Value::as_str).collect()
    }

    fn has_argument(&self, side: Side, name: &str) -> bool {
        self.arguments(side).contains(&name)
    }

    fn argument(&self, side: Side, name: &str) -> Option<&str> {
        let arguments = self.arguments(side);
        let at = arguments.iter().position(|argument| *argument == name)?;
        arguments.get(at + 1).copied()
    }

    /// The documents of one side before or after, in the order of their sequences.
    pub fn documents(&self, when: &str, side: Side) -> Vec<RecordedDocument> {
        let key = if side == Side::Active { "active" } else { "passive" };
        let mut documents: Vec<RecordedDocument> = match &self.header[when][key] {
            Value::Array(list) => list.iter().map(|document| self.document(document)).collect(),
            // Where there are many, the revisions exchanged are all there were.
            _ => {
                let both = when == "after";
                self.revisions().filter(|m| both || m.from == side).map(|m| self.sent_document(m)).collect()
            }
        };
        if when == "before" {
            documents.iter_mut().for_each(|document| self.add_ancestors(document, side));
        }
        documents.sort_by_key(|document| document.sequence);
        documents
    }

    /// The blobs that one side's documents name before, with their length if they are there.
    pub fn blobs(&self, side: Side) -> Vec<(BlobDigest, Option<u64>)> {
        let key = if side == Side::Active { "active" } else { "passive" };
        let documents = self.header["before"][key].as_array().into_iter().flatten();
        let blobs = documents.flat_map(|document| document["blobs"].as_array().into_iter().flatten());
        let digest = |blob: &Value| blob["digest"].as_str().expect("a digest").parse().expect("a digest");
        blobs.map(|blob| (digest(blob), blob["stored"].as_u64())).collect()
    }

    fn document(&self, value: &Value) -> RecordedDocument {
        let text = |key: &str| value[key].as_str().expect("text").to_owned();
        let id = text("id");
        // Of an upgraded database the history also has tree IDs, which no revision has.
        let vector = value["history"].as_str().map_or_else(|| text("rev"), str::to_owned);
        let body =
            if value["body"]["_omitted"] == true { self.sent_body(&id) } else { value["body"].clone() };
        RecordedDocument {
            collection: value["collection"].as_str().unwrap_or("_default").to_owned(),
            id,
            vector,
            deleted: value["deleted"] == true,
            sequence: value["seq"].as_u64().expect("sequence"),
            body,
        }
    }

    /// The recorded core knows the ancestors of a tree ID, but names them only where it sends it.
    fn add_ancestors(&self, document: &mut RecordedDocument, side: Side) {
        if document.vector.contains('@') {
            return;
        }
        let sent =
            self.revisions().filter(|m| m.from == side && m.properties.get("id") == Some(&document.id));
        for sent in sent.map(|m| self.sent_document(m)) {
            if sent.vector.starts_with(&document.vector) {
                document.vector = sent.vector;
            }
        }
    }

    fn sent_body(&self, id: &str) -> Value {
        let sent = self.revisions().find(|m| m.properties.get("id") == Some(id)).expect("sent in full");
        serde_json::from_slice(&sent.body).expect("JSON")
    }

    /// The `rev` messages.
    pub fn revisions(&self) -> impl Iterator<Item = &RecordedMessage> {
        self.messages.iter().filter(|m| m.properties.profile() == "rev")
    }

    /// The document a `rev` message carries.
    pub fn sent_document(&self, message: &RecordedMessage) -> RecordedDocument {
        let property = |key: &str| message.properties.get(key).unwrap_or_default();
        let (rev, history) = (property("rev"), property("history"));
        let vector = match history {
            "" => rev.to_owned(),
            merged if merged.contains(';') => format!("{rev}, {merged}"),
            plain => format!("{rev}; {plain}"),
        };
        RecordedDocument {
            collection: self.collections[property("collection").parse::<usize>().expect("index")].clone(),
            id: property("id").to_owned(),
            vector,
            deleted: property("deleted") == "1",
            sequence: property("sequence").parse().expect("sequence"),
            body: serde_json::from_slice(&message.body).expect("JSON"),
        }
    }

    /// What the active side knew the passive one to have, by document and current version: the third column of its
    /// proposals, and the second entry of its answers to lists.
    pub fn remote_ancestors(&self) -> HashMap<(String, String), String> {
        let mut known = HashMap::new();
        let mut learn = |id: &Value, rev: &Value, ancestor: &Value| {
            let texts =
                (id.as_str(), rev.as_str(), ancestor.as_str().filter(|ancestor| !ancestor.is_empty()));
            if let (Some(id), Some(rev), Some(ancestor)) = texts {
                known.insert((id.to_owned(), current_of(rev).to_owned()), ancestor.to_owned());
            }
        };
        // What is proposed once more names what the first answer told.
        let mut proposed = HashSet::new();
        for (_, item) in self.lists("proposeChanges") {
            if proposed.insert((item[0].to_string(), item[1].to_string())) {
                learn(&item[0], &item[1], &item[2]);
            }
        }
        for message in self.messages.iter().filter(|m| m.properties.profile() == "changes") {
            let is_answer = |m: &&RecordedMessage| {
                m.from == Side::Active && m.flags.kind().code() == 1 && m.number == message.number
            };
            let Some(answer) = self.messages.iter().find(is_answer) else { continue };
            let (list, answer) = (json_of(&message.body), json_of(&answer.body));
            for (item, known) in
                list.as_array().into_iter().flatten().zip(answer.as_array().into_iter().flatten())
            {
                learn(&item[1], &known[0], &known[1]);
            }
        }
        known
    }

    /// Versions that came into being on `side` by resolving a conflict: in a vector after, in none before, and not
    /// those of an edit in between.
    pub fn merge_versions(&self, side: Side) -> HashSet<String> {
        let versions = |when: &str, side: Side| -> HashSet<String> {
            let documents = self.documents(when, side);
            documents.iter().flat_map(|d| versions_of(&d.vector)).collect()
        };
        let mut new: HashSet<String> = self
            .documents("after", side)
            .iter()
            .filter(|document| document.vector.contains(','))
            .filter_map(|document| versions_of(&document.vector).into_iter().next())
            .collect();
        for side in [Side::Active, Side::Passive] {
            let old = versions("before", side);
            new.retain(|version| !old.contains(version));
        }
        new
    }

    /// Settings of the active side.
    pub fn active_config(&self) -> ActiveConfig {
        let side = Side::Active;
        let collections = self.collections.iter().map(|name| {
            let mut config = CollectionConfig::new(name);
            config.document_ids =
                self.argument(side, "--docids").map(|ids| ids.split(',').map(str::to_owned).collect());
            // The original's switch keeps tombstones from going either way; here, what is pushed is a filter's matter.
            config.push_filter = if self.has_argument(side, "--skip-deleted") {
                Some(Arc::new(|input: &FilterInput<'_>| !input.deleted))
            } else {
                self.argument(side, "--reject-push").map(refuse_prefix)
            };
            config.pull_filter = self.argument(side, "--reject-pull").map(refuse_prefix);
            config.remote_filter = self.argument(side, "--filter").map(str::to_owned);
            config.channels = self
                .argument(side, "--channels")
                .map(|names| names.split(',').map(str::to_owned).collect())
                .unwrap_or_default();
            config.skip_deleted = self.has_argument(side, "--skip-deleted");
            config
        });
        ActiveConfig {
            collections: collections.collect(),
            direction: match self.argument(side, "--mode") {
                Some("push") => ReplicatorType::Push,
                Some("pull") => ReplicatorType::Pull,
                _ => ReplicatorType::PushAndPull,
            },
            continuous: self.is_continuous(),
            reset: self.has_argument(side, "--reset"),
            peer_uid: "recorded".into(),
            blip: self.blip_config(),
            resolver: resolver(self.argument(side, "--resolver").unwrap_or("v4")),
            deltas: !self.has_argument(side, "--no-deltas"),
            ..ActiveConfig::default()
        }
    }

    /// Settings of the passive side.
    pub fn passive_config(&self) -> PassiveConfig {
        let side = Side::Passive;
        let offered =
            self.collections.iter().zip(&self.checkpoints).filter(|(_, checkpoint)| !checkpoint.is_null());
        PassiveConfig {
            collections: offered.map(|(name, _)| name.clone()).collect(),
            accept_push: self.argument(side, "--mode") != Some("push"),
            accept_pull: self.argument(side, "--mode") != Some("pull"),
            incoming_filter: self.argument(side, "--reject-pull").map(refuse_prefix),
            blip: self.blip_config(),
            deltas: !self.has_argument(side, "--no-deltas"),
            ..PassiveConfig::default()
        }
    }

    pub fn blip_config(&self) -> BlipConfig {
        let compression_level = self.header["compression"].as_u64().map_or(0, |level| level as u32);
        BlipConfig { compression_level, ..BlipConfig::default() }
    }
}

/// The content of all blobs that went over in any recording.
pub fn blob_contents() -> HashMap<BlobDigest, Vec<u8>> {
    let names = recording::conversation_names().into_iter().filter(|name| name.starts_with("blob"));
    let messages = names.flat_map(|name| recording::messages(&blip_frames(&recording::read(&name))));
    let replies = messages.filter(|message| !message.is_request());
    replies.map(|message| (BlobDigest(Sha1::digest(&message.body).into()), message.body)).collect()
}

/// The versions in the text of a vector, in order.
pub fn versions_of(vector: &str) -> Vec<String> {
    vector.split([',', ';']).map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// The current version of a vector.
pub fn current_of(vector: &str) -> &str {
    vector.split([',', ';']).next().unwrap_or_default()
}

fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or(Value::Null)
}

fn refuse_prefix(prefix: &str) -> ReplicationFilter {
    let prefix = prefix.to_owned();
    Arc::new(move |input| !input.id.starts_with(&prefix))
}

/// The resolvers with which conflicts were recorded.
fn resolver(name: &str) -> Arc<dyn ConflictResolver> {
    match name {
        "local" => Arc::new(|_: &Conflict<'_>| Ok(Resolution::Local)),
        "remote" => Arc::new(|_: &Conflict<'_>| Ok(Resolution::Remote)),
        "merge" => Arc::new(|conflict: &Conflict<'_>| {
            let mut merged: BTreeMap<String, Value> = BTreeMap::new();
            for body in [conflict.remote_body, conflict.local_body].into_iter().flatten() {
                merged.extend(body.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            merged.insert("merged".into(), true.into());
            Ok(Resolution::Merge(merged.into_iter().collect()))
        }),
        "v4" => Arc::new(DefaultResolver),
        other => panic!("resolver {other:?}"),
    }
}

/// The BLIP frames of a recording, without what they travel in.
pub fn blip_frames(recording: &Recording) -> Vec<Sent> {
    if !recording.is_byte_stream() {
        return recording.sent.clone();
    }
    let mut at_active = Framing::new(FramingRole::Active, ProtocolType::ByteStream);
    let mut at_passive = Framing::new(FramingRole::Passive, ProtocolType::ByteStream);
    let mut frames = Vec::new();
    for Sent { from, bytes } in &recording.sent {
        let receiver = if *from == Side::Active { &mut at_passive } else { &mut at_active };
        receiver.handle_bytes(bytes).expect("recorded bytes");
        while let Some(event) = receiver.poll_event() {
            if let FramingEvent::Frame(frame) = event {
                frames.push(Sent { from: *from, bytes: frame.to_vec() });
            }
        }
    }
    frames
}

/// A vector without the tree IDs in its history: which of them are kept is each side's own matter.
pub fn versions_text(vector: &str) -> String {
    let vector: VersionVector = vector.parse().unwrap_or_else(|error| panic!("{vector}: {error}"));
    vector.versions_text()
}
