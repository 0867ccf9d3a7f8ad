//! Plays one half of a recorded conversation against a session of ours.
//!
//! The recorded peer says what it said, each message as soon as everything of ours that was recorded before it has
//! come; where our order is another one, as soon as what it really depends on has come. What our side says must be what
//! was recorded, message by message, in any order. Checkpoints of our active side are answered as a peer would, since
//! when they are saved is each side's own matter; only the last one is compared.

mod checkpoints;
mod checks;
mod spared;
mod turns;

use std::collections::HashMap;

use gattway::lab::blip::{
    Connection, ErrorReply, Event, IncomingReply, IncomingRequest, MessageNumber, OutgoingMessage, Properties,
};
use gattway::lab::replica::store::ReplicaStore;
use gattway::lab::replicator::error::SessionError;
use gattway::lab::replicator::event::SessionEvent;
use gattway::lab::replicator::session::Session;
use gattway::lab::time::Instant;
use gattway::replicator::Unsynced;
use serde_json::Value;

use crate::normal::{Reply, Request, Vocabulary};
use crate::recording::{RecordedMessage, Side};
use crate::replica::Replica;
use crate::scenario::{self, RecordedDocument, Scenario, current_of};

/// Virtual time after which a conversation must be over, in seconds.
const TIME_MAX_S: u64 = 20;

/// What came of it.
pub struct Outcome {
    /// Everything that differs, in words.
    pub differences: Vec<String>,
    /// Messages of ours that were compared.
    pub compared: usize,
    pub finished: Option<Result<(), SessionError>>,
    /// What our side said it could not sync.
    pub unsynced: Unsynced,
}

pub struct Half<'s> {
    scenario: &'s Scenario,
    us: Side,
    session: Session,
    replica: Replica,
    peer: Connection,
    now: Instant,
    vocabulary: Vocabulary,
    /// For each recorded message: said by the peer, or matched by ours.
    done: Vec<bool>,
    /// Our request of this recorded number has this number now.
    our_numbers: HashMap<u64, MessageNumber>,
    /// The peer's request of this number now is the recorded one of that index.
    peer_requests: HashMap<MessageNumber, usize>,
    /// Local edits still to be made, in a continuous run, the last one first; each with the index of the message that
    /// tells the peer of it.
    edits: Vec<(usize, RecordedDocument)>,
    /// Versions that our side made, with the recorded ones in whose place they stand: recorded first.
    translations: Vec<(String, String)>,
    /// Of lists of ours, which entries the recorded side spares.
    spared: HashMap<MessageNumber, Vec<bool>>,
    /// Revision and body of the checkpoints that the peer keeps for us, by collection index.
    checkpoints: HashMap<String, (String, Value)>,
    outcome: Outcome,
}

impl<'s> Half<'s> {
    pub fn new(scenario: &'s Scenario, us: Side) -> Half<'s> {
        let ancestors = if us == Side::Active { scenario.remote_ancestors() } else { HashMap::new() };
        let mut replica = Replica::new(&scenario.collections, ancestors, scenario.versioning(us));
        replica.load_blobs(&scenario.blobs(us), &scenario::blob_contents());
        replica.load(&scenario.documents("before", us));
        if us == Side::Active {
            replica.load_bases(&scenario.documents("before", Side::Passive));
        }
        let session = match us {
            Side::Active => Session::active(scenario.active_config()),
            Side::Passive => Session::passive(scenario.passive_config()),
        };
        let vocabulary = Vocabulary {
            own_suffix: format!("@{}", replica.source()),
            recorded: scenario.merge_versions(Side::Active),
            resolved: scenario.resolved_trees(),
            first_pull: us == Side::Active && scenario.documents("before", us).is_empty(),
        };
        let mut half = Half {
            scenario,
            us,
            session,
            peer: Connection::new(scenario.blip_config()),
            now: Instant::from_micros(1_000_000),
            vocabulary,
            done: vec![false; scenario.messages.len()],
            our_numbers: HashMap::new(),
            peer_requests: HashMap::new(),
            edits: Vec::new(),
            translations: Vec::new(),
            spared: HashMap::new(),
            checkpoints: HashMap::new(),
            outcome: Outcome {
                differences: Vec::new(),
                compared: 0,
                finished: None,
                unsynced: Unsynced::default(),
            },
            replica,
        };
        half.load_checkpoints();
        half.plan_edits();
        half
    }

    /// In a continuous run, what our side sent but had neither before nor made by merging, it wrote meanwhile.
    fn plan_edits(&mut self) {
        if !self.scenario.is_continuous() {
            return;
        }
        let before = self.scenario.documents("before", self.us);
        let sent = self.scenario.revisions().filter(|message| message.from == self.us);
        for document in sent.map(|message| self.scenario.sent_document(message)) {
            let current = current_of(&document.vector);
            let is_old = before.iter().any(|old| old.id == document.id && current_of(&old.vector) == current);
            // A tree ID does not tell that it came of a merge.
            let is_merge = !current.contains('@') && self.scenario.resolves(&document.id);
            if !is_old && !is_merge && self.vocabulary.text(&document.vector) == document.vector {
                let told = self.scenario.first_list_with(&document, self.us);
                self.edits.push((told, document));
            }
        }
        self.edits.reverse();
    }

    pub fn play(mut self) -> Outcome {
        self.session.start(self.now, &self.replica);
        loop {
            self.exchange();
            if self.say_next(true) || self.edit_next() || self.wait() || self.say_next(false) {
                continue;
            }
            break;
        }
        if self.us == Side::Active && !self.session.is_finished() {
            self.session.stop(self.now);
            self.exchange();
            self.session.handle_timeout(self.now, &self.replica);
            self.exchange();
        }
        self.check_messages();
        self.check_checkpoints();
        self.check_documents();
        self.outcome
    }

    /// Carries frames and commits until nothing moves.
    fn exchange(&mut self) {
        loop {
            let mut moved = false;
            while let Some(frame) = self.session.poll_frame(self.now, &self.replica) {
                moved = true;
                self.peer.handle_frame(&frame).expect("a frame of ours");
                while let Some(event) = self.peer.poll_event() {
                    self.hear(event);
                }
            }
            while let Some(frame) = self.peer.poll_frame() {
                moved = true;
                // An error also comes as an event.
                let _ = self.session.handle_frame(self.now, &frame, &self.replica);
            }
            while let Some(commit) = self.session.poll_commit() {
                moved = true;
                let result = commit.run(&self.replica, self.session.conflict_policy());
                self.session.handle_commit(self.now, commit.id, result, &self.replica);
                self.session.handle_store_changed(self.now, &self.replica);
            }
            while let Some(event) = self.session.poll_event() {
                match event {
                    SessionEvent::Finished(result) => self.outcome.finished = Some(result),
                    SessionEvent::Unsynced(unsynced) => self.outcome.unsynced = *unsynced,
                    _ => {}
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Lets time pass until our session has something to do.
    fn wait(&mut self) -> bool {
        match self.session.poll_at() {
            Some(at) if at.as_micros() <= TIME_MAX_S * 1_000_000 => {
                self.now = at.max(Instant::from_micros(self.now.as_micros() + 1));
                self.session.handle_timeout(self.now, &self.replica);
                true
            }
            _ => false,
        }
    }

    /// Makes the next local edit when everything recorded before it has happened.
    fn edit_next(&mut self) -> bool {
        let Some((told, _)) = self.edits.last() else { return false };
        if (0..*told).any(|i| !self.done[i] && !self.is_optional(i)) {
            return false;
        }
        let Some((_, document)) = self.edits.pop() else { return false };
        self.replica.insert(&document);
        self.session.handle_store_changed(self.now, &self.replica);
        true
    }

    /// Takes what our session says.
    fn hear(&mut self, event: Event) {
        match event {
            Event::Request(request) => self.hear_request(&request),
            Event::Reply { number, result } => self.hear_reply(number, &result),
            other => panic!("{other:?}"),
        }
    }

    fn hear_request(&mut self, request: &IncomingRequest) {
        if self.us == Side::Active && request.profile() == "setCheckpoint" {
            self.save_checkpoint(request);
            return;
        }
        let mut ours = self.vocabulary.our_request(request);
        let mut found = self.find_recorded(&ours);
        if found.is_none() {
            self.spare_known(request.number, &mut ours);
            found = self.find_recorded(&ours);
        }
        match found {
            Some(i) => {
                self.done[i] = true;
                self.outcome.compared += 1;
                let rev = |properties: &Properties| properties.get("rev").unwrap_or_default().to_owned();
                self.translations
                    .push((rev(&self.scenario.messages[i].properties), rev(&request.properties)));
                self.our_numbers.insert(self.scenario.messages[i].number, request.number);
            }
            None if self.scenario.is_continuous() && ours.is_empty_list() => {}
            None if self.spared.contains_key(&request.number) && ours.is_empty_list() => {
                self.say_known(request.number);
            }
            // A recorded side that refuses ends the conversation in the middle.
            None if !self.scenario.succeeds() => {}
            None => self.outcome.differences.push(format!("we say, not recorded: {}", show(&ours))),
        }
    }

    /// The recorded request that this is, if it was not made yet.
    fn find_recorded(&self, ours: &Request) -> Option<usize> {
        (0..self.done.len()).find(|&i| {
            let message = &self.scenario.messages[i];
            !self.done[i]
                && message.from == self.us
                && message.is_request()
                && self.vocabulary.recorded_request(message) == *ours
        })
    }

    fn hear_reply(&mut self, number: MessageNumber, result: &Result<IncomingReply, ErrorReply>) {
        let request = &self.scenario.messages[self.peer_requests[&number]];
        let profile = request.properties.profile();
        let ours = self.vocabulary.our_reply(profile, result);
        let recorded = (0..self.done.len()).find(|&i| {
            let message = &self.scenario.messages[i];
            message.from == self.us && !message.is_request() && message.number == request.number
        });
        let Some(i) = recorded else {
            // The recording ended before it came.
            return;
        };
        self.done[i] = true;
        self.outcome.compared += 1;
        let expected = self.vocabulary.recorded_reply(profile, &self.scenario.messages[i]);
        if ours != expected {
            let text = format!(
                "we answer {}: {}\n  recorded: {}",
                show_message(request),
                show_reply(&ours),
                show_reply(&expected)
            );
            self.outcome.differences.push(text);
        }
    }

    /// Lets the peer say its next message, if there is one whose turn it is.
    fn say_next(&mut self, strictly: bool) -> bool {
        let mut ours_missing = false;
        for i in 0..self.done.len() {
            let message = &self.scenario.messages[i];
            if self.done[i] || self.is_optional(i) {
                continue;
            }
            if message.from == self.us {
                ours_missing = true;
                continue;
            }
            if strictly && ours_missing {
                return false;
            }
            if self.is_due(i) && self.say(i) {
                return true;
            }
        }
        false
    }

    fn say(&mut self, i: usize) -> bool {
        let message = &self.scenario.messages[i];
        let mut body = message.body.clone();
        for (recorded, ours) in self.translations.iter().filter(|(recorded, ours)| recorded != ours) {
            // A blob is no text, and has none of them.
            body = match String::from_utf8(body) {
                Ok(text) => text.replace(recorded.as_str(), ours).into_bytes(),
                Err(error) => error.into_bytes(),
            };
        }
        let outgoing = OutgoingMessage {
            properties: message.properties.clone(),
            body: body.into(),
            compressed: message.flags.compressed(),
            urgent: message.flags.urgent(),
            no_reply: message.flags.no_reply(),
        };
        self.done[i] = true;
        if message.is_request() {
            let number = self.peer.send_request(outgoing).expect("queued");
            self.peer_requests.insert(number, i);
            return true;
        }
        let number = self.our_numbers[&message.number];
        let outgoing = self.with_spared(number, self.with_checkpoints(i, outgoing));
        if message.flags.kind().code() == 2 {
            let error = ErrorReply::from_message(&message.properties, &message.body);
            self.peer.reply_error(number, &error).expect("a reply");
        } else {
            self.peer.reply(number, outgoing).expect("a reply");
        }
        true
    }
}

fn usize_of(index: &str) -> usize {
    index.parse().expect("an index")
}

fn clip(text: String) -> String {
    text.chars().take(600).collect()
}

fn show(request: &Request) -> String {
    let Request { urgent, no_reply, properties, body } = request;
    clip(format!("{properties:?} urgent {urgent} no-reply {no_reply} | {body}"))
}

fn show_reply(reply: &Reply) -> String {
    match reply {
        Reply::Success { properties, body } => clip(format!("{properties:?} | {body}")),
        Reply::Error { domain, code } => format!("{domain}/{code}"),
    }
}

fn show_message(message: &RecordedMessage) -> String {
    let RecordedMessage { from, number, properties, body, flags, .. } = message;
    let text = String::from_utf8_lossy(body);
    clip(format!("{from:?} #{number} {:?} urgent {} {properties:?} | {text}", flags.kind(), flags.urgent()))
}
