//! The door to control messages for the fuzz targets.

use super::control::Message;

/// Reads a control message and gives the bytes that are written for what was read; `None` if it is refused.
pub fn read_and_write_control(kind: u8, bytes: &[u8]) -> Option<heapless::Vec<u8, 64>> {
    let message = Message::decode(kind, bytes).ok()?;
    heapless::Vec::from_slice(&message.encode()).ok()
}
