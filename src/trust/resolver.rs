//! Whose sealed adverts are heard.

use std::collections::{BTreeMap, BTreeSet};

use crate::secure::PeerId;
use crate::secure::advert::{AdvertKey, DeviceTag, Opened};

/// Tells whose sealed adverts are heard.
#[derive(Clone, Debug, Default)]
pub struct AdvertResolver {
    keys: Vec<ResolverKey>,
}

#[derive(Clone, Debug)]
struct ResolverKey {
    key: AdvertKey,
    members: BTreeMap<DeviceTag, PeerId>,
    /// Of a former secret: who has the newest, and speaks under this one for the sake of others.
    former: Option<BTreeSet<DeviceTag>>,
}

/// Whose advert it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Device and change.
    pub opened: Opened,
    /// The peer, if the list has it; a member of the group that was never met is known by its tag alone.
    pub peer: Option<PeerId>,
    /// It speaks under a former secret of the group: it is worth a visit for the sake of the new one.
    pub is_behind: bool,
}

impl AdvertResolver {
    /// Adverts under `key` are of one of `members`, or of somebody who is not in the list.
    pub(super) fn add_group<'a>(&mut self, key: AdvertKey, members: impl Iterator<Item = &'a PeerId>) {
        let members = members.map(|id| (key.tag(id), *id)).collect();
        self.keys.push(ResolverKey { key, members, former: None });
    }

    /// Adverts under the former `key` of a group; `done` have the newest.
    pub(super) fn add_former(&mut self, key: AdvertKey, behind: &[&PeerId], done: &[&PeerId]) {
        let members = behind.iter().map(|id| (key.tag(id), **id)).collect();
        let done = done.iter().map(|id| key.tag(id)).collect();
        self.keys.push(ResolverKey { key, members, former: Some(done) });
    }

    /// Opens a sealed state; `None` if it is a stranger's, or not meant for this device.
    pub fn resolve(&self, data: &[u8]) -> Option<Resolved> {
        let found = self.keys.iter().find_map(|known| Some((known.key.open(data)?, known)));
        let (opened, ResolverKey { members, former, .. }) = found?;
        let is_done = former.as_ref().is_some_and(|done| done.contains(&opened.device));
        let peer = members.get(&opened.device).copied();
        (!is_done).then_some(Resolved { opened, peer, is_behind: former.is_some() })
    }
}
