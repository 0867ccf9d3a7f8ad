//! Epochs of a group: how its secret is changed on all devices without visiting each, and by whom.
//!
//! A group has an authority: an Ed25519 key whose private half is kept where the group was made. The secret of each epoch is
//! derived from the authority's public key and a salt, so whoever has the secret can check which authority it belongs to
//! once he is told the salt, and nobody else can find another authority for it. A [`SignedEpoch`] is what the authority
//! says of one epoch. It contains the salt, so it is as secret as the group's secret, and travels in encrypted sessions alone.
//!
//! Pure data: the file is kept by [`crate::trust::group`], who gets one is decided by [`crate::trust::Trust`].
//! Source: `firmware-notes/trust.md`.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::derive::derive;
use super::group::{GROUP_SECRET_BYTES, GroupSecret};
use super::{PEERS_MAX, PeerId, Psk};

/// Earlier secrets by which a device that was away is still recognised.
pub const FORMER_MAX: usize = 4;
/// Longest signed epoch in bytes: a full list of denied peers.
pub const SIGNED_EPOCH_BYTES_MAX: usize = 40 << 10;
/// Peers that a signed epoch names at most: all of a full list, and the authority's own device.
const NAMED_MAX: usize = PEERS_MAX + 1;

/// Version of the layout.
const VERSION: u8 = 1;
const AUTHORITY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
/// Bytes of an ID that name a member: nobody makes a key that has the same first 128 bits as another's.
const MEMBER_BYTES: usize = 16;
const SIGNATURE_BYTES: usize = 64;
/// In front of what is signed, so that a signature means nothing elsewhere.
const SIGNED_LABEL: &[u8] = b"gattway group epoch\0";

/// Why an epoch was not taken, or not made. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EpochError {
    /// Above the limit.
    #[error("a signed epoch has {SIGNED_EPOCH_BYTES_MAX} bytes at most, this has {actual}")]
    TooLong {
        /// Bytes that it has, or that have come so far.
        actual: usize,
    },
    /// Its fields do not fit together, or a later version wrote them.
    #[error("this is no signed epoch that is known here")]
    Malformed,
    /// It is not what the authority signed.
    #[error("the signature of the epoch does not hold")]
    Signature,
    /// Another key than that of the group's authority signed it.
    #[error("the epoch was signed by {found}, which is not the authority of this group")]
    Authority {
        /// Who signed.
        found: AuthorityId,
    },
    /// Nothing shows that this authority belongs to the group.
    #[error(
        "nothing shows that {found} may change the secret of this group; if its owner has made it so, `gattway group authority \
         --accept {}`", found.to_text()
    )]
    Unproven {
        /// Who signed.
        found: AuthorityId,
    },
    /// This device has it, or a later one.
    #[error("epoch {offered} is not newer than epoch {held}, which this device has")]
    NotNewer {
        /// Of this device.
        held: u32,
        /// What was offered.
        offered: u32,
    },
    /// This database is in no group.
    #[error("this database is in no group")]
    NoGroup,
    /// The authority's key is on another device.
    #[error("the key that may change the secret of this group is not on this device")]
    NoKey,
    /// It could not be kept.
    #[error("the new epoch could not be stored: {detail}")]
    Store {
        /// Why not.
        detail: String,
    },
}

/// The public key by which an authority is known. As text like a [`PeerId`].
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityId(pub [u8; AUTHORITY_BYTES]);

impl AuthorityId {
    /// The whole key as text, which [`FromStr`](std::str::FromStr) reads.
    pub fn to_text(&self) -> String {
        PeerId(self.0).to_text()
    }
}

impl std::str::FromStr for AuthorityId {
    type Err = super::PeerIdError;

    fn from_str(text: &str) -> Result<AuthorityId, super::PeerIdError> {
        text.parse::<PeerId>().map(|id| AuthorityId(id.0))
    }
}

impl fmt::Display for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        PeerId(self.0).fmt(f)
    }
}

impl fmt::Debug for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityId({self})")
    }
}

/// The private key of an authority: who has it says what the group's secret is. Never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct AuthorityKey([u8; AUTHORITY_BYTES]);

impl AuthorityKey {
    /// The key with these bytes: random ones for a new authority.
    pub fn from_bytes(bytes: [u8; AUTHORITY_BYTES]) -> AuthorityKey {
        AuthorityKey(bytes)
    }

    /// The public half.
    pub fn id(&self) -> AuthorityId {
        AuthorityId(SigningKey::from_bytes(&self.0).verifying_key().to_bytes())
    }

    pub(crate) fn as_bytes(&self) -> &[u8; AUTHORITY_BYTES] {
        &self.0
    }

    fn sign(&self, body: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let message = Zeroizing::new([SIGNED_LABEL, body].concat());
        SigningKey::from_bytes(&self.0).sign(&message).to_bytes()
    }
}

impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthorityKey(..)")
    }
}

/// What a secret is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Zeroize)]
pub(crate) enum Material {
    /// Bound to the authority and the epoch.
    Salt([u8; SALT_BYTES]),
    /// The secret itself: of a group that was made before there were epochs.
    Raw([u8; GROUP_SECRET_BYTES]),
}

impl Material {
    fn secret(&self, authority: &AuthorityId, epoch: u32) -> GroupSecret {
        match self {
            Material::Salt(salt) => bound_secret(salt, authority, epoch),
            Material::Raw(secret) => GroupSecret::from_bytes(*secret),
        }
    }
}

/// The secret of an epoch: the first half of what is derived, so that it shows whose it is to who is told the salt.
pub(crate) fn bound_secret(salt: &[u8; SALT_BYTES], authority: &AuthorityId, epoch: u32) -> GroupSecret {
    let full = Zeroizing::new(derive(salt, "gattway group secret", &[&authority.0, &epoch.to_le_bytes()]));
    let mut secret = Zeroizing::new([0; GROUP_SECRET_BYTES]);
    secret.copy_from_slice(&full[..GROUP_SECRET_BYTES]);
    GroupSecret::from_bytes(*secret)
}

/// An epoch before the present one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Zeroize)]
pub(crate) struct Former {
    pub(crate) epoch: u32,
    pub(crate) material: Material,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Body {
    #[zeroize(skip)]
    authority: AuthorityId,
    epoch: u32,
    /// By the clock of the authority's device, in seconds since 1970.
    made_s: u64,
    salt: [u8; SALT_BYTES],
    /// Newest first.
    former: Vec<Former>,
    /// Who may have the secret; sorted.
    members: Vec<[u8; MEMBER_BYTES]>,
    /// Who is kept out; sorted.
    #[zeroize(skip)]
    denied: Vec<PeerId>,
}

/// What an authority says of an epoch: its secret, who gets it, who is kept out. Signed, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedEpoch {
    body: Body,
    /// As it travels and is kept: version, body, signature.
    bytes: Zeroizing<Vec<u8>>,
}

/// Whom an epoch is for.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// Get the secret.
    pub members: Vec<PeerId>,
    /// Are kept out, on every device that takes the epoch.
    pub denied: Vec<PeerId>,
}

impl SignedEpoch {
    /// Makes and signs one.
    pub(crate) fn make(
        key: &AuthorityKey,
        epoch: u32,
        salt: [u8; SALT_BYTES],
        former: Vec<Former>,
        roster: &Roster,
        made_s: u64,
    ) -> Result<SignedEpoch, EpochError> {
        let mut members: Vec<_> = roster.members.iter().map(member).collect();
        let mut denied = roster.denied.clone();
        members.sort_unstable();
        members.dedup();
        denied.sort_unstable();
        denied.dedup();
        let body = Body { authority: key.id(), epoch, made_s, salt, former, members, denied };
        body.check()?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(SIGNED_EPOCH_BYTES_MAX));
        bytes.push(VERSION);
        let content = postcard::to_stdvec(&body).map(Zeroizing::new).map_err(|_| EpochError::Malformed)?;
        bytes.extend_from_slice(&content);
        let signature = key.sign(&bytes);
        bytes.extend_from_slice(&signature);
        check_length(bytes.len())?;
        Ok(SignedEpoch { body, bytes })
    }

    /// Reads one that a peer has sent or a file holds; its signature holds, whosever it is.
    ///
    /// # Errors
    /// [`EpochError`].
    pub fn parse(bytes: &[u8]) -> Result<SignedEpoch, EpochError> {
        check_length(bytes.len())?;
        let (signed, signature) = bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or(EpochError::Malformed)?;
        let [VERSION, content @ ..] = signed else { return Err(EpochError::Malformed) };
        // Before anything of unknown origin is taken apart.
        let authority = content.first_chunk::<AUTHORITY_BYTES>().ok_or(EpochError::Malformed)?;
        let verifier = VerifyingKey::from_bytes(authority).map_err(|_| EpochError::Signature)?;
        let message = Zeroizing::new([SIGNED_LABEL, signed].concat());
        let held = verifier.verify_strict(&message, &Signature::from_bytes(signature));
        held.map_err(|_| EpochError::Signature)?;
        let (body, rest) = postcard::take_from_bytes::<Body>(content).map_err(|_| EpochError::Malformed)?;
        if !rest.is_empty() {
            return Err(EpochError::Malformed);
        }
        body.check()?;
        Ok(SignedEpoch { body, bytes: Zeroizing::new(bytes.to_vec()) })
    }

    /// As it travels and is kept.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Who signed it.
    pub fn authority(&self) -> AuthorityId {
        self.body.authority
    }

    /// Its number: 0 is that in which the group was made.
    pub fn number(&self) -> u32 {
        self.body.epoch
    }

    /// When it was made, by the clock of the authority's device, in seconds since 1970.
    pub fn made_s(&self) -> u64 {
        self.body.made_s
    }

    /// The group's secret in it.
    pub fn secret(&self) -> GroupSecret {
        bound_secret(&self.body.salt, &self.body.authority, self.body.epoch)
    }

    /// The secrets before it, newest first, with their numbers.
    pub fn former(&self) -> impl Iterator<Item = (u32, GroupSecret)> + '_ {
        self.body
            .former
            .iter()
            .map(|former| (former.epoch, former.material.secret(&self.body.authority, former.epoch)))
    }

    /// Whether this peer may have the secret.
    pub fn is_for(&self, peer: &PeerId) -> bool {
        self.body.members.binary_search(&member(peer)).is_ok()
            && self.body.denied.binary_search(peer).is_err()
    }

    /// How many may have it.
    pub fn members(&self) -> usize {
        self.body.members.len()
    }

    /// Who is kept out.
    pub fn denied(&self) -> &[PeerId] {
        &self.body.denied
    }

    /// Its place in the order of all epochs of a group. If an authority has made two of the same number (its device was set
    /// back to a backup), all devices agree which of the two is the later one.
    pub(crate) fn rank(&self) -> (u32, [u8; 32]) {
        let end = self.bytes.len().saturating_sub(SIGNATURE_BYTES);
        (self.body.epoch, derive(&[0; 32], "gattway group epoch rank", &[&self.bytes[..end]]))
    }

    /// The epochs before the next one: this one and those before it.
    pub(crate) fn former_of_next(&self) -> Vec<Former> {
        let this = Former { epoch: self.body.epoch, material: Material::Salt(self.body.salt) };
        std::iter::once(this).chain(self.body.former.iter().cloned()).take(FORMER_MAX).collect()
    }

    /// Whether `secret` is that of this epoch or of one before it.
    pub(crate) fn follows(&self, secret: &GroupSecret) -> bool {
        self.secret() == *secret || self.former().any(|(_, former)| former == *secret)
    }

    /// Whether `secret` is that of this epoch or of one before it and shows by itself that this authority made it.
    pub(crate) fn proves_authority_over(&self, secret: &GroupSecret) -> bool {
        let bound = self.body.former.iter().filter(|former| matches!(former.material, Material::Salt(_)));
        let mut secrets = bound.map(|former| former.material.secret(&self.body.authority, former.epoch));
        self.secret() == *secret || secrets.any(|former| former == *secret)
    }
}

impl fmt::Debug for SignedEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedEpoch")
            .field("authority", &self.body.authority)
            .field("number", &self.body.epoch)
            .finish_non_exhaustive()
    }
}

impl Body {
    fn check(&self) -> Result<(), EpochError> {
        let mut newer = self.epoch;
        let is_falling = self.former.iter().all(|former| {
            let falls = former.epoch < newer;
            newer = former.epoch;
            falls
        });
        let is_good = self.former.len() <= FORMER_MAX
            && is_falling
            && self.members.len() <= NAMED_MAX
            && self.denied.len() <= NAMED_MAX
            && self.members.is_sorted_by(|a, b| a < b)
            && self.denied.is_sorted_by(|a, b| a < b);
        if is_good { Ok(()) } else { Err(EpochError::Malformed) }
    }
}

fn check_length(actual: usize) -> Result<(), EpochError> {
    if actual > SIGNED_EPOCH_BYTES_MAX { Err(EpochError::TooLong { actual }) } else { Ok(()) }
}

fn member(peer: &PeerId) -> [u8; MEMBER_BYTES] {
    let mut start = [0; MEMBER_BYTES];
    start.copy_from_slice(&peer.as_bytes()[..MEMBER_BYTES]);
    start
}

/// What a device says in a session when it has stored an epoch: that it has the new pre-shared key. It holds in this session
/// alone.
pub fn taken_proof(psk: &Psk, session: &[u8; 32], taker: &PeerId) -> [u8; 32] {
    derive(&psk.0, "gattway group taken", &[session, taker.as_bytes()])
}

#[cfg(test)]
mod tests;
