//! A sync with all neighbours, again and again: carries out what [`super::scheduler`] plans, on one adapter.
//!
//! One neighbour alone is kept connected, so that changes go over at once. Of several, each is visited when it or this database has
//! something new (see [`super::marks`]), as many at a time as the adapter has room for.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::ble::BlePeer;
use super::error::SyncError;
use super::marks::{Directions, SyncMarks};
use super::neighbourhood::{Begun, Key, Neighbourhood};
use super::scheduler::{Action, Ending, GONE_AFTER, News, RETRY_WAIT_MAX, Scheduler, Settings};
use super::sync_event::SyncEvent;
use super::sync_shared::SyncShared;
use super::visit::SyncSettings;
use crate::replicator::{ReplicatorActivity, ReplicatorError, ReplicatorStatus, RetryPolicy};
use crate::transport::bluez::BluetoothError;
use crate::transport::bluez::adapter::Adapter;
use crate::transport::bluez::profile::Sighting;
use crate::transport::bluez::scan::{Neighbour, Scan};
use crate::transport::bluez::search::Heard;
use crate::transport::clock::Clock;

/// How often the plan is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Connections that stay although there is nothing to move.
const KEPT: usize = 1;
/// Adverts kept, of which those of the gone are dropped then: twice as many as the plan keeps neighbours in mind.
const HEARD_MAX: usize = 2_048;
/// The adapter, by its number in the plan.
const RADIO: usize = 0;

/// Syncs with neighbours until there is nothing more to do, or it is told to stop.
pub(super) async fn run(ble: BlePeer, settings: SyncSettings, shared: Arc<SyncShared>) {
    let direction = settings.direction;
    let directions = Directions { push: direction.pushes(), pull: direction.pulls() };
    let result = match &settings.node.local.advert {
        Some(advert) => {
            let marks =
                SyncMarks::new(&advert.db, &advert.collections, Arc::clone(&advert.codec), directions);
            let all = settings.options.reset || settings.options.retry_unsynced;
            let continuous = settings.continuous;
            let neighbourhood = Neighbourhood { ble, marks, settings, shared: Arc::clone(&shared), all };
            if continuous { Rounds::new(neighbourhood).forever().await } else { neighbourhood.once().await }
        }
        None => Ok(()),
    };
    shared.end(result);
}

/// Visits all neighbours, again and again.
struct Rounds {
    of: Neighbourhood,
    clock: Clock,
    plan: Scheduler<Key>,
    heard: HashMap<Key, (Heard, Option<Sighting>)>,
    begun: HashMap<Key, Begun>,
    ends: FuturesUnordered<BoxFuture<'static, (Key, ReplicatorStatus)>>,
    /// Those that were told to leave.
    left: Vec<Key>,
}

impl Rounds {
    fn new(of: Neighbourhood) -> Rounds {
        let settings = Settings { links: of.ble.links(), kept: KEPT, all: of.all, seed: fastrand::u64(..) };
        Rounds {
            of,
            clock: Clock::new(),
            plan: Scheduler::new(settings, 1),
            heard: HashMap::new(),
            begun: HashMap::new(),
            ends: FuturesUnordered::new(),
            left: Vec::new(),
        }
    }

    /// Syncs with all neighbours until told to stop.
    async fn forever(mut self) -> Result<(), SyncError> {
        let shared = Arc::clone(&self.of.shared);
        let (mut retry, mut told) = (RetryPolicy::new(None, RETRY_WAIT_MAX), String::new());
        loop {
            let error = tokio::select! {
                result = self.listen_and_visit(&mut retry, &mut told) => match result {
                    Ok(never) => match never {},
                    Err(error) => io::Error::from(error),
                },
                () = shared.stopped() => break,
            };
            self.plan.set_present(self.clock.now(), RADIO, false);
            if told != error.to_string() {
                told = error.to_string();
                shared.hub.emit(SyncEvent::Offline { error: Arc::new(error) });
            }
            let pause = retry.failed(fastrand::u32(..)).unwrap_or(RETRY_WAIT_MAX);
            let mut over = std::pin::pin!(tokio::time::sleep(pause));
            let stopped = loop {
                tokio::select! {
                    () = &mut over => break false,
                    () = shared.stopped() => break true,
                    Some((key, status)) = self.ends.next() => self.ended(key, status),
                }
            };
            if stopped {
                break;
            }
        }
        self.begun.values().for_each(|begun| begun.replicator.stop());
        self.left.extend(self.begun.keys());
        while let Some((key, status)) = self.ends.next().await {
            self.ended(key, status);
        }
        Ok(())
    }

    /// Carries out the plan until the adapter cannot be used any more. Once it can, `retry` begins anew, and nothing counts as told.
    async fn listen_and_visit(
        &mut self,
        retry: &mut RetryPolicy,
        told: &mut String,
    ) -> Result<Infallible, BluetoothError> {
        let adapter = Adapter::open(&self.of.settings.node.local.bluez, self.of.ble.adapter_name()).await?;
        self.plan.set_present(self.clock.now(), RADIO, true);
        let mut scan: Option<Scan> = None;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut own = self.of.marks.own();
        loop {
            let now = self.clock.now();
            while let Some(action) = self.plan.next(now) {
                match action {
                    Action::Visit { key, stays, .. } => {
                        // A radio that listens connects late.
                        if let Some(scan) = scan.take() {
                            scan.stop().await;
                        }
                        self.visit(key, stays);
                    }
                    Action::Leave(key) => self.leave(key),
                }
            }
            match (self.plan.listens(now, RADIO), scan.is_some()) {
                (true, false) => {
                    scan = Some(Scan::start(&adapter).await?);
                    retry.succeeded();
                    told.clear();
                }
                (false, true) => {
                    if let Some(scan) = scan.take() {
                        scan.stop().await;
                    }
                }
                _ => {}
            }
            let hearing = async {
                match &mut scan {
                    Some(scan) => scan.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                heard = hearing => self.hear(heard?),
                Some((key, status)) = self.ends.next() => self.ended(key, status),
                _ = tick.tick() => {
                    self.follow();
                    let before = std::mem::replace(&mut own, self.of.marks.own());
                    if own != before {
                        self.changed();
                    }
                }
            }
        }
    }

    fn hear(&mut self, neighbour: Neighbour) {
        let Some(sighting) = self.of.marks.read(&neighbour) else { return };
        let key = Key::of(&neighbour, sighting);
        if !self.plan.heard(self.clock.now(), RADIO, key, self.of.news(sighting)) {
            return; // it is one too many
        }
        if self.heard.len() >= HEARD_MAX {
            let begun = &self.begun;
            self.heard.retain(|key, (heard, _)| heard.at.elapsed() < GONE_AFTER || begun.contains_key(key));
        }
        self.heard.insert(key, (Heard { neighbour, at: Instant::now() }, sighting));
    }

    /// This database has changed.
    fn changed(&mut self) {
        let (heard, of) = (&self.heard, &self.of);
        self.plan.changed(self.clock.now(), |key| {
            heard.get(&key).map_or(News::None, |(_, sighting)| of.news(*sighting))
        });
    }

    fn visit(&mut self, key: Key, stays: bool) {
        let Some((heard, sighting)) = self.heard.get(&key) else {
            return self.plan.ended(self.clock.now(), key, Ending::Left);
        };
        let begun = self.of.begin(heard, *sighting, stays, true);
        let replicator = Arc::clone(&begun.replicator);
        self.ends.push(Box::pin(async move { (key, replicator.wait_until_stopped().await) }));
        self.begun.insert(key, begun);
    }

    fn leave(&mut self, key: Key) {
        let Some(begun) = self.begun.get(&key) else { return };
        self.of.shared.hub.emit(SyncEvent::OthersNear);
        begun.replicator.stop();
        self.left.push(key);
    }

    /// Tells the plan how far the visits are.
    fn follow(&mut self) {
        for (key, begun) in &self.begun {
            match begun.replicator.status().activity {
                ReplicatorActivity::Busy => {
                    self.plan.connected(*key);
                    self.plan.idle(*key, false);
                }
                ReplicatorActivity::Idle => {
                    self.plan.connected(*key);
                    self.plan.idle(*key, true);
                }
                _ => {}
            }
        }
    }

    fn ended(&mut self, key: Key, status: ReplicatorStatus) {
        let Some(begun) = self.begun.remove(&key) else { return };
        let left =
            self.left.iter().position(|left| *left == key).map(|at| self.left.swap_remove(at)).is_some();
        let ending = match begun.end(&self.of, status, !left) {
            _ if left => Ending::Left,
            None => Ending::Done,
            Some(error) if is_full(&error) => Ending::Full,
            Some(_) => Ending::Failed,
        };
        self.plan.ended(self.clock.now(), key, ending);
    }
}

/// Whether the adapter had no room for one more connection.
fn is_full(error: &ReplicatorError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        // An io::Error hides the error in it behind that error's own source.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let bluetooth = match inner {
            Some(inner) => inner.downcast_ref::<BluetoothError>(),
            None => error.downcast_ref(),
        };
        if matches!(bluetooth, Some(BluetoothError::SlotsFull { .. })) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::MessagingError;

    #[test]
    fn a_full_adapter_is_known_by_the_error_of_a_visit() {
        let visit =
            |error: BluetoothError| ReplicatorError::Messaging(MessagingError::from(io::Error::from(error)));
        assert!(is_full(&visit(BluetoothError::SlotsFull { adapter: "hci0".into(), slots: 5 })));
        assert!(!is_full(&visit(BluetoothError::AdapterLost { adapter: "hci0".into() })));
    }
}
