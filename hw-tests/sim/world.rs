//! What all parts of one run share: radio, history, trace, counts, and what was found wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gattway::lab::replica::store::{Conflict, ConflictResolver, Resolution};
use gattway::lab::transport::clock::Clock;
use gattway::lab::transport::sim::{SimDevice, SimRadio};
use gattway::replicator::DefaultResolver;
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::blobs;
use super::liar::Presence;
use super::model::{EVENT_FIELD, EventId, Model, NodeIndex};
use super::plan::{FaultKind, Plan, PlanKind, Resolving};
use super::replay::Script;
use super::store::{Claim, OWN_PREFIX};
use super::trace::Trace;

/// Violations kept; the first is what matters.
const VIOLATIONS_KEPT: usize = 10;

/// HELLO packets that a stranger has overheard and can send again.
const OVERHEARD_KEPT: usize = 32;

/// Beginnings of connections that a listener has overheard of one node.
const SCRIPTS_KEPT: usize = 4;

/// A checkpoint as last written, and the lives of all nodes then.
type Written = (Claim, Vec<u32>);

/// Shared by all parts of a run.
pub struct World {
    pub plan: Plan,
    pub radio: SimRadio,
    pub clock: Clock,
    pub trace: Trace,
    /// Tells the run that something has happened that it must see to at once.
    pub attention: Notify,
    /// What may be put wrong at this moment: packet faults by kind, 0 to 1.
    pub packet_faults: Mutex<PacketFaults>,
    /// Of a member that lies.
    pub liar: Presence,
    /// Of what documents name.
    pub blobs: blobs::Known,
    model: Mutex<Model>,
    violations: Mutex<Vec<String>>,
    crossings: AtomicU64,
    faults: Mutex<BTreeMap<FaultKind, u64>>,
    lives: Mutex<Vec<u32>>,
    checkpoints: Mutex<BTreeMap<(NodeIndex, String), Written>>,
    overheard: Mutex<Vec<Vec<u8>>>,
    /// What listeners have overheard of the passive sides of nodes, and where they stand in their place, until when.
    scripts: Mutex<BTreeMap<NodeIndex, Vec<Script>>>,
    imposters: Mutex<BTreeMap<(NodeIndex, NodeIndex), (SimDevice, Instant)>>,
    /// When each node last resolved a conflict of each document.
    resolved: Mutex<BTreeMap<(NodeIndex, String), Instant>>,
}

/// Faults of packets, beside those of the radio model.
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketFaults {
    /// Share of packets sent twice.
    pub duplicate: f64,
}

impl World {
    pub fn new(plan: Plan, printing: bool) -> Arc<World> {
        let clock = Clock::new();
        let lives = Mutex::new(vec![0; plan.nodes]);
        Arc::new(World {
            radio: SimRadio::new(plan.seed, clock),
            clock,
            trace: Trace::new(printing),
            attention: Notify::new(),
            packet_faults: Mutex::default(),
            liar: Presence::default(),
            blobs: blobs::Known::default(),
            model: Mutex::default(),
            violations: Mutex::default(),
            crossings: AtomicU64::new(0),
            faults: Mutex::default(),
            lives,
            checkpoints: Mutex::default(),
            overheard: Mutex::default(),
            scripts: Mutex::default(),
            imposters: Mutex::default(),
            resolved: Mutex::default(),
            plan,
        })
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        lock(&self.model)
    }

    /// Notes that the code under test did what it must not.
    pub fn violation(&self, text: impl Into<String>) {
        let text = text.into();
        self.trace.note(format!("VIOLATION {text}"));
        let mut violations = lock(&self.violations);
        if violations.len() < VIOLATIONS_KEPT {
            violations.push(text);
        }
        drop(violations);
        self.attention.notify_one();
    }

    pub fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    /// A resolver was asked about two revisions that had each been kept against the other.
    pub fn crossing(&self) {
        self.crossings.fetch_add(1, Ordering::Relaxed);
    }

    pub fn crossings(&self) -> u64 {
        self.crossings.load(Ordering::Relaxed)
    }

    /// Counts a fault.
    pub fn fault(&self, kind: FaultKind) {
        self.faults_many(kind, 1);
    }

    /// Counts faults.
    pub fn faults_many(&self, kind: FaultKind, count: u64) {
        *lock(&self.faults).entry(kind).or_default() += count;
    }

    pub fn faults(&self) -> BTreeMap<FaultKind, u64> {
        lock(&self.faults).clone()
    }

    /// A node has started anew.
    pub fn reborn(&self, node: NodeIndex) {
        lock(&self.lives)[node] += 1;
    }

    /// A checkpoint was written. The active side's own copy never goes back, unless a node has crashed meanwhile: then
    /// its peer's copy, or its own, may have been lost.
    pub fn checkpoint_set(&self, node: NodeIndex, client: &str, claim: Claim) {
        if !client.starts_with(OWN_PREFIX) {
            return;
        }
        // A liar may give a place that is no number after one that is.
        let is_before =
            |now: Option<u64>, then: Option<u64>| now.zip(then).is_some_and(|(now, then)| now < then);
        let lives = lock(&self.lives).clone();
        let key = (node, client.to_owned());
        let before = lock(&self.checkpoints).insert(key, (claim.clone(), lives.clone()));
        if let Some((before, then)) = before
            && then == lives
            && (claim.local < before.local || is_before(claim.remote, before.remote))
        {
            self.violation(format!(
                "node {node}: checkpoint {client} went back from {before:?} to {claim:?}"
            ));
        }
    }

    /// Whether a node has resolved a conflict of this document since then.
    pub fn has_resolved(&self, node: NodeIndex, document: &str, since: Instant) -> bool {
        let key = (node, document.to_owned());
        lock(&self.resolved).get(&key).is_some_and(|last| *last >= since)
    }

    /// A listener has heard how a connection to this node began.
    pub fn overhear_passive(&self, node: NodeIndex, script: Script) {
        let mut scripts = lock(&self.scripts);
        let scripts = scripts.entry(node).or_default();
        if scripts.len() < SCRIPTS_KEPT {
            scripts.push(script);
        }
    }

    /// What was overheard of a node.
    pub fn overheard_of(&self, node: NodeIndex) -> Vec<Script> {
        lock(&self.scripts).get(&node).cloned().unwrap_or_default()
    }

    /// Another device stands where the first of two looks for the second, for some time.
    pub fn impose(&self, edge: (NodeIndex, NodeIndex), device: SimDevice, time: Duration) {
        lock(&self.imposters).insert(edge, (device, Instant::now() + time));
    }

    /// Whom the first of two finds at this moment in the place of the second.
    pub fn imposter(&self, edge: (NodeIndex, NodeIndex)) -> Option<SimDevice> {
        let imposters = lock(&self.imposters);
        let (device, until) = imposters.get(&edge)?;
        (Instant::now() < *until).then(|| device.clone())
    }

    /// Nobody stands in another's place any more.
    pub fn unmask(&self) {
        lock(&self.imposters).clear();
    }

    /// A stranger has heard a packet.
    pub fn overhear(&self, packet: &[u8]) {
        let mut overheard = lock(&self.overheard);
        if overheard.len() >= OVERHEARD_KEPT {
            overheard.remove(0);
        }
        overheard.push(packet.to_vec());
    }

    pub fn overheard(&self) -> Vec<Vec<u8>> {
        lock(&self.overheard).clone()
    }
}

/// A panic elsewhere ends the run anyway.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A conflict resolver that tells the model what it decides.
pub struct Recorder {
    pub world: Arc<World>,
    pub node: NodeIndex,
}

impl Recorder {
    fn event(
        &self,
        id: &str,
        vector: &gattway::lab::replica::revision::VersionVector,
        body: Option<&Map<String, Value>>,
    ) -> Option<EventId> {
        let event = self.world.model().identify(id, vector.current, body);
        event.map_err(|problem| self.world.violation(format!("a conflict with {problem}"))).ok()
    }

    fn decide(&self, conflict: &Conflict<'_>) -> Result<Resolution, String> {
        match (conflict.local_body, conflict.remote_body) {
            (Some(local), Some(_)) if self.world.plan.resolving == Resolving::Merge => {
                let mut merged = local.clone();
                let name = format!("{}-merge", self.world.model().next_name(self.node));
                merged.insert(EVENT_FIELD.into(), name.into());
                Ok(Resolution::Merge(merged))
            }
            _ => DefaultResolver.resolve(conflict),
        }
    }
}

impl ConflictResolver for Recorder {
    fn resolve(&self, conflict: &Conflict<'_>) -> Result<Resolution, String> {
        let local = self.event(conflict.id, conflict.local, conflict.local_body);
        let remote = self.event(conflict.id, conflict.remote, conflict.remote_body);
        let (Some(local), Some(remote)) = (local, remote) else { return Err("not in the model".into()) };
        let resolution = self.decide(conflict)?;
        lock(&self.world.resolved).insert((self.node, conflict.id.to_owned()), Instant::now());
        let mut model = self.world.model();
        let kept = match &resolution {
            Resolution::Local => Some(local),
            Resolution::Remote => Some(remote),
            _ => None,
        };
        // Of whoever was put back, or has removed it, what descends by its vector from an edit that was forgotten may be a conflict with
        // a later one.
        let plan = &self.world.plan;
        let forgets = plan.faults.contains(&FaultKind::OlderCopy) || plan.kind == PlanKind::Removing;
        let is_crossing = conflict.local.mutually_contains(conflict.remote)
            || forgets
                && match &resolution {
                    Resolution::Local => conflict.remote.contains(conflict.local.current),
                    _ => conflict.local.contains(conflict.remote.current),
                };
        if let Some(kept) = kept.filter(|_| is_crossing) {
            model.kept_crossing(kept, self.node);
            self.world.crossing();
        }
        let name = match &resolution {
            Resolution::Local => {
                model.decided(local, remote);
                "local"
            }
            Resolution::Remote => {
                model.decided(remote, local);
                "remote"
            }
            Resolution::Merge(body) => {
                model.edit(self.node, conflict.id, body.clone(), vec![local, remote]);
                "merge"
            }
            _ => return Err("the simulation never decides so".into()),
        };
        let line = format!(
            "node {} resolves {}: local {} remote {}: {name}",
            self.node,
            conflict.id,
            model.name(local),
            model.name(remote)
        );
        drop(model);
        self.world.trace.note(line);
        Ok(resolution)
    }
}
