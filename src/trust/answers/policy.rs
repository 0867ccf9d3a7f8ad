//! The answers to a session that asks who its peer is and what it may do.

use std::path::Path;

use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{SEEN_INTERVAL_S, SEEN_MAX, Trust, now_s};
use crate::secure::epoch::{EpochError, SignedEpoch};
use crate::secure::{Authentication, Grant, PeerId, PeerPolicy, Psk, Refusal};
use crate::trust::group::{Group, GroupError};
use crate::trust::list::TrustList;
use crate::trust::news::GroupNews;

impl PeerPolicy for Trust {
    fn group_psk(&self) -> Option<Psk> {
        self.lock().group.as_ref().map(|group| group.key().psk())
    }

    fn former_psks(&self) -> Vec<Psk> {
        let state = self.lock();
        let former = state.handing_over().map(Group::former_psks).unwrap_or_default();
        former.into_iter().map(|(_, psk)| psk).collect()
    }

    fn epoch(&self, peer: &PeerId) -> Option<(Psk, Zeroizing<Vec<u8>>)> {
        let state = self.lock();
        let group = state.handing_over()?;
        let signed = group.signed().filter(|signed| signed.is_for(peer))?;
        let is_denied = state.list.get(peer).is_some_and(|entry| entry.denied);
        (!is_denied).then(|| (group.key().psk(), Zeroizing::new(signed.as_bytes().to_vec())))
    }

    fn take_epoch(&self, from: &PeerId, signed: &[u8]) -> Result<(), EpochError> {
        if self.has_epoch(signed) {
            return Ok(());
        }
        let taken = store_epoch(&self.directory, signed);
        self.look_after(Some(*from));
        // Another process may have been faster with the same.
        if self.has_epoch(signed) { Ok(()) } else { taken }
    }

    fn has_key(&self, peer: &PeerId, psk: &Psk) {
        let mut state = self.lock();
        let Some(group) = &state.group else { return };
        let current = (group.key().psk() == *psk).then(|| group.epoch()).flatten();
        let former =
            || group.former_psks().into_iter().find(|(_, former)| former == psk).map(|(epoch, _)| epoch);
        let Some(epoch) = current.or_else(former) else { return };
        if state.epoch_of(peer) == Some(epoch) || state.epochs.len() >= SEEN_MAX {
            return;
        }
        state.epochs.insert(*peer, epoch);
        if current.is_some() && epoch > 0 {
            state.tell(GroupNews::PeerHas { peer: *peer, epoch });
        }
    }

    fn paired(&self) -> Vec<PeerId> {
        let state = self.lock();
        let known = state.list.peers().filter(|(_, peer)| peer.is_known_by_identity());
        let rank = |id: &PeerId, seen_s: u64| (state.preferred == Some(*id), seen_s, *id);
        let mut known: Vec<_> = known.map(|(id, peer)| rank(id, peer.last_seen_s)).collect();
        known.sort_unstable_by(|a, b| b.cmp(a));
        known.into_iter().map(|(_, _, id)| id).collect()
    }

    fn admit(&self, peer: &PeerId, via: Authentication) -> Result<Grant, Refusal> {
        let mut state = self.lock();
        if state.failed.is_some() {
            // Not *stranger*, by which a peer's continuous sync would end for good.
            return Err(Refusal::NotNow);
        }
        let entry = state.list.get(peer);
        if entry.is_some_and(|entry| entry.denied) {
            return Err(Refusal::Denied);
        }
        if via == Authentication::FormerGroup {
            // Whom the authority has not named may be anybody who knows the former secret.
            let is_for = |group: &Group| group.signed().is_some_and(|signed| signed.is_for(peer));
            let is_good = state.handing_over().is_some_and(is_for)
                || entry.is_some_and(|entry| entry.is_known_by_identity());
            let name = entry.and_then(|entry| entry.name.clone());
            let grant = Grant { name, permissions: state.list.permissions(peer).clone() };
            return if is_good { Ok(grant) } else { Err(Refusal::FormerMember) };
        }
        let is_good = match via {
            Authentication::Group => state.group.is_some(),
            Authentication::FormerGroup => false,
            Authentication::Paired => entry.is_some_and(|entry| entry.is_known_by_identity()),
            Authentication::Open => false,
        };
        if !is_good {
            return Err(Refusal::Stranger);
        }
        let grant = Grant {
            name: entry.and_then(|entry| entry.name.clone()),
            permissions: state.list.permissions(peer).clone(),
        };
        // Also who may do nothing yet: its owner is to find it in the list, to say what it may do.
        state.see(peer, via, SEEN_INTERVAL_S);
        if grant.permissions.is_none() { Err(Refusal::NoRole) } else { Ok(grant) }
    }

    fn failure(&self) -> Option<String> {
        Trust::failure(self)
    }

    fn own_name(&self) -> Option<String> {
        self.lock().own_name.clone()
    }

    fn told_name(&self, peer: &PeerId, name: &str) {
        let mut state = self.lock();
        if state.list.told_name(peer) != Some(name) && state.told.len() < SEEN_MAX {
            state.told.insert(*peer, name.to_owned());
        }
    }

    fn came(&self, peer: &PeerId, via: Authentication) {
        let mut state = self.lock();
        if state.present.len() < SEEN_MAX || state.present.contains_key(peer) {
            state.present.entry(*peer).or_insert((via, 0)).1 += 1;
        }
    }

    fn left(&self, peer: &PeerId, via: Authentication) {
        let mut state = self.lock();
        if let Some((_, sessions)) = state.present.get_mut(peer) {
            *sessions -= 1;
            if *sessions == 0 {
                state.present.remove(peer);
            }
        }
        state.see(peer, via, SEEN_INTERVAL_S);
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// Stores what the authority of the group says: first who is kept out, then the new secret.
fn store_epoch(directory: &Path, signed: &[u8]) -> Result<(), EpochError> {
    let signed = SignedEpoch::parse(signed)?;
    let failed = |error: &dyn std::fmt::Display| EpochError::Store { detail: error.to_string() };
    let group_failed = |error: GroupError| match error {
        GroupError::Epoch(error) => error,
        error => failed(&error),
    };
    let now = now_s();
    let group = Group::load(directory).map_err(group_failed)?.ok_or(EpochError::NoGroup)?;
    group.taking(signed.clone(), now)?;
    let left_out = TrustList::update(directory, |list| Ok(list.deny_all(signed.denied())));
    if let left_out @ 1.. = left_out.map_err(|error| failed(&error))? {
        tracing::warn!(left_out, "the trust list has no room for all whom the group's authority keeps out");
    }
    Group::update(directory, |group| group.taking(signed, now)).map(|_| ()).map_err(group_failed)
}
