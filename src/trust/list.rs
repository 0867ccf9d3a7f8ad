//! The trust list: which peers this database knows, how they came, and what each may do. The data and its file; the
//! answers to a running session are given by [`Trust`](super::Trust).
//!
//! Source: `firmware-notes/trust.md`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use super::entry::{Origin, TrustedPeer};
use super::files::{self, FileLock, FileStamp, PrivateFileError};
pub(crate) use super::presence::LIST_FILE as FILE;
use super::presence::{self, SecurityFile};
use crate::secure::epoch::Roster;
use crate::secure::{Access, PeerId, Permissions, is_peer_name};
pub use crate::secure::{PEER_NAME_MAX, PEERS_MAX};

/// Collections for which one peer may have a role of their own.
pub const PEER_COLLECTIONS_MAX: usize = 64;

/// Locked while a process changes the list, or the group.
pub(super) const LOCK_FILE: &str = "trust.lock";

/// Why a list could not be read, changed or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Its file.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// Too many peers.
    #[error("the list has {PEERS_MAX} peers, which is the limit")]
    Full,
    /// A name that cannot be one.
    #[error("a peer's name has 1 to {PEER_NAME_MAX} bytes and no control characters")]
    Name,
    /// A name that another peer has.
    #[error("another peer is named {name:?}")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// Too many collections with a role of their own.
    #[error("a peer has a role of its own for {PEER_COLLECTIONS_MAX} collections at most")]
    TooManyCollections,
    /// It is kept out, and this was not meant to let it in.
    #[error("{text} is denied")]
    Denied {
        /// Who.
        text: String,
    },
    /// No such peer.
    #[error("no peer {text:?} in the list")]
    Unknown {
        /// What was looked for.
        text: String,
    },
    /// Several peers fit.
    #[error("{text:?} fits {count} peers")]
    Ambiguous {
        /// What was looked for.
        text: String,
        /// How many.
        count: usize,
    },
}

/// The list of one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustList {
    /// What peers may do that nothing else is said about.
    pub default: Permissions,
    peers: BTreeMap<PeerId, TrustedPeer>,
    /// What peers of the list call themselves.
    told: BTreeMap<PeerId, String>,
    /// The epoch of the group whose secret a peer of the list was last seen to have.
    epochs: BTreeMap<PeerId, u32>,
}

impl Default for TrustList {
    /// Nobody is known; who comes to be known may read and write everything.
    fn default() -> TrustList {
        let default = Permissions::all(Access::ReadWrite);
        TrustList { default, peers: BTreeMap::new(), told: BTreeMap::new(), epochs: BTreeMap::new() }
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    default: Permissions,
    peers: Vec<(PeerId, TrustedPeer)>,
}

/// What stands behind [`Stored`] since peers say what they call themselves; a release that does not know it passes over it.
type StoredTold = Vec<(PeerId, String)>;

/// What stands behind that since groups have epochs, likewise.
type StoredEpochs = Vec<(PeerId, u32)>;

impl TrustList {
    /// The list of the database in `directory`; an empty one if it has had none yet.
    ///
    /// # Errors
    /// [`TrustError::File`].
    pub fn load(directory: &Path) -> Result<TrustList, TrustError> {
        let Some((_, content)) = FILE.read(directory)? else {
            presence::check_absent(directory, SecurityFile::Trust)?;
            return Ok(TrustList::default());
        };
        let damaged = |detail| PrivateFileError::Damaged { path: FILE.path(directory), detail };
        Ok(TrustList::from_content(&content).map_err(damaged)?)
    }

    /// Reads the content of its file; the error says what is wrong with it.
    pub(crate) fn from_content(content: &[u8]) -> Result<TrustList, &'static str> {
        let (stored, rest) =
            postcard::take_from_bytes::<Stored>(content).map_err(|_| "its content is not a trust list")?;
        let (told, rest): (StoredTold, _) = match rest {
            [] => (Vec::new(), rest),
            rest => postcard::take_from_bytes(rest).map_err(|_| "the names in it are damaged")?,
        };
        let epochs: StoredEpochs = match rest {
            [] => Vec::new(),
            rest => postcard::from_bytes(rest).map_err(|_| "the epochs in it are damaged")?,
        };
        if stored.peers.len() > PEERS_MAX {
            return Err("too many peers");
        }
        let mut list = TrustList {
            default: stored.default,
            peers: stored.peers.into_iter().collect(),
            told: BTreeMap::new(),
            epochs: BTreeMap::new(),
        };
        for (id, epoch) in epochs {
            list.note_epoch(&id, epoch);
        }
        told.into_iter().for_each(|(id, name)| list.note_told_name(&id, &name));
        Ok(list)
    }

    /// The content of its file.
    pub(crate) fn content(&self) -> Zeroizing<Vec<u8>> {
        let peers = self.peers.iter().map(|(id, peer)| (*id, peer.clone())).collect();
        let stored = Stored { default: self.default.clone(), peers };
        let told: StoredTold = self.told.iter().map(|(id, name)| (*id, name.clone())).collect();
        let epochs: StoredEpochs = self.epochs.iter().map(|(id, epoch)| (*id, *epoch)).collect();
        let written = postcard::to_stdvec(&stored)
            .and_then(|content| postcard::to_extend(&told, content))
            .and_then(|content| postcard::to_extend(&epochs, content));
        written.map(Zeroizing::new).unwrap_or_default()
    }

    fn store(&self, directory: &Path) -> Result<(), TrustError> {
        let content = self.content();
        if content.is_empty() || content.len() > FILE.content_max {
            return Err(TrustError::Full);
        }
        FILE.write(directory, &content)?;
        Ok(presence::enter(directory, SecurityFile::Trust)?)
    }

    /// Begins a new list in the place of one that is lost or damaged: nobody is known, and whoever comes to be known has the
    /// role `default`.
    ///
    /// # Errors
    /// [`TrustError::File`].
    pub fn reset(directory: &Path, default: Access) -> Result<(), TrustError> {
        let _lock: FileLock = files::lock(directory, LOCK_FILE)?;
        TrustList { default: Permissions::all(default), ..TrustList::default() }.store(directory)
    }

    /// Changes the list of the database in `directory`, durably; other processes wait meanwhile. Nothing is written if
    /// nothing has changed.
    ///
    /// # Errors
    /// What `change` returns, or [`TrustError`]; the list is as it was then.
    pub fn update<T>(
        directory: &Path,
        change: impl FnOnce(&mut TrustList) -> Result<T, TrustError>,
    ) -> Result<T, TrustError> {
        let _lock: FileLock = files::lock(directory, LOCK_FILE)?;
        let before = TrustList::load(directory)?;
        let mut list = before.clone();
        let value = change(&mut list)?;
        if list != before {
            list.store(directory)?;
        }
        Ok(value)
    }

    /// Something that changes whenever the list of `directory` does.
    pub fn stamp(directory: &Path) -> Option<FileStamp> {
        FILE.stamp(directory)
    }

    /// The peers, by ID.
    pub fn peers(&self) -> impl Iterator<Item = (&PeerId, &TrustedPeer)> {
        self.peers.iter()
    }

    /// One peer.
    pub fn get(&self, id: &PeerId) -> Option<&TrustedPeer> {
        self.peers.get(id)
    }

    /// One peer, to be changed.
    pub fn get_mut(&mut self, id: &PeerId) -> Option<&mut TrustedPeer> {
        self.peers.get_mut(id)
    }

    /// What a peer may do, whether it is in the list or not.
    pub fn permissions(&self, id: &PeerId) -> &Permissions {
        self.peers.get(id).and_then(|peer| peer.permissions.as_ref()).unwrap_or(&self.default)
    }

    /// Whether another peer can be entered.
    pub fn has_room(&self) -> bool {
        self.peers.len() < PEERS_MAX || self.peers.values().any(TrustedPeer::is_replaceable)
    }

    /// The peer of this ID, entered if it is not there. A full list forgets the member of the group that was seen longest ago
    /// and has no settings of its own; what the owner has said is never forgotten.
    ///
    /// # Errors
    /// [`TrustError::Full`].
    pub fn enter(&mut self, id: PeerId, origin: Origin) -> Result<&mut TrustedPeer, TrustError> {
        if !self.peers.contains_key(&id) && self.peers.len() >= PEERS_MAX {
            let replaceable = self.peers.iter().filter(|(_, peer)| peer.is_replaceable());
            let oldest = replaceable.min_by_key(|(_, peer)| peer.last_seen_s).map(|(id, _)| *id);
            self.forget(&oldest.ok_or(TrustError::Full)?);
        }
        Ok(self.peers.entry(id).or_insert_with(|| TrustedPeer::new(origin)))
    }

    /// Takes a peer off the list; whether it was there.
    pub fn forget(&mut self, id: &PeerId) -> bool {
        self.told.remove(id);
        self.epochs.remove(id);
        self.peers.remove(id).is_some()
    }

    /// What a peer calls itself, which others may do too.
    pub fn told_name(&self, id: &PeerId) -> Option<&str> {
        self.told.get(id).map(String::as_str)
    }

    /// Notes what a peer of the list calls itself; what cannot be a name is left out.
    pub fn note_told_name(&mut self, id: &PeerId, name: &str) {
        if check_name(name).is_ok() && self.peers.contains_key(id) {
            self.told.insert(*id, name.to_owned());
        }
    }

    /// The epoch of the group whose secret a peer was last seen to have.
    pub fn epoch(&self, id: &PeerId) -> Option<u32> {
        self.epochs.get(id).copied()
    }

    /// Notes it, of a peer of the list; whether it is news.
    pub fn note_epoch(&mut self, id: &PeerId, epoch: u32) -> bool {
        self.peers.contains_key(id) && self.epochs.insert(*id, epoch) != Some(epoch)
    }

    /// Keeps out whom the authority of the group keeps out; what else was said of them stays. How many of them the list has
    /// no room for.
    pub fn deny_all(&mut self, denied: &[PeerId]) -> usize {
        let mut left_out = 0;
        for id in denied {
            match self.enter(*id, Origin::Group) {
                Ok(peer) => peer.denied = true,
                Err(_) => left_out += 1,
            }
        }
        left_out
    }

    /// Whom a new secret of the group is for by this list: all peers in it but those who are denied, and `me`.
    pub fn roster(&self, me: PeerId) -> Roster {
        let (denied, members): (Vec<_>, Vec<_>) = self.peers.iter().partition(|(_, peer)| peer.denied);
        let ids =
            |peers: Vec<(&PeerId, &TrustedPeer)>| peers.into_iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let members = std::iter::once(me).chain(ids(members)).collect();
        Roster { members, denied: ids(denied) }
    }

    /// Names a peer of the list.
    ///
    /// # Errors
    /// [`TrustError::Name`], [`TrustError::NameTaken`], [`TrustError::Unknown`].
    pub fn rename(&mut self, id: &PeerId, name: &str) -> Result<(), TrustError> {
        check_name(name)?;
        if self.peers.iter().any(|(other, peer)| other != id && peer.name.as_deref() == Some(name)) {
            return Err(TrustError::NameTaken { name: name.into() });
        }
        let peer = self.peers.get_mut(id).ok_or_else(|| TrustError::Unknown { text: id.short() })?;
        peer.name = Some(name.to_owned());
        Ok(())
    }

    /// Names a peer of the list as it names itself, with a number behind it if another has that name. A name that cannot
    /// be one is left out.
    pub fn suggest_name(&mut self, id: &PeerId, name: &str) {
        if check_name(name).is_err() || self.rename(id, name).is_ok() {
            return;
        }
        for number in 2..=PEERS_MAX {
            if !matches!(self.rename(id, &format!("{name}-{number}")), Err(TrustError::NameTaken { .. })) {
                return;
            }
        }
    }

    /// The peer that a person means: by its name, its whole ID, the beginning of its ID (four signs or more), or what it calls
    /// itself if it alone does. What a peer says of itself never comes before another's name or ID.
    ///
    /// # Errors
    /// [`TrustError::Unknown`], [`TrustError::Ambiguous`].
    pub fn find(&self, text: &str) -> Result<PeerId, TrustError> {
        if let Some((id, _)) = self.peers.iter().find(|(_, peer)| peer.name.as_deref() == Some(text)) {
            return Ok(*id);
        }
        let start: String = text.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
        let unknown = || TrustError::Unknown { text: text.into() };
        let is_long = start.len() >= ID_START_MIN;
        let mut found: Vec<&PeerId> =
            self.peers.keys().filter(|id| is_long && id.to_text().starts_with(&start)).collect();
        if found.is_empty() {
            found = self.told.iter().filter(|(_, told)| *told == text).map(|(id, _)| id).collect();
        }
        match found[..] {
            [] => Err(unknown()),
            [id] => Ok(*id),
            _ => Err(TrustError::Ambiguous { text: text.into(), count: found.len() }),
        }
    }
}

/// Signs of an ID that a person must type at least.
const ID_START_MIN: usize = 4;

/// Checks a name of a peer.
///
/// # Errors
/// [`TrustError::Name`].
pub fn check_name(name: &str) -> Result<(), TrustError> {
    if is_peer_name(name) { Ok(()) } else { Err(TrustError::Name) }
}

#[cfg(test)]
mod tests;
