//! The peer's messages while their frames arrive.

use std::collections::HashMap;

use bytes::Bytes;

use super::config::{ACK_THRESHOLD, BlipConfig};
use super::error::BlipError;
use super::frame::{Frame, FrameFlags, FrameType};
use super::outbox::MessageKey;
use super::properties::Properties;
use super::stream::StreamDecoder;
use super::varint;

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
    /// Bytes to acknowledge, if it is time.
    pub ack: Option<u64>,
}

/// A message that has begun.
#[derive(Debug)]
struct Open {
    flags: FrameFlags,
    content: Vec<u8>,
    counted: u64,
    acknowledged: u64,
}

/// The receiving half of a connection, above the frame header.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    decoder: StreamDecoder,
    open: HashMap<MessageKey, Open>,
    open_bytes: usize,
}

impl Inbox {
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
        if self.open.is_empty() && !flags.more_coming() {
            let payload = self.decoder.decode(frame, config.message_size_max)?;
            return Ok(Received {
                message: Some(parse_message(key.number, flags, payload, config)?),
                ack: None,
            });
        }
        let is_new = !self.open.contains_key(&key);
        if is_new && flags.more_coming() && self.open.len() >= config.open_messages_max {
            return Err(BlipError::TooManyOpenMessages { max: config.open_messages_max });
        }
        let have = self.open.get(&key).map_or(0, |open| open.content.len());
        let payload = match self.decoder.decode(frame, config.message_size_max - have) {
            Err(BlipError::MessageTooLarge { number, .. }) => {
                return Err(BlipError::MessageTooLarge { number, max: config.message_size_max });
            }
            payload => payload?,
        };
        if is_new && !flags.more_coming() {
            return Ok(Received {
                message: Some(parse_message(key.number, flags, payload, config)?),
                ack: None,
            });
        }
        self.open_bytes += payload.len();
        if self.open_bytes > config.open_bytes_max {
            return Err(BlipError::TooManyOpenBytes { max: config.open_bytes_max });
        }
        let open = self.open.entry(key).or_insert_with(|| Open {
            flags,
            content: Vec::new(),
            counted: 0,
            acknowledged: 0,
        });
        if open.flags.kind() != flags.kind() {
            return Err(BlipError::MixedTypes { number: key.number });
        }
        open.content.extend_from_slice(payload);
        open.counted += frame.counted_len();
        if flags.more_coming() {
            check_properties_len(key.number, &open.content, config)?;
            return Ok(Received { message: None, ack: open.ack_due() });
        }
        self.finish(key, config)
    }

    fn finish(&mut self, key: MessageKey, config: &BlipConfig) -> Result<Received, BlipError> {
        let Some(open) = self.open.remove(&key) else { return Ok(Received { message: None, ack: None }) };
        self.open_bytes -= open.content.len();
        let message = parse_message(key.number, open.flags, &open.content, config)?;
        Ok(Received { message: Some(message), ack: None })
    }
}

impl Open {
    /// How much to acknowledge now: everything, when the threshold is passed.
    fn ack_due(&mut self) -> Option<u64> {
        if self.counted - self.acknowledged < ACK_THRESHOLD {
            return None;
        }
        self.acknowledged = self.counted;
        Some(self.counted)
    }
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

fn parse_message(
    number: u64,
    flags: FrameFlags,
    content: &[u8],
    config: &BlipConfig,
) -> Result<WholeMessage, BlipError> {
    let (len, rest) = varint::take(content, "properties length")?;
    if len > config.properties_size_max as u64 {
        return Err(BlipError::PropertiesTooLarge { number, max: config.properties_size_max, actual: len });
    }
    let Some((properties, body)) = rest.split_at_checked(len as usize) else {
        return Err(BlipError::MalformedProperties { number });
    };
    let properties = Properties::parse(properties).ok_or(BlipError::MalformedProperties { number })?;
    Ok(WholeMessage { flags, properties, body: Bytes::copy_from_slice(body) })
}

/// The type an acknowledgement is about.
pub(super) fn ack_key(number: u64, kind: FrameType) -> MessageKey {
    MessageKey { number, is_reply: kind == FrameType::AckReply }
}
