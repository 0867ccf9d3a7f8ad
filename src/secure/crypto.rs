//! The primitives under Noise: X25519 with a key that is known already, wiped ciphers, repeatable randomness, a MAC.

use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput, KeyInit, Update};
use curve25519_dalek::MontgomeryPoint;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::Zeroize;

/// Bytes of keys, seeds and tags.
pub(crate) const KEY_BYTES: usize = 32;

#[cfg(test)]
thread_local! {
    static WORK: std::cell::Cell<[usize; 2]> = const { std::cell::Cell::new([0; 2]) };
}

/// MACs, and multiplications on the curve, of this thread so far: what a peer could measure as time.
#[cfg(test)]
pub(super) fn work() -> [usize; 2] {
    WORK.get()
}

#[cfg(test)]
fn count(kind: usize) {
    let mut work = WORK.get();
    work[kind] += 1;
    WORK.set(work);
}

/// BLAKE2s with a key of 32 bytes, over the parts one after the other.
pub(super) fn mac(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> [u8; KEY_BYTES] {
    #[cfg(test)]
    count(0);
    let mut mac = Blake2sMac256::new(key.into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize_fixed().into()
}

/// The tag of a resume proof: the first half of the keyed BLAKE2s of the transcript.
pub(super) fn resume_tag(key: &[u8; KEY_BYTES], transcript: &[u8]) -> [u8; 16] {
    let full = mac(key, &[b"gattway resume proof", transcript]);
    let mut tag = [0; 16];
    tag.copy_from_slice(&full[..16]);
    tag
}

/// The public key of a private one.
pub(super) fn public_key(private: &[u8; KEY_BYTES]) -> [u8; KEY_BYTES] {
    #[cfg(test)]
    count(1);
    MontgomeryPoint::mul_base_clamped(*private).to_bytes()
}

/// X25519; `None` if the result is zero, which only a public key made for that brings about.
pub(super) fn diffie_hellman(private: &[u8; KEY_BYTES], public: &[u8; KEY_BYTES]) -> Option<[u8; KEY_BYTES]> {
    #[cfg(test)]
    count(1);
    let shared = MontgomeryPoint(*public).mul_clamped(*private).to_bytes();
    (shared.iter().fold(0, |all, byte| all | byte) != 0).then_some(shared)
}

/// Random bytes from a seed: BLAKE2s of a counter. A seed is used for one session only.
pub(super) struct Seeded {
    seed: [u8; KEY_BYTES],
    count: u64,
}

impl Seeded {
    pub(super) fn new(seed: [u8; KEY_BYTES]) -> Seeded {
        Seeded { seed, count: 0 }
    }

    pub(super) fn next(&mut self) -> [u8; KEY_BYTES] {
        self.count += 1;
        mac(&self.seed, &[b"gattway random", &self.count.to_le_bytes()])
    }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

impl Random for Seeded {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        for chunk in dest.chunks_mut(KEY_BYTES) {
            let mut block = self.next();
            chunk.copy_from_slice(&block[..chunk.len()]);
            block.zeroize();
        }
        Ok(())
    }
}

/// A key pair, its public half computed once.
#[derive(Clone)]
struct KeyPair {
    private: [u8; KEY_BYTES],
    public: [u8; KEY_BYTES],
}

impl Drop for KeyPair {
    fn drop(&mut self) {
        self.private.zeroize();
    }
}

/// What is random of a handshake: the seed of its generator, and the ephemeral key pair that comes of it. The offers of one
/// OFFER have it in common, so the multiplication is done once for all of them.
pub(super) struct Ephemeral {
    seed: [u8; KEY_BYTES],
    pair: KeyPair,
}

impl Ephemeral {
    pub(super) fn new(seed: [u8; KEY_BYTES]) -> Ephemeral {
        // The first that snow draws.
        let private = Seeded::new(seed).next();
        Ephemeral { seed, pair: KeyPair { private, public: public_key(&private) } }
    }
}

impl Drop for Ephemeral {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

/// Gives snow what it needs for one handshake.
pub(super) struct Resolver {
    /// Of the random generator.
    seed: [u8; KEY_BYTES],
    /// The static and the ephemeral key pair.
    known: [KeyPair; 2],
}

impl Resolver {
    pub(super) fn new(
        ephemeral: &Ephemeral,
        private: &[u8; KEY_BYTES],
        public: &[u8; KEY_BYTES],
    ) -> Resolver {
        let identity = KeyPair { private: *private, public: *public };
        Resolver { seed: ephemeral.seed, known: [identity, ephemeral.pair.clone()] }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Seeded::new(self.seed)))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let none = KeyPair { private: [0; KEY_BYTES], public: [0; KEY_BYTES] };
        (*choice == DHChoice::Curve25519)
            .then(|| Box::new(X25519 { pair: none, known: self.known.clone() }) as _)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice).map(|cipher| Box::new(Wiped(cipher)) as _)
    }
}

/// X25519 for snow; wiped when dropped.
struct X25519 {
    pair: KeyPair,
    known: [KeyPair; 2],
}

impl X25519 {
    /// Computes the public half, unless it is known.
    fn complete(&mut self) {
        let private = &self.pair.private;
        let known = self.known.iter().find(|known| known.private == *private);
        self.pair.public = known.map_or_else(|| public_key(private), |known| known.public);
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_BYTES
    }

    fn priv_len(&self) -> usize {
        KEY_BYTES
    }

    fn set(&mut self, private: &[u8]) {
        self.pair.private.copy_from_slice(private);
        self.complete();
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        random.try_fill_bytes(&mut self.pair.private)?;
        self.complete();
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.pair.public
    }

    fn privkey(&self) -> &[u8] {
        &self.pair.private
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let public = public.first_chunk().ok_or(snow::Error::Dh)?;
        let mut shared = diffie_hellman(&self.pair.private, public).ok_or(snow::Error::Dh)?;
        out[..KEY_BYTES].copy_from_slice(&shared);
        shared.zeroize();
        Ok(())
    }
}

/// A cipher whose key does not stay in memory.
struct Wiped(Box<dyn Cipher>);

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.set(&[0; KEY_BYTES]);
    }
}

impl Cipher for Wiped {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn set(&mut self, key: &[u8; KEY_BYTES]) {
        self.0.set(key);
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        self.0.encrypt(nonce, authtext, plaintext, out)
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        self.0.decrypt(nonce, authtext, ciphertext, out)
    }

    fn rekey(&mut self) {
        self.0.rekey();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> [u8; 32] {
        std::array::from_fn(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).expect("hex"))
    }

    #[test]
    fn x25519_is_as_published() {
        // Source: RFC 7748, section 6.1.
        let bob = bytes("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let bob_public = bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let alice_public = bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        let shared = bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(public_key(&bob), bob_public);
        assert_eq!(diffie_hellman(&bob, &alice_public), Some(shared));
    }

    /// Computed with Python's `hashlib.blake2s`.
    #[test]
    fn the_tag_of_a_resume_is_keyed_blake2s() {
        let tag = resume_tag(&[3; 32], b"transcript");
        assert_eq!(tag, bytes("c620aa5ce0b94333f71ddf7f9d760fc900000000000000000000000000000000")[..16]);
    }

    #[test]
    fn a_key_that_gives_zero_is_refused() {
        assert_eq!(diffie_hellman(&[7; 32], &[0; 32]), None);
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(diffie_hellman(&[7; 32], &one), None);
    }
}
