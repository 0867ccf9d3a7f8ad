//! A session whose peer is spoken for by a test, message by message.

use std::sync::Arc;

use super::memory_store::MemoryStore;
use crate::blip::{BlipConfig, Connection, ErrorReply, Event, IncomingRequest, OutgoingMessage};
use crate::replica::store::ReplicaStore;
use crate::replicator::config::{ActiveConfig, PassiveConfig, ReplicatorType};
use crate::replicator::error::SessionError;
use crate::replicator::event::SessionEvent;
use crate::replicator::session::Session;
use crate::time::Instant;

pub const START: Instant = Instant::from_micros(5_000_000);

/// A session against a bare BLIP connection that a test speaks for.
pub struct Scripted<S = MemoryStore> {
    pub session: Session,
    pub store: Arc<S>,
    pub peer: Connection,
    pub now: Instant,
    pub result: Result<(), SessionError>,
    /// How the session has ended.
    pub finished: Option<Result<(), SessionError>>,
    /// What else it has told.
    pub told: Vec<SessionEvent>,
}

impl<S: ReplicaStore> Scripted<S> {
    pub fn new(session: Session, store: Arc<S>) -> Scripted<S> {
        let peer = Connection::new(BlipConfig::default());
        let mut scripted =
            Scripted { session, store, peer, now: START, result: Ok(()), finished: None, told: Vec::new() };
        scripted.session.start(START, &*scripted.store);
        scripted
    }

    /// Lets everything that is queued arrive, commits included; gives what the scripted peer hears.
    pub fn settle(&mut self) -> Vec<Event> {
        let mut heard = Vec::new();
        loop {
            let mut moved = false;
            while let Some(frame) = self.peer.poll_frame() {
                moved = true;
                if let Err(error) = self.session.handle_frame(self.now, &frame, &*self.store) {
                    self.result = Err(error);
                }
            }
            while let Some(request) = self.session.poll_commit() {
                moved = true;
                let result = request.run(&*self.store, self.session.conflict_policy());
                self.session.handle_commit(self.now, request.id, result, &*self.store);
            }
            while let Some(frame) = self.session.poll_frame(self.now, &*self.store) {
                moved = true;
                self.peer.handle_frame(&frame).expect("our frames are good");
            }
            while let Some(event) = self.peer.poll_event() {
                heard.push(event);
            }
            while let Some(event) = self.session.poll_event() {
                match event {
                    SessionEvent::Finished(result) => self.finished = Some(result),
                    other => self.told.push(other),
                }
            }
            if !moved {
                return heard;
            }
        }
    }

    /// Sends a request and gives the answer to it, if any, and what else was heard.
    pub fn ask(
        &mut self,
        request: OutgoingMessage,
    ) -> (Option<Result<OutgoingMessage, ErrorReply>>, Vec<IncomingRequest>) {
        let number = self.peer.send_request(request).expect("small");
        let (mut answer, mut requests) = (None, Vec::new());
        for event in self.settle() {
            match event {
                Event::Reply { number: n, result } if n == number => {
                    answer = Some(result.map(|r| OutgoingMessage {
                        properties: r.properties,
                        body: r.body,
                        ..Default::default()
                    }));
                }
                Event::Request(request) => requests.push(request),
                _ => {}
            }
        }
        (answer, requests)
    }

    pub fn code(&mut self, request: OutgoingMessage) -> String {
        match self.ask(request).0 {
            None => "none".into(),
            Some(Ok(reply)) => String::from_utf8_lossy(&reply.body).into_owned(),
            Some(Err(error)) => format!("{}/{}", error.domain, error.code),
        }
    }

    pub fn with_collections(mut self) -> Scripted<S> {
        let body = r#"{"checkpoint_ids":["cp-x"],"collections":["_default"]}"#;
        let reply = self.ask(OutgoingMessage::request("getCollections").with_body(body)).0;
        assert!(reply.expect("answered").is_ok());
        self
    }
}

impl Scripted {
    pub fn passive(extension: bool) -> Scripted {
        let store = Arc::new(MemoryStore::new(1));
        ["d", "e", "t"].iter().for_each(|id| store.put(id, r#"{"n":1}"#));
        store.delete("t");
        Scripted::new(Session::passive(PassiveConfig { extension, ..PassiveConfig::default() }), store)
    }
}

pub fn request(profile: &str) -> OutgoingMessage {
    OutgoingMessage::request(profile).with("collection", "0")
}

pub const NEW: &str = "18ea7b3152910000@EbSEdOPmQ5ScF/AHieZMrQ";
pub const OTHER: &str = "18ea7b31529f0000@EbSEdOPmQ5ScF/AHieZMrQ";

/// An active side whose peer has answered everything up to `subChanges`.
pub fn pulling(extension: bool) -> Scripted {
    let config = ActiveConfig { extension, ..ActiveConfig::default() };
    pulling_to(Arc::new(MemoryStore::new(1)), config)
}

/// As [`pulling`], into this store and with these settings.
pub fn pulling_to(store: Arc<MemoryStore>, config: ActiveConfig) -> Scripted {
    let extension = config.extension;
    let config = ActiveConfig { direction: ReplicatorType::Pull, ..config };
    let mut scripted = Scripted::new(Session::active(config), store);
    for _ in 0..4 {
        for event in scripted.settle() {
            let Event::Request(request) = event else { continue };
            let reply = match request.profile() {
                "getCollections" if extension => {
                    OutgoingMessage::default().with("gattway", "1 9").with_body("[{}]")
                }
                "getCollections" => OutgoingMessage::default().with_body("[{}]"),
                _ => OutgoingMessage::default(),
            };
            scripted.peer.reply(request.number, reply).expect("open");
        }
    }
    assert_eq!(scripted.session.uses_extension(), extension);
    scripted
}
