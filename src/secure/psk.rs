//! Pre-shared keys of the handshake.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a pre-shared key.
pub const PSK_BYTES: usize = 32;

/// A pre-shared key of a Noise handshake; wiped when it is dropped, never shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Psk(pub [u8; PSK_BYTES]);

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk")
    }
}
