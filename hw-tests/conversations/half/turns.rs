//! Whose turn it is: what a recorded message depends on, and which messages may be missing.

use serde_json::Value;

use super::Half;
use crate::recording::{RecordedMessage, Side};
use crate::scenario::current_of;

impl Half<'_> {
    /// The request that a message is or answers.
    pub(super) fn request_of(&self, i: usize) -> Option<&RecordedMessage> {
        let message = &self.scenario.messages[i];
        let asker = if message.is_request() { message.from } else { message.from.other() };
        self.scenario
            .messages
            .iter()
            .find(|m| m.is_request() && m.from == asker && m.number == message.number)
    }

    /// Whether a message may be missing, or is answered on its own.
    pub(super) fn is_optional(&self, i: usize) -> bool {
        let Some(request) = self.request_of(i) else { return false };
        // When our active side saves checkpoints is its own matter.
        let checkpoint = self.us == Side::Active && request.properties.profile() == "setCheckpoint";
        // How often a continuous run says "that is all" too.
        let empty = request.from == self.us
            && self.scenario.is_continuous()
            && self.vocabulary.recorded_request(request).is_empty_list();
        checkpoint || empty || self.is_echo(request)
    }

    /// Whether our passive side would offer what the peer has just pushed; it spares that.
    pub(super) fn is_echo(&self, request: &RecordedMessage) -> bool {
        if self.us == Side::Active || request.from != self.us || request.properties.profile() != "changes" {
            return false;
        }
        let list: Value = serde_json::from_slice(&request.body).expect("JSON");
        let items = list.as_array().expect("list");
        let pushed = |id: &Value| {
            self.scenario.revisions().any(|m| m.from != self.us && m.properties.get("id") == id.as_str())
        };
        let old = self.scenario.documents("before", self.us);
        let is_old = |rev: &Value| {
            old.iter().any(|d| current_of(&d.vector) == rev.as_str().map(current_of).unwrap_or_default())
        };
        !items.is_empty() && items.iter().all(|item| pushed(&item[1]) && !is_old(&item[2]))
    }

    /// Whether what a message of the peer depends on has happened.
    pub(super) fn is_due(&self, i: usize) -> bool {
        let message = &self.scenario.messages[i];
        if !message.is_request() {
            return self.our_numbers.contains_key(&message.number);
        }
        let (profile, collection) = (message.properties.profile(), message.properties.get("collection"));
        let earlier = |j: usize| &self.scenario.messages[j];
        (0..i).filter(|&j| !self.is_optional(j)).all(|j| {
            let other = earlier(j);
            let same_collection = other.properties.get("collection") == collection;
            let other_profile = other.properties.profile();
            let depends = match profile {
                _ if other.is_request() && other.from == message.from && other_profile == profile => true,
                "changes" => other_profile == "subChanges" && same_collection,
                "rev" | "norev" => {
                    matches!(other_profile, "changes" | "proposeChanges")
                        && same_collection
                        && other.from == message.from
                }
                _ => other_profile == "getCollections",
            };
            !depends || self.done[j] && self.is_answered(j, profile)
        })
    }

    /// Whether a request of the peer on which others depend has its answer.
    pub(super) fn is_answered(&self, j: usize, of_profile: &str) -> bool {
        let request = &self.scenario.messages[j];
        let waits = request.from != self.us
            && !request.flags.no_reply()
            && (of_profile != "rev" || request.properties.profile() != "rev")
            && (request.properties.profile() != of_profile || of_profile == "setCheckpoint");
        !waits
            || (0..self.done.len()).any(|i| {
                let message = &self.scenario.messages[i];
                self.done[i]
                    && message.from == self.us
                    && !message.is_request()
                    && message.number == request.number
            })
    }
}
