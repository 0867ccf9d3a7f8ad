//! Who may come in: the answers that a running session is given, from the group and the trust list of its database.
//!
//! Other processes change both files (`gattway peers deny`, `group leave`). They are replaced whole, so looking at the
//! directory each second ([`Trust::look`]) is enough to see it, on any file system and without a watcher's limits. What
//! cannot be read lets nobody in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::advert::{AdvertKey, DeviceTag, Opened};
use super::derive::derive;
use super::files::FileStamp;
use super::group::{Group, GroupError};
use super::list::{Origin, TrustError, TrustList, check_name};
use super::{Authentication, Grant, Identity, PeerId, PeerPolicy, Permissions, Psk, Refusal};

/// How often a long-running command looks for changes.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two notes that a peer came or left: each is a write to the medium.
const SEEN_INTERVAL_S: u64 = 60;
/// The same for one that stays.
const PRESENT_INTERVAL_S: u64 = 900;
/// Peers that were seen and wait to be noted.
const SEEN_MAX: usize = 256;

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
        self.lock().own_name = check_name(name).is_ok().then(|| name.to_owned());
    }

    /// Looks whether another process has changed something, and notes who was seen. Reads and writes files: call it where
    /// that may block, every [`LOOK_INTERVAL`] and once at the end.
    pub fn look(&self) {
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
        let differs =
            state.group != group || state.failed != failed || answers(&state.list) != answers(&list);
        (state.list, state.group, state.failed, state.stamps) = (list, group, failed, now);
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
        let (seen, told) = {
            let mut state = self.lock();
            let present: Vec<_> = state.present.iter().map(|(id, (via, _))| (*id, *via)).collect();
            present.iter().for_each(|(id, via)| state.see(id, *via, PRESENT_INTERVAL_S));
            (std::mem::take(&mut state.seen), std::mem::take(&mut state.told))
        };
        if seen.is_empty() && told.is_empty() {
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
            Ok(())
        });
        if let Err(error) = noted {
            tracing::warn!(%error, "who was seen cannot be noted");
        }
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

    /// The key under which this device seals its adverts: the group's, else its own.
    pub fn advert_key(&self, identity: &Identity) -> AdvertKey {
        self.lock()
            .group
            .as_ref()
            .map_or_else(|| device_advert_key(identity), |group| group.key().advert_key())
    }

    /// What tells whose adverts are heard, by the keys that are known now.
    pub fn advert_resolver(&self) -> AdvertResolver {
        let state = self.lock();
        let mut keys = Vec::new();
        if let Some(group) = &state.group {
            let key = group.key().advert_key();
            let members = state.list.peers().map(|(id, _)| (key.tag(id), *id)).collect();
            keys.push((key, members));
        }
        for (id, peer) in state.list.peers().filter(|(_, peer)| peer.is_known_by_identity()) {
            if let Some(key) = &peer.advert_key {
                keys.push((key.clone(), BTreeMap::from([(key.tag(id), *id)])));
            }
        }
        AdvertResolver { keys }
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
        let entry = state.list.get(peer);
        if entry.is_some_and(|entry| entry.denied) {
            return Err(Refusal::Denied);
        }
        let is_good = match via {
            Authentication::Group => state.group.is_some(),
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

/// The key of a device's own adverts, which its paired peers are given.
pub fn device_advert_key(identity: &Identity) -> AdvertKey {
    AdvertKey::from_bytes(derive(identity.private(), "gattway device advert", &[]))
}

/// Tells whose sealed adverts are heard.
#[derive(Clone, Debug, Default)]
pub struct AdvertResolver {
    keys: Vec<(AdvertKey, BTreeMap<DeviceTag, PeerId>)>,
}

/// Whose advert it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Device and change.
    pub opened: Opened,
    /// The peer, if the list has it; a member of the group that was never met is known by its tag alone.
    pub peer: Option<PeerId>,
}

impl AdvertResolver {
    /// Opens a sealed state; `None` if it is a stranger's.
    pub fn resolve(&self, data: &[u8]) -> Option<Resolved> {
        self.keys.iter().find_map(|(key, peers)| {
            let opened = key.open(data)?;
            Some(Resolved { opened, peer: peers.get(&opened.device).copied() })
        })
    }
}

#[cfg(test)]
mod tests;
