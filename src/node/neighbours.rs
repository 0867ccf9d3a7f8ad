//! A sync with all neighbours, again and again: carries out what [`super::scheduler`] plans, on one adapter or several.
//!
//! One neighbour alone is kept connected, so that changes go over at once. Of several, each is visited when it or this database has
//! something new (see [`super::marks`]), as many at a time as the adapters have room for.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, select_all};
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::warn;

use super::ble::BlePeer;
use super::error::SyncError;
use super::listening::{Happened, Listening};
use super::marks::{Directions, SyncMarks};
use super::neighbourhood::{Begun, Key, Neighbourhood};
use super::scheduler::{Action, Ending, GONE_AFTER, News, RadioPlan, Scheduler, Settings};
use super::sync_event::SyncEvent;
use super::sync_shared::SyncShared;
use super::visit::SyncSettings;
use crate::replicator::{ReplicatorActivity, ReplicatorError, ReplicatorStatus};
use crate::transport::bluez::BluetoothError;
use crate::transport::bluez::profile::Sighting;
use crate::transport::bluez::scan::Neighbour;
use crate::transport::bluez::search::Heard;
use crate::transport::clock::Clock;

/// How often the plan is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Connections that stay although there is nothing to move.
const KEPT: usize = 1;
/// Adverts kept for each adapter, of which those of the gone are dropped then: twice as many as the plan keeps neighbours in mind.
const HEARD_MAX: usize = 2_048;

/// Who was heard, and what its advert says.
type Advertised = (Heard, Option<Sighting>);

/// Syncs with neighbours until there is nothing more to do, or it is told to stop.
pub(super) async fn run(ways: Vec<BlePeer>, settings: SyncSettings, shared: Arc<SyncShared>) {
    let direction = settings.direction;
    let directions = Directions { push: direction.pushes(), pull: direction.pulls() };
    let result = match &settings.node.local.advert {
        Some(advert) => {
            let marks =
                SyncMarks::new(&advert.db, &advert.collections, Arc::clone(&advert.codec), directions);
            let all = settings.options.reset || settings.options.retry_unsynced;
            let continuous = settings.continuous;
            let neighbourhood = Neighbourhood { ways, marks, settings, shared: Arc::clone(&shared), all };
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
    /// By their number in the plan.
    radios: Vec<Listening>,
    /// What each radio has heard.
    heard: HashMap<(Key, usize), Advertised>,
    begun: HashMap<Key, Begun>,
    ends: FuturesUnordered<BoxFuture<'static, (Key, ReplicatorStatus)>>,
    /// Those that were told to leave.
    left: Vec<Key>,
}

impl Rounds {
    fn new(of: Neighbourhood) -> Rounds {
        let settings = Settings { kept: KEPT, all: of.all, seed: fastrand::u64(..) };
        let plans: Vec<RadioPlan> = of.ways.iter().map(BlePeer::plan).collect();
        let bluez = &of.settings.node.local.bluez;
        let radios = of.ways.iter().map(|way| Listening::new(bluez.clone(), way.clone())).collect();
        let clock = Clock::new();
        let mut plan = Scheduler::new(settings, &plans);
        (0..plans.len()).for_each(|radio| plan.set_present(clock.now(), radio, false));
        Rounds {
            of,
            clock,
            plan,
            radios,
            heard: HashMap::new(),
            begun: HashMap::new(),
            ends: FuturesUnordered::new(),
            left: Vec::new(),
        }
    }

    /// Syncs with all neighbours until told to stop.
    async fn forever(mut self) -> Result<(), SyncError> {
        let shared = Arc::clone(&self.of.shared);
        tokio::select! {
            never = self.listen_and_visit() => match never {},
            () = shared.stopped() => {}
        }
        self.begun.values().for_each(|begun| begun.replicator.stop());
        self.left.extend(self.begun.keys());
        while let Some((key, status)) = self.ends.next().await {
            self.ended(key, status);
        }
        Ok(())
    }

    /// Carries out the plan.
    async fn listen_and_visit(&mut self) -> Infallible {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut own = self.of.marks.own();
        loop {
            self.act().await;
            let (radio, happened) = tokio::select! {
                happens = next(&mut self.radios) => happens,
                Some((key, status)) = self.ends.next() => {
                    self.ended(key, status);
                    continue;
                }
                _ = tick.tick() => {
                    self.follow();
                    let before = std::mem::replace(&mut own, self.of.marks.own());
                    if own != before {
                        self.changed();
                    }
                    continue;
                }
            };
            self.happened(radio, happened);
        }
    }

    /// What is due now.
    async fn act(&mut self) {
        let now = self.clock.now();
        while let Some(action) = self.plan.next(now) {
            match action {
                Action::Visit { key, stays, radio } => {
                    // A radio that listens connects late.
                    self.radios[radio].listen(false).await;
                    self.visit(key, radio, stays);
                }
                Action::Leave(key) => self.leave(key),
            }
        }
        for radio in 0..self.radios.len() {
            let wanted = self.plan.listens(now, radio);
            if let Some(happened) = self.radios[radio].listen(wanted).await {
                self.happened(radio, happened);
            }
        }
    }

    fn happened(&mut self, radio: usize, happened: Happened) {
        let now = self.clock.now();
        match happened {
            Happened::Present => self.plan.set_present(now, radio, true),
            Happened::Heard(neighbour) => self.hear(radio, neighbour),
            Happened::Lost(error) => {
                self.plan.set_present(now, radio, false);
                let others_go_on = self.plan.is_present();
                if others_go_on {
                    // Alone they would wait for it, to be resumed when it is back; now they are visited through another one.
                    let visited: Vec<Key> = self.plan.visited_through(radio).collect();
                    visited.into_iter().for_each(|key| self.stop(key));
                }
                let Some(error) = error else { return };
                if others_go_on {
                    warn!("{error}; the other adapters go on without it, and it is tried again");
                } else {
                    self.of.shared.hub.emit(SyncEvent::Offline { error: Arc::new(error) });
                }
            }
        }
    }

    fn hear(&mut self, radio: usize, neighbour: Neighbour) {
        let Some(sighting) = self.of.marks.read(&neighbour) else { return };
        let key = Key::of(&neighbour, sighting);
        if !self.plan.heard(self.clock.now(), radio, key, self.of.news(sighting)) {
            return; // it is one too many
        }
        if self.heard.len() >= HEARD_MAX * self.radios.len() {
            let begun = &self.begun;
            self.heard
                .retain(|(key, _), (heard, _)| heard.at.elapsed() < GONE_AFTER || begun.contains_key(key));
        }
        self.heard.insert((key, radio), (Heard { neighbour, at: Instant::now() }, sighting));
    }

    /// This database has changed.
    fn changed(&mut self) {
        let (heard, of, radios) = (&self.heard, &self.of, self.radios.len());
        self.plan.changed(self.clock.now(), |key| {
            newest(heard, radios, key).map_or(News::None, |(_, sighting)| of.news(*sighting))
        });
    }

    fn visit(&mut self, key: Key, radio: usize, stays: bool) {
        let Some((heard, sighting)) = self.heard.get(&(key, radio)) else {
            return self.plan.ended(self.clock.now(), key, Ending::Left);
        };
        let begun = self.of.begin(&self.radios[radio].way, heard, *sighting, stays, true);
        let replicator = Arc::clone(&begun.replicator);
        self.ends.push(Box::pin(async move { (key, replicator.wait_until_stopped().await) }));
        self.begun.insert(key, begun);
    }

    fn leave(&mut self, key: Key) {
        if self.begun.contains_key(&key) {
            self.of.shared.hub.emit(SyncEvent::OthersNear);
            self.stop(key);
        }
    }

    /// Ends a visit; it has not failed.
    fn stop(&mut self, key: Key) {
        if let Some(begun) = self.begun.get(&key)
            && !self.left.contains(&key)
        {
            begun.replicator.stop();
            self.left.push(key);
        }
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

/// The next thing that happens on any of the radios. May be dropped without loss.
async fn next(radios: &mut [Listening]) -> (usize, Happened) {
    let (happened, radio, _) = select_all(radios.iter_mut().map(|radio| Box::pin(radio.next()))).await;
    (radio, happened)
}

/// The last advert of a neighbour, whichever of so many radios has heard it.
fn newest(heard: &HashMap<(Key, usize), Advertised>, radios: usize, key: Key) -> Option<&Advertised> {
    (0..radios).filter_map(|radio| heard.get(&(key, radio))).max_by_key(|(heard, _)| heard.at)
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
