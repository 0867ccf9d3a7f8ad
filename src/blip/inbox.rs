//! The peer's messages while their frames arrive.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::budget::{Budget, Share};
use super::config::{ACK_THRESHOLD, BlipConfig, OPEN_BYTES_OWN};
use super::error::BlipError;
use super::frame::{Frame, FrameFlags, FrameType};
use super::outbox::MessageKey;
use super::properties::Properties;
use super::stream::StreamDecoder;
use super::varint;

/// Above this many bytes, what a single frame unfolds to is handed on without a copy.
const LARGE: usize = 64 * 1024;

/// Frame type, properties and body of a whole message.
#[derive(Debug)]
pub(super) struct WholeMessage {
    pub flags: FrameFlags,
    pub properties: Properties,
    pub body: Bytes,
}

/// What a frame brought.
#[derive(Debug)]
pub(super) struct Received {
    /// The message, if it is whole now.
    pub message: Option<WholeMessage>,
    /// Bytes to acknowledge of this message, if it is time.
    pub ack: Option<u64>,
}

/// What is there of a message that is not whole: the properties if they were not handed on before, and the next of the body.
#[derive(Debug)]
pub(super) struct Part {
    pub properties: Option<Properties>,
    pub body: Bytes,
}

/// A message that has begun.
#[derive(Debug)]
struct Open {
    flags: FrameFlags,
    content: Vec<u8>,
    counted: u64,
    acknowledged: u64,
    /// Which message of this connection it is, in the order in which they begin.
    serial: u64,
    /// Whether its properties, and what of its body was there, were handed on before it was whole.
    is_in_parts: bool,
}

/// The receiving half of a connection, above the frame header.
#[derive(Debug)]
pub(super) struct Inbox {
    decoder: StreamDecoder,
    open: BTreeMap<MessageKey, Open>,
    open_bytes: usize,
    share: Share,
    /// Messages of several frames that have begun.
    begun: u64,
    /// Whether an acknowledgement that was due was kept back.
    withheld: bool,
}

impl Inbox {
    /// Nothing has begun.
    pub fn new(budget: Option<Budget>) -> Inbox {
        let (decoder, open) = (StreamDecoder::new(), BTreeMap::new());
        Inbox { decoder, open, open_bytes: 0, share: Share::of(budget), begun: 0, withheld: false }
    }

    /// Messages that have begun and not ended.
    pub fn open_messages(&self) -> usize {
        self.open.len()
    }

    /// Number of the oldest request that has begun and not ended.
    pub fn oldest_open_request(&self) -> Option<u64> {
        self.open.keys().next().filter(|key| !key.is_reply).map(|key| key.number)
    }

    /// Whether a message has begun and not ended.
    pub fn is_open(&self, key: MessageKey) -> bool {
        self.open.contains_key(&key)
    }

    /// Takes one frame of a message.
    ///
    /// # Errors
    /// Any violation; the inbox cannot be used afterwards.
    pub fn receive(
        &mut self,
        key: MessageKey,
        frame: &Frame<'_>,
        config: &BlipConfig,
    ) -> Result<Received, BlipError> {
        let flags = frame.header.flags;
        if !self.open.contains_key(&key) {
            if !flags.more_coming() {
                return self.receive_whole(key.number, frame, config);
            }
            if self.open.len() >= config.open_messages_max {
                return Err(BlipError::TooManyOpenMessages { max: config.open_messages_max });
            }
        }
        let begun = &mut self.begun;
        let open = self.open.entry(key).or_insert_with(|| {
            *begun += 1;
            let (content, serial) = (Vec::new(), *begun);
            Open { flags, content, counted: 0, acknowledged: 0, serial, is_in_parts: false }
        });
        if open.flags.kind() != flags.kind() {
            return Err(BlipError::MixedTypes { number: key.number });
        }
        let before = open.content.len();
        self.decoder.decode_into(frame, config.message_size_max, &mut open.content)?;
        self.open_bytes += open.content.len() - before;
        open.counted += frame.counted_len();
        if !flags.more_coming() {
            return self.finish(key, config);
        }
        if !open.is_in_parts {
            check_properties_len(key.number, &open.content, config)?;
        }
        let ack = self.ack_of(key, config);
        if self.open_bytes > config.open_bytes_max {
            return Err(BlipError::TooManyOpenBytes { max: config.open_bytes_max });
        }
        self.settle_share()?;
        Ok(Received { message: None, ack })
    }

    /// Takes the only frame of a message.
    fn receive_whole(
        &mut self,
        number: u64,
        frame: &Frame<'_>,
        config: &BlipConfig,
    ) -> Result<Received, BlipError> {
        let flags = frame.header.flags;
        let payload = self.decoder.decode(frame, config.message_size_max)?;
        let Parts { properties, body_at } = split_message(number, payload, config)?;
        let body = match payload.len() {
            ..=LARGE => Bytes::copy_from_slice(&payload[body_at..]),
            // Not twice in memory.
            _ if flags.compressed() => Bytes::from(self.decoder.take_output()).slice(body_at..),
            _ => Bytes::copy_from_slice(&payload[body_at..]),
        };
        Ok(Received { message: Some(WholeMessage { flags, properties, body }), ack: None })
    }

    fn finish(&mut self, key: MessageKey, config: &BlipConfig) -> Result<Received, BlipError> {
        let Some(open) = self.open.remove(&key) else { return Ok(Received { message: None, ack: None }) };
        self.open_bytes -= open.content.len();
        self.settle_share()?;
        let Parts { properties, body_at } = match open.is_in_parts {
            true => Parts { properties: Properties::new(), body_at: 0 },
            false => split_message(key.number, &open.content, config)?,
        };
        let body = Bytes::from(open.content).slice(body_at..);
        Ok(Received { message: Some(WholeMessage { flags: open.flags, properties, body }), ack: None })
    }

    /// Takes out what there is of a message that is not whole; nothing before its properties are there.
    ///
    /// # Errors
    /// The properties are malformed; the inbox cannot be used afterwards.
    pub fn take_part(&mut self, key: MessageKey, config: &BlipConfig) -> Result<Option<Part>, BlipError> {
        let Some(open) = self.open.get_mut(&key) else { return Ok(None) };
        let (properties, body_at) = match open.is_in_parts {
            true => (None, 0),
            false if !has_properties(&open.content) => return Ok(None),
            false => {
                let parts = split_message(key.number, &open.content, config)?;
                (Some(parts.properties), parts.body_at)
            }
        };
        open.is_in_parts = true;
        let content = std::mem::take(&mut open.content);
        self.open_bytes -= content.len();
        self.settle_share()?;
        let body = Bytes::from(content).slice(body_at..);
        Ok((properties.is_some() || !body.is_empty()).then_some(Part { properties, body }))
    }

    /// How much of a message to acknowledge now. Of several long messages only the one that began first goes on when they
    /// hold much together; the sender pauses the others until then, so that no set of messages that fit alone can
    /// come to the limit for all.
    fn ack_of(&mut self, key: MessageKey, config: &BlipConfig) -> Option<u64> {
        if self.open_bytes > open_bytes_of_others_max(config) && self.must_wait(key, config) {
            self.withheld |= self.open.get(&key).is_some_and(Open::is_ack_due);
            return None;
        }
        self.open.get_mut(&key).and_then(Open::take_ack)
    }

    fn must_wait(&self, key: MessageKey, config: &BlipConfig) -> bool {
        let Some((first, open)) = self.open.iter().min_by_key(|(_, open)| open.serial) else { return false };
        *first != key && self.open_bytes - open.content.len() > open_bytes_of_others_max(config)
    }

    /// Acknowledgements that were kept back and may go now, because a message is whole.
    pub fn released_acks(&mut self, config: &BlipConfig) -> Vec<(MessageKey, u64)> {
        if !std::mem::take(&mut self.withheld) {
            return Vec::new();
        }
        let mut waiting: Vec<(u64, MessageKey)> = self
            .open
            .iter()
            .filter(|(_, open)| open.is_ack_due())
            .map(|(key, open)| (open.serial, *key))
            .collect();
        waiting.sort_unstable_by_key(|(serial, _)| *serial);
        waiting.into_iter().filter_map(|(_, key)| Some((key, self.ack_of(key, config)?))).collect()
    }

    /// Takes from the shared budget, or gives back, what is beyond this connection's own.
    fn settle_share(&mut self) -> Result<(), BlipError> {
        let beyond = self.open_bytes.saturating_sub(OPEN_BYTES_OWN);
        self.share.set(beyond).map_err(|max| BlipError::SharedBytesUsedUp { max })
    }
}

impl Open {
    fn is_ack_due(&self) -> bool {
        self.counted - self.acknowledged >= ACK_THRESHOLD
    }

    /// How much to acknowledge now: everything, when the threshold is passed.
    fn take_ack(&mut self) -> Option<u64> {
        let due = self.is_ack_due();
        due.then(|| {
            self.acknowledged = self.counted;
            self.counted
        })
    }
}

/// Bytes that unfinished messages may hold together, beside the one that began first, before they have to wait for it. As
/// much again is left for what is on its way to here.
fn open_bytes_of_others_max(config: &BlipConfig) -> usize {
    config.open_bytes_max.saturating_sub(config.message_size_max) / 2
}

/// Refuses the properties of an unfinished message as soon as their length is known.
fn check_properties_len(number: u64, content: &[u8], config: &BlipConfig) -> Result<(), BlipError> {
    match varint::take(content, "properties length") {
        Ok((actual, _)) if actual > config.properties_size_max as u64 => {
            Err(BlipError::PropertiesTooLarge { number, max: config.properties_size_max, actual })
        }
        Ok(_) | Err(BlipError::TruncatedInteger { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether the properties of an unfinished message are there to their end.
fn has_properties(content: &[u8]) -> bool {
    varint::take(content, "properties length").is_ok_and(|(len, rest)| rest.len() as u64 >= len)
}

/// A whole message taken apart.
struct Parts {
    properties: Properties,
    /// Where the body begins.
    body_at: usize,
}

fn split_message(number: u64, content: &[u8], config: &BlipConfig) -> Result<Parts, BlipError> {
    let (len, rest) = varint::take(content, "properties length")?;
    if len > config.properties_size_max as u64 {
        return Err(BlipError::PropertiesTooLarge { number, max: config.properties_size_max, actual: len });
    }
    let Some((properties, body)) = rest.split_at_checked(len as usize) else {
        return Err(BlipError::MalformedProperties { number });
    };
    let properties = Properties::parse(properties).ok_or(BlipError::MalformedProperties { number })?;
    Ok(Parts { properties, body_at: content.len() - body.len() })
}

/// The type an acknowledgement is about.
pub(super) fn ack_key(number: u64, kind: FrameType) -> MessageKey {
    MessageKey { number, is_reply: kind == FrameType::AckReply }
}
