//! Who may come in: the answers that a running session is given, from the group and the trust list of its database.
//!
//! Other processes change both files (`gattway peers deny`, `group leave`). They are replaced whole, so looking at the
//! directory each second ([`Trust::look`]) is enough to see it, on any file system and without a watcher's limits. What
//! cannot be read lets nobody in.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use zeroize::Zeroizing;

use super::files::FileStamp;
use super::group::{Group, GroupError};
use super::list::{Origin, TrustError, TrustList};
use super::resolver::AdvertResolver;
use crate::secure::advert::AdvertKey;
use crate::secure::epoch::{EpochError, SignedEpoch};
use crate::secure::{
    Authentication, Grant, Identity, PeerId, PeerPolicy, Permissions, Psk, Refusal, is_peer_name,
};

/// How often a long-running command looks for changes.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two notes that a peer came or left: each is a write to stable storage.
const SEEN_INTERVAL_S: u64 = 60;
/// The same for one that stays.
const PRESENT_INTERVAL_S: u64 = 900;
/// Peers that were seen and wait to be noted.
const SEEN_MAX: usize = 256;

/// For how long after an epoch was taken its former secrets lead to the new one. Who was away for longer joins by the code.
pub const FORMER_TIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// News that wait to be told.
const NEWS_MAX: usize = 64;
/// A clock before this was never set: 2024.
const CLOCK_SET_S: u64 = 1_704_067_200;

/// What has become of the group's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupNews {
    /// This device has another one.
    Changed {
        /// The number of its epoch, if it is known.
        epoch: Option<u32>,
        /// Who gave it; `None`: it was changed here.
        from: Option<PeerId>,
    },
    /// A peer is seen to have this device's for the first time.
    PeerHas {
        /// Who.
        peer: PeerId,
        /// The number of the epoch.
        epoch: u32,
    },
}

/// One line for people.
impl fmt::Display for GroupNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupNews::Changed { epoch, from } => {
                f.write_str("the group has a new secret")?;
                if let Some(epoch) = epoch {
                    write!(f, ": epoch {epoch}")?;
                }
                match from {
                    Some(from) => write!(f, ", given by {from}"),
                    None => f.write_str(", given by a command"),
                }
            }
            GroupNews::PeerHas { peer, epoch } => write!(f, "{peer} has the group's secret of epoch {epoch}"),
        }
    }
}

/// Why the answers cannot be given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustOpenError {
    /// The trust list.
    #[error(transparent)]
    List(#[from] TrustError),
    /// The group.
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// The group and the trust list of one database, kept up to date. Shared by all sessions of a process.
pub struct Trust {
    directory: PathBuf,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

struct State {
    list: TrustList,
    group: Option<Group>,
    stamps: Stamps,
    /// Times that the files were read.
    version: u64,
    /// Why nobody is let in at this time.
    failed: Option<String>,
    /// The peer that is wanted before all others.
    preferred: Option<PeerId>,
    /// Peers that came or left and are to be noted.
    seen: BTreeMap<PeerId, Authentication>,
    /// What peers call themselves, where that is news to be noted.
    told: BTreeMap<PeerId, String>,
    /// What this side calls itself.
    own_name: Option<String>,
    /// The epochs whose keys peers have shown, to be noted.
    epochs: BTreeMap<PeerId, u32>,
    news: VecDeque<GroupNews>,
    /// Those with open sessions, and how many of them.
    present: BTreeMap<PeerId, (Authentication, u32)>,
}

impl State {
    /// Notes a peer at the next look, unless it was a short time ago.
    fn see(&mut self, peer: &PeerId, via: Authentication, interval_s: u64) {
        let last = self.list.get(peer).map_or(0, |entry| entry.last_seen_s);
        if (last == 0 || now_s().abs_diff(last) >= interval_s) && self.seen.len() < SEEN_MAX {
            self.seen.insert(*peer, via);
        }
    }

    /// What was seen of a peer's epoch.
    fn epoch_of(&self, peer: &PeerId) -> Option<u32> {
        self.epochs.get(peer).copied().or_else(|| self.list.epoch(peer))
    }

    /// The group, while its former secrets lead to the new one: until all who may have it are seen to have it, for
    /// [`FORMER_TIME`].
    fn handing_over(&self) -> Option<&Group> {
        let group = self.group.as_ref()?;
        let signed = group.signed()?;
        // By a clock that was set when it was taken, and else without an end.
        let taken_s = Some(group.taken_s()).filter(|taken_s| *taken_s >= CLOCK_SET_S);
        let is_over = taken_s.is_some_and(|taken_s| now_s() > taken_s.saturating_add(FORMER_TIME.as_secs()));
        let has_it = |id: &PeerId| signed.is_for(id) && self.epoch_of(id) == Some(signed.number());
        // This device is one of them.
        let all_have_it = 1 + self.list.peers().filter(|(id, _)| has_it(id)).count() >= signed.members();
        (!is_over && !all_have_it && signed.number() > 0).then_some(group)
    }

    fn tell(&mut self, news: GroupNews) {
        if self.news.len() < NEWS_MAX {
            self.news.push_back(news);
        }
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

type Stamps = (Option<FileStamp>, Option<FileStamp>);

fn stamps(directory: &Path) -> Stamps {
    (TrustList::stamp(directory), Group::stamp(directory))
}

impl Trust {
    /// Reads group and list of the database in `directory`.
    ///
    /// # Errors
    /// [`TrustOpenError`]: one of them is damaged, or not private.
    pub fn open(directory: &Path) -> Result<Trust, TrustOpenError> {
        super::presence::adopt(directory);
        // Before the files: what changes meanwhile is seen at the next look.
        let stamps = stamps(directory);
        let state = State {
            list: TrustList::load(directory)?,
            group: Group::load(directory)?,
            stamps,
            version: 0,
            failed: None,
            preferred: None,
            seen: BTreeMap::new(),
            told: BTreeMap::new(),
            own_name: None,
            epochs: BTreeMap::new(),
            news: VecDeque::new(),
            present: BTreeMap::new(),
        };
        Ok(Trust {
            directory: directory.to_owned(),
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        })
    }

    /// What this side calls itself to peers that have a key it knows; nothing unless this says so.
    pub fn call_self(&self, name: &str) {
        self.lock().own_name = is_peer_name(name).then(|| name.to_owned());
    }

    /// Looks whether another process has changed something, and notes who was seen. Reads and writes files: call it where
    /// that may block, every [`LOOK_INTERVAL`] and once at the end.
    pub fn look(&self) {
        self.look_after(None);
    }

    /// `from`: who gave this side another group's secret just now.
    fn look_after(&self, from: Option<PeerId>) {
        self.note_seen();
        let now = stamps(&self.directory);
        if self.lock().stamps == now {
            return;
        }
        let read = || -> Result<(TrustList, Option<Group>), TrustOpenError> {
            Ok((TrustList::load(&self.directory)?, Group::load(&self.directory)?))
        };
        let (list, group, failed) = match read() {
            Ok((list, group)) => (list, group, None),
            Err(error) => {
                tracing::error!(%error, "nobody is let in until this is mended");
                (TrustList::default(), None, Some(error.to_string()))
            }
        };
        let mut state = self.lock();
        // What only says when a peer was seen changes no answer.
        let mut differs =
            state.group != group || state.failed != failed || answers(&state.list) != answers(&list);
        let was_handing_over = state.handing_over().is_some();
        if let (Some(before), Some(after)) = (&state.group, &group)
            && before.key() != after.key()
        {
            let epoch = after.epoch();
            state.tell(GroupNews::Changed { epoch, from });
        }
        (state.list, state.group, state.failed, state.stamps) = (list, group, failed, now);
        // Who has the former secret is another matter from here on.
        differs |= state.handing_over().is_some() != was_handing_over;
        state.version += 1;
        drop(state);
        if differs {
            tracing::info!("the group or the trust list has changed");
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Looks every [`LOOK_INTERVAL`], for ever.
    pub async fn follow(self: Arc<Trust>) {
        let mut tick = tokio::time::interval(LOOK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let trust = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || trust.look()).await.is_err() {
                return;
            }
        }
    }

    /// Enters who came into the list.
    fn note_seen(&self) {
        let (seen, told, epochs) = {
            let mut state = self.lock();
            let present: Vec<_> = state.present.iter().map(|(id, (via, _))| (*id, *via)).collect();
            present.iter().for_each(|(id, via)| state.see(id, *via, PRESENT_INTERVAL_S));
            let (seen, told) = (std::mem::take(&mut state.seen), std::mem::take(&mut state.told));
            (seen, told, state.epochs.clone())
        };
        if seen.is_empty() && told.is_empty() && epochs.is_empty() {
            return;
        }
        let now = now_s();
        let noted = TrustList::update(&self.directory, |list| {
            for (id, via) in &seen {
                // Without the group's proof, only who is in the list can have come: and was taken off meanwhile.
                if *via != Authentication::Group && list.get(id).is_none() {
                    continue;
                }
                match list.enter(*id, Origin::Group) {
                    Ok(peer) => {
                        if peer.first_seen_s == 0 {
                            peer.first_seen_s = now;
                        }
                        peer.last_seen_s = now;
                    }
                    // Full of what the owner has said: this one stays unnamed.
                    Err(TrustError::Full) => {}
                    Err(error) => return Err(error),
                }
            }
            told.iter().for_each(|(id, name)| list.note_told_name(id, name));
            for (id, epoch) in &epochs {
                list.note_epoch(id, *epoch);
            }
            Ok(())
        });
        if let Err(error) = noted {
            tracing::warn!(%error, "who was seen cannot be noted");
        }
        // Only now: what is noted here answers until the list does.
        let mut state = self.lock();
        state.epochs.retain(|id, epoch| epochs.get(id) != Some(epoch));
    }

    /// Whether this is what this side goes by.
    fn has_epoch(&self, signed: &[u8]) -> bool {
        let state = self.lock();
        state.group.as_ref().and_then(Group::signed).is_some_and(|own| own.as_bytes() == signed)
    }

    /// Whether there are members with a former secret of the group that are to get the new one.
    pub fn is_handing_over(&self) -> bool {
        self.lock().handing_over().is_some()
    }

    /// What has become of the group's secret since it was asked last.
    pub fn take_news(&self) -> Vec<GroupNews> {
        self.lock().news.drain(..).collect()
    }

    /// What this process now takes as the group.
    pub fn group(&self) -> Option<Group> {
        self.lock().group.clone()
    }

    /// Why nobody is let in at this time, if so.
    pub fn failure(&self) -> Option<String> {
        self.lock().failed.clone()
    }

    /// Grows whenever group or list may be others than before, also where no answer changes.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// What this process now takes as the list.
    pub fn list(&self) -> TrustList {
        self.lock().list.clone()
    }

    /// Puts the peer first that a person names, if the list has it: in one handshake only a few can be asked for.
    pub fn prefer(&self, text: &str) {
        let mut state = self.lock();
        state.preferred = state.list.find(text).ok();
    }

    /// Whether a peer is in the list that is let in by its identity and has given no key of its adverts.
    pub fn knows_without_key(&self) -> bool {
        let state = self.lock();
        state.list.peers().any(|(_, peer)| peer.is_known_by_identity() && peer.advert_key.is_none())
    }

    /// The key under which this device seals its adverts: the group's, else its own. While there are members with a former
    /// secret, they have to find this device too: every other `turn` is theirs. Whether it is.
    pub fn advert_key(&self, identity: &Identity, turn: usize) -> (AdvertKey, bool) {
        let state = self.lock();
        let former: Vec<_> =
            state.handing_over().and_then(Group::signed).iter().flat_map(|signed| signed.former()).collect();
        match (&state.group, turn % 2, former.len()) {
            (Some(_), 1, 1..) => (former[turn / 2 % former.len()].1.key().advert_key(), true),
            (Some(group), ..) => (group.key().advert_key(), false),
            (None, ..) => (identity.advert_key(), false),
        }
    }

    /// What tells whose adverts are heard, by the keys that are known now.
    pub fn advert_resolver(&self) -> AdvertResolver {
        let state = self.lock();
        let mut resolver = AdvertResolver::default();
        let peers = || state.list.peers().map(|(id, _)| id);
        if let Some(group) = &state.group {
            resolver.add_group(group.key().advert_key(), peers());
        }
        if let Some(signed) = state.handing_over().and_then(Group::signed) {
            let (done, behind): (Vec<_>, Vec<_>) =
                peers().partition(|id| state.epoch_of(id) == Some(signed.number()));
            for (_, secret) in signed.former() {
                resolver.add_former(secret.key().advert_key(), &behind, &done);
            }
        }
        for (id, peer) in state.list.peers().filter(|(_, peer)| peer.is_known_by_identity()) {
            if let Some(key) = &peer.advert_key {
                resolver.add_group(key.clone(), std::iter::once(id));
            }
        }
        resolver
    }

    /// Nothing under this lock can be left half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of a list that decides.
fn answers(list: &TrustList) -> (&Permissions, Vec<Answer<'_>>) {
    let peers = list.peers().map(|(id, peer)| (id, &peer.name, peer.origin, peer.denied, &peer.permissions));
    (
        &list.default,
        peers
            .filter(|(_, name, origin, denied, permissions)| {
                *origin != Origin::Group || *denied || name.is_some() || permissions.is_some()
            })
            .collect(),
    )
}

type Answer<'a> = (&'a PeerId, &'a Option<String>, Origin, bool, &'a Option<Permissions>);

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
        // A stranger that was let in is in no list.
        if via != Authentication::Open {
            state.see(peer, via, SEEN_INTERVAL_S);
        }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("directory", &self.directory).finish_non_exhaustive()
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

#[cfg(test)]
mod tests;
