//! A group as a device keeps it: its secret, its name here, and what is known of its epochs.
//!
//! ```text
//! file     GWgr | 3 | name, secret | what follows is not in files of versions 1 and 2, which are of epoch 0
//!          authority that was named here, private key of the authority, last signed epoch, when it was taken
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::files::{self, FileLock, FileStamp, PrivateFileError};
use super::list::LOCK_FILE;
pub(crate) use super::presence::GROUP_FILE as FILE;
pub use super::presence::GROUP_NAME_MAX;
use super::presence::{self, SecurityFile};
use crate::secure::epoch::{
    AuthorityId, AuthorityKey, EpochError, Former, Material, Roster, SignedEpoch, bound_secret,
};
use crate::secure::group::{GROUP_SECRET_BYTES, GroupKey, GroupSecret};
use crate::secure::{PeerId, Psk};

/// Why a group could not be loaded, made or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// Its file.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// Its name.
    #[error("a group's name has 1 to {GROUP_NAME_MAX} bytes and no control characters")]
    Name,
    /// Its epoch.
    #[error(transparent)]
    Epoch(#[from] EpochError),
}

/// A group as a device keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    name: String,
    secret: GroupSecret,
    /// Who may change the secret, if that was said here by hand or the key is here.
    named: Option<AuthorityId>,
    /// The authority's private key, where it is kept.
    key: Option<AuthorityKey>,
    /// What the authority has said last.
    signed: Option<SignedEpoch>,
    /// When this device took it, in seconds since 1970 by its clock; 0: not known.
    taken_s: u64,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Stored {
    name: String,
    secret: [u8; GROUP_SECRET_BYTES],
}

/// What stands behind [`Stored`] since groups have epochs.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct StoredEpochs {
    #[zeroize(skip)]
    named: Option<AuthorityId>,
    key: Option<[u8; 32]>,
    signed: Vec<u8>,
    taken_s: u64,
}

impl Group {
    /// A group whose secret was given by its code; without a name it is named by its fingerprint.
    ///
    /// # Errors
    /// [`GroupError::Name`].
    pub fn new(name: Option<&str>, secret: GroupSecret) -> Result<Group, GroupError> {
        let name = name.map_or_else(|| secret.key().fingerprint_text(), str::to_owned);
        let is_good = (1..=GROUP_NAME_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
        let group = Group { name, secret, named: None, key: None, signed: None, taken_s: 0 };
        if is_good { Ok(group) } else { Err(GroupError::Name) }
    }

    /// A new group, whose authority is this device, `me`. `key` and `salt` must be random.
    ///
    /// # Errors
    /// [`GroupError::Name`].
    pub fn found(
        name: Option<&str>,
        key: AuthorityKey,
        salt: [u8; 16],
        me: PeerId,
        now_s: u64,
    ) -> Result<Group, GroupError> {
        let group = Group::new(name, bound_secret(&salt, &key.id(), 0))?;
        let roster = Roster { members: vec![me], denied: Vec::new() };
        let signed = SignedEpoch::make(&key, 0, salt, Vec::new(), &roster, now_s)?;
        Ok(Group { named: Some(key.id()), key: Some(key), signed: Some(signed), ..group })
    }

    /// The group of the database in `directory`, if it has one.
    ///
    /// # Errors
    /// [`GroupError`]: the file is damaged, not private, or gone although it was there.
    pub fn load(directory: &Path) -> Result<Option<Group>, GroupError> {
        let Some((_, content)) = FILE.read(directory)? else {
            presence::check_absent(directory, SecurityFile::Group)?;
            return Ok(None);
        };
        let detail = "its content is not a group";
        let damaged = || PrivateFileError::Damaged { path: FILE.path(directory), detail };
        Group::from_content(&content).ok_or_else(damaged)?.map(Some)
    }

    /// Reads the content of its file; `None` if it is not that of a group.
    pub(crate) fn from_content(content: &[u8]) -> Option<Result<Group, GroupError>> {
        let (stored, rest) = postcard::take_from_bytes::<Stored>(content).ok()?;
        let group = Group::new(Some(&stored.name), GroupSecret::from_bytes(stored.secret));
        if rest.is_empty() {
            return Some(group);
        }
        let epochs: StoredEpochs = postcard::from_bytes(rest).ok()?;
        let signed = match &epochs.signed[..] {
            [] => None,
            bytes => Some(SignedEpoch::parse(bytes).ok()?),
        };
        let key = epochs.key.map(AuthorityKey::from_bytes);
        Some(group.map(|group| Group { named: epochs.named, key, signed, taken_s: epochs.taken_s, ..group }))
    }

    /// Makes this the group of the database in `directory`, durably.
    ///
    /// # Errors
    /// [`GroupError`]; the group is as it was.
    pub fn store(&self, directory: &Path) -> Result<(), GroupError> {
        let stored = Stored { name: self.name.clone(), secret: *self.secret.as_bytes() };
        let epochs = StoredEpochs {
            named: self.named,
            key: self.key.as_ref().map(|key| *key.as_bytes()),
            signed: self.signed.as_ref().map_or_else(Vec::new, |signed| signed.as_bytes().to_vec()),
            taken_s: self.taken_s,
        };
        // As long as it can be from the beginning, so that no copy is left behind by growing.
        let mut buffer = Zeroizing::new(vec![0u8; FILE.content_max]);
        let used = postcard::to_slice(&stored, &mut buffer).map_err(|_| GroupError::Name)?.len();
        let more = postcard::to_slice(&epochs, &mut buffer[used..]).map_err(|_| GroupError::Name)?.len();
        presence::begin(directory)?;
        FILE.write(directory, &buffer[..used + more])?;
        Ok(presence::enter(directory, SecurityFile::Group)?)
    }

    /// Changes the group of the database in `directory`, durably; other processes wait meanwhile.
    ///
    /// # Errors
    /// What `change` returns, or [`GroupError`]; the group is as it was then.
    pub fn update(
        directory: &Path,
        change: impl FnOnce(&Group) -> Result<Group, EpochError>,
    ) -> Result<Group, GroupError> {
        let _lock: FileLock = files::lock(directory, LOCK_FILE)?;
        let group = Group::load(directory)?.ok_or(EpochError::NoGroup)?;
        let changed = change(&group)?;
        changed.store(directory)?;
        Ok(changed)
    }

    /// Forgets the group of the database in `directory`; whether there was one.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn leave(directory: &Path) -> Result<bool, GroupError> {
        let was_there = presence::take_out(directory, SecurityFile::Group)?;
        Ok(FILE.remove(directory)? || was_there)
    }

    /// Something that changes whenever the group of `directory` does.
    pub fn stamp(directory: &Path) -> Option<FileStamp> {
        FILE.stamp(directory)
    }

    /// Its name on this device.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its secret.
    pub fn secret(&self) -> &GroupSecret {
        &self.secret
    }

    /// Its key.
    pub fn key(&self) -> GroupKey {
        self.secret.key()
    }

    /// Its fingerprint as people compare it: eight hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        self.key().fingerprint_text()
    }

    /// What its authority has said last; `None`: nothing that has reached this device.
    pub fn signed(&self) -> Option<&SignedEpoch> {
        self.signed.as_ref()
    }

    /// The number of its epoch, if it is known: who joined by the code alone learns it with the next one.
    pub fn epoch(&self) -> Option<u32> {
        match (&self.signed, &self.key) {
            (Some(signed), _) => Some(signed.number()),
            (None, Some(_)) => Some(0),
            (None, None) => None,
        }
    }

    /// When this device took the epoch, in seconds since 1970 by its clock; 0: not known.
    pub fn taken_s(&self) -> u64 {
        self.taken_s
    }

    /// Who may change the secret, if that is known here.
    pub fn authority(&self) -> Option<AuthorityId> {
        self.signed.as_ref().map(SignedEpoch::authority).or(self.named)
    }

    /// Whether this device may change the secret.
    pub fn is_authority(&self) -> bool {
        self.key.as_ref().is_some_and(|key| self.authority() == Some(key.id()))
    }

    /// The pre-shared keys of earlier epochs, newest first, with their numbers.
    pub fn former_psks(&self) -> Vec<(u32, Psk)> {
        let former = self.signed.iter().flat_map(SignedEpoch::former);
        former.map(|(epoch, secret)| (epoch, secret.key().psk())).collect()
    }

    /// The same group in its next epoch, under a new secret. `salt` must be random.
    ///
    /// # Errors
    /// [`EpochError::NoKey`]: this device is not the authority.
    pub fn rotated(&self, salt: [u8; 16], roster: &Roster, now_s: u64) -> Result<Group, EpochError> {
        let key = self.key.as_ref().filter(|_| self.is_authority()).ok_or(EpochError::NoKey)?;
        let (number, former) = match &self.signed {
            Some(signed) => (signed.number(), signed.former_of_next()),
            None => (0, vec![Former { epoch: 0, material: Material::Raw(*self.secret.as_bytes()) }]),
        };
        let number = number.checked_add(1).ok_or(EpochError::Malformed)?;
        let signed = SignedEpoch::make(key, number, salt, former, roster, now_s)?;
        Ok(Group { secret: signed.secret(), signed: Some(signed), taken_s: now_s, ..self.clone() })
    }

    /// The same group in an epoch that its authority has begun.
    ///
    /// # Errors
    /// [`EpochError`]: it is not newer than what this device has, or nothing shows that it is of this group.
    pub fn taking(&self, signed: SignedEpoch, now_s: u64) -> Result<Group, EpochError> {
        let found = signed.authority();
        match self.authority() {
            Some(known) if known != found => return Err(EpochError::Authority { found }),
            None if !signed.proves_authority_over(&self.secret) => {
                return Err(EpochError::Unproven { found });
            }
            _ => {}
        }
        // Without an earlier word of the authority, what is newer shows by having this device's secret among those before it.
        if self.signed.is_none() && !signed.follows(&self.secret) {
            return Err(EpochError::Unproven { found });
        }
        let held = self.signed.as_ref().map(SignedEpoch::rank);
        if held.is_some_and(|held| signed.rank() <= held) {
            return Err(EpochError::NotNewer { held: self.epoch().unwrap_or(0), offered: signed.number() });
        }
        Ok(Group { secret: signed.secret(), signed: Some(signed), taken_s: now_s, ..self.clone() })
    }

    /// The same group with an authority that this device accepts because its owner says so: for groups that were made
    /// before there were epochs, and for one whose authority was lost.
    #[must_use]
    pub fn naming(&self, authority: AuthorityId) -> Group {
        let signed = self.signed.clone().filter(|signed| signed.authority() == authority);
        Group { named: Some(authority), signed, ..self.clone() }
    }

    /// The same group with this device as its authority. The others have to be told by hand.
    #[must_use]
    pub fn with_key(&self, key: AuthorityKey) -> Group {
        Group { key: Some(key.clone()), ..self.naming(key.id()) }
    }
}

#[cfg(test)]
mod tests;
