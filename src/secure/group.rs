//! Groups: a secret that the devices of one owner share, its text form for people, and the keys that come of it.
//!
//! The text form is made to be typed: 32 signs without look-alikes in eight blocks, of which the last six are a check
//! that finds every typing error of up to four signs.
//! Source: `firmware-notes/trust.md`.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Psk;
use super::advert::AdvertKey;
use super::derive::derive;

/// Length of a group's secret in bytes: 128 bits of the system's random numbers, as much as anybody can attack.
pub const GROUP_SECRET_BYTES: usize = 16;

/// Signs of the text form: 26 of five bits (version 2, secret 128), 6 of check.
const CODE_SIGNS: usize = DATA_SIGNS + CHECK_SIGNS;
const DATA_SIGNS: usize = 26;
const CHECK_SIGNS: usize = 6;
/// Signs in one block of the text form.
const BLOCK_SIGNS: usize = 4;
/// In front of the code in a QR code, so that a reader knows what it read. May be left out.
const PREFIX: &str = "GATTWAY:";
/// Crockford's alphabet: no I, L, O or U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Longest text that is looked at; people may put blanks and hyphens between signs.
const TEXT_MAX: usize = 256;

/// Why a text is not the code of a group. Says nothing of the text itself, which may be nearly right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupCodeError {
    /// Signs are missing, or there are too many.
    #[error("a group's code has {CODE_SIGNS} signs, this has {actual}")]
    Length {
        /// How many there are.
        actual: usize,
    },
    /// A sign that the alphabet does not have.
    #[error("sign {position} is none of 0-9 and A-Z without U")]
    Sign {
        /// Which one, counted from 1 without blanks and hyphens.
        position: usize,
    },
    /// All signs are possible, but they do not belong together.
    #[error("the code has a typing error: its check signs do not fit")]
    Check,
    /// Made by a later version.
    #[error("the code is of a kind that this version does not know")]
    Version,
}

/// The secret of a group. Its text form is what people carry from device to device.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct GroupSecret([u8; GROUP_SECRET_BYTES]);

impl GroupSecret {
    /// The secret with these bytes: random ones for a new group.
    pub fn from_bytes(bytes: [u8; GROUP_SECRET_BYTES]) -> GroupSecret {
        GroupSecret(bytes)
    }

    /// Its bytes, for the group's file.
    pub(crate) fn as_bytes(&self) -> &[u8; GROUP_SECRET_BYTES] {
        &self.0
    }

    /// Reads what [`code`](Self::code) has written and a person has typed: capitals or not, with or without hyphens,
    /// blanks and the prefix of the QR code; I and L count as 1, O as 0.
    ///
    /// # Errors
    /// [`GroupCodeError`].
    pub fn parse(text: &str) -> Result<GroupSecret, GroupCodeError> {
        let text = text.trim();
        let head = text.get(..PREFIX.len()).filter(|head| head.eq_ignore_ascii_case(PREFIX));
        let text = head.map_or(text, |head| &text[head.len()..]);
        let mut signs = Zeroizing::new([0u8; CODE_SIGNS]);
        let mut count = 0;
        let wanted = |c: &char| !c.is_whitespace() && *c != '-';
        for sign in text.chars().take(TEXT_MAX).filter(wanted) {
            if count < CODE_SIGNS {
                signs[count] = sign_value(sign).ok_or(GroupCodeError::Sign { position: count + 1 })?;
            }
            count += 1;
        }
        if count != CODE_SIGNS {
            return Err(GroupCodeError::Length { actual: count });
        }
        if check_value(&signs[..]) != CHECK_GOOD {
            return Err(GroupCodeError::Check);
        }
        // 130 bits, most significant first: two of version, then the secret.
        let mut secret = GroupSecret([0; GROUP_SECRET_BYTES]);
        let bit = |n: usize| signs[n / 5] >> (4 - n % 5) & 1;
        if bit(0) != 0 || bit(1) != 0 {
            return Err(GroupCodeError::Version);
        }
        for n in 0..GROUP_SECRET_BYTES * 8 {
            secret.0[n / 8] |= bit(n + 2) << (7 - n % 8);
        }
        Ok(secret)
    }

    /// The text form: eight blocks of four signs.
    pub fn code(&self) -> Zeroizing<String> {
        let mut signs = Zeroizing::new([0u8; CODE_SIGNS]);
        for n in 0..GROUP_SECRET_BYTES * 8 {
            let bit = self.0[n / 8] >> (7 - n % 8) & 1;
            signs[(n + 2) / 5] |= bit << (4 - (n + 2) % 5);
        }
        let check = check_value(&signs[..]) ^ CHECK_GOOD;
        for n in 0..CHECK_SIGNS {
            signs[DATA_SIGNS + n] = (check >> (5 * (CHECK_SIGNS - 1 - n)) & 31) as u8;
        }
        let mut text = Zeroizing::new(String::with_capacity(CODE_SIGNS + CODE_SIGNS / BLOCK_SIGNS));
        for (n, sign) in signs.iter().enumerate() {
            if n > 0 && n % BLOCK_SIGNS == 0 {
                text.push('-');
            }
            text.push(char::from(ALPHABET[usize::from(*sign)]));
        }
        text
    }

    /// What a QR code holds: the code with a prefix that tells what it is, all of QR's alphanumeric signs.
    pub fn qr_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PREFIX}{}", &*self.code()))
    }

    /// The key that everything else of the group comes of.
    pub fn key(&self) -> GroupKey {
        GroupKey(derive(&self.0, "gattway group", &[]))
    }
}

impl fmt::Debug for GroupSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupSecret(..)")
    }
}

impl PartialEq for GroupSecret {
    fn eq(&self, other: &GroupSecret) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for GroupSecret {}

/// The key of a group. Compared in constant time, never printed, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct GroupKey([u8; 32]);

impl GroupKey {
    /// The pre-shared key of the Noise handshake among members.
    pub fn psk(&self) -> Psk {
        Psk(derive(&self.0, "gattway psk", &[]))
    }

    /// The key of the members' adverts.
    pub fn advert_key(&self) -> AdvertKey {
        AdvertKey::from_bytes(derive(&self.0, "gattway group advert", &[]))
    }

    /// Four bytes to compare groups by, which tell nothing of the key. Not for adverts: it never changes.
    pub fn fingerprint(&self) -> [u8; 4] {
        let tag = derive(&self.0, "gattway group fingerprint", &[]);
        [tag[0], tag[1], tag[2], tag[3]]
    }

    /// The same as people compare it: eight hexadecimal digits.
    pub fn fingerprint_text(&self) -> String {
        format!("{:08x}", u32::from_be_bytes(self.fingerprint()))
    }
}

impl fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupKey(..)")
    }
}

impl PartialEq for GroupKey {
    fn eq(&self, other: &GroupKey) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for GroupKey {}

/// The value of a typed sign.
fn sign_value(sign: char) -> Option<u8> {
    let sign = match sign.to_ascii_uppercase() {
        'I' | 'L' => '1',
        'O' => '0',
        other => other,
    };
    ALPHABET.iter().position(|known| char::from(*known) == sign).map(|value| value as u8)
}

/// What the check of a good code comes to. Source: BIP 350, "Bech32m".
const CHECK_GOOD: u32 = 0x2bc8_30a3;

/// The cyclic code of Bech32 over signs of five bits: finds any four wrong signs. Source: BIP 173, "Checksum".
fn check_value(signs: &[u8]) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    signs.iter().fold(1u32, |value, sign| {
        let top = value >> 25;
        let shifted = (value & 0x01ff_ffff) << 5 ^ u32::from(*sign);
        (0..5).filter(|n| top >> n & 1 == 1).fold(shifted, |value, n| value ^ GENERATOR[n])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(bytes: [u8; 16]) -> GroupSecret {
        GroupSecret::from_bytes(bytes)
    }

    proptest! {
        #[test]
        fn codes_read_back_however_they_are_typed(bytes: [u8; 16], lower: bool, blanks: bool, prefix: bool) {
            let group = secret(bytes);
            let mut text = if prefix { group.qr_text() } else { group.code() }.to_string();
            if lower { text = text.to_lowercase().replace('1', "l").replace('0', "o"); }
            if blanks { text = format!("  {}\n", text.replace('-', " ")); }
            prop_assert_eq!(GroupSecret::parse(&text), Ok(group));
        }

        #[test]
        fn up_to_four_wrong_signs_and_swapped_neighbours_are_found(
            bytes: [u8; 16], wrong in prop::collection::btree_map(0usize..32, 1usize..32, 1..=4), swap in 0usize..31,
        ) {
            let group = secret(bytes);
            let code: Vec<u8> = group.code().bytes().filter(|b| *b != b'-').collect();
            let mut typed = code.clone();
            for (at, by) in wrong {
                let value = sign_value(char::from(typed[at])).expect("a sign") as usize;
                typed[at] = ALPHABET[(value + by) % 32];
            }
            prop_assert_eq!(GroupSecret::parse(std::str::from_utf8(&typed).expect("ascii")), Err(GroupCodeError::Check));
            let mut swapped = code.clone();
            swapped.swap(swap, swap + 1);
            let read = GroupSecret::parse(std::str::from_utf8(&swapped).expect("ascii"));
            prop_assert_eq!(read.is_ok(), swapped == code);
        }

        #[test]
        fn hostile_texts_never_panic(text: String) {
            let _ = GroupSecret::parse(&text);
        }
    }

    #[test]
    fn the_documented_code_and_keys_hold() {
        let group = secret(*b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff");
        assert_eq!(&**group.code(), "0024-H36H-2NCS-VRH6-DAQF-6DVV-QZYH-11NP");
        assert_eq!(group.key().fingerprint_text(), "0c1d3527");
        assert_eq!(
            group.key().psk().0.map(|byte| format!("{byte:02x}")).concat(),
            "caafe9447b4f26a3c8e1f335fb7593dd7160679a207255a850d37171c1b7cb31"
        );
    }

    /// A code of a later version has a good check value too.
    #[test]
    fn a_code_of_a_later_version_is_refused_as_that() {
        for version in 1..4 {
            let mut signs = [0; CODE_SIGNS];
            signs[0] = version << 3;
            let check = check_value(&signs) ^ CHECK_GOOD;
            for n in 0..CHECK_SIGNS {
                signs[DATA_SIGNS + n] = (check >> (5 * (CHECK_SIGNS - 1 - n)) & 31) as u8;
            }
            let text: String = signs.iter().map(|sign| char::from(ALPHABET[usize::from(*sign)])).collect();
            assert_eq!(GroupSecret::parse(&text), Err(GroupCodeError::Version), "{text}");
        }
    }

    #[test]
    fn wrong_texts_say_what_is_wrong_but_not_what_was_typed() {
        let code = secret([7; 16]).code();
        assert_eq!(GroupSecret::parse(""), Err(GroupCodeError::Length { actual: 0 }));
        assert_eq!(GroupSecret::parse(&code[1..]), Err(GroupCodeError::Length { actual: 31 }));
        assert_eq!(GroupSecret::parse(&format!("{}0", &*code)), Err(GroupCodeError::Length { actual: 33 }));
        assert_eq!(
            GroupSecret::parse(&code.replacen('-', "u", 1)),
            Err(GroupCodeError::Sign { position: 5 })
        );
    }
}
