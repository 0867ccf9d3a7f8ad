//! The proof, at a resume, that each side is the one it was before.
//!
//! Both sides compute a tag over the transcript of the handshake, which holds fresh nonces of both, and over the role of
//! the one who proves, so that a tag can neither be replayed nor reflected. The key is either the random token that the
//! session got when it began (which keeps out who guesses, but not who listened), or one that a secure session supplies.

use core::fmt;
use core::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

/// Bytes of a proof.
pub const PROOF_BYTES: usize = 16;
/// Bytes of the key that a prover holds.
pub const PROVER_KEY_BYTES: usize = 32;

/// A keyed function from a transcript to a tag: what a secure session gives the link so that nobody else resumes it.
#[derive(Clone, Copy)]
pub struct ResumeProver {
    key: [u8; PROVER_KEY_BYTES],
    tag: fn(&[u8; PROVER_KEY_BYTES], &[u8]) -> [u8; PROOF_BYTES],
}

impl ResumeProver {
    /// A prover from a key that only both ends know, and a message authentication code.
    pub const fn new(
        key: [u8; PROVER_KEY_BYTES],
        tag: fn(&[u8; PROVER_KEY_BYTES], &[u8]) -> [u8; PROOF_BYTES],
    ) -> ResumeProver {
        ResumeProver { key, tag }
    }

    /// The prover of a session without a secure one: SipHash-2-4-128 under the session's random token.
    pub(super) fn from_token(token: [u8; PROOF_BYTES]) -> ResumeProver {
        let mut key = [0; PROVER_KEY_BYTES];
        key[..PROOF_BYTES].copy_from_slice(&token);
        ResumeProver::new(key, token_tag)
    }

    /// The tag of a transcript.
    pub(super) fn prove(&self, transcript: &[u8]) -> [u8; PROOF_BYTES] {
        (self.tag)(&self.key, transcript)
    }

    /// Whether a tag is that of a transcript; takes the same time wherever they differ.
    pub(super) fn verify(&self, transcript: &[u8], tag: &[u8; PROOF_BYTES]) -> bool {
        let difference = self.prove(transcript).iter().zip(tag).fold(0, |all, (a, b)| all | (a ^ b));
        core::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for ResumeProver {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeProver")
    }
}

/// The provers of a session by generation: 0 is its token, each key that a secure session supplies is the next one.
///
/// The two sides learn of a new key at different moments, and the radio may be lost in between; so the one before stays
/// good until the secure session says that the peer has the new one too.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Provers {
    newest: Option<(u32, ResumeProver)>,
    before: Option<(u32, ResumeProver)>,
}

impl Provers {
    /// The session got its token.
    pub(super) fn set_token(&mut self, token: [u8; PROOF_BYTES]) {
        let token = Some((0, ResumeProver::from_token(token)));
        match self.newest {
            Some((1.., _)) => self.before = token,
            _ => self.newest = token,
        }
    }

    /// A new key; the one before stays good.
    pub(super) fn push(&mut self, prover: ResumeProver) {
        let generation = self.newest.map_or(1, |(generation, _)| generation.saturating_add(1));
        self.before = self.newest.replace((generation, prover));
    }

    /// The peer has the newest key: the one before is worth nothing from now on.
    pub(super) fn confirm(&mut self) {
        self.before = None;
    }

    /// The oldest generation that is still good.
    pub(super) fn oldest(&self) -> u32 {
        self.before.or(self.newest).map_or(0, |(generation, _)| generation)
    }

    /// The prover for a peer that takes generations from `oldest` on: the oldest that both sides take.
    pub(super) fn common(&self, oldest: u32) -> Option<ResumeProver> {
        self.both().find(|(generation, _)| *generation >= oldest).map(|(_, prover)| prover)
    }

    /// The prover that made `tag` over `transcript`.
    pub(super) fn find(&self, transcript: &[u8], tag: &[u8; PROOF_BYTES]) -> Option<ResumeProver> {
        self.both().map(|(_, prover)| prover).find(|prover| prover.verify(transcript, tag))
    }

    fn both(&self) -> impl Iterator<Item = (u32, ResumeProver)> + use<> {
        self.before.into_iter().chain(self.newest)
    }
}

fn token_tag(key: &[u8; PROVER_KEY_BYTES], transcript: &[u8]) -> [u8; PROOF_BYTES] {
    let mut token = [0; PROOF_BYTES];
    token.copy_from_slice(&key[..PROOF_BYTES]);
    let mut hasher = SipHasher24::new_with_key(&token);
    hasher.write(transcript);
    hasher.finish128().as_bytes()
}

/// Bytes of a session's origin: its name and its token.
pub const SESSION_ORIGIN_BYTES: usize = 8 + PROOF_BYTES;

/// What the peripheral chose at random when the session began, and both ends have: no other session has it, and no central
/// can know it beforehand. What a layer above binds its first message to, so that it is worth nothing on another session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionOrigin([u8; SESSION_ORIGIN_BYTES]);

impl SessionOrigin {
    pub(super) fn new(session: [u8; 8], token: [u8; PROOF_BYTES]) -> SessionOrigin {
        let mut bytes = [0; SESSION_ORIGIN_BYTES];
        bytes[..8].copy_from_slice(&session);
        bytes[8..].copy_from_slice(&token);
        SessionOrigin(bytes)
    }

    /// Name and token. Whoever listened has them; without a layer above that proves more they resume the session.
    pub fn as_bytes(&self) -> &[u8; SESSION_ORIGIN_BYTES] {
        &self.0
    }
}

impl fmt::Debug for SessionOrigin {
    /// Never shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionOrigin")
    }
}

/// Where the names, nonces and tokens of a link come from. Whoever knows it knows them all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LinkSeed([u64; 2]);

impl From<[u8; 16]> for LinkSeed {
    /// 128 bits of the operating system's generator: what a product gives its links.
    fn from(random: [u8; 16]) -> LinkSeed {
        let [low, high] = [0, 8].map(|at| {
            let mut half = [0; 8];
            half.copy_from_slice(&random[at..at + 8]);
            u64::from_le_bytes(half)
        });
        LinkSeed([low, high])
    }
}

impl From<u64> for LinkSeed {
    /// For simulations and tests, which a number repeats: nobody may have to guess what comes of it.
    fn from(seed: u64) -> LinkSeed {
        LinkSeed([seed, !seed])
    }
}

impl fmt::Debug for LinkSeed {
    /// Never shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkSeed")
    }
}

/// Random numbers for nonces, session names and tokens: SipHash of a counter under the driver's seed, so that what goes
/// over the air tells nothing about what comes next.
#[derive(Clone, Debug)]
pub(super) struct Nonces {
    seed: LinkSeed,
    count: u64,
}

impl Nonces {
    pub(super) const fn new(seed: LinkSeed) -> Nonces {
        Nonces { seed, count: 0 }
    }

    pub(super) fn next_bytes(&mut self) -> [u8; PROOF_BYTES] {
        self.count += 1;
        let mut hasher = SipHasher24::new_with_keys(self.seed.0[0], self.seed.0[1]);
        hasher.write(&self.count.to_le_bytes());
        hasher.finish128().as_bytes()
    }

    pub(super) fn next_eight(&mut self) -> [u8; 8] {
        let mut eight = [0; 8];
        eight.copy_from_slice(&self.next_bytes()[..8]);
        eight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_proof_is_siphash_as_published() {
        // Source: vectors.h of the reference implementation, SipHash-2-4-128, key 00 to 0f.
        let key: [u8; PROVER_KEY_BYTES] = core::array::from_fn(|i| i as u8);
        let empty =
            [0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93];
        assert_eq!(token_tag(&key, &[]), empty);
    }

    #[test]
    fn every_bit_of_a_seed_counts_and_a_number_gives_the_same_each_time() {
        let first = |seed: LinkSeed| Nonces::new(seed).next_bytes();
        let seed = [7; 16];
        for bit in 0..128 {
            let mut other = seed;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(first(other.into()), first(seed.into()), "bit {bit}");
        }
        assert_eq!(first(5.into()), first(5.into()));
        assert_ne!(first(5.into()), first(6.into()));
    }

    #[test]
    fn a_proof_holds_for_its_transcript_and_key_alone() {
        let prover = ResumeProver::from_token([7; 16]);
        let tag = prover.prove(b"transcript");
        assert!(prover.verify(b"transcript", &tag));
        assert!(!prover.verify(b"transcripT", &tag));
        assert!(!ResumeProver::from_token([8; 16]).verify(b"transcript", &tag));
    }
}
