//! What the trust list says of one peer.

use serde::{Deserialize, Serialize};

use crate::secure::Permissions;
use crate::secure::advert::AdvertKey;

/// How a peer came into the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// By a pairing code. Let in by its identity.
    Paired,
    /// It proved to be a member of the group. Let in only as long as it does.
    Group,
    /// Its ID was given to a command. Let in by its identity.
    Manual,
}

/// What is known of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedPeer {
    /// Its name on this device, unique in the list.
    pub name: Option<String>,
    /// How it came.
    pub origin: Origin,
    /// Whether it is kept out, whatever it proves.
    pub denied: bool,
    /// What it may do; `None`: what all have that nothing else is said about.
    pub permissions: Option<Permissions>,
    /// When it first came, in seconds since 1970 by this device's clock; 0: never.
    pub first_seen_s: u64,
    /// When it last came, to the hour.
    pub last_seen_s: u64,
    /// The key of its own adverts, if it gave it.
    pub advert_key: Option<AdvertKey>,
}

impl TrustedPeer {
    /// A peer that has not been seen and that nothing is said about.
    pub fn new(origin: Origin) -> TrustedPeer {
        TrustedPeer {
            name: None,
            origin,
            denied: false,
            permissions: None,
            first_seen_s: 0,
            last_seen_s: 0,
            advert_key: None,
        }
    }

    /// Whether it is let in by its identity alone.
    pub fn is_known_by_identity(&self) -> bool {
        !self.denied && self.origin != Origin::Group
    }

    /// Whether forgetting it would lose nothing that the owner has said.
    pub(super) fn is_replaceable(&self) -> bool {
        self.origin == Origin::Group && !self.denied && self.permissions.is_none() && self.name.is_none()
    }
}
