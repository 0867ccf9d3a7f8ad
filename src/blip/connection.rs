//! The state of one BLIP connection: numbers, who awaits what, and the way from frames to events and back.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;

use super::config::BlipConfig;
use super::error::BlipError;
use super::frame::{Frame, FrameFlags, FrameType};
use super::inbox::{Inbox, Part, WholeMessage, ack_key};
use super::message::{ErrorReply, Event, IncomingReply, IncomingRequest, MessageNumber, OutgoingMessage};
use super::outbox::{MessageKey, Outbox};
use super::stream::StreamEncoder;
use super::varint;

/// Counters of a connection since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlipStats {
    /// Frames given to [`Connection::poll_frame`]'s caller.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames taken by [`Connection::handle_frame`].
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
}

/// One BLIP connection, seen from either side: the protocol is symmetric.
#[derive(Debug)]
pub struct Connection {
    config: BlipConfig,
    encoder: StreamEncoder,
    outbox: Outbox,
    inbox: Inbox,
    events: VecDeque<Event>,
    /// Number of the last request sent.
    last_sent: u64,
    /// Number of the last request that began to arrive.
    last_received: u64,
    /// Our requests that await a reply.
    awaiting: HashSet<u64>,
    /// Those of them whose reply is handed on in parts as it comes.
    in_parts: HashSet<u64>,
    /// The peer's requests that await ours, and whether they were urgent.
    unanswered: HashMap<u64, bool>,
    failure: Option<BlipError>,
    stats: BlipStats,
}

impl Connection {
    /// A connection on which nothing has been sent.
    pub fn new(config: BlipConfig) -> Connection {
        Connection {
            encoder: StreamEncoder::new(config.compression_level),
            outbox: Outbox::default(),
            inbox: Inbox::new(config.open_bytes_shared.clone()),
            events: VecDeque::new(),
            last_sent: 0,
            last_received: 0,
            awaiting: HashSet::new(),
            in_parts: HashSet::new(),
            unanswered: HashMap::new(),
            failure: None,
            stats: BlipStats::default(),
            config,
        }
    }

    /// Uncompressed bytes not yet given to [`Connection::poll_frame`]'s caller. The layer above limits what it puts in.
    pub fn queued_bytes(&self) -> usize {
        self.outbox.queued_bytes()
    }

    /// Messages not yet sent whole.
    pub fn queued_messages(&self) -> usize {
        self.outbox.messages()
    }

    /// What of [`Connection::queued_bytes`] is of replies.
    pub fn queued_reply_bytes(&self) -> usize {
        self.outbox.reply_bytes()
    }

    /// Uncompressed bytes of replies not yet sent whole: their memory is held until then.
    pub fn held_reply_bytes(&self) -> usize {
        self.outbox.held_reply_bytes()
    }

    /// What of [`Connection::held_reply_bytes`] needs no acknowledgement of the peer to go out.
    pub fn sendable_reply_bytes(&self) -> usize {
        self.outbox.sendable_reply_bytes()
    }

    /// Replies not yet sent whole.
    pub fn queued_reply_messages(&self) -> usize {
        self.outbox.reply_messages()
    }

    /// Whether a request of ours has been sent whole.
    pub fn is_sent(&self, request: MessageNumber) -> bool {
        self.outbox.is_sent(request.0)
    }

    /// Number of our newest request; 0 if there is none.
    pub fn last_request(&self) -> MessageNumber {
        MessageNumber(self.last_sent)
    }

    /// Our requests that await a reply.
    pub fn awaiting_replies(&self) -> usize {
        self.awaiting.len()
    }

    /// The peer's requests that await our reply.
    pub fn unanswered_requests(&self) -> usize {
        self.unanswered.len()
    }

    /// Messages of the peer that have begun and not ended.
    pub fn unfinished_messages(&self) -> usize {
        self.inbox.open_messages()
    }

    /// The oldest request of the peer that has begun and not ended. Requests begin in the order of their numbers, but a short
    /// one overtakes a long one: of those before this one all are there, of those after it the later may be there first.
    pub fn oldest_unfinished_request(&self) -> Option<MessageNumber> {
        self.inbox.oldest_open_request().map(MessageNumber)
    }

    /// Why the connection is dead, if it is.
    pub fn failure(&self) -> Option<&BlipError> {
        self.failure.as_ref()
    }

    /// Counters since the beginning.
    pub fn stats(&self) -> BlipStats {
        self.stats
    }

    /// Takes one whole frame of the peer. Brings at most one event.
    ///
    /// # Errors
    /// A violation by the peer. The connection is dead then: it takes and gives nothing more and the transport should
    /// be closed. Events that came before can still be polled.
    pub fn handle_frame(&mut self, frame: &[u8]) -> Result<(), BlipError> {
        self.check_alive()?;
        self.stats.frames_received += 1;
        self.stats.bytes_received += frame.len() as u64;
        let result = Frame::parse(frame).and_then(|frame| self.dispatch(&frame));
        if let Err(error) = &result {
            self.failure = Some(error.clone());
        }
        result
    }

    /// Queues a request and gives its number. Unless it wants no reply, an [`Event::Reply`] with that number will follow
    /// (or the connection ends).
    ///
    /// # Errors
    /// The message is above a limit, or the connection is dead. Nothing was queued.
    pub fn send_request(&mut self, message: OutgoingMessage) -> Result<MessageNumber, BlipError> {
        self.check_alive()?;
        self.check_size(&message)?;
        self.last_sent += 1;
        let number = self.last_sent;
        if !message.no_reply {
            self.awaiting.insert(number);
        }
        let flags = FrameFlags::new(FrameType::Request).with_no_reply(message.no_reply);
        self.push(MessageKey { number, is_reply: false }, flags, message, 0);
        Ok(MessageNumber(number))
    }

    /// As [`Connection::send_request`], of a reply that may be longer than a message that is held whole: what there is of its body is
    /// handed on as it comes ([`Event::ReplyPart`]), and has no limit here.
    ///
    /// # Errors
    /// As for [`Connection::send_request`].
    pub fn send_request_for_parts(&mut self, message: OutgoingMessage) -> Result<MessageNumber, BlipError> {
        let number = self.send_request(message)?;
        self.in_parts.insert(number.0);
        Ok(number)
    }

    /// Queues the reply to a request of the peer. One that wanted no reply, or has had one, gets none: the call then does
    /// nothing. The reply to an urgent request is urgent.
    ///
    /// # Errors
    /// [`BlipError::NoSuchRequest`] if no such request has arrived; or as for [`Connection::send_request`]. Nothing was
    /// queued.
    pub fn reply(&mut self, request: MessageNumber, message: OutgoingMessage) -> Result<(), BlipError> {
        self.push_reply(request, FrameType::Reply, message, 0)
    }

    /// As [`Connection::reply`], with the beginning of a body of which `rest` bytes more follow by [`Connection::give`] when
    /// [`Connection::hungry`] names the reply. One that `reply` would drop is never named.
    ///
    /// # Errors
    /// As for [`Connection::reply`].
    pub fn reply_in_parts(
        &mut self,
        request: MessageNumber,
        message: OutgoingMessage,
        rest: u64,
    ) -> Result<(), BlipError> {
        self.push_reply(request, FrameType::Reply, message, rest)
    }

    /// A reply whose next bytes could be sent now if they were here.
    pub fn hungry(&self) -> Option<MessageNumber> {
        self.outbox.hungry().map(MessageNumber)
    }

    /// Adds the next bytes of the body of a reply that is [`hungry`](Connection::hungry), at least one and not more than are to
    /// follow; other calls do nothing.
    pub fn give(&mut self, request: MessageNumber, bytes: Bytes) {
        self.outbox.give(request.0, bytes);
    }

    /// Queues an error as the reply to a request of the peer.
    ///
    /// # Errors
    /// As for [`Connection::reply`].
    pub fn reply_error(&mut self, request: MessageNumber, error: &ErrorReply) -> Result<(), BlipError> {
        self.push_reply(request, FrameType::Error, error.to_message(), 0)
    }

    /// The next event; `None` when there is none for now.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next frame to send; `None` when there is none for now.
    pub fn poll_frame(&mut self) -> Option<Vec<u8>> {
        let mut frame = Vec::new();
        self.poll_frame_into(&mut frame).then_some(frame)
    }

    /// Puts the next frame to send into `frame`, whose content is replaced and whose memory is used again; `false`
    /// when there is none for now.
    pub fn poll_frame_into(&mut self, frame: &mut Vec<u8>) -> bool {
        frame.clear();
        if self.failure.is_some() || !self.outbox.poll_frame(&mut self.encoder, frame) {
            return false;
        }
        self.stats.frames_sent += 1;
        self.stats.bytes_sent += frame.len() as u64;
        true
    }

    fn check_alive(&self) -> Result<(), BlipError> {
        match &self.failure {
            Some(error) => Err(BlipError::Failed(Box::new(error.clone()))),
            None => Ok(()),
        }
    }

    fn check_size(&self, message: &OutgoingMessage) -> Result<(), BlipError> {
        let properties = message.properties.as_bytes().len();
        let max = self.config.properties_size_max;
        if properties > max {
            return Err(BlipError::PropertiesTooLarge { number: 0, max, actual: properties as u64 });
        }
        let max = self.config.message_size_max;
        if message.size() + varint::len(properties as u64) > max {
            return Err(BlipError::MessageTooLarge { number: 0, max });
        }
        Ok(())
    }

    fn push_reply(
        &mut self,
        request: MessageNumber,
        kind: FrameType,
        message: OutgoingMessage,
        rest: u64,
    ) -> Result<(), BlipError> {
        self.check_alive()?;
        self.check_size(&message)?;
        if request.0 == 0 || request.0 > self.last_received {
            return Err(BlipError::NoSuchRequest { number: request.0 });
        }
        let Some(urgent) = self.unanswered.remove(&request.0) else { return Ok(()) };
        let message = OutgoingMessage { urgent: urgent || message.urgent, ..message };
        self.push(MessageKey { number: request.0, is_reply: true }, FrameFlags::new(kind), message, rest);
        Ok(())
    }

    fn push(&mut self, key: MessageKey, flags: FrameFlags, message: OutgoingMessage, rest: u64) {
        let compressed = message.compressed && self.config.compression_level > 0;
        let flags = flags.with_urgent(message.urgent).with_compressed(compressed);
        self.outbox.push(key, flags, message, rest);
    }

    fn dispatch(&mut self, frame: &Frame<'_>) -> Result<(), BlipError> {
        let number = frame.header.number;
        match frame.header.flags.kind() {
            FrameType::Request => self.handle_request(number, frame),
            FrameType::Reply | FrameType::Error => self.handle_reply(number, frame),
            kind @ (FrameType::AckRequest | FrameType::AckReply) => {
                let (bytes, _) = varint::take(frame.payload, "acknowledged bytes")?;
                self.outbox.handle_ack(ack_key(number, kind), bytes);
                Ok(())
            }
            FrameType::Unknown(_) => Ok(()),
        }
    }

    fn handle_request(&mut self, number: u64, frame: &Frame<'_>) -> Result<(), BlipError> {
        let key = MessageKey { number, is_reply: false };
        if !self.inbox.is_open(key) {
            let expected = self.last_received + 1;
            if number != expected {
                return Err(BlipError::OutOfOrder { expected, actual: number });
            }
            self.last_received = number;
        }
        let Some(WholeMessage { flags, properties, body }) = self.receive(key, frame)? else { return Ok(()) };
        let no_reply = flags.no_reply();
        if !no_reply {
            let max = self.config.unanswered_requests_max;
            if self.unanswered.len() >= max {
                return Err(BlipError::TooManyUnanswered { max });
            }
            self.unanswered.insert(number, flags.urgent());
        }
        self.events.push_back(Event::Request(IncomingRequest {
            number: MessageNumber(number),
            properties,
            body,
            urgent: flags.urgent(),
            no_reply,
            compressed: flags.compressed(),
        }));
        Ok(())
    }

    fn handle_reply(&mut self, number: u64, frame: &Frame<'_>) -> Result<(), BlipError> {
        if !self.awaiting.contains(&number) || number > self.outbox.last_begun() {
            return Err(BlipError::UnexpectedReply { number });
        }
        let key = MessageKey { number, is_reply: true };
        let Some(WholeMessage { flags, properties, body }) = self.receive(key, frame)? else {
            // The text of an error is short, or cut where it is whole.
            if self.in_parts.contains(&number) && frame.header.flags.kind() == FrameType::Reply {
                let part = self.inbox.take_part(key, &self.config)?;
                self.events.extend(part.map(|Part { properties, body }| Event::ReplyPart {
                    number: MessageNumber(number),
                    properties,
                    body,
                }));
            }
            return Ok(());
        };
        self.awaiting.remove(&number);
        self.in_parts.remove(&number);
        let result = match flags.kind() {
            FrameType::Error => Err(ErrorReply::from_message(&properties, &body)),
            _ => Ok(IncomingReply { properties, body, compressed: flags.compressed() }),
        };
        self.events.push_back(Event::Reply { number: MessageNumber(number), result });
        Ok(())
    }

    /// Gives the frame to the inbox, queues an acknowledgement if one is due, and hands on a message that is whole.
    fn receive(&mut self, key: MessageKey, frame: &Frame<'_>) -> Result<Option<WholeMessage>, BlipError> {
        let received = self.inbox.receive(key, frame, &self.config)?;
        if let Some(bytes) = received.ack {
            self.outbox.push_ack(key, bytes);
        }
        if received.message.is_some() {
            // Or a peer that sends and never reads would make them pile up.
            self.outbox.drop_ack(key);
            for (key, bytes) in self.inbox.released_acks(&self.config) {
                self.outbox.push_ack(key, bytes);
            }
        }
        Ok(received.message)
    }
}
