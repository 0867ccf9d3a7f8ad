//! Who is it, and nobody else reads along: identities, group secrets, pairing, and the encrypted session under a replication.
//!
//! | module | responsible for |
//! |---|---|
//! | [`group`] | the secret that the devices of one owner share, as text and as keys |
//! | [`epoch`] | how that secret is changed on all of them, and by whom |
//! | `handover` | what is said in a session when one side has an earlier secret |
//! | [`pairing`] | two devices come to trust each other by a short code |
//! | [`advert`] | what an advert tells, sealed |
//! | `peer` | [`PeerId`]: the public key by which a device is known |
//! | `identity` | [`Identity`]: the key pair of a database |
//! | `policy` | [`PeerPolicy`]: the question to whoever keeps the trust list, and its answer, a [`Grant`] or a [`Refusal`] |
//! | `offer` | which key do the two share, so that only who has it learns the answer |
//! | `handshake` | Noise XX: who is the peer, and a fresh key |
//! | `record` | encrypted records, new keys, the authenticated end |
//! | `session` | [`SecureSession`]: one connection of either side |
//! | `crypto` | the primitives under these |
//!
//! Sans-IO, and knows nothing of the other layers: it is given bytes, entropy and answers, and gives bytes and events. Moving the
//! bytes is left to [`crate::transport::secure`], keeping them and giving the answers to [`crate::trust`]. What goes over the wire is
//! described in `firmware-notes/secure.md`.

pub mod advert;
mod crypto;
mod derive;
pub mod epoch;
mod error;
pub mod group;
pub(crate) mod handover;
mod handshake;
mod identity;
mod offer;
pub mod pairing;
mod peer;
mod policy;
mod psk;
mod record;
mod session;

pub(crate) use crypto::KEY_BYTES;
pub use error::{RefuseReason, SecureError};
pub use handshake::HANDSHAKE_BYTES_MAX;
pub use identity::Identity;
pub use offer::{FRESH_BYTES, Keyring, OFFERS_MAX, PAIRED_MAX, SECURE_VERSION, fresh_of_carrier};
pub use peer::{PEER_ID_BYTES, PEER_NAME_MAX, PEERS_MAX, PeerId, PeerIdError, is_peer_name};
pub use policy::{Access, Authentication, Grant, GroupOnly, PeerPolicy, Permissions, Refusal};
pub use psk::{PSK_BYTES, Psk};
pub use record::{
    DirectionStats, RECORD_BYTES_MAX, RECORD_DATA_MAX, RECORD_OVERHEAD_BYTES, REKEY_BYTES, REKEY_RECORDS,
    RekeyLimits,
};
pub use session::{Established, HANDSHAKE_TIMEOUT, SecureConfig, SecureEvent, SecureSession};

#[cfg(test)]
mod tests;
