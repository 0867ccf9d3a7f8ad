//! Who may come in: the answers that a running session is given, from the group and the trust list of its database.
//!
//! Other processes change both files (`gattway peers deny`, `group leave`). They are replaced whole, so looking at the
//! directory each second ([`Trust::look`]) is enough to see it, on any file system and without a watcher's limits. What
//! cannot be read lets nobody in.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};

use super::files::FileStamp;
use super::group::{Group, GroupError};
use super::list::{Origin, TrustError, TrustList};
use super::news::GroupNews;
use super::resolver::AdvertResolver;
use crate::secure::advert::AdvertKey;
use crate::secure::{Authentication, Identity, PeerId, Permissions, is_peer_name};

mod policy;

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
    news_came: Arc<Notify>,
    /// Those with open sessions, and how many of them.
    present: BTreeMap<PeerId, (Authentication, u32)>,
}

impl State {
    /// Notes a peer that is in the list, or may come into it, at the next look, unless it was a short time ago.
    fn see(&mut self, peer: &PeerId, via: Authentication, interval_s: u64) {
        let is_to_come = || (via == Authentication::Group && self.list.has_room()).then_some(0);
        let last = self.list.get(peer).map(|entry| entry.last_seen_s).or_else(is_to_come);
        let is_due = last.is_some_and(|last| last == 0 || now_s().abs_diff(last) >= interval_s);
        if is_due && self.seen.len() < SEEN_MAX {
            self.seen.insert(*peer, via);
        }
    }

    /// Notes those who are there, unless it was some time ago.
    fn see_present(&mut self) {
        let present: Vec<_> = self.present.iter().map(|(id, (via, _))| (*id, *via)).collect();
        present.iter().for_each(|(id, via)| self.see(id, *via, PRESENT_INTERVAL_S));
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
            self.news_came.notify_one();
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
            news_came: Arc::default(),
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
            if trust.is_due() && tokio::task::spawn_blocking(move || trust.look()).await.is_err() {
                return;
            }
        }
    }

    /// Whether a look would find anything. It is asked in place: two calls of `stat` take less than waking a thread for them.
    fn is_due(&self) -> bool {
        let mut state = self.lock();
        state.see_present();
        let is_noted = state.seen.is_empty() && state.told.is_empty() && state.epochs.is_empty();
        !is_noted || state.stamps != stamps(&self.directory)
    }

    /// Enters who came into the list.
    fn note_seen(&self) {
        let (seen, told, epochs) = {
            let mut state = self.lock();
            state.see_present();
            let (seen, told) = (std::mem::take(&mut state.seen), std::mem::take(&mut state.told));
            (seen, told, state.epochs.clone())
        };
        if seen.is_empty() && told.is_empty() && epochs.is_empty() {
            return;
        }
        let now = now_s();
        let noted = TrustList::update(&self.directory, |list| {
            for (id, via) in &seen {
                // It was taken off the list meanwhile.
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

    /// Waits until there may be news.
    pub async fn news_came(&self) {
        let came = Arc::clone(&self.lock().news_came);
        came.notified().await;
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

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("directory", &self.directory).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
