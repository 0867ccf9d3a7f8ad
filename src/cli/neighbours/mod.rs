//! `sync ble:any`: whom to sync with, and when.
//!
//! One neighbour is kept connected, so that changes go over at once. Of several, each is visited when it or this database has
//! something new (see [`sync_marks`]), one after the other, the one first that waits longest; a quiet one costs no connection.

pub(super) mod sync_marks;

use std::collections::HashMap;
use std::time::Duration;

use bluer::Address;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tracing::debug;

use self::sync_marks::SyncMarks;
use super::display::Display;
use super::events::Events;
use super::feed::Feed;
use super::runtime::{CLOSING_LIMIT, Signals};
use super::{CliError, Exit};
use crate::replicator::{Replicator, ReplicatorActivity};
use crate::transport::bluez::BluetoothError;
use crate::transport::bluez::adapter::Adapter;
use crate::transport::bluez::central::SCAN_LIMIT;
use crate::transport::bluez::profile::Sighting;
use crate::transport::bluez::scan::{Heard, Neighbour, Scan};

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
/// How often the display follows and the plan is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Neighbours kept in mind.
const KNOWN_MAX: usize = 256;

/// Makes a replicator for a neighbour: its advert, a name that outlives its address, and whether it goes on for ever.
pub(super) type MakeReplicator<'a> = dyn Fn(&Heard, String, bool) -> Replicator + Send + Sync + 'a;

/// What all visits of one command share.
pub(super) struct Neighbourhood<'a> {
    pub(super) adapter: Option<&'a str>,
    pub(super) sync_marks: SyncMarks,
    pub(super) events: &'a Events,
    pub(super) replicator: &'a MakeReplicator<'a>,
    pub(super) signals: &'a mut Signals,
    /// Whether connections are encrypted, for the display.
    pub(super) secure: bool,
    /// Visit also those who have nothing new.
    pub(super) all: bool,
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
enum Visit {
    Done,
    Failed(CliError),
    /// A signal came.
    Told,
}

impl Neighbourhood<'_> {
    /// One sync with the first neighbour that has something new; gives the number of documents that went over. No connection
    /// is made if all that are heard have nothing.
    pub(super) async fn once(&mut self) -> Result<u64, CliError> {
        let adapter = Adapter::open(self.adapter).await.map_err(super::ble::cli_error)?;
        let mut scan = Scan::start(&adapter).await.map_err(super::ble::cli_error)?;
        let began = Instant::now();
        let (mut deadline, mut quiet) = (began + SCAN_LIMIT, HashMap::new());
        let found = loop {
            let heard = tokio::select! {
                heard = timeout_at(deadline, scan.next()) => heard,
                () = self.signals.next() => return Err(interrupted()),
            };
            match heard {
                Ok(heard) => {
                    let neighbour = heard.map_err(super::ble::cli_error)?;
                    let Some(sighting) = self.sync_marks.read(&neighbour) else { continue };
                    if self.all || sighting.is_none_or(|sighting| self.sync_marks.has_something(sighting)) {
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
                return Err(super::ble::cli_error(BluetoothError::NotSeen { peer, within: SCAN_LIMIT }));
            }
            let names: Vec<String> = quiet.values().map(name_of).collect();
            self.events.say(&format!("nothing new at {}: not connected", names.join(", ")));
            return Ok(0);
        };
        let mut documents = 0;
        match self.visit(&heard, sighting, None, &mut KnownMap::new(), &mut None, &mut documents).await {
            Visit::Done => Ok(documents),
            Visit::Failed(error) => Err(error),
            Visit::Told => Err(interrupted()),
        }
    }

    /// Syncs with all neighbours until told to stop; gives the number of documents that went over.
    pub(super) async fn forever(&mut self, mut feed: Option<Feed>) -> Result<u64, CliError> {
        let (mut documents, mut known, mut failures) = (0, KnownMap::new(), 0);
        let mut said = String::new();
        loop {
            let error = match self.round(&mut feed, &mut known, &mut documents).await {
                Ok(true) => return Ok(documents),
                Ok(false) => {
                    (failures, said) = (0, String::new());
                    continue;
                }
                Err(error) => error,
            };
            if error.exit() != Exit::Peer {
                return Err(error);
            }
            failures += 1;
            if said != error.to_string() {
                said = error.to_string();
                self.events.say(&format!("offline: {said}; will try again"));
            }
            tokio::select! {
                () = tokio::time::sleep(pause(failures)) => {}
                () = self.signals.next() => return Ok(documents),
            }
        }
    }

    /// Listens until somebody is to be visited, and visits; true: told to stop.
    async fn round(
        &mut self,
        feed: &mut Option<Feed>,
        known: &mut KnownMap,
        documents: &mut u64,
    ) -> Result<bool, CliError> {
        let adapter = Adapter::open(self.adapter).await.map_err(super::ble::cli_error)?;
        let mut scan = Scan::start(&adapter).await.map_err(super::ble::cli_error)?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let began = Instant::now();
        let (heard, sighting) = loop {
            tokio::select! {
                heard = scan.next() => {
                    let neighbour = heard.map_err(super::ble::cli_error)?;
                    self.hear(known, neighbour);
                }
                _ = tick.tick() => finish_feed(feed, self.events).await?,
                () = self.signals.next() => return Ok(true),
            }
            known.retain(|_, known| known.heard.at.elapsed() < GONE_AFTER);
            if let Some(next) = self.next(known, began.elapsed() >= SETTLE) {
                break next;
            }
        };
        scan.stop().await;
        let own = self.sync_marks.own();
        let visit = self.visit(&heard, sighting, Some(&adapter), known, feed, documents).await;
        let now = Instant::now();
        if let Some(visited) = known.get_mut(&Key::of(&heard.neighbour, sighting)) {
            let failed = matches!(visit, Visit::Failed(_));
            visited.visited = Some(now);
            visited.own = if failed { None } else { Some(own) };
            visited.failures = if failed { visited.failures + 1 } else { 0 };
            visited.not_before = now + pause(visited.failures);
            // It was connected until now.
            visited.heard.at = now;
        }
        match visit {
            Visit::Done => Ok(false),
            Visit::Told => Ok(true),
            Visit::Failed(error) if error.exit() != Exit::Peer => Err(error),
            Visit::Failed(error) => {
                self.events.say(&format!("{error}; will try again"));
                Ok(false)
            }
        }
    }

    fn hear(&self, known: &mut KnownMap, neighbour: Neighbour) {
        let Some(sighting) = self.sync_marks.read(&neighbour) else { return };
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
        let wanted = due.filter_map(|known| Some((known, self.sync_marks.read(&known.heard.neighbour)?)));
        let alone = settled && known.len() == 1;
        let own = self.sync_marks.own();
        let wanted = wanted.filter(|(known, sighting)| {
            let sync_marks = match sighting {
                Some(sighting) => self.sync_marks.has_something(*sighting),
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
        feed: &mut Option<Feed>,
        documents: &mut u64,
    ) -> Visit {
        let neighbour = &heard.neighbour;
        let stays = adapter.is_some() && known.len() <= 1;
        let before = sighting.map(|sighting| self.sync_marks.before(sighting));
        let name = name_of(neighbour);
        debug!(peer = name, stays, "visiting");
        let uid = match Key::of(neighbour, sighting) {
            Key::Device(device) => format!("ble:device:{device:08x}"),
            Key::Address(address) => format!("ble:{address}"),
        };
        let replicator = (self.replicator)(heard, uid, stays);
        let events = self.events;
        let mut display = Display::new(name, self.secure, stays, events);
        let mut look = Look { adapter: adapter.filter(|_| stays), scan: None, due: Instant::now() };
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut told, mut leaving) = (false, false);
        let mut closing = std::pin::pin!(async { tokio::time::sleep(CLOSING_LIMIT).await });
        let mut failure = None;
        loop {
            tokio::select! {
                status = replicator.wait_until_stopped() => {
                    display.show(&status);
                    break;
                }
                _ = tick.tick() => {
                    let status = replicator.status();
                    display.show(&status);
                    if let Err(error) = finish_feed(feed, events).await {
                        failure = Some(error);
                        replicator.stop();
                    }
                    let idle = status.activity == ReplicatorActivity::Idle;
                    if look.others(idle, |neighbour| {
                        self.hear(known, neighbour);
                        known.len() > 1
                    }).await && !leaving {
                        leaving = true;
                        display.say("others are near: visiting each that has something new");
                        replicator.stop();
                    }
                }
                () = self.signals.next() => {
                    if told {
                        return Visit::Failed(interrupted());
                    }
                    told = true;
                    display.say("stopping");
                    replicator.stop();
                }
                () = &mut closing, if told => {
                    display.say("the peer did not end in time: cut off");
                    break;
                }
            }
        }
        let status = replicator.status();
        let complete = status.error.is_none() && !told && !leaving;
        match display.finish(&status, false) {
            Ok(moved) => *documents += moved,
            Err(error) => failure = failure.or(Some(error)),
        }
        match failure {
            Some(error) => Visit::Failed(error),
            None if told => Visit::Told,
            None => {
                if let Some(before) = before.filter(|_| complete) {
                    self.sync_marks.note(before);
                }
                Visit::Done
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

fn interrupted() -> CliError {
    CliError::new(Exit::Interrupted, "interrupted; the next sync continues from here")
}

async fn finish_feed(feed: &mut Option<Feed>, events: &Events) -> Result<(), CliError> {
    match feed.take_if(|feed| feed.is_finished()) {
        Some(done) => super::sync::finish_feed(done, events).await,
        None => Ok(()),
    }
}
