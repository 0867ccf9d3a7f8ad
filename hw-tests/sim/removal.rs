//! Nodes that remove documents, each for itself: they purge some, let some expire, and keep only so many of the newest.
//!
//! What a node has removed it need not have, and does not get again from whoever still has it, unless it was changed there.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::checks::{self, COLLECTION, Content, Found};
use super::model::{EventId, NodeIndex};
use super::plan::PlanKind;
use super::run::Run;
use super::world::World;

/// One action in so many is a removal, where nodes remove.
const REMOVAL_SHARE: f64 = 0.15;

/// What is over long before a run begins.
const EXPIRED: Duration = Duration::from_secs(1);

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
        match self.rng.u32(0..10) {
            0..4 => self.remove_one(at, Removal::Purge),
            4..8 => self.remove_one(at, Removal::Expire),
            _ => self.keep_newest(at),
        }
        true
    }

    fn remove_one(&mut self, at: NodeIndex, removal: Removal) {
        let id = self.document();
        let Some(db) = self.nodes[at].running.as_ref().map(|running| running.db.clone()) else { return };
        let (Some(collection), Ok(content)) = (db.collection(COLLECTION), checks::content(&db)) else {
            return;
        };
        let Some(found) = content.get(&id) else { return };
        let Some(event) = checks::events(&self.world, at, &content).remove(&id) else { return };
        let result = match removal {
            Removal::Purge => collection.purge(&id).map(drop),
            Removal::Expire => collection.set_expiration(&id, Some(SystemTime::UNIX_EPOCH + EXPIRED)),
        };
        self.world.trace.note(format!("node {at} removes {id}, {removal:?}: {result:?}"));
        self.removed(at, &id, event, found, result.is_ok());
    }

    /// Removes what is older than so many of the newest documents.
    fn keep_newest(&mut self, at: NodeIndex) {
        let kept = self.rng.usize(0..=self.world.plan.documents);
        let Some(db) = self.nodes[at].running.as_ref().map(|running| running.db.clone()) else { return };
        let (Some(collection), Ok(content)) = (db.collection(COLLECTION), checks::content(&db)) else {
            return;
        };
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
/// the other still has. The two are a conflict then, of which neither may hear before the document is changed or they meet anew.
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
        (Some((event, version)), None) => model.has_removed(b.0, id, event, version),
        (None, Some((event, version))) => model.has_removed(a.0, id, event, version),
        (Some((one, _)), Some((other, _))) => {
            let is_removed_anywhere = (0..world.plan.nodes).any(|node| model.has_removed_any(node, id));
            is_removed_anywhere && !model.is_ordered(one, other)
        }
    }
}
