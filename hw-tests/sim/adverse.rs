//! Faults of adverse plans: disks whose syncs fail, page caches that are given up, compaction while peers sync, and
//! databases that are put back to an older copy.

use std::collections::BTreeMap;
use std::sync::Arc;

use gattway::lab::database::SimulatedDisk;
use gattway::lab::transport::sim::HostConfig;
use gattway::replicator::ReplicatorActivity;
use tokio::time::Instant;

use super::checks;
use super::liar;
use super::model::{EventId, Moment, NodeIndex};
use super::plan::{FaultKind, PlanKind};
use super::run::Run;
use super::secure;

/// An application's own sync of a database that syncs by and by: one action in so many of such a node.
const OWN_SYNC_SHARE: f64 = 0.15;

/// Syncs until one fails, and how many fail then.
const SYNCS_BEFORE: std::ops::Range<u64> = 1..8;
const SYNCS_FAILING: std::ops::Range<u64> = 1..4;

/// Files of a node that somebody has put aside, and what its node had acknowledged by then.
pub struct Copy {
    image: SimulatedDisk,
    moment: Moment,
}

/// What a node has told its application is saved, while stable storage may not have it.
#[derive(Default)]
pub struct Waiting {
    events: Vec<EventId>,
}

/// What the two sides of a one-shot run had when it began.
pub struct Beginning {
    /// Which of their processes it was.
    boots: (u32, u32),
    at: Instant,
    active: BTreeMap<String, EventId>,
    passive: BTreeMap<String, EventId>,
}

impl Run {
    /// Does something that only adverse plans have; whether it did.
    pub fn act_adversely(&mut self) -> bool {
        if self.world.plan.kind != PlanKind::Adverse {
            return false;
        }
        let at = self.rng.usize(0..self.nodes.len());
        let may_sync = self.world.plan.relaxed[at] && self.nodes[at].is_up();
        if !may_sync || self.rng.f64() >= OWN_SYNC_SHARE {
            return false;
        }
        let result = self.nodes[at].running.as_ref().map(|running| running.db.sync());
        self.world.trace.note(format!("node {at} syncs by itself: {result:?}"));
        if let Some(Ok(())) = result {
            for event in std::mem::take(&mut self.nodes[at].waiting.events) {
                self.world.model().acknowledge(at, event);
            }
        }
        true
    }

    /// A write of `at`'s application returned.
    pub fn saved(&mut self, at: NodeIndex, event: EventId) {
        if self.world.plan.relaxed[at] {
            self.nodes[at].waiting.events.push(event);
        } else {
            self.world.model().acknowledge(at, event);
        }
    }

    /// Injects one of the faults of adverse plans; whether it happened.
    pub fn inject_adverse(&mut self, kind: FaultKind, at: NodeIndex) -> bool {
        match kind {
            FaultKind::FailedSync => {
                let first = self.rng.u64(SYNCS_BEFORE);
                let count = self.rng.u64(SYNCS_FAILING);
                self.world.trace.note(format!("sync {first} of {at} from now on fails, {count} in all"));
                self.nodes[at].disk.fail_syncs(first, count);
                // Counted by the disk, when one has failed.
                false
            }
            FaultKind::Restart => {
                let evicts = self.rng.bool();
                self.restart(at, evicts)
            }
            FaultKind::Compaction => {
                let Some(running) = &self.nodes[at].running else { return false };
                let result = running.db.compact();
                self.world.trace.note(format!("node {at} compacts: {result:?}"));
                // Counted by the disk.
                false
            }
            FaultKind::TrustLost => self.lose_trust(at),
            FaultKind::OlderCopy => self.copy_or_put_back(at),
            FaultKind::Liar => false,
            FaultKind::Replay => {
                let edges = &self.world.plan.edges;
                let edge = edges[self.rng.usize(0..edges.len())];
                self.replay(edge)
            }
            other => unreachable!("{other:?} is a fault of usual plans"),
        }
    }

    fn restart(&mut self, at: NodeIndex, evicts: bool) -> bool {
        if !self.nodes[at].is_up() {
            return false;
        }
        let cache = if evicts { "given up" } else { "kept" };
        self.world.trace.note(format!("node {at} is killed, its page cache is {cache}"));
        self.nodes[at].end_life(evicts);
        self.boot_later(at);
        true
    }

    fn copy_or_put_back(&mut self, at: NodeIndex) -> bool {
        if self.nodes[at].vanished {
            return false;
        }
        let Some(copy) = self.nodes[at].copy.take() else {
            self.world.trace.note(format!("somebody copies the files of {at}"));
            let moment = self.world.model().moment(at);
            self.nodes[at].copy = Some(Copy { image: self.nodes[at].disk.synced_image(), moment });
            return false;
        };
        self.world.trace.note(format!("node {at} is put back to an older copy"));
        self.nodes[at].end_life(false);
        self.nodes[at].disk.put_back(&copy.image);
        self.world.model().put_back(at, &copy.moment);
        self.in_doubt[at].clear();
        self.boot_later(at);
        true
    }

    /// The process of a database that has failed ends: with the power, or alone.
    pub fn end_failed(&mut self, at: NodeIndex) {
        if self.world.plan.kind != PlanKind::Adverse {
            return self.nodes[at].die();
        }
        match self.rng.u32(0..3) {
            0 => self.nodes[at].die(),
            which => self.nodes[at].end_life(which == 1),
        }
    }

    /// Lets whoever looks between a commit and its sync see what peers are shown then.
    pub fn look_before_syncs(&self, at: NodeIndex) {
        let Some(running) = &self.nodes[at].running else { return };
        if self.world.plan.kind != PlanKind::Adverse {
            return;
        }
        let store = Arc::downgrade(&running.store);
        self.nodes[at].disk.before_syncs(Some(Arc::new(move || {
            if let Some(store) = store.upgrade() {
                store.look_at_feed();
            }
        })));
    }

    /// The member that lies begins to.
    pub fn begin_lying(&mut self) {
        let plan = &self.world.plan;
        if plan.lied_to.is_empty() {
            return;
        }
        let device = self.world.radio.add_device("liar", HostConfig::default());
        let (seed, clock) = (self.rng.u64(..), self.world.clock);
        let secure = secure::config(plan, plan.liar(), seed, clock, None, None);
        liar::begin(&self.world, &device, secure, seed);
        self.devices.push(device);
    }

    /// The member that lies goes for good. What it did harm to ends with it, and nobody kept to himself what it refused.
    pub fn end_lying(&mut self) {
        self.world.liar.go();
        let plan = &self.world.plan;
        for running in self.nodes.iter().filter_map(|node| node.running.as_ref()) {
            let lied_to = running.replicators.iter().filter(|active| active.edge.passive == plan.liar());
            lied_to.for_each(|active| active.replicator.stop());
        }
        let (refused, told) = self.world.liar.counts();
        self.world.trace.note(format!("the liar goes: {refused} of its revisions refused, {told} told"));
        if told < refused {
            self.world.violation(format!("{refused} revisions were refused, and {told} were told"));
        }
    }

    fn events_of(&self, at: NodeIndex) -> Option<BTreeMap<String, EventId>> {
        let content = checks::content(&self.nodes[at].running.as_ref()?.db).ok()?;
        Some(checks::events(&self.world, at, &content))
    }

    /// Notes what both sides of the one-shot runs of `at` have that begin now.
    pub fn note_beginnings(&mut self, at: NodeIndex) {
        if self.world.plan.kind != PlanKind::Adverse {
            return;
        }
        let Some(running) = &mut self.nodes[at].running else { return };
        let mut due: Vec<(usize, NodeIndex)> = Vec::new();
        for (n, active) in running.replicators.iter_mut().enumerate() {
            let is_node = active.edge.passive < self.world.plan.nodes;
            if std::mem::take(&mut active.has_just_begun) && !active.edge.continuous && is_node {
                due.push((n, active.edge.passive));
            }
        }
        for (n, passive) in due {
            let (Some(ours), Some(theirs)) = (self.events_of(at), self.events_of(passive)) else { continue };
            let boots = (self.nodes[at].boots, self.nodes[passive].boots);
            let began = Beginning { boots, at: Instant::now(), active: ours, passive: theirs };
            if let Some(running) = &mut self.nodes[at].running {
                running.replicators[n].began = Some(began);
            }
        }
    }

    /// A one-shot run that ended without an error has brought each side what the other had when it began.
    pub fn check_ends(&mut self, at: NodeIndex) {
        let Some(running) = &mut self.nodes[at].running else { return };
        let mut ended = Vec::new();
        for active in &mut running.replicators {
            let status = active.replicator.status();
            if status.activity != ReplicatorActivity::Stopped {
                continue;
            }
            let began = active.began.take();
            let is_good = status.error.is_none() && status.unsynced.is_empty();
            ended.extend(began.filter(|_| is_good).map(|began| (active.edge, began)));
        }
        for (edge, began) in ended {
            let passive = edge.passive;
            if began.boots != (self.nodes[at].boots, self.nodes[passive].boots) {
                continue;
            }
            let (Some(ours), Some(theirs)) = (self.events_of(at), self.events_of(passive)) else { continue };
            // What has changed meanwhile goes in the next run, as does what the active side decided against the peer.
            let (mut pulled, mut pushed) = (began.passive, began.active);
            pulled.retain(|id, event| edge.selection.pulls(id) && theirs.get(id) == Some(event));
            pushed.retain(|id, event| {
                edge.selection.pushes(id)
                    && ours.get(id) == Some(event)
                    && !self.world.has_resolved(at, id, began.at)
                    && {
                        let model = self.world.model();
                        theirs.get(id).is_none_or(|theirs| model.is_ordered(*event, *theirs))
                    }
            });
            self.check_has(at, &ours, passive, &pulled);
            self.check_has(passive, &theirs, at, &pushed);
        }
    }

    fn check_has(
        &self,
        at: NodeIndex,
        has: &BTreeMap<String, EventId>,
        from: NodeIndex,
        wanted: &BTreeMap<String, EventId>,
    ) {
        let model = self.world.model();
        let covered = |id: &String, event: EventId| has.get(id).is_some_and(|has| model.covers(*has, event));
        let lacking = wanted.iter().find(|(id, event)| !covered(id, **event));
        let lacking = lacking.map(|(id, event)| format!("{id} {}", model.name(*event)));
        drop(model);
        if let Some(lacking) = lacking {
            self.world.violation(format!("said to be in sync: node {at} lacks {lacking} of node {from}"));
        }
    }
}
