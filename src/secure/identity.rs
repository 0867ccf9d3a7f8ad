//! The key pair of a database. Its file is kept by [`crate::trust`].

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::advert::AdvertKey;
use super::crypto::{KEY_BYTES, diffie_hellman, mac, public_key};
use super::derive::derive;
use super::{PeerId, Psk};

/// The key pair by which a database is known: its static Noise key. Wiped when dropped, never shown.
#[derive(ZeroizeOnDrop)]
pub struct Identity {
    private: [u8; KEY_BYTES],
    #[zeroize(skip)]
    id: PeerId,
}

impl Identity {
    /// The identity with this private key.
    pub fn from_private(private: [u8; KEY_BYTES]) -> Identity {
        Identity { private, id: PeerId(public_key(&private)) }
    }

    /// The public half.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// The private half.
    pub(crate) fn private(&self) -> &[u8; KEY_BYTES] {
        &self.private
    }

    /// The key that only this side and that peer can compute: what two paired peers prove before either shows who it is.
    ///
    /// `None` for a key that is no usable public key.
    pub fn pair_psk(&self, peer: &PeerId) -> Option<Psk> {
        let mut shared = diffie_hellman(&self.private, peer.as_bytes())?;
        let (low, high) = if self.id < *peer { (&self.id, peer) } else { (peer, &self.id) };
        let psk = Psk(mac(&shared, &[b"gattway pair", low.as_bytes(), high.as_bytes()]));
        shared.zeroize();
        Some(psk)
    }

    /// The key of the device's own adverts, which its paired peers are given.
    pub fn advert_key(&self) -> AdvertKey {
        AdvertKey::from_bytes(derive(&self.private, "gattway device advert", &[]))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_agrees_and_nobody_else() {
        let [a, b, c] = [1, 2, 3].map(|n| Identity::from_private([n; KEY_BYTES]));
        assert_eq!(a.pair_psk(&b.id()), b.pair_psk(&a.id()));
        assert_ne!(a.pair_psk(&b.id()), a.pair_psk(&c.id()));
        assert_eq!(a.pair_psk(&PeerId([0; KEY_BYTES])), None);
        // The lower ID is first. Other releases have to find the same.
        let (low, high) = if a.id() < b.id() { (&a, &b) } else { (&b, &a) };
        let shared = diffie_hellman(&low.private, high.id().as_bytes()).expect("a key");
        let named = [b"gattway pair".as_slice(), low.id().as_bytes(), high.id().as_bytes()].concat();
        assert_eq!(a.pair_psk(&b.id()), Some(Psk(mac(&shared, &[&named]))));
        assert!(!format!("{a:?} {:?}", a.pair_psk(&b.id())).contains("01"));
    }
}
