//! A gateway with rules over simulated months: field devices that come and go, are put back and reset, an upstream, a stream of
//! readings, single documents that are purged or expire, tombstones that are forgotten, and perhaps the upstream's word before
//! anything goes. The oracle knows every revision that was made and every one that went.
//!
//! One file, because the world, its oracle and what is told of a history belong together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::exchange::{active, passive};
use super::for_seeds;
use super::pair::Pair;
use crate::database::retained::AgedDocument;
use crate::database::{Collection, Database, DatabaseConfig, SimulatedDisk};
use crate::node::retention::tombstones::{Span, TombstoneKeeper};
use crate::node::retention::{Extent, Keeper, Rule, Step};
use crate::replica::revision::{Causality, SourceId, VersionVector};
use crate::replica::store::{CollectionId, ReplicaStore};
use crate::replicator::config::{ActiveConfig, ReplicatorType};
use crate::replicator::delivery;

/// When it begins, seconds since 1970.
pub(super) const START: u64 = 1_795_000_000;
const HOUR: u64 = 3_600;
const NS: u64 = 1_000_000_000;
const DEFAULT: CollectionId = CollectionId(0);
/// Part of a limit that removal makes free.
const SHARE: u64 = 32;
const STEPS: u64 = 90;
/// Under which it is noted what the upstream has confirmed.
const UPSTREAM: &str = "upstream";

/// Histories of a run; more by `GATTWAY_RETENTION_SEEDS`.
fn seeds() -> u64 {
    std::env::var("GATTWAY_RETENTION_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2)
}

pub(super) struct Device {
    pub(super) disk: SimulatedDisk,
    pub(super) database: Arc<Database>,
    images: Vec<SimulatedDisk>,
}

impl Device {
    pub(super) fn new(name: u8, now: &Arc<AtomicU64>) -> Device {
        let clock = Arc::clone(now);
        let wall = move || clock.load(Ordering::Relaxed) * NS;
        let disk = SimulatedDisk::new(u64::from(name), SourceId([name; 16]), wall);
        let database = Device::open(&disk);
        Device { disk, database, images: Vec::new() }
    }

    pub(super) fn open(disk: &SimulatedDisk) -> Arc<Database> {
        Arc::new(Database::open_simulated(disk, DatabaseConfig::default()).expect("open"))
    }

    pub(super) fn collection(&self) -> Collection {
        self.database.default_collection().expect("default")
    }

    /// All that is there, tombstones too: the revision, and whether it is deleted.
    pub(super) fn all(&self) -> BTreeMap<String, (VersionVector, bool)> {
        let changes = self.database.changes(DEFAULT, 0, usize::MAX, false).expect("changes");
        changes.into_iter().map(|change| (change.id, (change.vector, change.deleted))).collect()
    }
}

/// One history.
struct World {
    seed: u64,
    rng: fastrand::Rng,
    now: Arc<AtomicU64>,
    rule: Rule,
    keeper: Keeper,
    gateway: Device,
    fields: Vec<Device>,
    upstream: Device,
    readings: u64,
    syncs: u64,
    /// Revisions that the gateway has removed, by the rule or one by one.
    removed: HashMap<String, Vec<VersionVector>>,
    /// The newest time of those that went by the rule.
    horizon: u64,
    removed_by_rule: u64,
    /// How long tombstones are kept.
    tombstones: Duration,
    tombstone_keeper: TombstoneKeeper,
    tombstones_removed: u64,
    /// Whether nothing goes before the upstream has it.
    only_confirmed: bool,
    /// The last meetings and what else befell devices, for people.
    history: Vec<String>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let now = Arc::new(AtomicU64::new(START));
        let mut rule = Rule::default();
        if rng.bool() {
            rule.age = Some(Duration::from_secs(rng.u64(48..1_000) * HOUR));
        }
        if rng.bool() {
            rule.documents = Some(rng.u64(40..200));
        }
        if rng.bool() || rule == Rule::default() {
            rule.bytes = Some(rng.u64(4_000..20_000));
        }
        World {
            seed,
            keeper: Keeper::new(rule.clone()),
            rule,
            tombstones: Duration::from_secs(rng.u64(3..30) * 24 * HOUR),
            tombstone_keeper: TombstoneKeeper::default(),
            tombstones_removed: 0,
            only_confirmed: rng.bool(),
            gateway: Device::new(1, &now),
            fields: (2..5).map(|name| Device::new(name, &now)).collect(),
            upstream: Device::new(9, &now),
            rng,
            now,
            readings: 0,
            syncs: 0,
            removed: HashMap::new(),
            horizon: 0,
            removed_by_rule: 0,
            history: Vec::new(),
        }
    }

    fn wall(&self) -> u64 {
        self.now.load(Ordering::Relaxed) * NS
    }

    /// What devices do by themselves.
    fn live(&mut self) {
        self.now.fetch_add(self.rng.u64(1..36 * HOUR), Ordering::Relaxed);
        for field in 0..self.fields.len() {
            let collection = self.fields[field].collection();
            for _ in 0..self.rng.usize(0..6) {
                self.readings += 1;
                let text = "x".repeat(self.rng.usize(0..60));
                let body = json!({ "n": self.readings, "text": text });
                collection.put(&format!("f{field}-{:06}", self.readings), &body).expect("put");
            }
            let all = self.fields[field].all();
            let some = all.iter().filter(|(_, (_, deleted))| !deleted).map(|(id, _)| id.clone());
            let some: Vec<String> = some.collect();
            if some.is_empty() {
                continue;
            }
            let id = &some[self.rng.usize(..some.len())];
            match self.rng.u8(0..12) {
                0 => drop(collection.put(id, &json!({ "changed": self.readings })).expect("put")),
                1 => drop(collection.delete(id).expect("delete")),
                _ => {}
            }
            if self.rng.u8(0..10) == 0 {
                let image = self.fields[field].disk.synced_image();
                self.fields[field].images.push(image);
            }
        }
        self.remove_single();
    }

    /// Somebody purges documents of the gateway, or they expire.
    fn remove_single(&mut self) {
        let all: Vec<(String, (VersionVector, bool))> = self.gateway.all().into_iter().collect();
        if all.is_empty() || self.rng.u8(0..3) > 0 {
            return;
        }
        let (id, (vector, _)) = &all[self.rng.usize(..all.len())];
        let collection = self.gateway.collection();
        if self.rng.bool() {
            assert!(collection.purge(id).expect("purge"));
        } else {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(self.now.load(Ordering::Relaxed));
            collection.set_expiration(id, Some(now)).expect("set");
        }
        self.removed.entry(id.clone()).or_default().push(vector.clone());
        if self.rng.bool() {
            let _ = self.gateway.database.remove_due(3).expect("remove");
        }
    }

    /// Devices are put back, and the gateway is started again.
    fn trouble(&mut self) {
        let field = self.rng.usize(..self.fields.len());
        let field = &mut self.fields[field];
        if !field.images.is_empty() && self.rng.u8(0..12) == 0 {
            let image = self.rng.usize(..field.images.len());
            field.disk.put_back(&field.images[image]);
            field.database = Device::open(&field.disk);
            // It goes on from there: what came after is given up, and not a second past of the same author.
            field.images.truncate(image + 1);
            self.history.push(format!("{:?} put back", field.disk));
        }
        match self.rng.u8(0..12) {
            0 => {
                self.gateway.database = Device::open(&self.gateway.disk);
                self.keeper = Keeper::new(self.rule.clone());
            }
            1 => drop(self.gateway.database.compact().expect("compact")),
            _ => {}
        }
    }

    /// The gateway meets some of the others.
    fn meet(&mut self) {
        for other in 0..=self.fields.len() {
            if self.rng.u8(0..5) > 1 {
                continue;
            }
            let peer = self.fields.get(other).unwrap_or(&self.upstream);
            let before = self.gateway.all();
            self.syncs += 1;
            let (connects, ours, theirs) = (self.rng.bool(), self.rng.bool(), self.rng.bool());
            let reset = self.rng.u8(0..6) == 0;
            let (a, p) = if connects { (&self.gateway, peer) } else { (peer, &self.gateway) };
            let peer_uid = format!("{other}");
            self.history.push(format!("{other} connects {} {ours} {theirs} reset {reset}", !connects));
            // Once more, for what was resolved. Whoever still has what was removed here, where a revision beside it has come from
            // elsewhere, is asked for it by who connects, in the third run; and lists it when it connects and compares everything.
            for round in 0..6 {
                if round == 3 && !self.has_parted(&peer.all()) {
                    break;
                }
                let config = ActiveConfig {
                    reset: (reset && round == 0) || (round == 3 && !connects),
                    peer_uid: peer_uid.clone(),
                    mark_seed: self.rng.u64(..),
                    confirmed_as: (connects && other == self.fields.len()).then(|| UPSTREAM.into()),
                    ..active(ReplicatorType::PushAndPull, ours)
                };
                let seed = self.seed * 10_000 + 6 * self.syncs + round;
                let mut pair =
                    Pair::new(seed, config, passive(theirs), &a.database, &p.database).without_events();
                pair.run().expect("a clean end");
            }
            self.check_meeting(&before, &peer.all());
        }
    }

    /// Whether a revision of a document is one that the gateway has removed, or an ancestor of one.
    fn is_old(&self, id: &str, vector: &VersionVector) -> bool {
        let mut of_it = self.removed.get(id).into_iter().flatten();
        of_it.any(|gone| matches!(vector.compare(gone), Causality::Same | Causality::Older))
    }

    /// Whether a peer has kept a revision that was removed here, and one beside it is here by now.
    fn has_parted(&self, peer: &BTreeMap<String, (VersionVector, bool)>) -> bool {
        let here = self.gateway.all();
        let conflicts = |id: &String, vector: &VersionVector| {
            here.get(id).is_some_and(|(ours, _)| ours.compare(vector) == Causality::Conflict)
        };
        peer.iter().any(|(id, (vector, _))| conflicts(id, vector) && self.is_old(id, vector))
    }

    /// After the two have met: nothing that was removed is back, and the gateway has all that is wanted of the peer's.
    fn check_meeting(
        &self,
        before: &BTreeMap<String, (VersionVector, bool)>,
        peer: &BTreeMap<String, (VersionVector, bool)>,
    ) {
        let after = self.gateway.all();
        for (id, (vector, _)) in after.iter().filter(|(id, _)| !before.contains_key(*id)) {
            assert!(!self.is_old(id, vector), "{id} is back: {vector:?}");
        }
        for (id, (vector, deleted)) in peer {
            let is_wanted = vector.current.time > self.horizon && !self.is_old(id, vector);
            let there = after.get(id);
            assert!(
                !is_wanted || there.is_some(),
                "{id} of a peer is missing: {vector:?}, deleted {deleted}; {}",
                self.history.join(", ")
            );
            if let Some((ours, _)) = there {
                assert_eq!(
                    ours.current,
                    vector.current,
                    "{id} differs: {ours:?}, {vector:?} at the peer {deleted}; {}",
                    self.history.join(", ")
                );
            }
        }
        // The peer keeps its own; it gets nothing that the gateway does not have.
        let unknown: Vec<&String> = before.keys().filter(|id| !after.contains_key(*id)).collect();
        assert!(unknown.is_empty(), "a sync has removed {unknown:?}");
    }

    /// The rule is looked after, as the gateway's task does it.
    fn keep(&mut self) {
        let collection = self.gateway.collection();
        loop {
            let extent = Extent {
                documents: collection.count(),
                last_sequence: collection.last_sequence(),
                confirmed: self.confirmed(),
            };
            match self.keeper.next(collection.wall(), extent) {
                Step::Wait(_) => break,
                Step::Look { after } => {
                    let (seen, until) = look(&collection, after);
                    seen.iter().for_each(|seen| self.keeper.look(seen));
                    self.keeper.looked(until);
                }
                Step::Sweep(mut sweep) => {
                    let mut after = 0;
                    while after < extent.last_sequence {
                        let (seen, until) = look(&collection, after);
                        seen.into_iter().for_each(|seen| sweep.see(seen));
                        after = until;
                    }
                    let goes = self.keeper.swept(collection.wall(), sweep);
                    for some in goes.chunks(7) {
                        let ids: BTreeSet<&str> = some.iter().map(|aged| &*aged.id).collect();
                        self.check_removal(&collection, &ids);
                        let removed = some.iter().map(|aged| (&*aged.id, aged.sequence));
                        assert_eq!(
                            collection.remove_aged(removed, self.only_confirmed).expect("remove"),
                            some.len() as u64
                        );
                    }
                }
            }
        }
        if self.only_confirmed {
            return;
        }
        let (all, _) = look_all(&collection);
        let bytes: u64 = all.iter().map(|seen| seen.bytes).sum();
        assert!(self.rule.documents.is_none_or(|limit| all.len() as u64 <= limit), "{} documents", all.len());
        assert!(self.rule.bytes.is_none_or(|limit| bytes <= limit), "{bytes} bytes");
        if let Some(age) = self.rule.age {
            let longest = age.as_nanos() as u64 + age.as_nanos() as u64 / SHARE;
            let too_old = all.iter().find(|seen| seen.time.is_some_and(|time| time + longest < self.wall()));
            assert_eq!(too_old, None);
        }
    }

    /// Up to which sequence of the gateway documents may go.
    fn confirmed(&self) -> u64 {
        match self.only_confirmed {
            true => delivery::confirmed_until(&*self.gateway.database, DEFAULT, UPSTREAM).expect("read"),
            false => u64::MAX,
        }
    }

    /// Tombstones are looked after, as the gateway's task does it.
    fn forget(&mut self) {
        let (collection, now) = (self.gateway.collection(), self.wall());
        let delivered = delivery::delivered_until(&*self.gateway.database, DEFAULT).expect("read");
        self.tombstone_keeper.note(now, collection.last_sequence(), self.tombstones);
        let due = self.tombstone_keeper.due(now, delivered, self.tombstones);
        let Some(Span { mut after, until }) = due else { return };
        let all = self.gateway.all();
        while after < until {
            let (found, last) = collection.tombstones_since(after, until, 50).expect("look");
            for (id, _) in &found {
                let (vector, deleted) = &all[&**id];
                assert!(deleted, "{id} is no tombstone");
                self.removed.entry(id.to_string()).or_default().push(vector.clone());
            }
            let ids = found.iter().map(|(id, sequence)| (&**id, *sequence));
            self.tombstones_removed += collection.remove_tombstones(ids).expect("remove");
            after = last;
        }
        self.tombstone_keeper.removed(until);
        self.history.push(format!("tombstones forgotten up to {until}, {delivered} delivered"));
    }

    /// What is about to be removed is beyond the rule, and the oldest.
    fn check_removal(&mut self, collection: &Collection, ids: &BTreeSet<&str>) {
        let (all, _) = look_all(collection);
        let (vectors, confirmed) = (self.gateway.all(), self.confirmed());
        for seen in all.iter().filter(|seen| ids.contains(&*seen.id)) {
            let time = seen.time.expect("all clocks are right");
            // Devices may give the same time. What is older and not confirmed stays as well.
            let stays = |other: &&AgedDocument| {
                (other.time, other.sequence) > (seen.time, seen.sequence) || other.sequence > confirmed
            };
            let newer = all.iter().filter(stays);
            let (count, bytes) = newer.fold((0, 0), |(count, bytes), other| (count + 1, bytes + other.bytes));
            let is_too_old = self.rule.age.is_some_and(|age| time + age.as_nanos() as u64 <= self.wall());
            let is_beyond = self.rule.documents.is_some_and(|limit| count >= limit - limit / SHARE)
                || self.rule.bytes.is_some_and(|limit| bytes + seen.bytes > limit - limit / SHARE);
            assert!(is_too_old || is_beyond, "{seen:?} is still wanted: {count} newer of {bytes} bytes");
            // Where the upstream's word is waited for, what comes late is wanted.
            if !self.only_confirmed {
                self.horizon = self.horizon.max(time);
            }
            self.removed_by_rule += 1;
            let (vector, _) = &vectors[&*seen.id];
            if self.only_confirmed {
                let at_upstream = self.upstream.all().remove(&*seen.id);
                let has_it = |there: &VersionVector| {
                    matches!(vector.compare(there), Causality::Same | Causality::Older)
                };
                assert!(
                    at_upstream.is_some_and(|(there, _)| has_it(&there)),
                    "the upstream lacks {}",
                    seen.id
                );
            }
            self.removed.entry(seen.id.to_string()).or_default().push(vector.clone());
        }
    }
}

fn look(collection: &Collection, after: u64) -> (Vec<AgedDocument>, u64) {
    collection.ages_since(after, 50).expect("look")
}

fn look_all(collection: &Collection) -> (Vec<AgedDocument>, u64) {
    let (mut all, mut after, end) = (Vec::new(), 0, collection.last_sequence());
    while after < end {
        let (seen, until) = look(collection, after);
        all.extend(seen);
        after = until;
    }
    (all, after)
}

#[test]
fn what_rules_remove_stays_away_and_what_is_wanted_stays() {
    let (totals, tombstones, histories) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    for_seeds(seeds(), |seed| {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.live();
            world.trouble();
            world.meet();
            world.keep();
            world.forget();
        }
        let report = world.gateway.database.verify().expect("verify");
        assert!(report.is_sound(), "{report:?}");
        totals.fetch_add(world.removed_by_rule, Ordering::Relaxed);
        tombstones.fetch_add(world.tombstones_removed, Ordering::Relaxed);
        histories.fetch_add(1, Ordering::Relaxed);
    });
    let [removed, tombstones, histories] = [totals, tombstones, histories].map(AtomicU64::into_inner);
    println!("{histories} histories: {removed} documents went by rules, {tombstones} tombstones");
    assert!(
        histories < 2 || (removed > 100 * histories && tombstones > histories),
        "{removed} documents and {tombstones} tombstones were removed: that shows nothing"
    );
}
