//! Bytes that go to or come from a transport, and what it keeps of them.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// What a transport keeps of the bytes it is given.
/// ```
/// use gattway::ProtocolType;
///
/// /// What is told of a transport of this program.
/// fn of(scheme: &str) -> ProtocolType {
///     match scheme {
///         "serial" | "tcp" => ProtocolType::ByteStream,
///         _ => ProtocolType::MessageStream,
///     }
/// }
/// assert_eq!(of("mqtt"), ProtocolType::MessageStream);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProtocolType {
    /// The transport keeps message boundaries: what one `send` took, one `receive` must be given on the other side.
    /// It must also tell when the other side has closed.
    MessageStream,
    /// The transport carries raw bytes and may split and merge them; the library frames them.
    ByteStream,
}

/// Bytes on their way to or from a transport. Cheap to clone, and read as a slice.
/// ```
/// use gattway::Message;
///
/// let message = Message::from_bytes(vec![1, 2, 3]);
/// assert_eq!((message.len(), &message[..]), (3, &[1, 2, 3][..]));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Message(Bytes);

impl Message {
    /// Wraps bytes; a `Vec<u8>` is not copied.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Message {
        Message(Bytes::from(bytes.into()))
    }

    /// The bytes, shared, not copied.
    #[doc(hidden)]
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Message {
        Message::from_bytes(bytes)
    }
}

#[doc(hidden)]
impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Message {
        Message(bytes)
    }
}

#[doc(hidden)]
impl From<Message> for Bytes {
    fn from(message: Message) -> Bytes {
        message.0
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} bytes)", self.0.len())
    }
}
