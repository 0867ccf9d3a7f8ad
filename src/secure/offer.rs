//! Which key do the two share? What an OFFER says about it, and how a passive side finds out without telling anybody.
//!
//! ```text
//! question  version_min u8 | version_max u8 | 0
//! OFFER     version_min u8 | version_max u8 | 8 | e [32] | 8 times: mark [8], tag [16]
//! ```
//! Every OFFER is as long as every other: what is missing to eight offers is filled with offers under random keys, and the
//! order is random. A mark is a MAC under the key that is offered, over what is fresh of the passive side and over e; so an
//! OFFER that was overheard holds nowhere else and never again. The passive side computes as many marks as it could have
//! keys, whether it has them or not.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::crypto::{KEY_BYTES, Seeded, mac};
use super::epoch::FORMER_MAX;
use super::error::SecureError;
use super::{Authentication, Identity, PeerPolicy, Psk};

/// The version of this protocol. Version 1 is not spoken any more: its first message held for whoever repeated it.
pub const SECURE_VERSION: u8 = 2;

/// Offers in one handshake.
pub const OFFERS_MAX: usize = 8;
/// Paired peers whose keys the passive side tries at most.
pub const PAIRED_MAX: usize = 32;
/// Bytes that the passive side adds to a handshake so that it is like no other.
pub const FRESH_BYTES: usize = 32;

/// Earlier keys of the group that an active side offers, in the place of paired peers: who has missed more than that is met
/// when it connects itself, or by another.
pub const FORMER_OFFERED: usize = 2;

/// Marks that a passive side computes: of a group, of the group's earlier keys, of all paired peers, of strangers or of those
/// who pair.
pub(super) const KEYS_TRIED: usize = 1 + FORMER_MAX + PAIRED_MAX + 1;
const MARK_BYTES: usize = 8;
/// The tag of Noise's first message.
const TAG_BYTES: usize = 16;
/// Bytes of an OFFER's body up to the first mark.
const FRONT_BYTES: usize = 3 + KEY_BYTES;
/// Bytes of an OFFER's body.
pub(super) const OFFER_BYTES: usize = FRONT_BYTES + OFFERS_MAX * (MARK_BYTES + TAG_BYTES);

/// What both sides of a handshake have that is fresh of the passive side.
pub(super) type Fresh = [u8; FRESH_BYTES];

/// What is fresh of a carrier whose passive side has chosen `origin` at random for it alone, and whose active side has it too.
pub fn fresh_of_carrier(origin: &[u8]) -> [u8; FRESH_BYTES] {
    mac(&[0; KEY_BYTES], &[b"gattway carrier", origin])
}

/// A key that may be known on both sides, and what its marks are made with.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) via: Authentication,
    pub(super) psk: Psk,
    marker: Psk,
}

impl Key {
    fn new(via: Authentication, psk: Psk) -> Key {
        let marker = Psk(mac(&psk.0, &[b"gattway mark key"]));
        Key { via, psk, marker }
    }

    /// A key that everybody knows: it keeps nobody out and says what the session is for.
    fn public(label: &[u8]) -> Key {
        Key::new(Authentication::Open, Psk(mac(&[0; KEY_BYTES], &[label])))
    }
}

/// The keys that this side shares with others, worked out once for many handshakes.
#[derive(Clone, Debug)]
pub struct Keyring {
    /// Strongest first.
    keys: Arc<[Key]>,
}

impl Keyring {
    /// The keys of the group and of paired peers, as the policy has them now.
    pub fn new(identity: &Identity, policy: &dyn PeerPolicy) -> Keyring {
        let group = policy.group_psk().map(|psk| Key::new(Authentication::Group, psk));
        let paired = policy.paired().into_iter().filter(|peer| *peer != identity.id()).take(PAIRED_MAX);
        let paired =
            paired.filter_map(|peer| Some(Key::new(Authentication::Paired, identity.pair_psk(&peer)?)));
        let former = policy.former_psks().into_iter().take(FORMER_MAX);
        let former = former.map(|psk| Key::new(Authentication::FormerGroup, psk));
        let open = policy.admits_strangers().then(|| Key::public(b"gattway strangers"));
        Keyring { keys: group.into_iter().chain(former).chain(paired).chain(open).collect() }
    }

    /// For a handshake by which two devices are paired: no key is known, and only somebody who pairs too is met.
    pub fn pairing() -> Keyring {
        Keyring { keys: Arc::new([Key::public(b"gattway pairing")]) }
    }

    /// Whether there is nothing that an active side could offer with it.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What an active side offers with it: the strongest, some of the group's earlier keys, and the key of strangers if they
    /// are let in.
    fn offers(&self) -> Vec<Key> {
        let of = |via| self.keys.iter().filter(move |key| key.via == via);
        let last: Vec<&Key> = of(Authentication::FormerGroup)
            .take(FORMER_OFFERED)
            .chain(of(Authentication::Open).take(1))
            .collect();
        let first = of(Authentication::Group).chain(of(Authentication::Paired));
        first.take(OFFERS_MAX - last.len()).chain(last).cloned().collect()
    }
}

fn mark(marker: &Psk, front: &[u8], fresh: &Fresh) -> [u8; MARK_BYTES] {
    let full = mac(&marker.0, &[b"gattway mark", fresh, front]);
    let mut short = [0; MARK_BYTES];
    short.copy_from_slice(&full[..MARK_BYTES]);
    short
}

/// Always eight offers, in a random order.
pub(super) fn filled(keyring: &Keyring, random: &mut Seeded) -> Vec<Key> {
    let mut offers = keyring.offers();
    while offers.len() < OFFERS_MAX {
        offers.push(Key::new(Authentication::Open, Psk(random.next())));
    }
    let order = random.next();
    for (n, bytes) in (1..OFFERS_MAX).rev().zip(order.chunks_exact(4)) {
        let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte));
        offers.swap(n, number % (n + 1));
    }
    offers
}

/// The body of the message that asks the passive side for something fresh.
pub(super) fn question(out: &mut BytesMut) {
    out.put_slice(&[SECURE_VERSION, SECURE_VERSION, 0]);
}

/// What an OFFER's body is, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// The active side asks for something fresh.
    Question,
    /// It offers.
    Offers(Offers<'a>),
}

/// The eight offers of an OFFER.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Offers<'a> {
    front: &'a [u8],
    entries: &'a [[u8; MARK_BYTES + TAG_BYTES]],
}

impl<'a> Said<'a> {
    /// Reads the body of an OFFER of a version that is known here.
    pub(super) fn read(body: &'a [u8]) -> Result<Said<'a>, SecureError> {
        let [min, max, count, rest @ ..] = body else { return Err(SecureError::Malformed) };
        if !(*min..=*max).contains(&SECURE_VERSION) {
            return Err(SecureError::Version { min: *min, max: *max, ours: SECURE_VERSION });
        }
        match usize::from(*count) {
            0 if rest.is_empty() => Ok(Said::Question),
            OFFERS_MAX if body.len() == OFFER_BYTES => {
                let (front, entries) = body.split_at(FRONT_BYTES);
                Ok(Said::Offers(Offers { front, entries: entries.as_chunks().0 }))
            }
            count if count > OFFERS_MAX => Err(SecureError::TooLong { max: OFFERS_MAX, actual: count }),
            _ => Err(SecureError::Malformed),
        }
    }
}

/// The offer that a passive side takes.
pub(super) struct Chosen {
    pub(super) index: u8,
    pub(super) via: Authentication,
    pub(super) psk: Psk,
    /// Noise's first message of it.
    pub(super) message: [u8; KEY_BYTES + TAG_BYTES],
}

impl Offers<'_> {
    /// The strongest key of this side that is offered. Takes the same steps whichever that is, and if there is none; `blind`
    /// is random, in the place of keys that this side does not have.
    pub(super) fn choose(&self, keyring: &Keyring, fresh: &Fresh, blind: &Psk) -> Option<Chosen> {
        let (mut found, mut at) = (Choice::from(0), 0u32);
        for place in (0..KEYS_TRIED).rev() {
            let key = keyring.keys.get(place);
            let known = Choice::from(u8::from(key.is_some()));
            let expected = mark(key.map_or(blind, |key| &key.marker), self.front, fresh);
            for (index, entry) in self.entries.iter().enumerate() {
                let same = expected.ct_eq(&entry[..MARK_BYTES]) & known;
                at.conditional_assign(&((place * OFFERS_MAX + index) as u32), same);
                found |= same;
            }
        }
        let (place, index) = (at as usize / OFFERS_MAX, at as usize % OFFERS_MAX);
        let key = keyring.keys.get(place).filter(|_| found.into())?;
        let mut message = [0; KEY_BYTES + TAG_BYTES];
        message[..KEY_BYTES].copy_from_slice(&self.front[FRONT_BYTES - KEY_BYTES..]);
        message[KEY_BYTES..].copy_from_slice(&self.entries[index][MARK_BYTES..]);
        Some(Chosen { index: index as u8, via: key.via, psk: key.psk.clone(), message })
    }
}

/// Writes the body of an OFFER: `messages` are Noise's first messages of the same ephemeral key, one for each offer.
pub(super) fn write_offers(
    offers: &[Key],
    messages: &[BytesMut],
    fresh: &Fresh,
) -> Result<BytesMut, SecureError> {
    let mut body = BytesMut::with_capacity(OFFER_BYTES);
    body.put_slice(&[SECURE_VERSION, SECURE_VERSION, OFFERS_MAX as u8]);
    body.put_slice(messages.first().and_then(|message| message.get(..KEY_BYTES)).ok_or(SecureError::Key)?);
    let front = body.clone();
    for (offer, message) in offers.iter().zip(messages) {
        body.put_slice(&mark(&offer.marker, &front, fresh));
        body.put_slice(message.get(KEY_BYTES..).ok_or(SecureError::Key)?);
    }
    debug_assert_eq!(body.len(), OFFER_BYTES);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recorded OFFER is worth nothing over another carrier because this differs.
    #[test]
    fn each_carrier_is_fresh() {
        assert_ne!(fresh_of_carrier(&[1; 16]), fresh_of_carrier(&[2; 16]));
        // Computed with Python's `hashlib.blake2s`.
        assert_eq!(fresh_of_carrier(b"origin")[..4], [0xcd, 0x9d, 0x4b, 0x1f]);
    }

    /// One length and one number of offers: neither tells how many keys a device has.
    #[test]
    fn an_offer_has_one_length() {
        let mut body = vec![0; OFFER_BYTES];
        body[..3].copy_from_slice(&[SECURE_VERSION, SECURE_VERSION, OFFERS_MAX as u8]);
        assert!(matches!(Said::read(&body), Ok(Said::Offers(_))));
        assert_eq!(Said::read(&body[..3]).err(), Some(SecureError::Malformed));
        assert_eq!(Said::read(&body[..OFFER_BYTES - 1]).err(), Some(SecureError::Malformed));
        body.push(0);
        assert_eq!(Said::read(&body).err(), Some(SecureError::Malformed));
        for (count, expected) in [
            (1, SecureError::Malformed),
            (OFFERS_MAX - 1, SecureError::Malformed),
            (OFFERS_MAX + 1, SecureError::TooLong { max: OFFERS_MAX, actual: OFFERS_MAX + 1 }),
        ] {
            body[2] = count as u8;
            assert_eq!(Said::read(&body[..OFFER_BYTES]).err(), Some(expected), "{count} offers");
        }
        body[2] = 0;
        assert!(matches!(Said::read(&body[..3]), Ok(Said::Question)));
        assert_eq!(Said::read(&body[..4]).err(), Some(SecureError::Malformed));
    }
}
