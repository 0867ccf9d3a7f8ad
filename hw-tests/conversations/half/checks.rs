//! What is compared when a conversation is over.

use gattway::lab::replica::revision::{TreeId, VersionVector, Versioning};
use gattway::lab::replica::store::ReplicaStore;
use gattway::lab::replicator::checkpoint::Checkpoint;
use serde_json::Value;

use super::{Half, show_message, usize_of};
use crate::recording::Side;

/// What is compared of a revision: all ancestors of one in a tree, else its versions. Which tree IDs an upgraded database keeps in
/// a history is each side's own matter.
fn name_of(vector: &VersionVector, versioning: Versioning) -> String {
    let line: Vec<String> = vector.line().iter().map(TreeId::to_string).collect();
    if versioning == Versioning::RevisionTrees { line.join(", ") } else { vector.versions_text() }
}

impl Half<'_> {
    pub(super) fn check_messages(&mut self) {
        for i in 0..self.done.len() {
            let message = &self.scenario.messages[i];
            if self.done[i] || self.is_optional(i) {
                continue;
            }
            let who = if message.from == self.us { "we do not say" } else { "the peer's turn never came" };
            self.outcome.differences.push(format!("{who}: {}", show_message(message)));
        }
    }

    /// The last checkpoint our active side saved says at least what the last one recorded does: ours also counts what
    /// was pulled.
    pub(super) fn check_checkpoints(&mut self) {
        if self.us == Side::Passive || !self.scenario.succeeds() {
            return;
        }
        for (index, (_, ours)) in &self.checkpoints {
            let recorded = self.scenario.messages.iter().rev().find(|m| {
                m.properties.profile() == "setCheckpoint"
                    && m.properties.get("collection") == Some(index.as_str())
            });
            let recorded = recorded.map_or(Value::Null, |m| serde_json::from_slice(&m.body).expect("JSON"));
            let (mine, theirs) = (Checkpoint::from_value(ours), Checkpoint::from_value(&recorded));
            let last =
                self.replica.last_sequence(self.replica.id_of(&self.scenario.collections[usize_of(index)]));
            let local = mine.local_sequence();
            let enough = local >= theirs.local_sequence() && local <= last && mine.local.range_count() <= 1;
            // A run that has nothing to say need not save anything.
            let nothing_new = ours.is_null() && theirs.agreed(&self.first_checkpoint(index)) == theirs;
            if !nothing_new && (!enough || mine.remote != theirs.remote) {
                let text =
                    format!("our last checkpoint of collection {index} is {ours}, recorded {recorded}");
                self.outcome.differences.push(text);
            }
        }
    }

    pub(super) fn first_checkpoint(&self, index: &str) -> Checkpoint {
        Checkpoint::from_value(&self.checkpoint(usize_of(index)))
    }

    pub(super) fn check_documents(&mut self) {
        let expected = self.scenario.documents("after", self.us);
        let versioning = self.scenario.versioning(self.us);
        let mut count = 0;
        for name in self.replica.collections() {
            let id = self.replica.id_of(&name);
            count += self.replica.changes(id, 0, usize::MAX, false).expect("changes").len();
        }
        if count != expected.len() {
            let text = format!("{count} documents in the end, recorded {}", expected.len());
            self.outcome.differences.push(text);
        }
        for document in expected {
            let collection = self.replica.id_of(&document.collection);
            let ours = self.replica.document(collection, &document.id).expect("read").map(|change| {
                let body: Value = serde_json::from_slice(&change.body.expect("a body")).expect("JSON");
                (self.vocabulary.text(&name_of(&change.vector, versioning)), change.deleted, body)
            });
            let vector =
                self.vocabulary.text(&name_of(&document.vector.parse().expect("a vector"), versioning));
            let recorded = (vector, document.deleted, document.body);
            if ours.as_ref() != Some(&recorded) {
                let text = format!("document {:?} is {ours:?}\n  recorded: {recorded:?}", document.id);
                self.outcome.differences.push(text);
            }
        }
    }
}
