//! The code that a person carries from one device to the other.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::secure::Identity;
use crate::secure::derive::derive;

/// Digits of a code: one guess in a million.
pub const CODE_DIGITS: usize = 6;
/// A code that a person carries from one device to the other. Wiped when dropped, never printed by accident.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PairingCode(pub(super) [u8; CODE_DIGITS]);

/// A text that is no code. Says nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pairing code has {CODE_DIGITS} digits")]
pub struct PairingCodeError;

impl PairingCode {
    /// A code of these random bytes.
    pub fn from_entropy(entropy: [u8; 16]) -> PairingCode {
        // 128 bits make every code equally likely, but for one part in 10^32.
        let mut number = u128::from_le_bytes(entropy);
        let mut digits = [0; CODE_DIGITS];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        PairingCode(digits)
    }

    /// Reads a typed code; blanks and hyphens do not matter.
    ///
    /// # Errors
    /// [`PairingCodeError`].
    pub fn parse(text: &str) -> Result<PairingCode, PairingCodeError> {
        let mut digits = [0; CODE_DIGITS];
        let mut count = 0;
        for sign in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            if !sign.is_ascii_digit() || count == CODE_DIGITS {
                return Err(PairingCodeError);
            }
            digits[count] = sign as u8;
            count += 1;
        }
        if count == CODE_DIGITS { Ok(PairingCode(digits)) } else { Err(PairingCodeError) }
    }

    /// Bytes that stand for this code at the device of this identity. Six digits could be found by a hash of them alone.
    pub(crate) fn tag<const BYTES: usize>(&self, identity: &Identity) -> [u8; BYTES] {
        let full = derive(identity.private(), "gattway pairing guess", &[&self.0]);
        std::array::from_fn(|n| full[n])
    }

    /// As it is shown: `482 915`.
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(CODE_DIGITS + 1));
        for (n, digit) in self.0.iter().enumerate() {
            if n == CODE_DIGITS / 2 {
                text.push(' ');
            }
            text.push(char::from(*digit));
        }
        text
    }
}

impl fmt::Debug for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairingCode(..)")
    }
}
