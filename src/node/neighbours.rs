//! A sync with all neighbours: whom to sync with, and when.
//!
//! One neighbour is kept connected, so that changes go over at once. Of several, each is visited when it or this database has
//! something new (see [`super::marks`]), one after the other; [`super::schedule`] says whom, and when to leave one that has
//! nothing to move. A quiet one costs no connection.

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
use super::schedule::{self, News, Schedule};
use super::sync_event::SyncEvent;
use super::sync_shared::SyncShared;
use super::visit::{ONE_SHOT_ATTEMPTS, SyncSettings, Visit};
use crate::replicator::{ReplicatorActivity, RetryPolicy};
use crate::time;
use crate::transport::bluez::BluetoothError;
use crate::transport::bluez::adapter::Adapter;
use crate::transport::bluez::central::SCAN_LIMIT;
use crate::transport::bluez::profile::Sighting;
use crate::transport::bluez::scan::{Neighbour, Scan};
use crate::transport::bluez::search::Heard;

/// How long a single sync listens on after it has heard only neighbours without anything new.
const QUIET_LIMIT: Duration = Duration::from_secs(3);
/// How long is listened before somebody counts as the only neighbour, and is connected to although there is nothing new. Who has
/// something new is visited at once.
const SETTLE: Duration = Duration::from_secs(2);
/// How often the only neighbour's connection is left alone to look for others, while there is nothing to move. The first look comes
/// as soon as all has been moved: whoever is heard first is visited at once, so the others may be yet unheard.
const LOOK_INTERVAL: Duration = Duration::from_secs(20);
/// How long such a look takes.
const LOOK_TIME: Duration = Duration::from_secs(3);
/// Longest pause between two tries to use the adapter.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Connections at a time: scanning and connecting take turns on most adapters.
const VISITS_MAX: usize = 1;
/// How often the plan is looked at while a connection stands.
const TICK: Duration = Duration::from_millis(100);

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
            let (shared, began) = (Arc::clone(&shared), Instant::now());
            let mut neighbourhood = Neighbourhood { ble, marks, settings, shared, all, began };
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
    /// The origin of the plan's clock.
    began: Instant,
}

/// Whom to visit: neighbours by the tag of the device, since the address may change, or by the address where no tag can be read.
type Plan = Schedule<Key, Heard>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
                    if self.all || sighting.is_none_or(|sighting| self.marks.pending(sighting) > 0) {
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
        let mut plan = Plan::new(VISITS_MAX, self.all);
        match self.visit(&heard, sighting, None, &mut plan).await {
            Visited::Done | Visited::Stopped => Ok(()),
            Visited::Failed(error) => Err(error),
        }
    }

    /// Syncs with all neighbours until told to stop.
    async fn forever(&mut self) -> Result<(), SyncError> {
        let mut plan = Plan::new(VISITS_MAX, self.all);
        let (mut retry, mut told) = (RetryPolicy::new(None, PAUSE_MAX), String::new());
        loop {
            let error = match self.round(&mut plan).await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    retry.succeeded();
                    told = String::new();
                    continue;
                }
                Err(error) => io::Error::from(error),
            };
            let pause = retry.failed(fastrand::u32(..)).unwrap_or(PAUSE_MAX);
            if told != error.to_string() {
                told = error.to_string();
                self.shared.hub.emit(SyncEvent::Offline { error: Arc::new(error) });
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.shared.stopped() => return Ok(()),
            }
        }
    }

    /// Listens until somebody is to be visited, and visits; true: told to stop.
    async fn round(&mut self, plan: &mut Plan) -> Result<bool, BluetoothError> {
        let adapter = Adapter::open(&self.settings.node.local.bluez, self.ble.adapter_name()).await?;
        let mut scan = Scan::start(&adapter).await?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let began = Instant::now();
        let mut changes = self.settings.node.db.watch();
        changes.mark_changed();
        let key = loop {
            tokio::select! {
                heard = scan.next() => self.hear(plan, heard?),
                Ok(()) = changes.changed() => {
                    plan.reconsider(self.now(), |heard| self.news(&heard.neighbour).unwrap_or(News::Nothing));
                }
                _ = tick.tick() => {}
                () = self.shared.stopped() => return Ok(true),
            }
            if let Some(next) = plan.next(self.now(), began.elapsed() >= SETTLE) {
                break next;
            }
        };
        scan.stop().await;
        let Some(heard) = plan.about(&key).cloned() else { return Ok(false) };
        // Who cannot be read any more, as after a change of the group, is left alone.
        let Some(sighting) = self.marks.read(&heard.neighbour) else { return Ok(false) };
        let own = self.marks.own();
        plan.begin(&key);
        let visit = self.visit(&heard, sighting, Some(&adapter), plan).await;
        let outcome = match visit {
            Visited::Failed(_) => schedule::Visited::Failed { random: fastrand::u32(..) },
            Visited::Done | Visited::Stopped => schedule::Visited::Done { own },
        };
        plan.ended(&key, outcome, self.now());
        Ok(matches!(visit, Visited::Stopped))
    }

    /// The time of the plan.
    fn now(&self) -> time::Instant {
        time::Instant::ZERO + self.began.elapsed()
    }

    /// What a visit may find to do; `None`: it is not meant for us.
    fn news(&self, neighbour: &Neighbour) -> Option<News> {
        Some(match self.marks.read(neighbour)? {
            None => News::Unreadable { own: self.marks.own() },
            Some(sighting) => match self.marks.pending(sighting) {
                0 => News::Nothing,
                changes => News::Pending(changes),
            },
        })
    }

    fn hear(&self, plan: &mut Plan, neighbour: Neighbour) {
        let (Some(sighting), Some(news)) = (self.marks.read(&neighbour), self.news(&neighbour)) else {
            return;
        };
        let key = Key::of(&neighbour, sighting);
        plan.heard(key, Heard { neighbour, at: Instant::now() }, news, self.now());
    }

    /// One sync. With an `adapter` and nobody else about, it goes on until others are heard.
    async fn visit(
        &mut self,
        heard: &Heard,
        sighting: Option<Sighting>,
        adapter: Option<&Adapter>,
        plan: &mut Plan,
    ) -> Visited {
        let neighbour = &heard.neighbour;
        let stays = adapter.is_some() && plan.len() <= 1;
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
                        self.hear(plan, neighbour);
                        plan.is_anybody_waiting(self.now())
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

fn search_failed(error: BluetoothError) -> SyncError {
    SyncError::Search(Arc::new(error.into()))
}
