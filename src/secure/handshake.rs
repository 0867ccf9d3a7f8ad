//! How two sides come to a session: OFFER, ACCEPT, PROVE.
//!
//! ```text
//! active                                                        passive
//!   OFFER   versions; asks for something fresh  --->                        not over a link, whose beginning
//!                        <---  CHALLENGE   32 random bytes                  is fresh of its passive side
//!   OFFER   versions, marks and Noise message 1 of eight keys  --->
//!       <---  ACCEPT   version, which of them, Noise message 2
//!   PROVE   Noise message 3, and from here on records  --->
//!       <---  records, the first of which says "admitted" or why not
//! ```
//! The Noise pattern is XX with a key that both know (that of the group, or the one that two paired devices can compute)
//! mixed in first (psk0): message 1 then holds only for who has that key, so that the passive side answers no stranger and
//! shows its identity to none, and an eavesdropper learns neither identity. What is fresh of the passive side goes into the
//! prologue: a first message that was overheard holds on no other connection, so its repetition tells nobody who knows it.
//!
//! ACCEPT says under encryption which offer it answers, and repeats a hash of all that was offered, so that nobody in
//! between can take away a stronger offer unnoticed. What an OFFER is made of is in `offer`.

use bytes::{BufMut, BytesMut};
use snow::{Builder, HandshakeState, TransportState};
use zeroize::Zeroizing;

use super::crypto::{Ephemeral, KEY_BYTES, Resolver, Seeded, mac};
use super::error::{RefuseReason, SecureError};
use super::offer::{Fresh, Keyring, Offers, SECURE_VERSION, filled, question, write_offers};
use super::peer::is_peer_name;
use super::{Authentication, Identity, PEER_ID_BYTES, PeerId, Psk};

/// What every message of the handshake begins with. No frame of a plain peer does: as a WebSocket frame it would have a
/// reserved bit set.
pub(super) const MAGIC: u8 = 0x47;
/// Magic, kind, u16 length of what follows in little endian.
pub(super) const HEAD_BYTES: usize = 4;
/// Most bytes of one message behind its head.
pub const HANDSHAKE_BYTES_MAX: usize = 512;

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
    Challenge = 5,
}

impl Kind {
    pub(super) fn from_code(code: u8) -> Option<Kind> {
        [Kind::Offer, Kind::Accept, Kind::Prove, Kind::Refuse, Kind::Challenge]
            .into_iter()
            .find(|kind| *kind as u8 == code)
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
    /// What the peer calls itself, if it said so.
    pub(super) name: Option<String>,
}

/// One side's part of a handshake under way.
struct Half {
    noise: HandshakeState,
    via: Authentication,
}

impl Half {
    fn new(
        identity: &Identity,
        fresh: &Fresh,
        (via, psk): (Authentication, &Psk),
        ephemeral: &Ephemeral,
        initiator: bool,
    ) -> Result<Half, SecureError> {
        let resolver = Resolver::new(ephemeral, identity.private(), identity.id().as_bytes());
        let params = XX_PSK0.parse().map_err(|_| SecureError::Key)?;
        let prologue = [PROLOGUE, &[SECURE_VERSION], fresh].concat();
        let build = || {
            let builder = Builder::with_resolver(params, Box::new(resolver))
                .local_private_key(identity.private())?
                .prologue(&prologue)?
                .psk(0, &psk.0)?;
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

    /// `name`: what the peer says beside its share.
    fn finish(self, active: &[u8], passive: &[u8], name: &[u8]) -> Result<Agreed, SecureError> {
        let peer = self.peer()?;
        let hash: [u8; KEY_BYTES] =
            self.noise.get_handshake_hash().try_into().map_err(|_| SecureError::Key)?;
        let mut shares = Zeroizing::new([0; KEY_BYTES]);
        shares[..SHARE_BYTES].copy_from_slice(active);
        shares[SHARE_BYTES..].copy_from_slice(passive);
        let resume_key = mac(&shares, &[b"gattway resume", &hash]);
        let noise = self.noise.into_transport_mode().map_err(|_| SecureError::Key)?;
        Ok(Agreed { noise, peer, via: self.via, hash, resume_key, name: read_name(name) })
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

/// Writes the OFFER that asks for something fresh.
pub(super) fn ask(out: &mut BytesMut) -> Result<(), SecureError> {
    envelope(Kind::Offer, out, |out| {
        question(out);
        Ok(())
    })
}

/// Answers it.
pub(super) fn challenge(fresh: &Fresh, out: &mut BytesMut) -> Result<(), SecureError> {
    envelope(Kind::Challenge, out, |out| {
        out.put_slice(fresh);
        Ok(())
    })
}

/// A name is filled up to a multiple of this: its length would tell one device from another to whoever listens.
const NAME_STEP_BYTES: usize = 16;

/// Says what this side calls itself, behind its share; to nobody who has shown no key. Who has shown a former key of the
/// group gets as many zeros, so that the length does not tell which it was.
fn write_name(name: Option<&str>, via: Authentication, payload: &mut Vec<u8>) {
    let known = name.filter(|name| via != Authentication::Open && is_peer_name(name));
    if let Some(name) = known {
        let length = (1 + name.len()).next_multiple_of(NAME_STEP_BYTES);
        let end = payload.len() + length;
        if via != Authentication::FormerGroup {
            payload.push(name.len() as u8);
            payload.extend_from_slice(name.as_bytes());
        }
        payload.resize(end, 0);
    }
}

/// What the peer calls itself. A peer that says nothing of it, or nothing that can be a name, has none; a later version may
/// say more behind it.
fn read_name(bytes: &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first()?;
    let name = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
    is_peer_name(name).then(|| name.to_owned())
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
        fresh: &Fresh,
        out: &mut BytesMut,
    ) -> Result<Offering, SecureError> {
        let mut random = Seeded::new(entropy);
        // One ephemeral key for all: of eight sessions that begin with it one goes on, and their keys have nothing in common.
        let ephemeral = Ephemeral::new(random.next());
        let offers = filled(keyring, &mut random);
        let mut halves = Vec::with_capacity(offers.len());
        let mut messages = Vec::with_capacity(offers.len());
        for key in &offers {
            let mut half = Half::new(identity, fresh, (key.via, &key.psk), &ephemeral, true)?;
            let mut message = BytesMut::new();
            half.write(&[], &mut message)?;
            messages.push(message);
            halves.push(half);
        }
        let body = write_offers(&offers, &messages, fresh)?;
        envelope(Kind::Offer, out, |out| {
            out.put_slice(&body);
            Ok(())
        })?;
        Ok(Offering { halves, hash: offer_hash(&body), random })
    }

    /// Takes ACCEPT; `admit` is asked about the peer before this side shows who it is, then PROVE is written, with `name` as
    /// what this side calls itself.
    pub(super) fn accept(
        mut self,
        body: &[u8],
        name: Option<&str>,
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
        let (theirs, their_name) = theirs.split_at_checked(SHARE_BYTES).ok_or(SecureError::Malformed)?;
        admit(half.peer()?, half.via)?;
        let ours = share(&mut self.random);
        let mut payload = Zeroizing::new(ours.to_vec());
        write_name(name, half.via, &mut payload);
        envelope(Kind::Prove, out, |out| half.write(&payload, out))?;
        half.finish(&ours[..], theirs, their_name)
    }
}

/// The passive side, from OFFER to PROVE.
pub(super) struct Accepting {
    half: Half,
    share: Zeroizing<[u8; SHARE_BYTES]>,
}

/// What is random of a passive side, drawn at once, so that what is drawn tells nothing of what happens.
pub(super) struct Dice {
    /// For CHALLENGE.
    pub(super) fresh: Fresh,
    blind: Psk,
    seed: [u8; KEY_BYTES],
    share: Zeroizing<[u8; SHARE_BYTES]>,
}

impl Dice {
    pub(super) fn new(entropy: [u8; KEY_BYTES]) -> Dice {
        let mut random = Seeded::new(entropy);
        let (fresh, blind, seed) = (random.next(), Psk(random.next()), random.next());
        Dice { fresh, blind, seed, share: share(&mut random) }
    }
}

impl Accepting {
    /// Takes the offers of OFFER, whose whole body is `body`, and writes ACCEPT, with `name` as what this side calls itself.
    pub(super) fn start(
        identity: &Identity,
        keyring: &Keyring,
        name: Option<&str>,
        (body, offers): (&[u8], &Offers<'_>),
        fresh: &Fresh,
        dice: Dice,
        out: &mut BytesMut,
    ) -> Result<Accepting, SecureError> {
        let chosen = offers.choose(keyring, fresh, &dice.blind).ok_or(SecureError::Stranger)?;
        let ephemeral = Ephemeral::new(dice.seed);
        let mut half = Half::new(identity, fresh, (chosen.via, &chosen.psk), &ephemeral, false)?;
        half.read(&chosen.message)?;
        let mut payload = Zeroizing::new(vec![SECURE_VERSION, chosen.index]);
        payload.extend_from_slice(&offer_hash(body));
        payload.extend_from_slice(&dice.share[..]);
        write_name(name, half.via, &mut payload);
        envelope(Kind::Accept, out, |out| {
            out.put_slice(&[SECURE_VERSION, chosen.index]);
            half.write(&payload, out)
        })?;
        Ok(Accepting { half, share: dice.share })
    }

    /// Whether the peer has shown a key that this side knows.
    pub(super) fn is_keyed(&self) -> bool {
        self.half.via != Authentication::Open
    }

    /// Takes PROVE.
    pub(super) fn prove(mut self, body: &[u8]) -> Result<Agreed, SecureError> {
        let payload = self.half.read(body)?;
        let (theirs, name) = payload.split_at_checked(SHARE_BYTES).ok_or(SecureError::Malformed)?;
        self.half.finish(theirs, &self.share[..], name)
    }
}
