//! Checkpoints, and how many there may be: a peer writes as many as it likes, so each has a share, and the oldest of whoever
//! has most gives way. One that is lost costs its owner a longer comparison, nothing else.
//!
//! Stored: `00`, time of the last write (8, LE), owner (16), what is kept. Without the zero it is of an earlier release, and
//! nobody's.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::ControlFlow;

use super::super::keys::{self, CollectionKey};
use super::Writer;
use crate::database::DatabaseError;
use crate::replica::OWN_PREFIX;

/// Most checkpoints that one collection keeps. Each one that is new looks at all, so tests have fewer.
pub(crate) const CHECKPOINTS_MAX: usize = if cfg!(test) { 96 } else { 4096 };
/// Most of them that one peer has: one for each way in which it syncs.
pub(crate) const PEER_CHECKPOINTS_MAX: usize = 16;

const MARK: u8 = 0;
const OWNER_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + 8 + OWNER_BYTES;

/// Whose a checkpoint is: the beginning of the name that a peer has proven, which nobody else can make his own; zeros for
/// those who prove none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct CheckpointOwner([u8; OWNER_BYTES]);

impl CheckpointOwner {
    pub(crate) fn of_peer(uid: &str) -> CheckpointOwner {
        let mut owner = [0; OWNER_BYTES];
        owner.iter_mut().zip(uid.bytes()).for_each(|(to, from)| *to = from);
        CheckpointOwner(owner)
    }
}

/// What is kept, without what says whose it is; `None` if it is damaged.
pub(crate) fn content(stored: &[u8]) -> Option<&[u8]> {
    match stored.first()? {
        &MARK => stored.get(HEAD_BYTES..),
        _ => Some(stored),
    }
}

fn with_head(owner: CheckpointOwner, written: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + content.len());
    bytes.push(MARK);
    bytes.extend_from_slice(&written.to_le_bytes());
    bytes.extend_from_slice(&owner.0);
    bytes.extend_from_slice(content);
    bytes
}

/// A checkpoint that is there.
struct Found {
    key: Vec<u8>,
    owner: CheckpointOwner,
    written: u64,
    /// Values that it is stored in.
    pieces: u16,
}

impl Found {
    fn new(key: &[u8], first: &[u8]) -> Found {
        let head = super::super::read::join_pieces(first).map(|(start, _)| start);
        let head = head.and_then(|start| start.first_chunk::<HEAD_BYTES>()).filter(|head| head[0] == MARK);
        let (mut owner, mut written) = ([0; OWNER_BYTES], [0; 8]);
        if let Some(head) = head {
            written.copy_from_slice(&head[1..9]);
            owner.copy_from_slice(&head[9..]);
        }
        Found {
            key: key.to_vec(),
            owner: CheckpointOwner(owner),
            written: u64::from_le_bytes(written),
            pieces: 1,
        }
    }
}

impl Writer<'_> {
    /// Stages a checkpoint. One that is new may take the place of an older one; `Ok(false)` if there is no room for it, nor any
    /// that a peer could spare.
    pub(crate) fn put_checkpoint(
        &mut self,
        key: CollectionKey,
        client: &str,
        owner: CheckpointOwner,
        content: &[u8],
    ) -> Result<bool, DatabaseError> {
        let stored_key = keys::checkpoint(key, client);
        self.stage(key)?;
        if self.store.engine().get(&stored_key)?.is_none() && !self.make_room(key, owner)? {
            return Ok(false);
        }
        self.checkpoints.push((stored_key, with_head(owner, self.wall, content)));
        Ok(true)
    }

    fn make_room(&mut self, key: CollectionKey, owner: CheckpointOwner) -> Result<bool, DatabaseError> {
        let (start, mut total) = (keys::checkpoint(key, ""), 0);
        let own = keys::checkpoint(key, OWN_PREFIX);
        let mut found: Vec<Found> = Vec::new();
        self.store.engine().scan(&start, &keys::checkpoint_end(key), |key, value| {
            // No name has a zero; the number of a piece begins with one.
            if key.len() > start.len() + 2 && key[key.len() - 2] == 0 {
                if let Some(last) = found.last_mut().filter(|last| key.starts_with(&last.key)) {
                    last.pieces += 1;
                }
                return Ok(ControlFlow::Continue(()));
            }
            total += 1;
            // What this database keeps for itself gives way to nobody.
            if !key.starts_with(&own) {
                found.push(Found::new(key, value));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut counts: HashMap<CheckpointOwner, usize> = HashMap::new();
        found.iter().for_each(|one| *counts.entry(one.owner).or_default() += 1);
        let is_greedy = owner != CheckpointOwner::default()
            && counts.get(&owner).is_some_and(|count| *count >= PEER_CHECKPOINTS_MAX);
        if !is_greedy && total < CHECKPOINTS_MAX {
            return Ok(true);
        }
        let candidates = found.into_iter().filter(|one| !is_greedy || one.owner == owner);
        let rank = |one: &Found| (counts.get(&one.owner).copied().unwrap_or(0), Reverse(one.written));
        let Some(oldest) = candidates.max_by_key(rank) else { return Ok(false) };
        self.given_up.extend((1..oldest.pieces).map(|piece| keys::piece(&oldest.key, piece)));
        self.given_up.push(oldest.key);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_releases_kept_is_read() {
        let old = postcard::to_stdvec(&(7u64, b"body".as_slice())).expect("bytes");
        assert_eq!(content(&old), Some(old.as_slice()));
        let new = with_head(CheckpointOwner::of_peer("peer"), 9, &old);
        assert_eq!(content(&new), Some(old.as_slice()));
        assert_eq!(content(&new[..HEAD_BYTES - 1]), None);
        assert_eq!(content(&[]), None);
    }
}
