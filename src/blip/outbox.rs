//! What waits to be sent, and which frame is next: round-robin, urgent ones ahead, within flow control.

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

use super::config::{FRAME_SIZE_MAX, FRAME_SIZE_MAX_WHILE_URGENT, UNACKNOWLEDGED_MAX};
use super::frame::{CHECKSUM_LEN, Frame, FrameFlags, FrameHeader, FrameType};
use super::message::OutgoingMessage;
use super::properties::Properties;
use super::stream::{StreamEncoder, compressible_len};
use super::varint;

/// Acknowledgements that may wait although their messages are whole.
const ACKS_OF_WHOLE_MAX: usize = 64;

/// One of the two series of numbers: requests and replies have the same numbers. All requests stand before all replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct MessageKey {
    pub is_reply: bool,
    pub number: u64,
}

/// A message with the place up to which it has been sent.
#[derive(Debug)]
struct Outgoing {
    key: MessageKey,
    flags: FrameFlags,
    /// Encoded length of the properties.
    prefix: ([u8; varint::LEN_MAX], usize),
    properties: Properties,
    body: Bytes,
    /// Bytes of the body that are still to be given.
    rest: u64,
    /// Uncompressed bytes sent, of what is here.
    offset: usize,
    /// Bytes sent as acknowledgements count them.
    counted: u64,
    /// How many of them the peer has acknowledged.
    acknowledged: u64,
}

impl Outgoing {
    fn new(key: MessageKey, flags: FrameFlags, message: OutgoingMessage, rest: u64) -> Outgoing {
        let prefix = varint::encode(message.properties.as_bytes().len() as u64);
        let OutgoingMessage { properties, body, .. } = message;
        Outgoing { key, flags, prefix, properties, body, rest, offset: 0, counted: 0, acknowledged: 0 }
    }

    /// Whether all that is here has gone, and more is to follow.
    fn is_hungry(&self) -> bool {
        self.rest > 0 && self.remaining() == 0
    }

    /// Puts the next bytes in the place of those that have gone.
    fn feed(&mut self, bytes: Bytes) {
        (self.prefix.1, self.offset) = (0, 0);
        self.properties = Properties::new();
        self.rest -= bytes.len() as u64;
        self.body = bytes;
    }

    /// Uncompressed bytes of what is here, all of which are held until the last has gone.
    fn size(&self) -> usize {
        self.prefix.1 + self.properties.as_bytes().len() + self.body.len()
    }

    fn remaining(&self) -> usize {
        self.size() - self.offset
    }

    /// The next `len` bytes, which lie in up to three pieces.
    fn next_parts(&self, len: usize) -> [&[u8]; 3] {
        let (mut skip, mut left) = (self.offset, len);
        [&self.prefix.0[..self.prefix.1], self.properties.as_bytes(), &self.body[..]].map(|piece| {
            let start = skip.min(piece.len());
            let end = start + left.min(piece.len() - start);
            skip -= start;
            left -= end - start;
            &piece[start..end]
        })
    }

    /// Appends the next frame, of at most `size_max` bytes. Returns whether the message is then sent whole.
    fn emit_frame(&mut self, size_max: usize, encoder: &mut StreamEncoder, out: &mut Vec<u8>) -> bool {
        let header = FrameHeader { number: self.key.number, flags: self.flags.with_more_coming(true) };
        let room = size_max - header.encoded_len() - CHECKSUM_LEN;
        let fits = if self.flags.compressed() { compressible_len(room) } else { room };
        let len = self.remaining().min(fits);
        let last = len == self.remaining() && self.rest == 0;

        let start = out.len();
        let flags = self.flags.with_more_coming(!last);
        FrameHeader { flags, ..header }.emit(out);
        let payload_start = out.len();
        let checksum = encoder.encode(&self.next_parts(len), flags.compressed(), out);
        out.extend_from_slice(&checksum.to_be_bytes());
        debug_assert!(out.len() - start <= size_max, "{} bytes in a frame of {size_max}", out.len() - start);

        self.offset += len;
        self.counted += (out.len() - payload_start) as u64;
        last
    }
}

/// A message that has begun, in turn or paused.
#[derive(Debug)]
struct Running {
    message: Outgoing,
    paused: bool,
}

/// Turn of a message that has begun: earlier tickets go first.
#[derive(Clone, Copy, Debug)]
struct Turn {
    key: MessageKey,
    ticket: u64,
}

/// An acknowledgement to send.
#[derive(Debug)]
struct Ack {
    key: MessageKey,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Fresh,
    Normal,
    Urgent,
}

/// The sending half of a connection.
///
/// Messages that have not begun stand in one queue, so that first frames keep their order; those that have begun stand
/// in two rings, one of them urgent. Whoever joined first is next, except that an urgent frame goes ahead unless the
/// frame before was urgent too and an ordinary one waits.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    acks: VecDeque<Ack>,
    fresh: VecDeque<(Outgoing, u64)>,
    /// How many in `fresh` are urgent.
    fresh_urgent: usize,
    normal: VecDeque<Turn>,
    urgent: VecDeque<Turn>,
    running: HashMap<MessageKey, Running>,
    tickets: u64,
    last_was_urgent: bool,
    /// Number of the last request whose first frame is out.
    last_begun: u64,
    queued_bytes: usize,
    /// What of `queued_bytes` belongs to replies: the peer makes them, this side only makes requests.
    reply_bytes: usize,
    reply_messages: usize,
    /// Bytes of replies that are not sent whole, with what of them has gone: memory is given back at their end.
    held_reply_bytes: usize,
    /// What of `held_reply_bytes` waits for the peer's acknowledgement, not for the transport.
    paused_reply_bytes: usize,
    /// Replies that could go on if the next of their bytes were here.
    hungry: BTreeSet<u64>,
}

impl Outbox {
    /// Queues a message behind those that wait for their first frame.
    /// `rest` bytes of its body follow by [`Outbox::give`].
    pub fn push(&mut self, key: MessageKey, flags: FrameFlags, message: OutgoingMessage, rest: u64) {
        let message = Outgoing::new(key, flags, message, rest);
        self.queued_bytes += message.remaining();
        if key.is_reply {
            self.reply_bytes += message.remaining();
            self.held_reply_bytes += message.size();
            self.reply_messages += 1;
        }
        self.fresh_urgent += usize::from(flags.urgent());
        let ticket = self.next_ticket();
        self.fresh.push_back((message, ticket));
    }

    /// Queues an acknowledgement; acknowledgements go before all else.
    pub fn push_ack(&mut self, key: MessageKey, bytes: u64) {
        match self.acks.iter_mut().find(|ack| ack.key == key) {
            Some(ack) => ack.bytes = bytes,
            None => self.acks.push_back(Ack { key, bytes }),
        }
    }

    /// A message of the peer is whole: what was to be acknowledged of it is no matter any more. Couchbase Lite still says
    /// it, and so does this side, unless the peer does not read and they pile up.
    pub fn drop_ack(&mut self, key: MessageKey) {
        if self.acks.len() > ACKS_OF_WHOLE_MAX {
            self.acks.retain(|ack| ack.key != key);
        }
    }

    /// The peer has `bytes` of a message. One that is unknown or sent whole is no matter: acknowledgements cross.
    pub fn handle_ack(&mut self, key: MessageKey, bytes: u64) {
        let Some(running) = self.running.get_mut(&key) else { return };
        let message = &mut running.message;
        message.acknowledged = message.acknowledged.max(bytes.min(message.counted));
        if running.paused && message.counted - message.acknowledged <= UNACKNOWLEDGED_MAX {
            running.paused = false;
            if key.is_reply {
                self.paused_reply_bytes -= message.size();
            }
            self.go_on(key);
        }
    }

    /// A reply that could go on if the next of its bytes were here.
    pub fn hungry(&self) -> Option<u64> {
        self.hungry.first().copied()
    }

    /// Gives the next bytes of a reply that is hungry.
    pub fn give(&mut self, number: u64, bytes: Bytes) {
        let key = MessageKey { number, is_reply: true };
        let Some(running) = self.running.get_mut(&key) else { return };
        let message = &mut running.message;
        if !self.hungry.contains(&number) || bytes.is_empty() || bytes.len() as u64 > message.rest {
            return;
        }
        self.held_reply_bytes -= message.size();
        message.feed(bytes);
        self.held_reply_bytes += message.size();
        self.queued_bytes += message.size();
        self.reply_bytes += message.size();
        self.hungry.remove(&number);
        self.go_on(key);
    }

    /// A message that has begun and is not paused stands in its ring, or is hungry.
    fn go_on(&mut self, key: MessageKey) {
        let Some(Running { message, .. }) = self.running.get(&key) else { return };
        if message.is_hungry() {
            self.hungry.insert(key.number);
        } else {
            let urgent = message.flags.urgent();
            self.join_ring(key, urgent);
        }
    }

    /// Uncompressed bytes that wait, those of paused messages included.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Uncompressed bytes of replies that wait, those included that wait for an acknowledgement.
    pub fn reply_bytes(&self) -> usize {
        self.reply_bytes
    }

    /// Uncompressed bytes of replies that are not sent whole, those of their parts included that are.
    pub fn held_reply_bytes(&self) -> usize {
        self.held_reply_bytes
    }

    /// What of [`Outbox::held_reply_bytes`] waits for the transport alone.
    pub fn sendable_reply_bytes(&self) -> usize {
        self.held_reply_bytes - self.paused_reply_bytes
    }

    /// Replies not yet sent whole.
    pub fn reply_messages(&self) -> usize {
        self.reply_messages
    }

    /// Whether a request has been sent whole, or never was one.
    pub fn is_sent(&self, number: u64) -> bool {
        let key = MessageKey { number, is_reply: false };
        number <= self.last_begun && !self.running.contains_key(&key)
    }

    /// Number of the last request that has begun to be sent.
    pub fn last_begun(&self) -> u64 {
        self.last_begun
    }

    /// Messages not yet sent whole.
    pub fn messages(&self) -> usize {
        self.fresh.len() + self.running.len()
    }

    /// Appends the next frame; `false` if nothing may be sent now.
    pub fn poll_frame(&mut self, encoder: &mut StreamEncoder, out: &mut Vec<u8>) -> bool {
        if let Some(ack) = self.acks.pop_front() {
            emit_ack(&ack, out);
            return true;
        }
        let Some(mut message) = self.next_message() else { return false };
        let urgent = message.flags.urgent();
        let urgent_waits = self.fresh_urgent > 0 || !self.urgent.is_empty();
        let size_max = if !urgent && urgent_waits { FRAME_SIZE_MAX_WHILE_URGENT } else { FRAME_SIZE_MAX };
        let offset_before = message.offset;
        let done = message.emit_frame(size_max, encoder, out);
        let key = message.key;
        let sent = message.offset - offset_before;
        self.queued_bytes -= sent;
        if key.is_reply {
            self.reply_bytes -= sent;
            if done {
                self.reply_messages -= 1;
                self.held_reply_bytes -= message.size();
            }
        }
        self.last_was_urgent = urgent;
        if !done {
            let paused = message.counted - message.acknowledged > UNACKNOWLEDGED_MAX;
            if paused && key.is_reply {
                self.paused_reply_bytes += message.size();
            }
            self.running.insert(key, Running { message, paused });
            if !paused {
                self.go_on(key);
            }
        }
        true
    }

    fn join_ring(&mut self, key: MessageKey, urgent: bool) {
        let ticket = self.next_ticket();
        let ring = if urgent { &mut self.urgent } else { &mut self.normal };
        ring.push_back(Turn { key, ticket });
    }

    fn next_ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Takes out the message whose frame is next.
    fn next_message(&mut self) -> Option<Outgoing> {
        let turn = match self.next_source()? {
            Source::Fresh => {
                let (message, _) = self.fresh.pop_front()?;
                self.fresh_urgent -= usize::from(message.flags.urgent());
                if !message.key.is_reply {
                    self.last_begun = message.key.number;
                }
                return Some(message);
            }
            Source::Normal => self.normal.pop_front()?,
            Source::Urgent => self.urgent.pop_front()?,
        };
        Some(self.running.remove(&turn.key)?.message)
    }

    fn next_source(&self) -> Option<Source> {
        let fresh = self.fresh.front().map(|(message, ticket)| (message.flags.urgent(), *ticket));
        let fresh_ticket = |urgent| fresh.filter(|(u, _)| *u == urgent).map(|(_, ticket)| ticket);
        let urgent = earlier(fresh_ticket(true), &self.urgent, Source::Urgent);
        let normal = match fresh_ticket(false) {
            // It stands in the way of an urgent one.
            Some(_) if self.fresh_urgent > 0 => Some(Source::Fresh),
            ticket => earlier(ticket, &self.normal, Source::Normal),
        };
        if self.last_was_urgent { normal.or(urgent) } else { urgent.or(normal) }
    }
}

/// Which of a fresh message and the head of a ring joined first.
fn earlier(fresh: Option<u64>, ring: &VecDeque<Turn>, ring_source: Source) -> Option<Source> {
    match (fresh, ring.front()) {
        (Some(ticket), Some(turn)) if turn.ticket < ticket => Some(ring_source),
        (Some(_), _) => Some(Source::Fresh),
        (None, Some(_)) => Some(ring_source),
        (None, None) => None,
    }
}

fn emit_ack(ack: &Ack, out: &mut Vec<u8>) {
    let kind = if ack.key.is_reply { FrameType::AckReply } else { FrameType::AckRequest };
    let header = FrameHeader { number: ack.key.number, flags: FrameFlags::ack(kind) };
    let (payload, len) = varint::encode(ack.bytes);
    Frame { header, payload: &payload[..len], checksum: None }.emit(out);
}
