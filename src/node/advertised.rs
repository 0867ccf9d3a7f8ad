//! Carries out a policy of adverts for one adapter: tells the state machine the time, what has changed here and what peers have
//! fetched, and shows what is advertised.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::advert::{Advert, Delivered, advert_lifetime, advert_turn};
use super::advertising::{AdvertPolicy, Advertiser, Pace};
use crate::time;
use crate::transport::bluez::advertise::{AdvertOrder, PaceControl};
use crate::transport::session::LinkConnection;

/// When to look after a connection has told something, which it does often while documents move.
const LOOK_SOON: Duration = Duration::from_secs(1);
/// When to look once more: peers save how far they have come each 5 s, and when they end.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(6);
/// How often what peers have is looked at while something is pending: syncs that this node begins tell nothing here.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// What an adapter advertises, for people and scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdvertStatus {
    /// How often.
    pub(crate) pace: Pace,
    /// Changes that no peer is known to have.
    pub(crate) pending: u64,
    /// Whether the advert says that they are urgent.
    pub(crate) is_urgent: bool,
    /// What the pace depends on.
    pub(crate) control: PaceControl,
}

/// What the adapters of a node advertise, by their names.
pub(crate) type Adverts = Arc<Mutex<BTreeMap<String, AdvertStatus>>>;

/// What is advertised now, and what will be.
pub(super) struct Advertised {
    advert: Arc<Advert>,
    advertiser: Advertiser,
    delivered: Delivered,
    changes: watch::Receiver<u64>,
    /// Counts what connections have told.
    connections: watch::Receiver<u64>,
    /// Those that began here and may go on.
    sessions: Vec<Weak<LinkConnection>>,
    shown: Adverts,
    /// The adapter under which it is shown.
    adapter: Mutex<Option<String>>,
    start: Instant,
    sealed: Instant,
    lifetime: Duration,
    turn: Instant,
    /// When to look at what peers have, and in which time to look again.
    look: Option<Instant>,
    look_again: Duration,
}

impl Advertised {
    /// `connections` counts what connections have told; what is advertised is shown in `shown`.
    pub(super) fn new(
        advert: &Arc<Advert>,
        policy: AdvertPolicy,
        connections: watch::Receiver<u64>,
        shown: Adverts,
    ) -> Advertised {
        let start = Instant::now();
        let changes = advert.db.watch();
        let delivered = advert.delivered();
        let summary = advert.summary(&policy, &delivered);
        let advertiser = Advertiser::new(policy, time::Instant::ZERO, summary);
        let mut advertised = Advertised {
            advert: Arc::clone(advert),
            advertiser,
            delivered,
            changes,
            connections,
            sessions: Vec::new(),
            shown,
            adapter: Mutex::default(),
            start,
            sealed: start,
            lifetime: advert_lifetime(),
            turn: start + advert_turn(),
            look: None,
            look_again: LOOK_INTERVAL,
        };
        advertised.plan_look(LOOK_INTERVAL);
        advertised
    }

    /// What to advertise from now on. Where it is sealed it is another one each time, so that nobody can follow it.
    pub(super) fn order(&mut self) -> AdvertOrder {
        (self.sealed, self.lifetime) = (Instant::now(), advert_lifetime());
        let advert = self.advertiser.advert();
        let state = self.advert.state(&advert.summary);
        AdvertOrder { state, interval: self.advertiser.interval(advert.pace) }
    }

    /// A session has begun.
    pub(super) fn began(&mut self, connection: &Arc<LinkConnection>) {
        self.sessions.push(Arc::downgrade(connection));
        self.summarize();
    }

    /// Waits until something else is to be advertised. Nothing is lost if it is given up.
    pub(super) async fn next(&mut self) -> AdvertOrder {
        loop {
            let now = self.now();
            if self.advertiser.poll(now).is_some() {
                return self.order();
            }
            let asked = self.advertiser.poll_at(now).map(|at| self.start + at.since(time::Instant::ZERO));
            let wake = [asked, self.look, Some(self.turn)].into_iter().flatten().min().unwrap_or(self.turn);
            tokio::select! {
                Ok(()) = self.changes.changed() => self.summarize(),
                Ok(()) = self.connections.changed() => {
                    let soon = Instant::now() + LOOK_SOON;
                    self.look = Some(self.look.map_or(soon, |look| look.min(soon)));
                    self.look_again = CHECKPOINT_WAIT;
                }
                () = sleep_until(wake) => {
                    if self.look.is_some_and(|look| look <= wake) {
                        self.look();
                        let again = std::mem::replace(&mut self.look_again, LOOK_INTERVAL);
                        self.plan_look(again);
                    }
                    if self.turn <= wake {
                        self.turn = Instant::now() + advert_turn();
                        self.summarize();
                        if self.sealed.elapsed() >= self.lifetime || self.advert.codec.takes_turns() {
                            return self.order();
                        }
                    }
                }
            }
        }
    }

    /// Shows what is advertised, and says so where the pace is another one.
    pub(super) fn show(&self, adapter: &str, control: PaceControl) {
        let advert = self.advertiser.advert();
        let (pending, is_urgent) = (advert.summary.pending, advert.summary.is_urgent);
        let status = AdvertStatus { pace: advert.pace, pending, is_urgent, control };
        let mut name = self.adapter.lock().unwrap_or_else(PoisonError::into_inner);
        *name = Some(adapter.to_owned());
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shown.insert(adapter.to_owned(), status);
        if before.is_none_or(|before| before.pace != advert.pace) {
            info!(
                adapter,
                pending,
                urgent = is_urgent,
                control = control.word(),
                "advertises {}",
                advert.pace.word()
            );
        }
    }

    fn now(&self) -> time::Instant {
        time::Instant::ZERO + self.start.elapsed()
    }

    /// Something has changed here.
    fn summarize(&mut self) {
        let now = self.now();
        self.sessions.retain(|session| session.strong_count() > 0);
        self.advertiser.handle_sessions(now, !self.sessions.is_empty());
        let summary = self.advert.summary(self.advertiser.policy(), &self.delivered);
        self.advertiser.handle_summary(now, summary);
    }

    /// Looks at what peers have.
    fn look(&mut self) {
        self.delivered = self.advert.delivered();
        self.summarize();
    }

    /// Looks again after a while, unless there is nothing that a peer could fetch.
    fn plan_look(&mut self, wait: Duration) {
        let is_pending = self.advert.summary(self.advertiser.policy(), &self.delivered).pending > 0;
        self.look = is_pending.then(|| Instant::now() + wait);
    }
}

impl Drop for Advertised {
    fn drop(&mut self) {
        let name = self.adapter.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(name) = name {
            self.shown.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{Database, DatabaseConfig};
    use crate::replica::store::ReplicaStore;
    use crate::secure::advert::Urgency;
    use crate::transport::bluez::profile::{AdvertState, PlainAdvert};

    fn said(order: AdvertOrder) -> (Option<Duration>, Urgency, u32) {
        let state = AdvertState::decode(&order.state).expect("a plain state");
        (order.interval, state.urgency, state.change)
    }

    /// From a change to silence, as a listener is told it: the change, a peer that fetches it, and time.
    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_fast_until_a_peer_has_it() -> Result<(), Box<dyn std::error::Error>> {
        const FAST: Option<Duration> = Some(Duration::from_millis(100));
        const SLOW: Option<Duration> = Some(Duration::from_secs(1));
        let directory = tempfile::tempdir()?;
        let db = Database::open(directory.path().join("db"), DatabaseConfig::default())?;
        let collection = db.default_collection()?;
        let codec = Arc::new(PlainAdvert { group: 0, device: 1 });
        let advert = Arc::new(Advert { db: db.clone(), collections: vec!["_default".into()], codec });
        let policy = AdvertPolicy {
            silent_after: Some(Duration::from_secs(60)),
            urgent_changes: Some(2),
            ..AdvertPolicy::default()
        };
        let (connections, adverts) = (watch::Sender::new(0), Adverts::default());
        let shown = Arc::clone(&adverts);
        let mut advertised = Advertised::new(&advert, policy, connections.subscribe(), shown);
        assert_eq!(said(advertised.order()), (SLOW, Urgency::None, 0));

        collection.put("a", &serde_json::json!({ "celsius": 21 }))?;
        assert_eq!(said(advertised.next().await), (FAST, Urgency::Pending, 1));
        collection.put("b", &serde_json::json!({ "celsius": 22 }))?;
        assert_eq!(said(advertised.next().await), (FAST, Urgency::Urgent, 2));
        advertised.show("hci0", PaceControl::Registration);
        let shown = adverts.lock().expect("lock").get("hci0").cloned();
        let expected = AdvertStatus {
            pace: Pace::Fast,
            pending: 2,
            is_urgent: true,
            control: PaceControl::Registration,
        };
        assert_eq!(shown, Some(expected));

        // A peer says that it has come so far, as at the end of its connection.
        let id = ReplicaStore::collection(&db, "_default").ok_or("no collection")?;
        db.set_checkpoint(id, "cp-peer", None, bytes::Bytes::from_static(br#"{"remote":2}"#))?;
        connections.send_modify(|count| *count += 1);
        assert_eq!(said(advertised.next().await), (SLOW, Urgency::None, 2));
        let quiet = Instant::now();
        assert_eq!(said(advertised.next().await), (None, Urgency::None, 2));
        assert!((59..=61).contains(&quiet.elapsed().as_secs()), "{:?}", quiet.elapsed());

        drop(advertised);
        assert!(adverts.lock().expect("lock").is_empty(), "nothing is advertised any more");
        Ok(())
    }
}
