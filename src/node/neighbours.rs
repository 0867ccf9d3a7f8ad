//! A sync with all neighbours: whom to sync with, and when.
//!
//! One neighbour is kept connected, so that changes go over at once. Of several, each is visited when it or this database has
//! something new (see [`super::marks`]), one after the other, the one first that waits longest; a quiet one costs no connection.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bluer::Address;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tracing::debug;

use super::ble::BlePeer;
use super::error::SyncError;
use super::marks::{Directions, SyncMarks};
use super::sync_event::SyncEvent;
use super::sync_shared::SyncShared;
use super::visit::{ONE_SHOT_ATTEMPTS, SyncSettings, Visit};
use crate::replicator::ReplicatorActivity;
use crate::transport::bluez::BluetoothError;
use crate::transport::bluez::adapter::Adapter;
use crate::transport::bluez::central::SCAN_LIMIT;
use crate::transport::bluez::profile::Sighting;
use crate::transport::bluez::scan::{Neighbour, Scan};
use crate::transport::bluez::search::Heard;

/// How long a single sync listens on after it has heard only neighbours without anything new.
const QUIET_LIMIT: Duration = Duration::from_secs(3);
/// A neighbour that was not heard for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// A neighbour is visited only if it was heard this recently.
const FRESH: Duration = Duration::from_secs(15);
/// How long is listened before somebody counts as the only neighbour, and is connected to although there is nothing new. Who has
/// something new is visited at once.
const SETTLE: Duration = Duration::from_secs(2);
/// How often the only neighbour's connection is left alone to look for others, while there is nothing to move. The first look comes
/// as soon as all has been moved: whoever is heard first is visited at once, so the others may be yet unheard.
const LOOK_INTERVAL: Duration = Duration::from_secs(20);
/// How long such a look takes.
const LOOK_TIME: Duration = Duration::from_secs(3);
/// Pause between two visits of a neighbour whose advert cannot be read, while this database has nothing new.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(60);
/// Pause after a visit that failed; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(2);
/// Longest pause before a neighbour that fails is tried again, and between two tries to use the adapter.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often the plan is looked at while a connection stands.
const TICK: Duration = Duration::from_millis(100);
/// Neighbours kept in mind.
const KNOWN_MAX: usize = 256;

/// Syncs with neighbours until there is nothing more to do, or it is told to stop.
pub(super) async fn run(ble: BlePeer, settings: SyncSettings, shared: Arc<SyncShared>) {
    let direction = settings.direction;
    let directions = Directions { push: direction.pushes(), pull: direction.pulls() };
    let result = match &settings.node.local.advert {
        Some(advert) => {
            let marks =
                SyncMarks::new(&advert.db, &advert.collections, Arc::clone(&advert.codec), directions);
            let all = settings.reset || settings.retry_unsynced;
            let continuous = settings.continuous;
            let mut neighbourhood = Neighbourhood { ble, marks, settings, shared: Arc::clone(&shared), all };
            if continuous { neighbourhood.forever().await } else { neighbourhood.once().await }
        }
        None => Ok(()),
    };
    shared.end(result);
}

/// What all visits of one sync share.
struct Neighbourhood {
    ble: BlePeer,
    marks: SyncMarks,
    settings: SyncSettings,
    shared: Arc<SyncShared>,
    /// Visit also those who have nothing new.
    all: bool,
}

/// A neighbour that was heard.
struct Known {
    heard: Heard,
    visited: Option<Instant>,
    failures: u32,
    not_before: Instant,
    /// The counter of this database before the last visit that succeeded.
    own: Option<u32>,
}

/// Neighbours by the tag of the device, since the address may change, or by the address where no tag can be read.
type KnownMap = HashMap<Key, Known>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Device(u32),
    Address(Address),
}

impl Key {
    fn of(neighbour: &Neighbour, sighting: Option<Sighting>) -> Key {
        sighting.map_or(Key::Address(neighbour.address), |sighting| Key::Device(sighting.device))
    }
}

/// How a visit ended.
enum Visited {
    Done,
    Failed(SyncError),
    /// The sync is to end.
    Stopped,
}

impl Neighbourhood {
    /// One sync with the first neighbour that has something new. No connection is made if all that are heard have nothing.
    async fn once(&mut self) -> Result<(), SyncError> {
        let adapter = Adapter::open(&self.settings.node.local.bluez, self.ble.adapter_name())
            .await
            .map_err(search_failed)?;
        let mut scan = Scan::start(&adapter).await.map_err(search_failed)?;
        let began = Instant::now();
        let (mut deadline, mut quiet) = (began + SCAN_LIMIT, HashMap::new());
        let found = loop {
            let heard = tokio::select! {
                heard = timeout_at(deadline, scan.next()) => heard,
                () = self.shared.stopped() => return Ok(()),
            };
            match heard {
                Ok(heard) => {
                    let neighbour = heard.map_err(search_failed)?;
                    let Some(sighting) = self.marks.read(&neighbour) else { continue };
                    if self.all || sighting.is_none_or(|sighting| self.marks.has_something(sighting)) {
                        break Some((Heard { neighbour, at: Instant::now() }, sighting));
                    }
                    quiet.insert(neighbour.address, neighbour);
                    deadline = deadline.min(Instant::now() + QUIET_LIMIT);
                }
                Err(_) => break None,
            }
        };
        scan.stop().await;
        let Some((heard, sighting)) = found else {
            if quiet.is_empty() {
                let peer = "any gattway device".to_owned();
                return Err(search_failed(BluetoothError::NotSeen { peer, within: SCAN_LIMIT }));
            }
            self.shared.hub.emit(SyncEvent::NothingNew { peers: quiet.values().map(name_of).collect() });
            return Ok(());
        };
        match self.visit(&heard, sighting, None, &mut KnownMap::new()).await {
            Visited::Done | Visited::Stopped => Ok(()),
            Visited::Failed(error) => Err(error),
        }
    }

    /// Syncs with all neighbours until told to stop.
    async fn forever(&mut self) -> Result<(), SyncError> {
        let (mut known, mut failures, mut told) = (KnownMap::new(), 0, String::new());
        loop {
            let error = match self.round(&mut known).await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    (failures, told) = (0, String::new());
                    continue;
                }
                Err(error) => io::Error::from(error),
            };
            failures += 1;
            if told != error.to_string() {
                told = error.to_string();
                self.shared.hub.emit(SyncEvent::Offline { error: Arc::new(error) });
            }
            tokio::select! {
                () = tokio::time::sleep(pause(failures)) => {}
                () = self.shared.stopped() => return Ok(()),
            }
        }
    }

    /// Listens until somebody is to be visited, and visits; true: told to stop.
    async fn round(&mut self, known: &mut KnownMap) -> Result<bool, BluetoothError> {
        let adapter = Adapter::open(&self.settings.node.local.bluez, self.ble.adapter_name()).await?;
        let mut scan = Scan::start(&adapter).await?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let began = Instant::now();
        let (heard, sighting) = loop {
            tokio::select! {
                heard = scan.next() => self.hear(known, heard?),
                _ = tick.tick() => {}
                () = self.shared.stopped() => return Ok(true),
            }
            known.retain(|_, known| known.heard.at.elapsed() < GONE_AFTER);
            if let Some(next) = self.next(known, began.elapsed() >= SETTLE) {
                break next;
            }
        };
        scan.stop().await;
        let own = self.marks.own();
        let visit = self.visit(&heard, sighting, Some(&adapter), known).await;
        let now = Instant::now();
        if let Some(visited) = known.get_mut(&Key::of(&heard.neighbour, sighting)) {
            let failed = matches!(visit, Visited::Failed(_));
            visited.visited = Some(now);
            visited.own = if failed { None } else { Some(own) };
            visited.failures = if failed { visited.failures + 1 } else { 0 };
            visited.not_before = now + pause(visited.failures);
            // It was connected until now.
            visited.heard.at = now;
        }
        Ok(matches!(visit, Visited::Stopped))
    }

    fn hear(&self, known: &mut KnownMap, neighbour: Neighbour) {
        let Some(sighting) = self.marks.read(&neighbour) else { return };
        let (key, now) = (Key::of(&neighbour, sighting), Instant::now());
        let heard = Heard { neighbour, at: now };
        if let Some(known) = known.get_mut(&key) {
            known.heard = heard;
        } else if known.len() < KNOWN_MAX {
            let new = Known { heard, visited: None, failures: 0, not_before: now, own: None };
            known.insert(key, new);
        }
    }

    /// The neighbour that has waited longest of those that have something new; or the only one, once the scan has `settled`.
    fn next(&self, known: &KnownMap, settled: bool) -> Option<(Heard, Option<Sighting>)> {
        let now = Instant::now();
        let due = known.values().filter(|known| known.not_before <= now && known.heard.at.elapsed() < FRESH);
        let wanted = due.filter_map(|known| Some((known, self.marks.read(&known.heard.neighbour)?)));
        let alone = settled && known.len() == 1;
        let own = self.marks.own();
        let wanted = wanted.filter(|(known, sighting)| {
            let sync_marks = match sighting {
                Some(sighting) => self.marks.has_something(*sighting),
                None => {
                    known.own != Some(own) || known.visited.is_none_or(|at| at.elapsed() >= UNREADABLE_PAUSE)
                }
            };
            alone || self.all || sync_marks
        });
        let (known, sighting) = wanted.min_by_key(|(known, _)| known.visited)?;
        Some((known.heard.clone(), sighting))
    }

    /// One sync. With an `adapter` and nobody else about, it goes on until others are heard.
    async fn visit(
        &mut self,
        heard: &Heard,
        sighting: Option<Sighting>,
        adapter: Option<&Adapter>,
        known: &mut KnownMap,
    ) -> Visited {
        let neighbour = &heard.neighbour;
        let stays = adapter.is_some() && known.len() <= 1;
        let before = sighting.map(|sighting| self.marks.before(sighting));
        let name = name_of(neighbour);
        debug!(peer = name, stays, "visiting");
        let uid = match Key::of(neighbour, sighting) {
            Key::Device(device) => format!("ble:device:{device:08x}"),
            Key::Address(address) => format!("ble:{address}"),
        };
        self.shared.hub.emit(SyncEvent::Visiting { peer: name, stays });
        let attempts = if stays { ONE_SHOT_ATTEMPTS } else { 1 };
        let visit = Visit {
            continuous: stays,
            // Whoever is not reached gets its turn again.
            attempts: self.settings.continuous.then_some(attempts),
            uid: Some(uid),
        };
        let replicator = self.settings.start(Arc::new(self.ble.heard(heard.clone())), visit, &self.shared);
        let shared = Arc::clone(&self.shared);
        let mut look = Look { adapter: adapter.filter(|_| stays), scan: None, due: Instant::now() };
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut told, mut leaving) = (false, false);
        let status = loop {
            tokio::select! {
                status = replicator.wait_until_stopped() => break status,
                _ = tick.tick() => {
                    let idle = replicator.status().activity == ReplicatorActivity::Idle;
                    if look.others(idle, |neighbour| {
                        self.hear(known, neighbour);
                        known.len() > 1
                    }).await && !leaving {
                        leaving = true;
                        shared.hub.emit(SyncEvent::OthersNear);
                        replicator.stop();
                    }
                }
                () = shared.stopped(), if !told => {
                    told = true;
                    replicator.stop();
                }
            }
        };
        let complete = status.error.is_none() && !told && !leaving;
        if let Some(before) = before.filter(|_| complete) {
            self.marks.note(before);
        }
        let error = status.error.clone();
        shared.hub.emit(SyncEvent::Visited { status });
        match error {
            _ if told => Visited::Stopped,
            None => Visited::Done,
            Some(source) => {
                Visited::Failed(SyncError::Replication { address: name_of(neighbour).into(), source })
            }
        }
    }
}

/// Looks for others from time to time while a connection stands and nothing is to be moved.
struct Look<'a> {
    adapter: Option<&'a Adapter>,
    scan: Option<(Scan, Instant)>,
    due: Instant,
}

impl Look<'_> {
    /// Goes on for a moment; true once `heard` says that there are others.
    async fn others(&mut self, idle: bool, mut heard: impl FnMut(Neighbour) -> bool) -> bool {
        let Some(adapter) = self.adapter else { return false };
        let now = Instant::now();
        match &mut self.scan {
            None if idle && now >= self.due => match Scan::start(adapter).await {
                Ok(scan) => self.scan = Some((scan, now + LOOK_TIME)),
                Err(error) => {
                    debug!(%error, "cannot look for others now");
                    self.due = now + LOOK_INTERVAL;
                }
            },
            None => {}
            Some((scan, until)) => {
                // What was heard since the last time.
                while let Ok(Ok(neighbour)) = timeout_at(now + Duration::from_millis(1), scan.next()).await {
                    if heard(neighbour) {
                        return true;
                    }
                }
                if !idle || now >= *until {
                    self.scan = None;
                    self.due = now + LOOK_INTERVAL;
                }
            }
        }
        false
    }
}

fn name_of(neighbour: &Neighbour) -> String {
    match &neighbour.name {
        Some(name) => format!("{name} ({})", neighbour.address),
        None => neighbour.address.to_string(),
    }
}

/// Half of it is random, so that machines do not keep in step.
fn pause(failures: u32) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let whole = (PAUSE_MIN * (1 << (failures - 1).min(10))).min(PAUSE_MAX);
    whole.mul_f64(0.5 + 0.5 * fastrand::f64())
}

fn search_failed(error: BluetoothError) -> SyncError {
    SyncError::Search(Arc::new(error.into()))
}
