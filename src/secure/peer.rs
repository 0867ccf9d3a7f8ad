//! How a device is known: its public key, as bytes and as text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of a [`PeerId`]: an X25519 public key.
pub const PEER_ID_BYTES: usize = 32;

/// Letters of an ID in full, without separators.
const TEXT_LETTERS: usize = 52;
/// Letters of the short form: 80 bits, more than anybody can search through for a look-alike.
const SHORT_LETTERS: usize = 16;
/// Letters between two separators.
const GROUP_LETTERS: usize = 4;
/// The alphabet of RFC 4648 base32, in small letters; no digit looks like one of them.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Peers that a device knows, at most.
pub const PEERS_MAX: usize = 1000;
/// Longest name of a peer in bytes.
pub const PEER_NAME_MAX: usize = 64;

/// Whether a peer may have this name: 1 to [`PEER_NAME_MAX`] bytes, no control characters, no blanks around it.
pub fn is_peer_name(name: &str) -> bool {
    (1..=PEER_NAME_MAX).contains(&name.len()) && !name.chars().any(char::is_control) && name.trim() == name
}

/// The identity of a device (of one database on it): its X25519 public key, which is its static Noise key.
///
/// `Display` gives the short form for people (`7k3f-q2xa-mm5t-o4ye`); [`PeerId::to_text`] the full one, which
/// [`FromStr`] reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId(pub [u8; PEER_ID_BYTES]);

impl PeerId {
    /// The key.
    #[doc(hidden)]
    pub const fn as_bytes(&self) -> &[u8; PEER_ID_BYTES] {
        &self.0
    }

    /// The whole ID as text: 52 letters and digits.
    pub fn to_text(&self) -> String {
        self.letters().map(char::from).collect()
    }

    /// The beginning of the ID in groups of four, as `Display` shows it.
    #[doc(hidden)]
    pub fn short(&self) -> String {
        self.to_string()
    }

    fn letters(&self) -> impl Iterator<Item = u8> + use<'_> {
        (0..TEXT_LETTERS).map(|letter| {
            let bit = letter * 5;
            let high = u16::from(self.0[bit / 8]) << 8;
            let low = self.0.get(bit / 8 + 1).copied().map_or(0, u16::from);
            let index = ((high | low) >> (16 - 5 - bit % 8)) & 31;
            ALPHABET[usize::from(index)]
        })
    }
}

/// A text that is no ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the ID of a peer: 52 letters a to z and digits 2 to 7 are expected, `gattway id` prints one")]
pub struct PeerIdError;

impl FromStr for PeerId {
    type Err = PeerIdError;

    /// Reads the full form, in either case, with or without separators.
    fn from_str(text: &str) -> Result<PeerId, PeerIdError> {
        let mut id = [0u8; PEER_ID_BYTES];
        let mut bit = 0;
        for letter in text.bytes().filter(|byte| *byte != b'-') {
            let letter = letter.to_ascii_lowercase();
            let index = ALPHABET.iter().position(|known| *known == letter).ok_or(PeerIdError)?;
            let shifted = (index as u16) << (16 - 5 - bit % 8);
            let (byte, [high, low]) = (bit / 8, shifted.to_be_bytes());
            *id.get_mut(byte).ok_or(PeerIdError)? |= high;
            match id.get_mut(byte + 1) {
                Some(next) => *next |= low,
                None if low != 0 => return Err(PeerIdError),
                None => {}
            }
            bit += 5;
        }
        if bit == TEXT_LETTERS * 5 { Ok(PeerId(id)) } else { Err(PeerIdError) }
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, letter) in self.letters().take(SHORT_LETTERS).enumerate() {
            if n > 0 && n % GROUP_LETTERS == 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", char::from(letter))?;
        }
        Ok(())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_reads_back(bytes in any::<[u8; PEER_ID_BYTES]>()) {
            let id = PeerId(bytes);
            prop_assert_eq!(id.to_text().parse(), Ok(id));
            prop_assert_eq!(id.to_text().to_uppercase().parse(), Ok(id));
            prop_assert!(id.to_text().starts_with(&id.short().replace('-', "")));
        }

        #[test]
        fn any_other_text_is_an_error(text in ".{0,80}") {
            if let Ok(id) = text.parse::<PeerId>() {
                prop_assert_eq!(id.to_text(), text.replace('-', "").to_lowercase());
            }
        }
    }

    #[test]
    fn an_id_has_one_text() {
        // The last letter carries one bit; the other four have to be 0.
        let text = format!("{}b", "a".repeat(TEXT_LETTERS - 1));
        assert_eq!(text.parse::<PeerId>(), Err(PeerIdError));
        assert_eq!(PeerId([0; PEER_ID_BYTES]).short(), "aaaa-aaaa-aaaa-aaaa");
    }
}
