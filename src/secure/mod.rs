//! Who is it, and nobody else reads along: identities, groups, trust, and the encrypted session under a replication.
//!
//! | module | responsible for |
//! |---|---|
//! | `peer` | [`PeerId`]: the public key by which a device is known |
//! | `identity` | [`Identity`]: the key pair of a database, and its file |
//! | `policy` | [`PeerPolicy`]: the question to whoever keeps the trust list, and its answer, a [`Grant`] or a [`Refusal`] |
//! | `handshake` | Noise XX: who is the peer, and a fresh key |
//! | `record` | encrypted records, new keys, the authenticated end |
//! | `session` | [`SecureSession`]: one connection of either side |
//! | `crypto` | the primitives under these |
//!
//! Sans-IO but for the identity's file, and knows nothing of the other layers: it is given bytes, entropy and answers, and
//! gives bytes and events. Moving the bytes is left to [`crate::transport::secure`]. What goes over the wire is described in
//! `firmware-notes/secure.md`.

mod crypto;
mod error;
mod handshake;
mod identity;
mod peer;
mod policy;
mod record;
mod session;

pub use error::{RefuseReason, SecureError};
pub use handshake::{HANDSHAKE_BYTES_MAX, Keyring, OFFERS_MAX, PAIRED_MAX, SECURE_VERSION};
pub use identity::{IDENTITY_FILE, Identity, IdentityError};
pub use peer::{PEER_ID_BYTES, PeerId, PeerIdError};
pub use policy::{Access, Authentication, Grant, PSK_BYTES, PeerPolicy, Permissions, Psk, Refusal};
pub use record::{
    DirectionStats, RECORD_BYTES_MAX, RECORD_DATA_MAX, RECORD_OVERHEAD_BYTES, REKEY_BYTES, REKEY_RECORDS,
    RekeyLimits,
};
pub use session::{Established, HANDSHAKE_TIMEOUT, SecureConfig, SecureEvent, SecureSession};

#[cfg(test)]
mod tests;
