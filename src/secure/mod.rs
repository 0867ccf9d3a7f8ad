//! Who is it, and nobody else reads along: identities, groups, trust, and the encrypted session under a replication.
//!
//! | module | responsible for |
//! |---|---|
//! | [`group`] | the secret that the devices of one owner share, as text and as keys |
//! | [`epoch`] | how that secret is changed on all of them, and by whom |
//! | `handover` | what is said in a session when one side has an earlier secret |
//! | [`list`], [`trust`] | the trust list, and the answers that it and the group give to sessions |
//! | [`pairing`] | two devices come to trust each other by a short code |
//! | [`advert`] | what an advert tells, sealed |
//! | [`files`] | files that are the owner's alone |
//! | [`presence`] | which of these files a database has had, so that a loss is noticed |
//! | `peer` | [`PeerId`]: the public key by which a device is known |
//! | `identity` | [`Identity`]: the key pair of a database, and its file |
//! | `policy` | [`PeerPolicy`]: the question to whoever keeps the trust list, and its answer, a [`Grant`] or a [`Refusal`] |
//! | `offer` | which key do the two share, so that only who has it learns the answer |
//! | `handshake` | Noise XX: who is the peer, and a fresh key |
//! | `record` | encrypted records, new keys, the authenticated end |
//! | `session` | [`SecureSession`]: one connection of either side |
//! | `crypto` | the primitives under these |
//!
//! Sans-IO but for the files in the database's directory, and knows nothing of the other layers: it is given bytes, entropy and answers, and
//! gives bytes and events. Moving the bytes is left to [`crate::transport::secure`]. What goes over the wire is described in
//! `firmware-notes/secure.md`.

pub mod advert;
mod crypto;
mod derive;
pub mod epoch;
mod error;
#[allow(clippy::disallowed_methods)] // waits for another process's lock
pub mod files;
pub mod group;
pub(crate) mod handover;
mod handshake;
pub(crate) mod identity;
#[allow(clippy::disallowed_methods)] // file and lock
pub mod list;
mod offer;
pub mod pairing;
mod peer;
mod policy;
#[allow(clippy::disallowed_methods)] // looks at files
pub mod presence;
mod record;
mod session;
#[allow(clippy::disallowed_methods)] // looks at files, notes times
pub mod trust;

pub use error::{RefuseReason, SecureError};
pub use handshake::{HANDSHAKE_BYTES_MAX, SECURE_VERSION};
pub use identity::{IDENTITY_FILE, Identity, IdentityError};
pub use offer::{FRESH_BYTES, Keyring, OFFERS_MAX, PAIRED_MAX, fresh_of_carrier};
pub use peer::{PEER_ID_BYTES, PeerId, PeerIdError};
pub use policy::{
    Access, Authentication, Grant, GroupOnly, PSK_BYTES, PeerPolicy, Permissions, Psk, Refusal,
};
pub use record::{
    DirectionStats, RECORD_BYTES_MAX, RECORD_DATA_MAX, RECORD_OVERHEAD_BYTES, REKEY_BYTES, REKEY_RECORDS,
    RekeyLimits,
};
pub use session::{Established, HANDSHAKE_TIMEOUT, SecureConfig, SecureEvent, SecureSession};

#[cfg(test)]
mod tests;
