//! A member that lies: it shakes hands as any other and then says what is not so. It claims documents that it has not,
//! confirms what it did not store, gives sequences, checkpoints and revisions that are none, and ends its feed as it likes.
//! It is no node: it has no database, and goes before the nodes have to become equal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fastrand::Rng;
use gattway::endpoint::{Inbound, Message, MessageEndpointConnection, ProtocolType, ReplicatorConnection};
use gattway::lab::blip::{BlipConfig, Connection, ErrorReply, Event, IncomingRequest, OutgoingMessage};
use gattway::lab::endpoint::framing::{Framing, FramingEvent, FramingRole};
use gattway::lab::transport::secure::{Carrier, Incoming, SecureAcceptor, SecureConnectionConfig};
use gattway::lab::transport::sim::SimDevice;
use serde_json::{Value, json};

use super::plan::FaultKind;
use super::radio::links_to;
use super::world::World;

/// Bytes of a peer that wait to be heard.
const INBOUND_BYTES: usize = 64 * 1024;

/// Entries of a list of its.
const ENTRIES_MAX: usize = 12;

/// A name of an author that no node has.
const NOBODY: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// What becomes of it, for all who ask.
#[derive(Default)]
pub struct Presence {
    gone: AtomicBool,
    /// Revisions of its that were refused, as it was told.
    refused: AtomicU64,
    /// What nodes told their applications that they had not received of it.
    told: AtomicU64,
}

impl Presence {
    /// Whether it has gone for good.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// It goes for good.
    pub fn go(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// A node says to its application that it has not received something of the liar's.
    pub fn tell(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    /// Revisions of its that nodes have refused, and how often they said to their applications that something was not received.
    pub fn counts(&self) -> (u64, u64) {
        (self.refused.load(Ordering::Relaxed), self.told.load(Ordering::Relaxed))
    }
}

/// Lies to whoever connects to the device, for ever.
pub fn begin(world: &Arc<World>, device: &SimDevice, secure: Option<SecureConnectionConfig>, seed: u64) {
    let acceptor = links_to(device, world, seed);
    let (world, mut rng) = (Arc::clone(world), Rng::with_seed(seed));
    tokio::spawn(async move {
        let secure = secure.map(SecureAcceptor::new);
        loop {
            let next = async {
                match &secure {
                    Some(secure) => secure.next().await,
                    None => std::future::pending().await,
                }
            };
            let connection: Arc<dyn MessageEndpointConnection> = tokio::select! {
                biased;
                link = acceptor.next() => match (link, &secure) {
                    (None, _) => return,
                    (Some(link), None) => link,
                    (Some(link), Some(secure)) => {
                        secure.incoming(Carrier::Link(link), "radio");
                        continue;
                    }
                },
                incoming = next => match incoming {
                    None => return,
                    Some(Incoming::Refused { .. }) => continue,
                    Some(Incoming::Accepted(accepted)) => accepted.connection,
                },
            };
            let mut liar = Liar::new(&world, rng.fork());
            world.trace.note("somebody is lied to");
            world.fault(FaultKind::Liar);
            tokio::spawn(async move { liar.speak(connection).await });
        }
    });
}

/// One connection of its.
struct Liar {
    world: Arc<World>,
    rng: Rng,
    blip: Connection,
    framing: Framing,
    /// Requests of ours that were revisions.
    revisions: Vec<gattway::lab::blip::MessageNumber>,
}

impl Liar {
    fn new(world: &Arc<World>, rng: Rng) -> Liar {
        Liar {
            world: Arc::clone(world),
            rng,
            blip: Connection::new(BlipConfig::default()),
            framing: Framing::new(FramingRole::Passive, ProtocolType::ByteStream),
            revisions: Vec::new(),
        }
    }

    async fn speak(&mut self, connection: Arc<dyn MessageEndpointConnection>) {
        let (handle, mut inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
        if connection.open(handle).await.is_err() {
            return;
        }
        while !self.world.liar.is_gone() && self.hear(&mut inbound).await {
            while let Some(frame) = self.blip.poll_frame() {
                let bytes = self.framing.encode_frame(&frame, [0; 4]);
                if connection.send(Message::from_bytes(bytes)).await.is_err() {
                    return;
                }
            }
        }
        let _ = connection.close(None).await;
    }

    /// Takes what comes next; whether anything did that can be answered.
    async fn hear(&mut self, inbound: &mut Inbound) -> bool {
        let Some(bytes) = inbound.next().await else { return false };
        if self.framing.handle_bytes(&bytes).is_err() {
            return false;
        }
        while let Some(event) = self.framing.poll_event() {
            match event {
                FramingEvent::Frame(frame) if self.blip.handle_frame(&frame).is_ok() => {}
                FramingEvent::Ping(_) | FramingEvent::Pong(_) => {}
                _ => return false,
            }
        }
        while let Some(event) = self.blip.poll_event() {
            match event {
                Event::Request(request) => self.answer(&request),
                Event::Reply { number, result } => self.told(number, result.is_err()),
                _ => {}
            }
        }
        true
    }

    /// What became of something that it sent.
    fn told(&mut self, number: gattway::lab::blip::MessageNumber, is_error: bool) {
        if !self.revisions.contains(&number) {
            // The answer to a list: some of what it claims to have is wanted.
            if !is_error {
                (0..self.rng.usize(0..4)).for_each(|_| self.send_revision());
            }
        } else if is_error {
            self.world.liar.refused.fetch_add(1, Ordering::Relaxed);
        } else {
            self.world.violation("a node took a revision whose history is none");
        }
    }

    fn answer(&mut self, request: &IncomingRequest) {
        let reply = match request.profile() {
            "getCollections" => {
                let ids = body(request)["collections"].as_array().map_or(0, Vec::len);
                let checkpoint: Vec<Value> = (0..ids).map(|_| self.checkpoint()).collect();
                json_message(&Value::from(checkpoint))
            }
            "getCheckpoint" => json_message(&self.checkpoint()).with("rev", "9-9"),
            "setCheckpoint" if self.rng.f64() < 0.1 => return self.fail(request, 409),
            "setCheckpoint" => OutgoingMessage::default().with("rev", "1-1"),
            "subChanges" => OutgoingMessage::default(),
            "proposeChanges" => {
                let entries = body(request).as_array().map_or(0, Vec::len);
                json_message(&self.verdicts(entries))
            }
            "rev" if self.rng.f64() < 0.1 => return self.fail(request, 500),
            // It stores nothing.
            "rev" => OutgoingMessage::default(),
            _ => return self.fail(request, 404),
        };
        if !request.no_reply {
            let _ = self.blip.reply(request.number, reply);
        }
        if request.profile() == "subChanges" {
            self.feed(request.properties.get("continuous").is_none());
        }
    }

    fn fail(&mut self, request: &IncomingRequest, status: i32) {
        let _ = self.blip.reply_error(request.number, &ErrorReply::http(status, "no"));
    }

    /// A checkpoint that it was never given.
    fn checkpoint(&mut self) -> Value {
        match self.rng.u32(0..4) {
            0 => json!({}),
            1 => json!({"local": u64::MAX, "remote": u64::MAX, "rev": "7-7"}),
            2 => json!({"local": 1_000, "localCompleted": [0, u64::MAX, 5], "remote": "x", "rev": "7-7"}),
            _ => json!({"local": self.rng.u64(0..200), "remote": self.rng.u64(0..200), "rev": "7-7"}),
        }
    }

    /// What it says of proposed changes.
    fn verdicts(&mut self, entries: usize) -> Value {
        let kind = self.rng.u32(0..4);
        let mut verdict = || match (kind, self.rng.u32(0..6)) {
            // It has it all, or wants it all.
            (0, _) => json!(304),
            (1, _) => json!(0),
            (_, 0) => json!(409),
            (_, 1) => json!({"status": 409, "rev": garbage(&mut self.rng)}),
            (_, 2) => json!("yes"),
            (_, 3) => json!(-7),
            (_, 4) => json!(304),
            _ => json!(0),
        };
        let mut verdicts: Vec<Value> = (0..entries).map(|_| verdict()).collect();
        if kind == 3 {
            verdicts.extend([json!(304), json!(0), json!({})]);
        }
        Value::from(verdicts)
    }

    /// Documents that it has not, in sequences that are none, and perhaps an end.
    fn feed(&mut self, is_one_shot: bool) {
        let end = OutgoingMessage { no_reply: true, urgent: true, ..OutgoingMessage::request("changes") };
        let end = end.with("collection", "0").with_body("[]");
        let lists = self.rng.usize(0..4);
        for _ in 0..lists {
            if self.rng.f64() < 0.2 {
                let _ = self.blip.send_request(end.clone());
            }
            let entries: Vec<Value> = (0..self.rng.usize(1..ENTRIES_MAX)).map(|_| self.entry()).collect();
            let list = OutgoingMessage::request("changes").with("collection", "0");
            let _ = self.blip.send_request(list.with_body(Value::from(entries).to_string()));
        }
        (0..self.rng.usize(0..3)).for_each(|_| self.send_revision());
        // Without an end a one-shot run would wait for it for ever, which is its own to notice.
        if is_one_shot || self.rng.bool() {
            let _ = self.blip.send_request(end);
        }
    }

    fn entry(&mut self) -> Value {
        let sequence = match self.rng.u32(0..6) {
            0 => json!(0),
            1 => json!(u64::MAX),
            2 => json!("9:9"),
            3 => json!(-1),
            _ => json!(self.rng.u64(1..500)),
        };
        let version = if self.rng.bool() { self.claimed() } else { garbage(&mut self.rng) };
        json!([sequence, self.document(), version, self.rng.u32(0..2), self.rng.u32(0..9_000)])
    }

    /// One of the nodes' documents, or one that nobody has.
    fn document(&mut self) -> String {
        let number = self.rng.usize(0..self.world.plan.documents);
        if self.rng.bool() { format!("document-{number}") } else { format!("lie-{number}") }
    }

    /// The name of a revision that could be.
    fn claimed(&mut self) -> String {
        format!("{:x}@{NOBODY}", 0x18d7_5b80_0000_0000 + self.rng.u64(0..1 << 40))
    }

    /// Sends a revision whose name or history is none.
    fn send_revision(&mut self) {
        let (id, good) = (self.document(), self.claimed());
        let (revision, history) = match self.rng.u32(0..4) {
            0 => (garbage(&mut self.rng), String::new()),
            // An author twice.
            1 => (good.clone(), format!("{}, {}", self.claimed(), self.claimed())),
            2 => (good, format!("{}!", garbage(&mut self.rng))),
            _ => (good.clone(), format!("{good}; {good}")),
        };
        let message = OutgoingMessage::request("rev").with("collection", "0").with("id", &id);
        let message = message.with("rev", &revision).with("sequence", &self.rng.u64(0..600).to_string());
        let message = if history.is_empty() { message } else { message.with("history", &history) };
        if let Ok(number) = self.blip.send_request(message.with_body(r#"{"a":"lie"}"#)) {
            self.revisions.push(number);
        }
    }
}

/// What is no revision ID.
fn garbage(rng: &mut Rng) -> String {
    let some = [
        "",
        "zzz",
        "1-",
        "@",
        "18d75b80@short",
        "ffffffffffffffffff@AAAAAAAAAAAAAAAAAAAAAA",
        ";;,",
        "-1-ab",
        "0@*",
    ];
    match rng.usize(0..=some.len()) {
        at if at < some.len() => some[at].to_owned(),
        _ => (0..rng.usize(1..80)).map(|_| rng.char(' '..'\u{2fff}')).collect(),
    }
}

fn body(request: &IncomingRequest) -> Value {
    serde_json::from_slice(&request.body).unwrap_or_default()
}

fn json_message(value: &Value) -> OutgoingMessage {
    OutgoingMessage::default().with_body(value.to_string())
}
