//! Who is it, and nobody else reads along: identities, groups, trust, and the encrypted session under a replication.
//!
//! | module | responsible for |
//! |---|---|
//! | `peer` | [`PeerId`]: the public key by which a device is known |
//! | `policy` | [`PeerPolicy`]: the question to whoever keeps the trust list, and its answer, a [`Grant`] or a [`Refusal`] |
//!
//! Sans-IO, and knows nothing of the other layers: it is given bytes, entropy and answers, and gives bytes and events.
//! Moving the bytes is left to [`crate::transport`].

mod peer;
mod policy;

pub use peer::{PEER_ID_BYTES, PeerId, PeerIdError};
pub use policy::{Access, Authentication, Grant, PSK_BYTES, PeerPolicy, Permissions, Psk, Refusal};
