//! How two sides come to a session: OFFER, ACCEPT, PROVE.
//!
//! ```text
//! active                                                        passive
//!   OFFER   versions, for each key that may be known there: Noise message 1  --->
//!       <---  ACCEPT   version, which of them, Noise message 2
//!   PROVE   Noise message 3, and from here on records  --->
//!       <---  records, the first of which says "admitted" or why not
//! ```
//! The Noise pattern is XX: both sides show their static key under encryption and prove it. Where both know a key already
//! (that of the group, or the one that two paired devices can compute), it is mixed in first (psk0): message 1 then holds
//! only for who has that key, so that the passive side answers no stranger and shows its identity to none, and an
//! eavesdropper learns neither identity. Whoever is offered several keys tries each; a wrong one costs it some hashing.
//!
//! ACCEPT says under encryption which offer it answers, and repeats a hash of all that was offered, so that nobody in
//! between can take away a stronger offer unnoticed.

use bytes::{BufMut, BytesMut};
use snow::{Builder, HandshakeState, TransportState};
use zeroize::Zeroizing;

use super::crypto::{KEY_BYTES, Resolver, Seeded, mac};
use super::error::{RefuseReason, SecureError};
use super::{Authentication, Identity, PEER_ID_BYTES, PeerId, PeerPolicy, Psk};

/// The version of this protocol.
pub const SECURE_VERSION: u8 = 1;
/// What every message of the handshake begins with. No frame of a plain peer does: as a WebSocket frame it would have a
/// reserved bit set.
pub(super) const MAGIC: u8 = 0x47;
/// Magic, kind, u16 length of what follows in little endian.
pub(super) const HEAD_BYTES: usize = 4;
/// Most bytes of one message behind its head.
pub const HANDSHAKE_BYTES_MAX: usize = 512;
/// Keys that are offered in one handshake at most.
pub const OFFERS_MAX: usize = 8;
/// Paired peers whose keys the passive side tries at most.
pub const PAIRED_MAX: usize = 32;

const XX: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2s";
const XX_PSK0: &str = "Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"gattway secure session";
/// Bytes that each side adds to the key of resumes.
const SHARE_BYTES: usize = 16;
/// Bytes of the hash over an OFFER.
const OFFER_HASH_BYTES: usize = 16;
/// Room for one Noise message.
const NOISE_BYTES_MAX: usize = 256;

/// What a message of the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Offer = 1,
    Accept = 2,
    Prove = 3,
    Refuse = 4,
}

impl Kind {
    pub(super) fn from_code(code: u8) -> Option<Kind> {
        [Kind::Offer, Kind::Accept, Kind::Prove, Kind::Refuse].into_iter().find(|kind| *kind as u8 == code)
    }
}

/// What an offer is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OfferKind {
    /// A key that both know is mixed in.
    Keyed = 1,
    /// Whoever it is.
    Open = 2,
    /// For pairing: whoever it is, and no replication follows.
    Pairing = 3,
}

impl OfferKind {
    fn pattern(self) -> &'static str {
        if self == OfferKind::Keyed { XX_PSK0 } else { XX }
    }

    /// Bytes of its first Noise message: an ephemeral key, and a tag if a key is mixed in.
    fn message_bytes(self) -> usize {
        if self == OfferKind::Keyed { KEY_BYTES + 16 } else { KEY_BYTES }
    }
}

/// The keys that this side shares with others, worked out once for many handshakes.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: Vec<(Authentication, Psk)>,
    strangers: bool,
    pairing: bool,
}

impl Keyring {
    /// The keys of the group and of paired peers, as the policy has them now.
    pub fn new(identity: &Identity, policy: &dyn PeerPolicy) -> Keyring {
        let group = policy.group_psk().map(|psk| (Authentication::Group, psk));
        let paired = policy.paired().into_iter().filter(|peer| *peer != identity.id()).take(PAIRED_MAX);
        let paired = paired.filter_map(|peer| Some((Authentication::Paired, identity.pair_psk(&peer)?)));
        Keyring {
            keys: group.into_iter().chain(paired).collect(),
            strangers: policy.admits_strangers(),
            pairing: false,
        }
    }

    /// For a handshake by which two devices are paired: no key is known, and only somebody who pairs too is met.
    pub fn pairing() -> Keyring {
        Keyring { keys: Vec::new(), strangers: false, pairing: true }
    }

    /// Whether there is nothing that an active side could offer with it.
    pub fn is_empty(&self) -> bool {
        self.offers().is_empty()
    }

    /// What an active side offers with it, strongest first.
    fn offers(&self) -> Vec<(OfferKind, Authentication, Option<&Psk>)> {
        let open =
            if self.pairing { Some(OfferKind::Pairing) } else { self.strangers.then_some(OfferKind::Open) };
        let keyed = self.keys.iter().map(|(via, psk)| (OfferKind::Keyed, *via, Some(psk)));
        let keyed = keyed.take(OFFERS_MAX - usize::from(open.is_some()));
        keyed.chain(open.map(|kind| (kind, Authentication::Open, None))).collect()
    }
}

/// What both sides have when the handshake is done.
pub(super) struct Agreed {
    pub(super) noise: TransportState,
    pub(super) peer: PeerId,
    pub(super) via: Authentication,
    /// The same on both sides and on no other session.
    pub(super) hash: [u8; KEY_BYTES],
    pub(super) resume_key: [u8; KEY_BYTES],
}

/// One side's part of a handshake under way.
struct Half {
    noise: HandshakeState,
    via: Authentication,
}

impl Half {
    fn new(
        identity: &Identity,
        kind: OfferKind,
        psk: Option<&Psk>,
        via: Authentication,
        seed: [u8; KEY_BYTES],
        initiator: bool,
    ) -> Result<Half, SecureError> {
        let resolver = Resolver::new(seed, identity.private(), identity.id().as_bytes());
        let params = kind.pattern().parse().map_err(|_| SecureError::Key)?;
        let prologue = [PROLOGUE, &[SECURE_VERSION, kind as u8]].concat();
        let build = || {
            let mut builder = Builder::with_resolver(params, Box::new(resolver))
                .local_private_key(identity.private())?
                .prologue(&prologue)?;
            if let Some(psk) = psk {
                builder = builder.psk(0, &psk.0)?;
            }
            if initiator { builder.build_initiator() } else { builder.build_responder() }
        };
        Ok(Half { noise: build().map_err(|_: snow::Error| SecureError::Key)?, via })
    }

    fn write(&mut self, payload: &[u8], out: &mut BytesMut) -> Result<(), SecureError> {
        let mut message = [0; NOISE_BYTES_MAX];
        let length = self.noise.write_message(payload, &mut message).map_err(|_| SecureError::Key)?;
        out.put_slice(&message[..length]);
        Ok(())
    }

    fn read(&mut self, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecureError> {
        if message.len() > NOISE_BYTES_MAX {
            return Err(SecureError::TooLong { max: NOISE_BYTES_MAX, actual: message.len() });
        }
        let mut payload = Zeroizing::new(vec![0; NOISE_BYTES_MAX]);
        let length = self.noise.read_message(message, &mut payload).map_err(|_| SecureError::Handshake)?;
        payload.truncate(length);
        Ok(payload)
    }

    fn peer(&self) -> Result<PeerId, SecureError> {
        let key: [u8; PEER_ID_BYTES] = self
            .noise
            .get_remote_static()
            .and_then(|key| key.try_into().ok())
            .ok_or(SecureError::Handshake)?;
        Ok(PeerId(key))
    }

    fn finish(self, active: &[u8], passive: &[u8]) -> Result<Agreed, SecureError> {
        let peer = self.peer()?;
        let hash: [u8; KEY_BYTES] =
            self.noise.get_handshake_hash().try_into().map_err(|_| SecureError::Key)?;
        let mut shares = Zeroizing::new([0; KEY_BYTES]);
        shares[..SHARE_BYTES].copy_from_slice(active);
        shares[SHARE_BYTES..].copy_from_slice(passive);
        let resume_key = mac(&shares, &[b"gattway resume", &hash]);
        let noise = self.noise.into_transport_mode().map_err(|_| SecureError::Key)?;
        Ok(Agreed { noise, peer, via: self.via, hash, resume_key })
    }
}

/// Writes a message with its head.
pub(super) fn envelope(
    kind: Kind,
    out: &mut BytesMut,
    body: impl FnOnce(&mut BytesMut) -> Result<(), SecureError>,
) -> Result<(), SecureError> {
    let start = out.len();
    out.put_slice(&[MAGIC, kind as u8, 0, 0]);
    body(out)?;
    let length = out.len() - start - HEAD_BYTES;
    debug_assert!(length <= HANDSHAKE_BYTES_MAX);
    out[start + 2..start + HEAD_BYTES].copy_from_slice(&(length as u16).to_le_bytes());
    Ok(())
}

/// Writes a refusal that anybody can read.
pub(super) fn refuse(reason: RefuseReason, out: &mut BytesMut) {
    // The body cannot fail.
    let _ = envelope(Kind::Refuse, out, |out| {
        out.put_slice(&[reason.code(), SECURE_VERSION, SECURE_VERSION]);
        Ok(())
    });
}

/// The error that a REFUSE stands for. A later version may add to it.
pub(super) fn refused(body: &[u8]) -> SecureError {
    match body {
        [1, min, max, ..] => SecureError::Version { min: *min, max: *max, ours: SECURE_VERSION },
        [code, ..] => SecureError::Refused { reason: RefuseReason::from_code(*code), proven: false },
        [] => SecureError::Malformed,
    }
}

fn offer_hash(body: &[u8]) -> [u8; OFFER_HASH_BYTES] {
    let full = mac(&[0; KEY_BYTES], &[b"gattway offer", body]);
    let mut short = [0; OFFER_HASH_BYTES];
    short.copy_from_slice(&full[..OFFER_HASH_BYTES]);
    short
}

fn share(random: &mut Seeded) -> Zeroizing<[u8; SHARE_BYTES]> {
    let full = Zeroizing::new(random.next());
    let mut share = Zeroizing::new([0; SHARE_BYTES]);
    share.copy_from_slice(&full[..SHARE_BYTES]);
    share
}

/// The active side, from OFFER to PROVE.
pub(super) struct Offering {
    halves: Vec<Half>,
    hash: [u8; OFFER_HASH_BYTES],
    random: Seeded,
}

impl Offering {
    /// Writes OFFER.
    pub(super) fn start(
        identity: &Identity,
        keyring: &Keyring,
        entropy: [u8; KEY_BYTES],
        out: &mut BytesMut,
    ) -> Result<Offering, SecureError> {
        let mut random = Seeded::new(entropy);
        let offers = keyring.offers();
        if offers.is_empty() {
            return Err(SecureError::NothingToOffer);
        }
        let mut halves = Vec::with_capacity(offers.len());
        let mut body = BytesMut::new();
        body.put_slice(&[SECURE_VERSION, SECURE_VERSION, offers.len() as u8]);
        for (kind, via, psk) in offers {
            let mut half = Half::new(identity, kind, psk, via, random.next(), true)?;
            body.put_u8(kind as u8);
            half.write(&[], &mut body)?;
            halves.push(half);
        }
        envelope(Kind::Offer, out, |out| {
            out.put_slice(&body);
            Ok(())
        })?;
        Ok(Offering { halves, hash: offer_hash(&body), random })
    }

    /// Takes ACCEPT; `admit` is asked about the peer before this side shows who it is, then PROVE is written.
    pub(super) fn accept(
        mut self,
        body: &[u8],
        admit: impl FnOnce(PeerId, Authentication) -> Result<(), SecureError>,
        out: &mut BytesMut,
    ) -> Result<Agreed, SecureError> {
        let [version, index, message @ ..] = body else { return Err(SecureError::Malformed) };
        if *version != SECURE_VERSION {
            return Err(SecureError::Version { min: *version, max: *version, ours: SECURE_VERSION });
        }
        if usize::from(*index) >= self.halves.len() {
            return Err(SecureError::Malformed);
        }
        let mut half = self.halves.swap_remove(usize::from(*index));
        let payload = half.read(message)?;
        let Some((said, theirs)) = payload.split_at_checked(2 + OFFER_HASH_BYTES) else {
            return Err(SecureError::Malformed);
        };
        if said[..2] != [*version, *index] || said[2..] != self.hash {
            return Err(SecureError::Downgrade);
        }
        let theirs = theirs.get(..SHARE_BYTES).ok_or(SecureError::Malformed)?;
        admit(half.peer()?, half.via)?;
        let ours = share(&mut self.random);
        envelope(Kind::Prove, out, |out| half.write(&ours[..], out))?;
        half.finish(&ours[..], theirs)
    }
}

/// The passive side, from OFFER to PROVE.
pub(super) struct Accepting {
    half: Half,
    share: Zeroizing<[u8; SHARE_BYTES]>,
}

impl Accepting {
    /// Takes OFFER, writes ACCEPT.
    pub(super) fn start(
        identity: &Identity,
        keyring: &Keyring,
        body: &[u8],
        entropy: [u8; KEY_BYTES],
        out: &mut BytesMut,
    ) -> Result<Accepting, SecureError> {
        let [min, max, count, offers @ ..] = body else { return Err(SecureError::Malformed) };
        if !(*min..=*max).contains(&SECURE_VERSION) {
            return Err(SecureError::Version { min: *min, max: *max, ours: SECURE_VERSION });
        }
        if usize::from(*count) > OFFERS_MAX {
            return Err(SecureError::TooLong { max: OFFERS_MAX, actual: usize::from(*count) });
        }
        let mut random = Seeded::new(entropy);
        let (index, mut half) = choose(identity, keyring, usize::from(*count), offers, &mut random)?
            .ok_or(SecureError::Stranger)?;
        let share = share(&mut random);
        let mut payload = Zeroizing::new(vec![SECURE_VERSION, index]);
        payload.extend_from_slice(&offer_hash(body));
        payload.extend_from_slice(&share[..]);
        envelope(Kind::Accept, out, |out| {
            out.put_slice(&[SECURE_VERSION, index]);
            half.write(&payload, out)
        })?;
        Ok(Accepting { half, share })
    }

    /// Whether the peer has shown a key that this side knows.
    pub(super) fn is_keyed(&self) -> bool {
        self.half.via != Authentication::Open
    }

    /// Takes PROVE.
    pub(super) fn prove(mut self, body: &[u8]) -> Result<Agreed, SecureError> {
        let payload = self.half.read(body)?;
        let theirs = payload.get(..SHARE_BYTES).ok_or(SecureError::Malformed)?;
        self.half.finish(theirs, &self.share[..])
    }
}

/// The first offer that holds here, and this side's half of it.
fn choose(
    identity: &Identity,
    keyring: &Keyring,
    count: usize,
    mut offers: &[u8],
    random: &mut Seeded,
) -> Result<Option<(u8, Half)>, SecureError> {
    let seed = random.next();
    let mut chosen = None;
    for index in 0..count {
        let [kind, rest @ ..] = offers else { return Err(SecureError::Malformed) };
        let known = [OfferKind::Keyed, OfferKind::Open, OfferKind::Pairing];
        let kind = known.into_iter().find(|known| *known as u8 == *kind).ok_or(SecureError::Malformed)?;
        let (message, rest) = rest.split_at_checked(kind.message_bytes()).ok_or(SecureError::Malformed)?;
        offers = rest;
        if chosen.is_some() {
            continue;
        }
        let attempt = |psk: Option<&Psk>, via| {
            let mut half = Half::new(identity, kind, psk, via, seed, false)?;
            Ok::<_, SecureError>(half.read(message).is_ok().then_some((index as u8, half)))
        };
        chosen = match kind {
            OfferKind::Keyed => {
                let mut found = None;
                for (via, psk) in &keyring.keys {
                    found = attempt(Some(psk), *via)?;
                    if found.is_some() {
                        break;
                    }
                }
                found
            }
            OfferKind::Open if keyring.strangers && !keyring.pairing => attempt(None, Authentication::Open)?,
            OfferKind::Pairing if keyring.pairing => attempt(None, Authentication::Open)?,
            OfferKind::Open | OfferKind::Pairing => None,
        };
    }
    if offers.is_empty() { Ok(chosen) } else { Err(SecureError::Malformed) }
}
