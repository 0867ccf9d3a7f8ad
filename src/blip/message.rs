//! Messages as the layer above sees them.

use std::fmt;

use bytes::Bytes;

use super::properties::Properties;

/// Domain of errors that BLIP itself reports; also what an error reply without a domain means.
const DEFAULT_DOMAIN: &str = "BLIP";

const ERROR_DOMAIN: &str = "Error-Domain";
const ERROR_CODE: &str = "Error-Code";

/// The number of a request, counted from 1 in each direction; its reply has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageNumber(pub u64);

impl fmt::Display for MessageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A request or reply to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutgoingMessage {
    /// Properties; a request needs `Profile`.
    pub properties: Properties,
    /// Body.
    pub body: Bytes,
    /// Compress it, if the connection compresses at all.
    pub compressed: bool,
    /// Send it ahead of others.
    pub urgent: bool,
    /// A request that wants no answer. Without meaning in a reply.
    pub no_reply: bool,
}

impl OutgoingMessage {
    /// A plain request of this profile without a body.
    pub fn request(profile: &str) -> OutgoingMessage {
        OutgoingMessage { properties: Properties::of_profile(profile), ..OutgoingMessage::default() }
    }

    /// Sets a property.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> OutgoingMessage {
        self.properties.set(key, value);
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> OutgoingMessage {
        self.body = body.into();
        self
    }

    /// Bytes of the message before compression, without the length of the properties.
    pub fn size(&self) -> usize {
        self.properties.as_bytes().len() + self.body.len()
    }
}

/// A whole request of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingRequest {
    /// For the reply.
    pub number: MessageNumber,
    /// Properties.
    pub properties: Properties,
    /// Body.
    pub body: Bytes,
    /// Whether it went ahead of others.
    pub urgent: bool,
    /// Whether no answer is wanted; replies to it are dropped.
    pub no_reply: bool,
    /// Whether it came compressed.
    pub compressed: bool,
}

impl IncomingRequest {
    /// The type of the request; empty if it names none.
    pub fn profile(&self) -> &str {
        self.properties.profile()
    }
}

/// A whole successful reply of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingReply {
    /// Properties.
    pub properties: Properties,
    /// Body.
    pub body: Bytes,
    /// Whether it came compressed.
    pub compressed: bool,
}

/// A reply that says what failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("{domain} error {code}: {message}")]
pub struct ErrorReply {
    /// What the code belongs to: `BLIP`, `HTTP`, `LiteCore` ...
    pub domain: String,
    /// Code in that domain; 0 if the peer's was not a number.
    pub code: i32,
    /// Text for people.
    pub message: String,
}

/// Bytes of the text of an error that are kept, and those of its domain: it ends in logs, lists and events, and the body of a
/// peer's reply may have megabytes.
pub const ERROR_TEXT_MAX: usize = 1024;

/// The start of a text, at most [`ERROR_TEXT_MAX`] bytes of whole characters.
fn start_of(text: &str) -> &str {
    let is_end = |end: &usize| text.is_char_boundary(*end);
    &text[..(0..=text.len().min(ERROR_TEXT_MAX)).rev().find(is_end).unwrap_or(0)]
}

#[doc(hidden)]
impl ErrorReply {
    /// An error of any domain. Of longer text than [`ERROR_TEXT_MAX`] the start is kept.
    pub fn new(domain: &str, code: i32, message: impl Into<String>) -> ErrorReply {
        let mut message = message.into();
        message.truncate(start_of(&message).len());
        ErrorReply { domain: start_of(domain).to_owned(), code, message }
    }

    /// An error of BLIP itself: 404 for a profile without a handler, 400 for a request that makes no sense.
    pub fn blip(code: i32, message: impl Into<String>) -> ErrorReply {
        ErrorReply::new(DEFAULT_DOMAIN, code, message)
    }

    /// An error with an HTTP status, the usual one of replication.
    pub fn http(status: i32, message: impl Into<String>) -> ErrorReply {
        ErrorReply::new("HTTP", status, message)
    }

    /// The answer to a profile that nobody handles.
    pub fn no_handler() -> ErrorReply {
        ErrorReply::blip(404, "no handler for message")
    }

    /// As a message for the wire.
    pub fn to_message(&self) -> OutgoingMessage {
        OutgoingMessage::default()
            .with(ERROR_DOMAIN, &self.domain)
            .with(ERROR_CODE, &self.code.to_string())
            .with_body(self.message.clone().into_bytes())
    }

    /// From the wire. Text that is not UTF-8 is repaired, and only its start is kept.
    pub fn from_message(properties: &Properties, body: &[u8]) -> ErrorReply {
        let domain = properties.get(ERROR_DOMAIN).unwrap_or(DEFAULT_DOMAIN);
        let code = properties.get(ERROR_CODE).and_then(|code| code.parse().ok()).unwrap_or(0);
        ErrorReply::new(domain, code, String::from_utf8_lossy(&body[..body.len().min(ERROR_TEXT_MAX)]))
    }
}

/// What a connection has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer asks something. Unless it wants no reply, answer with [`Connection::reply`](super::Connection::reply) or
    /// [`Connection::reply_error`](super::Connection::reply_error).
    Request(IncomingRequest),
    /// The answer to one of our requests, or the rest of one of which parts came before.
    Reply {
        /// The request.
        number: MessageNumber,
        /// What the peer answered. Its properties came with the first part, if there was one.
        result: Result<IncomingReply, ErrorReply>,
    },
    /// A part of an answer that is not whole yet, to a request that takes one in parts
    /// ([`Connection::send_request_for_parts`](super::Connection::send_request_for_parts)).
    ReplyPart {
        /// The request.
        number: MessageNumber,
        /// Properties of the answer, with its first part.
        properties: Option<Properties>,
        /// The next bytes of its body.
        body: Bytes,
    },
}
