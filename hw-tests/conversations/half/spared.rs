//! What our active side proposes although the peer has it: the recorded core remembers that of each document.

use gattway::lab::blip::{MessageNumber, OutgoingMessage};
use serde_json::Value;

use super::Half;
use crate::normal::Request;
use crate::recording::Side;
use crate::scenario::current_of;

impl Half<'_> {
    /// After a reset we propose what the peer has, too; the original knows that from each document. Takes it out of the
    /// list that is compared, and notes where it was.
    pub(super) fn spare_known(&mut self, number: MessageNumber, ours: &mut Request) {
        if !self.scenario.active_config().reset || ours.profile() != "proposeChanges" {
            return;
        }
        let has = self.scenario.documents("before", Side::Passive);
        let Some(items) = ours.body.as_array_mut() else { return };
        let is_known = |item: &Value| {
            has.iter().any(|d| {
                Some(d.id.as_str()) == item[0].as_str() && Some(current_of(&d.vector)) == item[1].as_str()
            })
        };
        let known: Vec<bool> = items.iter().map(is_known).collect();
        items.retain(|item| !is_known(item));
        if known.contains(&true) {
            self.spared.insert(number, known);
        }
    }

    /// The answer to a whole list from the recorded one to what is left of it.
    pub(super) fn with_spared(&self, number: MessageNumber, recorded: OutgoingMessage) -> OutgoingMessage {
        let Some(known) = self.spared.get(&number) else { return recorded };
        let answers: Value = serde_json::from_slice(&recorded.body).expect("JSON");
        let mut answers = answers.as_array().expect("a list").clone().into_iter();
        let mut next = || answers.next().unwrap_or_else(|| 0.into());
        let all: Value = known.iter().map(|known| if *known { 304.into() } else { next() }).collect();
        recorded.with_body(all.to_string())
    }

    pub(super) fn say_known(&mut self, number: MessageNumber) {
        let reply = OutgoingMessage::default().with("blobs", "true").with_body("[]");
        let reply = self.with_spared(number, reply);
        self.peer.reply(number, reply).expect("a reply");
        for i in 0..self.done.len() {
            let message = &self.scenario.messages[i];
            self.done[i] |= message.from == self.us
                && message.is_request()
                && self.vocabulary.recorded_request(message).is_empty_list();
        }
    }
}
