//! What an advert tells, sealed: who holds the key learns which device it is and at which change; anybody else sees ten
//! bytes that look random each time.
//!
//! A sealed state is one block of 72 bits under a keyed permutation, so no two of the same key are alike unless all of
//! device, change and nonce are, and a bit flipped by somebody spoils all of it. No clock is needed: the nonce only has
//! to differ each time.
//! Source: `firmware-notes/trust.md`.

use std::fmt;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::PeerId;
use super::derive::derive;

/// First byte of a sealed state; that of a plain one is 1.
pub const SEALED: u8 = 2;
/// Length of a sealed state in bytes, as long as a plain one.
pub const SEALED_BYTES: usize = 10;

/// Rounds of the permutation, as many as NIST SP 800-38G takes for FF1, which is built alike.
const ROUNDS: u8 = 10;
/// Bits of one half of the block.
const HALF_BITS: u32 = 36;
const HALF_MASK: u64 = (1 << HALF_BITS) - 1;

/// Bits of the nonce: as many adverts of one device at one change before the first is repeated.
const NONCE_BITS: u32 = 10;
/// Bits of the urgency. Earlier releases have two more of the nonce in their place.
const URGENCY_BITS: u32 = 2;
/// Bits of the device's tag.
const DEVICE_BITS: u32 = 24;
/// Bits of the change.
const CHANGE_BITS: u32 = 24;
/// Bits that are zero, by which a holder of the key knows its own: a stranger's advert passes once in 4,096.
const CHECK_BITS: u32 = 12;
const _: () = assert!(NONCE_BITS + URGENCY_BITS + DEVICE_BITS + CHANGE_BITS + CHECK_BITS == 2 * HALF_BITS);

/// Where the device's tag begins in the block.
const DEVICE_SHIFT: u32 = NONCE_BITS + URGENCY_BITS;
/// Where the change begins.
const CHANGE_SHIFT: u32 = DEVICE_SHIFT + DEVICE_BITS;
/// Where the bits begin that are zero.
const CHECK_SHIFT: u32 = CHANGE_SHIFT + CHANGE_BITS;

/// Largest nonce.
pub const NONCE_MAX: u16 = (1 << NONCE_BITS) - 1;

/// Key under which adverts are sealed: a group's, or a single device's that its paired peers know.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct AdvertKey([u8; 32]);

/// Which device an advert is of: a tag of its identity under the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceTag(pub u32);

/// How urgent it is that somebody fetches what a device has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// No change is known that no peer has, or nothing is said.
    #[default]
    None,
    /// There are changes that no peer is known to have.
    Pending,
    /// There are, and they are urgent.
    Urgent,
}

impl Urgency {
    /// As it stands in an advert.
    pub fn to_bits(self) -> u8 {
        self as u8
    }

    /// As it was read; what has no meaning says nothing.
    pub fn from_bits(bits: u8) -> Urgency {
        match bits {
            1 => Urgency::Pending,
            2 => Urgency::Urgent,
            _ => Urgency::None,
        }
    }
}

/// What a sealed advert says to a holder of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Which device.
    pub device: DeviceTag,
    /// Low 24 bits of the counter of changes of its database.
    pub change: u32,
    /// How urgent it is to fetch them.
    pub urgency: Urgency,
}

impl AdvertKey {
    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> AdvertKey {
        AdvertKey(bytes)
    }

    /// Its bytes, for a peer that is being paired.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The tag of a device under this key: 24 bits of its identity.
    pub fn tag(&self, device: &PeerId) -> DeviceTag {
        let tag = derive(&self.0, "gattway advert device", &[device.as_bytes()]);
        DeviceTag(u32::from_le_bytes([tag[0], tag[1], tag[2], 0]))
    }

    /// Seals what `device` tells. `nonce` must differ from the last ones, see [`NONCE_MAX`]; higher bits are left out.
    pub fn seal(&self, device: &PeerId, change: u32, urgency: Urgency, nonce: u16) -> [u8; SEALED_BYTES] {
        let (nonce, change) = (u128::from(nonce & NONCE_MAX), u128::from(change) & ((1 << CHANGE_BITS) - 1));
        let (device, urgency) = (u128::from(self.tag(device).0), u128::from(urgency.to_bits()));
        let block = nonce | urgency << NONCE_BITS | device << DEVICE_SHIFT | change << CHANGE_SHIFT;
        let sealed = self.permute(block).to_le_bytes();
        let mut bytes = [SEALED; SEALED_BYTES];
        bytes[1..].copy_from_slice(&sealed[..SEALED_BYTES - 1]);
        bytes
    }

    /// Opens what was sealed under this key; `None` for anything else, but for one in 4,096.
    pub fn open(&self, data: &[u8]) -> Option<Opened> {
        let data = data.get(..SEALED_BYTES).filter(|data| data[0] == SEALED)?;
        let mut bytes = [0; 16];
        bytes[..SEALED_BYTES - 1].copy_from_slice(&data[1..]);
        let block = self.permute_back(u128::from_le_bytes(bytes));
        if block >> CHECK_SHIFT != 0 {
            return None;
        }
        let device = (block >> DEVICE_SHIFT) as u32 & ((1 << DEVICE_BITS) - 1);
        let change = (block >> CHANGE_SHIFT) as u32 & ((1 << CHANGE_BITS) - 1);
        let urgency = (block >> NONCE_BITS) as u8 & ((1 << URGENCY_BITS) - 1);
        Some(Opened { device: DeviceTag(device), change, urgency: Urgency::from_bits(urgency) })
    }

    /// A Feistel network over two halves of 36 bits.
    fn permute(&self, block: u128) -> u128 {
        let (mut low, mut high) = halves(block);
        for round in 0..ROUNDS {
            (low, high) = (high, low ^ self.round(round, high));
        }
        whole(low, high)
    }

    fn permute_back(&self, block: u128) -> u128 {
        let (mut low, mut high) = halves(block);
        for round in (0..ROUNDS).rev() {
            (low, high) = (high ^ self.round(round, low), low);
        }
        whole(low, high)
    }

    fn round(&self, round: u8, half: u64) -> u64 {
        let value = derive(&self.0, "gattway advert round", &[&[round], &half.to_le_bytes()]);
        u64::from_le_bytes([value[0], value[1], value[2], value[3], value[4], 0, 0, 0]) & HALF_MASK
    }
}

fn halves(block: u128) -> (u64, u64) {
    (block as u64 & HALF_MASK, (block >> HALF_BITS) as u64 & HALF_MASK)
}

fn whole(low: u64, high: u64) -> u128 {
    u128::from(low) | u128::from(high) << HALF_BITS
}

impl fmt::Debug for AdvertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdvertKey(..)")
    }
}

impl PartialEq for AdvertKey {
    fn eq(&self, other: &AdvertKey) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for AdvertKey {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> AdvertKey {
        AdvertKey::from_bytes([byte; 32])
    }

    #[test]
    fn a_key_is_the_same_by_all_its_bytes() {
        let bytes: [u8; 32] = std::array::from_fn(|n| n as u8);
        let key = AdvertKey::from_bytes(bytes);
        assert_eq!((key.as_bytes(), &key), (&bytes, &key.clone()));
        for byte in 0..32 {
            let mut other = bytes;
            other[byte] += 1;
            assert_ne!(key, AdvertKey::from_bytes(other));
        }
    }

    proptest! {
        #[test]
        fn holders_of_the_key_learn_device_and_change(
            bytes: [u8; 32], device: [u8; 32], change in 0u32..1 << 24, urgency in 0u8..3, nonce in 0..=NONCE_MAX,
        ) {
            let (key, device) = (AdvertKey::from_bytes(bytes), PeerId(device));
            let urgency = Urgency::from_bits(urgency);
            let sealed = key.seal(&device, change, urgency, nonce);
            prop_assert_eq!(key.open(&sealed), Some(Opened { device: key.tag(&device), change, urgency }));
        }

        #[test]
        fn hostile_adverts_never_panic(data: Vec<u8>) {
            let _ = key(1).open(&data);
        }
    }

    #[test]
    fn the_documented_bytes_hold() {
        let device = PeerId([0x11; 32]);
        let key = AdvertKey::from_bytes([0x22; 32]);
        assert_eq!(key.tag(&device), DeviceTag(0x44_46cd));
        assert_eq!(
            key.seal(&device, 0x0a_0b_0c, Urgency::None, 0x345),
            [0x02, 0x67, 0x61, 0x1a, 0x0e, 0xf4, 0x8c, 0xd8, 0xdf, 0x7a]
        );
    }

    /// Adverts of one device at one state, and of a device whose change counts up, as a listener without the key could
    /// collect them: each bit is as often 0 as 1, two adverts in a row differ in half of their bits, and no pair of bits
    /// goes together. Bounds are five standard deviations of a fair coin (nothing is drawn: the same run each time).
    #[test]
    fn adverts_without_the_key_look_like_random_bits() {
        const COUNT: usize = 3 * (NONCE_MAX as usize + 1);
        const BITS: usize = 72;
        for changing in [false, true] {
            let rows: Vec<u128> = (0..COUNT)
                .map(|n| {
                    let change = if changing { n as u32 } else { 7 };
                    let bytes = key(9).seal(
                        &PeerId([5; 32]),
                        change,
                        Urgency::from_bits((n >> NONCE_BITS) as u8),
                        n as u16,
                    );
                    let mut block = [0; 16];
                    block[..9].copy_from_slice(&bytes[1..]);
                    u128::from_le_bytes(block)
                })
                .collect();
            let distinct: std::collections::BTreeSet<_> = rows.iter().collect();
            assert_eq!(distinct.len(), COUNT, "no advert comes twice");
            let bound = 5.0 * (COUNT as f64).sqrt() / 2.0;
            let is_fair = |ones: usize| (ones as f64 - COUNT as f64 / 2.0).abs() < bound;
            for a in 0..BITS {
                let ones = rows.iter().filter(|row| *row >> a & 1 == 1).count();
                assert!(is_fair(ones), "bit {a}: {ones}");
                let kept = rows.windows(2).filter(|w| (w[0] ^ w[1]) >> a & 1 == 0).count();
                assert!(is_fair(kept), "bit {a} from one advert to the next: {kept}");
                for b in 0..a {
                    let equal = rows.iter().filter(|row| (*row >> a ^ *row >> b) & 1 == 0).count();
                    assert!(is_fair(equal), "bits {a} and {b}: {equal}");
                }
            }
        }
    }

    #[test]
    fn another_key_opens_one_in_4096_and_a_changed_bit_spoils_it() {
        let sealed: Vec<_> =
            (0..40_000u32).map(|n| key(3).seal(&PeerId([n as u8; 32]), n, Urgency::None, n as u16)).collect();
        let opened = sealed.iter().filter(|data| key(4).open(&data[..]).is_some()).count();
        assert!((1..=25).contains(&opened), "expected about 10 of 40,000, got {opened}");
        let mut passed = 0;
        for bit in 8..80 {
            let mut data = sealed[1];
            data[bit / 8] ^= 1 << (bit % 8);
            passed += usize::from(key(3).open(&data).is_some());
        }
        assert!(passed <= 1, "{passed} of 72");
    }
}
