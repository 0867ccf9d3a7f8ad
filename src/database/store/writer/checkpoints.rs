//! Room for checkpoints: a peer writes as many as it likes, so each has a share, and the oldest of whoever has most gives way.
//! One that is lost costs its owner a longer comparison, nothing else.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::ControlFlow;

use super::super::checkpoint::{CHECKPOINTS_MAX, CheckpointOwner, Found, PEER_CHECKPOINTS_MAX, with_head};
use super::super::keys::{self, CollectionKey};
use super::Writer;
use crate::database::DatabaseError;
use crate::replica::OWN_PREFIX;

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
