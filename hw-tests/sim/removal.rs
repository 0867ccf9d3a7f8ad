//! Nodes that remove documents, each for itself: they purge some, let some expire, and keep only so many of the newest; rules of
//! age and bytes remove what is beyond, perhaps only what a peer has confirmed, and tombstones go in their time.
//!
//! What a node has removed it need not have, and does not get again from whoever still has it, unless it was changed there. Now
//! and then a node stays away, so that it hears of a deletion too late.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use gattway::database::{Collection, Database};
use gattway::lab::node::{SimulatedKeeper, SimulatedTombstones};
use gattway::lab::transport::sim::radio::Path;
use tokio::time::Instant;

use super::actions::Undo;
use super::checks::{self, COLLECTION, Content, Found};
use super::model::{EventId, NodeIndex};
use super::plan::{Bug, Edge, FaultKind, PlanKind};
use super::run::Run;
use super::world::World;

/// One action in so many is a removal, where nodes remove.
const REMOVAL_SHARE: f64 = 0.25;

/// What is over long before a run begins.
const EXPIRED: Duration = Duration::from_secs(1);

/// The name under which a node notes what its peer has confirmed.
pub const UPSTREAM: &str = "upstream";

/// For the time of tombstones a second counts as an hour: they are kept for a day at least, and a run takes minutes.
const TOMBSTONE_SPEED: u32 = 3_600;

/// How long a node stays away, seconds.
const AWAY_S: std::ops::Range<u64> = 20..70;

/// What a node keeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    age: Option<Duration>,
    bytes: Option<u64>,
    /// Whether nothing goes by those two before the peer of its first edge has confirmed it.
    only_confirmed: bool,
    /// By a clock that is [`TOMBSTONE_SPEED`] times as fast.
    tombstones: Option<Duration>,
}

impl Rules {
    pub fn drawn(node: NodeIndex, edges: &[Edge], rng: &mut Rng) -> Rules {
        let seconds = rng.u64(3..40);
        let bytes = rng.u64(200..6_000);
        let hours = rng.u64(1..10);
        let (has_age, has_bytes, is_careful, forgets) =
            (rng.bool(), rng.bool(), rng.bool(), rng.f64() < 0.85);
        Rules {
            age: has_age.then(|| Duration::from_secs(seconds)),
            bytes: has_bytes.then_some(bytes),
            only_confirmed: is_careful && Rules::confirming(edges, node).is_some(),
            tombstones: forgets.then(|| Duration::from_secs(hours * 3_600)),
        }
    }

    /// The run whose peer has to confirm.
    pub fn confirming(edges: &[Edge], node: NodeIndex) -> Option<Edge> {
        edges.iter().find(|edge| edge.active == node).copied()
    }
}

/// What a process of a node knows of what it keeps.
pub struct Kept {
    rules: Rules,
    bug: Option<Bug>,
    boots: u32,
    keeper: SimulatedKeeper,
    tombstones: Option<SimulatedTombstones>,
    began: Instant,
}

impl Kept {
    pub fn new(rules: Rules, bug: Option<Bug>) -> Kept {
        let waits = rules.only_confirmed && bug != Some(Bug::RemovesUnconfirmed);
        let keeper = SimulatedKeeper::new(rules.age, rules.bytes, waits.then_some(UPSTREAM));
        let tombstones = rules.tombstones.map(SimulatedTombstones::new);
        Kept { rules, bug, boots: 0, keeper, tombstones, began: Instant::now() }
    }

    /// A process that was started anew knows nothing.
    fn of_process(&mut self, boots: u32) -> &mut Kept {
        if self.boots != boots {
            *self = Kept { boots, began: self.began, ..Kept::new(self.rules, self.bug) };
        }
        self
    }

    /// The clock of its tombstones, nanoseconds.
    fn now(&self) -> u64 {
        let elapsed = self.began.elapsed() * TOMBSTONE_SPEED;
        super::node::WALL_START_NS as u64 + elapsed.as_nanos() as u64
    }
}

/// How a document goes.
#[derive(Clone, Copy, Debug)]
enum Removal {
    Purge,
    Expire,
}

impl Run {
    /// Removes something, where the plan says so; whether it did.
    pub fn act_removing(&mut self) -> bool {
        if self.world.plan.kind != PlanKind::Removing || self.rng.f64() >= REMOVAL_SHARE {
            return false;
        }
        let at = self.rng.usize(0..self.nodes.len());
        if !self.world.plan.removes[at] || !self.nodes[at].is_up() {
            return false;
        }
        match self.rng.u32(0..20) {
            0..5 => self.remove_one(at, Removal::Purge),
            5..10 => self.remove_one(at, Removal::Expire),
            10..12 => self.keep_newest(at),
            12..16 => self.keep_rules(at),
            // Of few documents few would stay deleted.
            16..19 => self.delete(at),
            _ => self.stay_away(),
        }
        true
    }

    /// A node hears nobody for a while.
    fn stay_away(&mut self) {
        let at = self.rng.usize(0..self.nodes.len());
        let time = Duration::from_secs(self.rng.u64(AWAY_S));
        self.world.trace.note(format!("node {at} stays away for {time:?}"));
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            self.set_path(at, other, Path { reachable: false, rssi_dbm: -127, loss: 1.0 });
            self.later(time, Undo::Path(at, other));
        }
        self.world.fault(FaultKind::Cut);
    }

    /// Does what the rules of a node say.
    fn keep_rules(&mut self, at: NodeIndex) {
        let Some((db, _, content)) = self.opened(at) else { return };
        let mut events = checks::events(&self.world, at, &content);
        let boots = self.nodes[at].boots;
        let kept = self.kept[at].of_process(boots);
        let rules = kept.rules;
        let result = match rules.age.is_some() || rules.bytes.is_some() {
            true => kept.keeper.keep(&db, COLLECTION),
            false => Ok(Vec::new()),
        };
        let now = kept.now();
        self.world.trace.note(format!("node {at} keeps to {rules:?}: {result:?}"));
        let living = |id: &&String| content[*id].body.is_some();
        let (gone, is_sure) = match result {
            Ok(gone) => (gone, db.sync().is_ok()),
            Err(_) => (content.keys().filter(living).map(|id| id.as_str().into()).collect(), false),
        };
        for id in gone {
            let (Some(found), Some(event)) = (content.get(&*id), events.remove(&*id)) else { continue };
            match rules.only_confirmed {
                true => {
                    if is_sure {
                        self.check_confirmed(at, &id, event, found);
                    }
                    self.world.model().raise_author_horizons(at, found.vector.all_versions());
                }
                false => self.world.model().raise_horizon(at, found.version.time),
            }
            self.counts.removals_by_rule += u64::from(is_sure);
            self.removed(at, &id, event, found, is_sure);
        }
        let Some(tombstones) = &mut self.kept[at].tombstones else { return };
        let result = tombstones.forget(&db, COLLECTION, now);
        self.world.trace.note(format!("node {at} forgets tombstones: {result:?}"));
        let dead = |id: &&String| content[*id].body.is_none();
        let (gone, is_sure) = match result {
            Ok(gone) => (gone, db.sync().is_ok()),
            Err(_) => (content.keys().filter(dead).map(|id| id.as_str().into()).collect(), false),
        };
        for id in gone {
            let (Some(found), Some(event)) = (content.get(&*id), events.remove(&*id)) else { continue };
            self.world.model().raise_author_horizons(at, found.vector.all_versions());
            self.counts.tombstones_removed += u64::from(is_sure);
            self.removed(at, &id, event, found, is_sure);
        }
    }

    /// What goes by a rule that waits for a peer, the peer has had, or has removed itself.
    fn check_confirmed(&self, at: NodeIndex, id: &str, event: EventId, found: &Found) {
        let Some(edge) = Rules::confirming(&self.world.plan.edges, at) else { return };
        let model = self.world.model();
        let peer = edge.passive;
        let is_there = model.has_had(peer, id, event) || model.has_removed(peer, id, event, found.version);
        let name = model.name(event).to_owned();
        drop(model);
        if !is_there && found.body.is_some() {
            self.world.violation(format!(
                "unconfirmed: node {at} removes {id} {name}, which node {peer} never had"
            ));
        }
    }

    fn opened(&self, at: NodeIndex) -> Option<(Database, Collection, Content)> {
        let db = self.nodes[at].running.as_ref()?.db.clone();
        let (collection, content) = (db.collection(COLLECTION)?, checks::content(&db).ok()?);
        Some((db, collection, content))
    }

    fn remove_one(&mut self, at: NodeIndex, removal: Removal) {
        let id = self.document();
        let Some((db, collection, content)) = self.opened(at) else { return };
        let Some(found) = content.get(&id) else { return };
        let Some(event) = checks::events(&self.world, at, &content).remove(&id) else { return };
        let result = match removal {
            _ if self.world.plan.bug == Some(Bug::ForgetsRemovals) => {
                collection.remove_and_forget(&id).and_then(|()| db.sync())
            }
            Removal::Purge => collection.purge(&id).map(drop),
            Removal::Expire => collection.set_expiration(&id, Some(SystemTime::UNIX_EPOCH + EXPIRED)),
        };
        self.world.trace.note(format!("node {at} removes {id}, {removal:?}: {result:?}"));
        self.removed(at, &id, event, found, result.is_ok());
    }

    /// Removes what is older than so many of the newest documents.
    fn keep_newest(&mut self, at: NodeIndex) {
        let kept = self.rng.usize(0..=self.world.plan.documents);
        let Some((db, collection, content)) = self.opened(at) else { return };
        let mut events = checks::events(&self.world, at, &content);
        let result = collection.keep_newest(kept);
        self.world.trace.note(format!("node {at} keeps {kept}: {result:?}"));
        let (gone, is_sure) = match result {
            Ok(gone) => (gone, db.sync().is_ok()),
            Err(_) => (content.keys().map(|id| id.as_str().into()).collect(), false),
        };
        for id in gone {
            let (Some(found), Some(event)) = (content.get(&*id), events.remove(&*id)) else { continue };
            self.world.model().raise_horizon(at, found.version.time);
            self.removed(at, &id, event, found, is_sure);
        }
    }

    fn removed(&mut self, at: NodeIndex, id: &str, event: EventId, found: &Found, is_sure: bool) {
        self.counts.removals += u64::from(is_sure);
        self.world.model().remove(at, id, event, found.version, is_sure);
    }
}

/// Nothing that a node has removed is back.
pub fn check_returned(world: &World, node: NodeIndex, content: &Content, events: &BTreeMap<String, EventId>) {
    if !world.plan.removes[node] {
        return;
    }
    for (id, found) in content {
        let Some(event) = events.get(id) else { continue };
        let model = world.model();
        if model.returned(node, id, *event, found.version) {
            let name = model.name(*event).to_owned();
            drop(model);
            world.violation(format!("back: node {node} has {id} {name} again, which it has removed"));
        }
    }
}

/// Whether two nodes may differ in a document for what one of them has removed: one lacks it, or made or got another one beside what
/// the other still has, or has removed what the other has. The two are a conflict then, of which neither may hear before the document is changed
/// or they meet anew.
pub fn explains(
    world: &World,
    id: &str,
    a: (NodeIndex, Option<&Found>),
    b: (NodeIndex, Option<&Found>),
) -> bool {
    if world.plan.kind != PlanKind::Removing {
        return false;
    }
    let mut model = world.model();
    let mut identify = |found: Option<&Found>| {
        let found = found?;
        let event = model.identify(id, found.version, found.body.as_ref()).ok()?;
        Some((event, found.version))
    };
    match (identify(a.1), identify(b.1)) {
        (None, None) => false,
        (Some((event, version)), None) => {
            model.has_removed(b.0, id, event, version) || model.has_removed_beside(b.0, id, event)
        }
        (None, Some((event, version))) => {
            model.has_removed(a.0, id, event, version) || model.has_removed_beside(a.0, id, event)
        }
        (Some((one, its)), Some((other, others))) => {
            if model.has_removed(b.0, id, one, its) || model.has_removed(a.0, id, other, others) {
                return true;
            }
            let is_removed_anywhere = (0..world.plan.nodes).any(|node| model.has_removed_any(node, id));
            is_removed_anywhere && !model.is_ordered(one, other)
        }
    }
}
