//! Checkpoints: those that a recording begins with, and those that the peer keeps for us.

use gattway::lab::blip::{IncomingRequest, OutgoingMessage};
use gattway::lab::replica::OWN_PREFIX;
use gattway::lab::replica::store::ReplicaStore;
use gattway::lab::replicator::checkpoint::{Checkpoint, checkpoint_id};
use serde_json::Value;

use super::Half;
use crate::recording::Side;

impl Half<'_> {
    /// Both sides remember the checkpoint that the recording begins with.
    pub(super) fn load_checkpoints(&mut self) {
        let config = self.scenario.active_config();
        for index in 0..self.scenario.checkpoints.len() {
            let checkpoint = self.checkpoint(index);
            let Some(mut body) = checkpoint.as_object().cloned() else { continue };
            let revision = body.remove("rev").and_then(|rev| rev.as_str().map(str::to_owned));
            let name = &self.scenario.collections[index];
            self.checkpoints.insert(index.to_string(), (revision.clone().unwrap_or_default(), Value::Null));
            let Some(revision) = revision else { continue };
            let text = Value::Object(body).to_string();
            match self.us {
                Side::Active => {
                    let source = self.replica.source();
                    let id =
                        checkpoint_id(source, &config.peer_uid, config.direction, &config.collections[index]);
                    self.replica.load_checkpoint(name, &format!("{OWN_PREFIX}{id}"), "1-cc", &text);
                }
                Side::Passive => {
                    self.replica.load_checkpoint(
                        name,
                        &self.scenario.checkpoint_ids[index],
                        &revision,
                        &text,
                    );
                }
            }
        }
    }

    /// The checkpoint that a recording begins with. For our active side it also counts what was pulled before, as ours
    /// does; the original knows that from each document instead.
    pub(super) fn checkpoint(&self, index: usize) -> Value {
        let recorded = self.scenario.checkpoints[index].clone();
        if self.us == Side::Passive || recorded.get("rev").is_none() {
            return recorded;
        }
        let mut checkpoint = Checkpoint::from_value(&recorded);
        for document in self.scenario.documents("before", Side::Active) {
            let here = document.collection == self.scenario.collections[index];
            if here && !self.scenario.is_proposed(&document) {
                checkpoint.local.insert_range(document.sequence..=document.sequence);
            }
        }
        let mut value: Value = serde_json::from_str(&checkpoint.to_json()).expect("JSON");
        value["rev"] = recorded["rev"].clone();
        value
    }

    /// Answers as a peer that keeps checkpoints.
    pub(super) fn save_checkpoint(&mut self, request: &IncomingRequest) {
        let property = |key: &str| request.properties.get(key).unwrap_or_default().to_owned();
        let collection = property("collection");
        let Some((revision, body)) = self.checkpoints.get_mut(&collection) else {
            self.outcome.differences.push(format!("checkpoint of unknown collection {collection:?}"));
            return;
        };
        if *revision != property("rev") {
            let text = format!("checkpoint saved over {:?}, it is {revision:?}", property("rev"));
            self.outcome.differences.push(text);
        }
        let generation = revision.strip_suffix("-cc").and_then(|n| n.parse().ok()).unwrap_or(0u64);
        *revision = format!("{}-cc", generation + 1);
        *body = serde_json::from_slice(&request.body).expect("JSON");
        let reply = OutgoingMessage::default().with("rev", revision);
        self.peer.reply(request.number, reply).expect("a reply");
    }

    /// Puts the checkpoints of this run into the answer to `getCollections`.
    pub(super) fn with_checkpoints(&self, i: usize, message: OutgoingMessage) -> OutgoingMessage {
        if self.request_of(i).is_none_or(|request| request.properties.profile() != "getCollections") {
            return message;
        }
        let checkpoints: Value =
            (0..self.scenario.checkpoints.len()).map(|index| self.checkpoint(index)).collect();
        message.with_body(checkpoints.to_string())
    }
}
