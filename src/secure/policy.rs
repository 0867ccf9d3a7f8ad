//! The question that a secure session asks about a peer, and the answers.
//!
//! The session proves who the peer is; whether it may come in, and what it may do, is said by a [`PeerPolicy`]. Who keeps
//! the trust list implements it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::epoch::EpochError;
use super::{PeerId, Psk};

/// What a peer has proven beside holding its own identity key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Authentication {
    /// It has the key of our group.
    Group,
    /// It has an earlier key of our group: it is given the newest one, and nothing else before it has stored that.
    FormerGroup,
    /// It is one of [`PeerPolicy::paired`], and knows us as paired too.
    Paired,
    /// Nothing: a stranger. Comes only where strangers are let in, or while pairing.
    Open,
}

/// What a peer may do with the documents of a collection here. Directions are the peer's: it reads by pulling from us or
/// by being pushed to, it writes by pushing to us or by being pulled from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Access {
    /// Nothing; the collection does not exist for the peer.
    #[default]
    None,
    /// Get documents.
    Read,
    /// Give documents.
    Write,
    /// Both.
    ReadWrite,
}

impl Access {
    /// Whether documents may go to the peer.
    pub fn may_read(self) -> bool {
        matches!(self, Access::Read | Access::ReadWrite)
    }

    /// Whether documents of the peer are taken.
    pub fn may_write(self) -> bool {
        matches!(self, Access::Write | Access::ReadWrite)
    }
}

/// What a peer may do, collection by collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// For collections that are not named.
    pub others: Access,
    /// By full name: `scope.name`, or `_default`.
    pub collections: BTreeMap<String, Access>,
}

impl Permissions {
    /// The same for all collections.
    pub fn all(access: Access) -> Permissions {
        Permissions { others: access, collections: BTreeMap::new() }
    }

    /// Whether there is nothing that it may do.
    pub fn is_none(&self) -> bool {
        std::iter::once(&self.others).chain(self.collections.values()).all(|access| *access == Access::None)
    }

    /// For one collection, by its full name.
    pub fn of(&self, collection: &str) -> Access {
        self.collections.get(collection).copied().unwrap_or(self.others)
    }
}

/// A peer may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The name by which this database knows the peer, if it has one.
    pub name: Option<String>,
    /// What it may do.
    pub permissions: Permissions,
}

impl Grant {
    /// Everything, under a name.
    pub fn full(name: Option<String>) -> Grant {
        Grant { name, permissions: Permissions::all(Access::ReadWrite) }
    }
}

/// Why a peer may not come in, as the peer is told. It tells nothing about the database, nor about other peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The peer was denied by name.
    Denied,
    /// The peer is known neither by group nor by pairing.
    Stranger,
    /// The peer has a former secret of the group, and is not among those who get the new one.
    FormerMember,
    /// The peer is known, and may neither get nor give documents of any collection.
    NoRole,
    /// Nobody can be let in at this time, see [`PeerPolicy::failure`]; it may be mended.
    NotNow,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Denied => "it is denied",
            Refusal::Stranger => "it is neither in the group nor paired",
            Refusal::FormerMember => {
                "it has a former secret of the group, and the new one is not for it (`gattway group rotate --help`)"
            }
            Refusal::NotNow => "who may come in cannot be told at this time",
            Refusal::NoRole => "its role is `none` for every collection",
        })
    }
}

/// Decides who may come in; asked again whenever its answers may have changed.
///
/// Called from tasks of connections: must not block.
pub trait PeerPolicy: Send + Sync {
    /// The pre-shared key of the group that this database belongs to, if it does.
    fn group_psk(&self) -> Option<Psk>;

    /// Earlier keys of the group, newest first: who has one of them and may have the newest is given that.
    fn former_psks(&self) -> Vec<Psk> {
        Vec::new()
    }

    /// The group's key, and the word of its authority that it is given to this peer with, if it may have it.
    fn epoch(&self, _: &PeerId) -> Option<(Psk, Zeroizing<Vec<u8>>)> {
        None
    }

    /// Takes what a member of the group says that the authority has said, and keeps it durably. May block.
    ///
    /// # Errors
    /// It is not the word of this group's authority, not newer than what this side has, or cannot be stored.
    fn take_epoch(&self, _from: &PeerId, _signed: &[u8]) -> Result<(), EpochError> {
        Err(EpochError::NoGroup)
    }

    /// This peer has shown that it has this key of the group.
    fn has_key(&self, _: &PeerId, _: &Psk) {}

    /// Peers that were paired and are not denied; most wanted first, because only a few are tried at each handshake.
    fn paired(&self) -> Vec<PeerId>;

    /// Why nobody can be let in at this time, where that is to be mended and not what the owner wants.
    fn failure(&self) -> Option<String> {
        None
    }

    /// Whether peers that prove nothing but their own key are let in at all.
    fn admits_strangers(&self) -> bool {
        false
    }

    /// Whether this peer may come in, by what it has proven. The last word: also members of the group can be refused.
    ///
    /// # Errors
    /// It may not.
    fn admit(&self, peer: &PeerId, via: Authentication) -> Result<Grant, Refusal>;

    /// What this side calls itself to peers that have a key it knows. At most [`PEER_NAME_MAX`](super::PEER_NAME_MAX)
    /// bytes.
    fn own_name(&self) -> Option<String> {
        None
    }

    /// What a peer that has proven itself calls itself: any text that [may be a name](super::is_peer_name).
    fn told_name(&self, _: &PeerId, _: &str) {}

    /// A session with this peer begins.
    fn came(&self, _: &PeerId, _: Authentication) {}

    /// It has ended.
    fn left(&self, _: &PeerId, _: Authentication) {}

    /// Changes whenever an answer may have changed. An open connection whose answer differs then is closed.
    fn watch(&self) -> watch::Receiver<u64>;
}

/// The policy of a device that knows its group's key and nothing else: every member may do everything.
#[derive(Clone, Debug)]
pub struct GroupOnly(pub Psk);

impl PeerPolicy for GroupOnly {
    fn group_psk(&self) -> Option<Psk> {
        Some(self.0.clone())
    }

    fn paired(&self) -> Vec<PeerId> {
        Vec::new()
    }

    fn admit(&self, _: &PeerId, via: Authentication) -> Result<Grant, Refusal> {
        if via == Authentication::Group { Ok(Grant::full(None)) } else { Err(Refusal::Stranger) }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        // Its answers never change.
        watch::Sender::new(0).subscribe()
    }
}
