//! One run from beginning to end: nodes start, are edited and disturbed; then all faults end, and everything has to come
//! to rest, equal and complete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use gattway::lab::transport::sim::radio::Path;
use gattway::lab::transport::sim::{HostConfig, SimDevice};
use gattway::replicator::ReplicatorActivity;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::actions::Undo;
use super::checks::{self, Content};
use super::memory;
use super::model::EventId;
use super::node::Node;
use super::plan::{ADVERSE_KINDS, FAULT_KINDS, FaultKind, Plan, PlanKind};
use super::removal::Kept;
use super::world::{World, lock};

/// Time in which connected nodes have to become equal once the faults have ended.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(400);

/// Time in which nothing more may change after that, and the time in which it has to come to that.
const REST: Duration = Duration::from_secs(20);
const REST_LIMIT: Duration = Duration::from_secs(200);

/// Bytes of the stream that each connection may carry while there is nothing to do: saving a checkpoint.
const REST_BYTES_MAX: u64 = 2_000;

/// Time in which everything has to end when it is told to.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Time in which the last task has to end after that: a lost session is kept for 120 s.
const TASKS_LIMIT: Duration = Duration::from_secs(150);

/// Heap of a run at most: the simulation's own, and for each node its connections, commits under way and modelled disk.
const HEAP_BYTES_MAX: u64 = 8 << 20;
const HEAP_BYTES_NODE_MAX: u64 = 4 << 20;

/// Heap that may be left when a run is over: what a thread keeps for ever.
const HEAP_BYTES_LEFT_MAX: u64 = 256 << 10;

/// How long a process is down.
const DOWN_MS: std::ops::Range<u64> = 200..8_000;

/// What came of a run.
pub struct Outcome {
    pub plan: Plan,
    /// What was found wrong; empty if nothing was.
    pub violations: Vec<String>,
    /// The last things that happened.
    pub lines: Vec<String>,
    /// Hash of all that happened.
    pub hash: u64,
    pub counts: Counts,
}

/// What happened in a run.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub faults: BTreeMap<FaultKind, u64>,
    pub edits: u64,
    pub deletions: u64,
    /// Documents that nodes have removed for themselves.
    pub removals: u64,
    /// Of those, what went by rules, and tombstones.
    pub removals_by_rule: u64,
    pub tombstones_removed: u64,
    /// Blobs that applications have saved, that went because nothing referred to them, and of which a part was there.
    pub blobs_saved: u64,
    pub blobs_removed: u64,
    pub blob_parts: u64,
    pub one_shot_runs: u64,
    pub acknowledgements: u64,
    pub events: u64,
    pub packets: u64,
    pub simulated: Duration,
    /// From the end of the faults until all were equal.
    pub convergence: Duration,
    pub crashes_with_loss: u64,
    pub resumes: u64,
    /// Conflicts of two revisions that had each been kept against the other.
    pub crossings: u64,
    /// The most bytes on the heap at one time, the simulation's own among them.
    pub heap_peak: u64,
    /// Bytes that were not freed at the end.
    pub heap_left: u64,
}

/// A run under way.
pub struct Run {
    pub world: Arc<World>,
    pub nodes: Vec<Node>,
    /// Of the nodes, the stranger and the liar.
    pub devices: Vec<SimDevice>,
    pub stranger: SimDevice,
    pub rng: Rng,
    pub undo: Vec<(Instant, Undo)>,
    /// A batch of each node that failed half way: it has to be there wholly or not at all.
    pub in_doubt: Vec<Vec<(String, EventId)>>,
    /// What nodes keep by their rules.
    pub kept: Vec<Kept>,
    pub counts: Counts,
    powered: Vec<bool>,
    paths: BTreeMap<(usize, usize), Path>,
}

/// Does a run.
pub fn simulate(plan: Plan, printing: bool) -> Outcome {
    // The library's own random choices: masks, jitter.
    fastrand::seed(plan.seed);
    let (live, nodes) = (memory::live(), plan.nodes as u64);
    memory::reset_peak();
    let mut outcome = in_virtual_time(plan, printing);
    outcome.counts.heap_peak = memory::peak().saturating_sub(live);
    outcome.counts.heap_left = memory::live().saturating_sub(live);
    let bound = HEAP_BYTES_MAX + HEAP_BYTES_NODE_MAX * nodes;
    if outcome.counts.heap_peak > bound {
        outcome.violations.push(format!("{} bytes of heap, {bound} are allowed", outcome.counts.heap_peak));
    }
    if outcome.counts.heap_left > HEAP_BYTES_LEFT_MAX {
        outcome.violations.push(format!("{} bytes of heap are never freed", outcome.counts.heap_left));
    }
    outcome
}

fn in_virtual_time(plan: Plan, printing: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut run = Run::new(plan, printing);
        run.begin_lying();
        run.disturb().await;
        if run.goes_on() {
            run.come_to_rest().await;
        }
        if run.goes_on() {
            run.sweep_all();
        }
        if run.goes_on() {
            run.end().await;
        }
        run.outcome()
    })
}

impl Run {
    fn new(plan: Plan, printing: bool) -> Run {
        let world = World::new(plan.clone(), printing);
        let mut rng = Rng::with_seed(plan.seed ^ 0x5151_7e57);
        let channels = Arc::default();
        let nodes: Vec<Node> =
            (0..plan.nodes).map(|index| Node::new(&world, index, &channels, rng.u64(..))).collect();
        let devices: Vec<SimDevice> = nodes.iter().map(|node| node.device.clone()).collect();
        let stranger = world.radio.add_device("stranger", HostConfig::default());
        let devices = devices.into_iter().chain([stranger.clone()]).collect();
        world.trace.note(format!("{plan:?}"));
        Run {
            world,
            devices,
            stranger,
            rng,
            undo: Vec::new(),
            in_doubt: vec![Vec::new(); plan.nodes],
            kept: plan.rules.iter().map(|rules| Kept::new(*rules, plan.bug)).collect(),
            counts: Counts::default(),
            powered: vec![true; plan.nodes],
            paths: BTreeMap::new(),
            nodes,
        }
    }

    fn goes_on(&self) -> bool {
        self.world.violations().is_empty()
    }

    /// Edits and faults, for the time that the plan says.
    async fn disturb(&mut self) {
        let end = Instant::now() + self.world.plan.duration;
        for at in 0..self.nodes.len() {
            self.nodes[at].boot_at = Some(Instant::now() + Duration::from_millis(self.rng.u64(0..500)));
        }
        while Instant::now() < end && self.goes_on() {
            let next = Instant::now() + Duration::from_millis(self.rng.u64(self.world.plan.gap_ms.clone()));
            self.wait_until(next).await;
            self.act();
        }
    }

    /// Sees to processes while it waits.
    async fn wait_until(&mut self, until: Instant) {
        loop {
            self.see_to_processes();
            let boots = self.nodes.iter().filter_map(|node| node.boot_at);
            let next = boots.chain([until]).min().unwrap_or(until);
            let world = Arc::clone(&self.world);
            tokio::select! {
                biased;
                () = world.attention.notified() => {}
                () = sleep_until(next) => {}
            }
            self.undo_due(Instant::now());
            if Instant::now() >= until || !self.goes_on() {
                return self.see_to_processes();
            }
        }
    }

    /// Boots what is due, and does what an init system does for a process that has ended.
    fn see_to_processes(&mut self) {
        for at in 0..self.nodes.len() {
            if std::mem::take(&mut *lock(&self.nodes[at].power_failed)) {
                self.world.trace.note(format!("the power of {at} failed in a write"));
                self.world.fault(FaultKind::PowerCutInWrite);
                self.nodes[at].running = None;
                self.set_power(at, false);
                self.boot_later(at);
            }
            if self.nodes[at].boot_at.is_some_and(|due| due <= Instant::now()) {
                self.boot(at);
            }
            let failure = self.nodes[at].running.as_ref().and_then(|running| running.db.failure());
            if let Some(failure) = failure {
                self.world.trace.note(format!("node {at} ends because its database has failed: {failure}"));
                self.end_failed(at);
                self.boot_later(at);
            }
            self.check_replicators(at);
        }
    }

    pub fn boot_later(&mut self, at: usize) {
        let down = Duration::from_millis(self.rng.u64(DOWN_MS));
        self.nodes[at].boot_at = Some(Instant::now() + down);
    }

    fn boot(&mut self, at: usize) {
        self.nodes[at].boot_at = None;
        if self.nodes[at].vanished || self.nodes[at].is_up() {
            return;
        }
        self.set_power(at, true);
        self.world.trace.note(format!("node {at} starts"));
        match self.nodes[at].boot(&self.world, &self.devices) {
            Ok(()) if self.is_without_list(at) => {
                self.world.violation(format!("node {at} starts without its trust list"));
            }
            Ok(()) => {
                self.look_before_syncs(at);
                self.check_after_boot(at);
                self.sweep_after_a_day(at);
                self.note_beginnings(at);
            }
            Err(problem) if self.nodes[at].disk.is_troubled() || self.is_without_list(at) => {
                self.world.trace.note(format!("node {at} does not start: {problem}"));
                self.boot_later(at);
            }
            Err(problem) => self.world.violation(format!("node {at} does not start: {problem}")),
        }
    }

    /// A database that was just opened has all that its node has acknowledged, and no half of a batch.
    fn check_after_boot(&mut self, at: usize) {
        let Some(running) = &self.nodes[at].running else { return };
        checks::check_node(&self.world, at, &running.db);
        self.world.model().forget_open_deletions(at);
        let doubt = std::mem::take(&mut self.in_doubt[at]);
        if let Ok(content) = checks::content(&running.db) {
            let events = checks::events(&self.world, at, &content);
            let there = doubt.iter().filter(|(id, event)| events.get(id) == Some(event)).count();
            if there != 0 && there != doubt.len() {
                self.world.violation(format!("node {at} has {there} of {} of one batch", doubt.len()));
            }
        }
        checks::check_claims(&self.world, &self.nodes);
    }

    /// A continuous replicator stops only when its database has failed.
    fn check_replicators(&mut self, at: usize) {
        let Some(running) = &self.nodes[at].running else { return };
        for active in &running.replicators {
            let status = active.replicator.status();
            let is_node = active.edge.passive < self.nodes.len();
            if active.edge.continuous && is_node && status.activity == ReplicatorActivity::Stopped {
                let (passive, error) = (active.edge.passive, status.error);
                self.world.violation(format!("the replicator of {at} to {passive} has stopped: {error:?}"));
            }
        }
        self.check_ends(at);
    }

    pub fn reboot(&mut self, at: usize) -> bool {
        if !self.nodes[at].is_up() {
            return false;
        }
        self.world.trace.note(format!("node {at} is killed"));
        self.nodes[at].die();
        self.boot_later(at);
        true
    }

    pub fn cut_power(&mut self, at: usize) -> bool {
        if !self.nodes[at].is_up() {
            return false;
        }
        self.world.trace.note(format!("the power of {at} is cut"));
        self.set_power(at, false);
        self.nodes[at].die();
        self.boot_later(at);
        true
    }

    /// Whether a node's radio works.
    pub fn set_power(&mut self, at: usize, powered: bool) {
        self.powered[at] = powered;
        for other in 0..self.nodes.len() {
            if other != at {
                self.update_path(at, other);
            }
        }
    }

    /// Sets how well two nodes hear each other while both are on.
    pub fn set_path(&mut self, a: usize, b: usize, path: Path) {
        self.paths.insert((a.min(b), a.max(b)), path);
        self.update_path(a, b);
    }

    fn update_path(&self, a: usize, b: usize) {
        let mut path = self.paths.get(&(a.min(b), a.max(b))).copied().unwrap_or_default();
        path.reachable &= self.powered[a] && self.powered[b];
        self.world.radio.set_path(&self.devices[a], &self.devices[b], path);
    }

    /// All faults end; connected nodes become equal, and then nothing happens any more.
    async fn come_to_rest(&mut self) {
        self.world.trace.note("all faults end");
        self.end_lying();
        self.world.unmask();
        lock(&self.world.packet_faults).duplicate = 0.0;
        let far = Instant::now() + Duration::from_secs(1 << 20);
        self.undo_due(far);
        self.paths.clear();
        for at in 0..self.nodes.len() {
            self.nodes[at].disk.disarm();
            for other in at + 1..self.nodes.len() {
                self.update_path(at, other);
            }
        }
        let healed = Instant::now();
        loop {
            let pause = Instant::now() + Duration::from_secs(1);
            self.wait_until(pause).await;
            if !self.goes_on() {
                return;
            }
            self.start_one_shots();
            let Some(difference) = self.difference() else { break };
            if healed.elapsed() > CONVERGENCE_LIMIT {
                return self.world.violation(format!("not equal after {CONVERGENCE_LIMIT:?}: {difference}"));
            }
        }
        self.counts.convergence = healed.elapsed();
        self.world.trace.note("all are equal");
        self.rest().await;
    }

    /// What differs between nodes that are connected; also a node that is not up yet.
    fn difference(&self) -> Option<String> {
        let mut contents: BTreeMap<usize, Content> = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| !node.vanished) {
            let Some(running) = &node.running else { return Some(format!("node {} is down", node.index)) };
            match checks::content(&running.db) {
                Ok(content) => drop(contents.insert(node.index, content)),
                Err(error) => return Some(format!("node {} cannot be read: {error}", node.index)),
            }
        }
        self.world.plan.edges.iter().find_map(|edge| {
            let (a, b) = (edge.active, edge.passive);
            let (ca, cb) = (contents.get(&a)?, contents.get(&b)?);
            checks::difference(&self.world, edge, ca, cb)
        })
    }

    /// Waits until no database changes any more and the air is quiet.
    async fn rest(&mut self) {
        let began = Instant::now();
        loop {
            let before = (self.sequences(), self.stream_bytes());
            self.wait_until(Instant::now() + REST).await;
            let after = (self.sequences(), self.stream_bytes());
            let quiet = REST_BYTES_MAX * self.world.plan.edges.len() as u64;
            if !self.goes_on() || before.0 == after.0 && after.1.saturating_sub(before.1) <= quiet {
                return;
            }
            if began.elapsed() > REST_LIMIT {
                let bytes = after.1.saturating_sub(before.1);
                let moved = after.0.iter().zip(&before.0).map(|(a, b)| a - b).sum::<u64>();
                return self.world.violation(format!(
                    "no rest: all are equal, and still {moved} changes and {bytes} bytes in {REST:?}"
                ));
            }
            self.start_one_shots();
        }
    }

    fn sequences(&self) -> Vec<u64> {
        let sequence = |node: &Node| {
            let collection = node.running.as_ref()?.db.collection(checks::COLLECTION)?;
            Some(collection.last_sequence())
        };
        self.nodes.iter().map(|node| sequence(node).unwrap_or(0)).collect()
    }

    /// Bytes of all streams of connections that are open.
    fn stream_bytes(&self) -> u64 {
        self.link_stats().map(|link| link.bytes_sent + link.bytes_received).sum()
    }

    fn link_stats(&self) -> impl Iterator<Item = gattway::lab::link::LinkStats> {
        let running = self.nodes.iter().filter_map(|node| node.running.as_ref());
        let connections = running.flat_map(|running| lock(&running.connections).clone());
        connections.filter_map(|connection| Some(connection.upgrade()?.stats().link))
    }

    /// Stops everything; then the power goes, and all databases are opened once more.
    async fn end(&mut self) {
        checks::check_claims(&self.world, &self.nodes);
        self.counts.resumes = self.link_stats().map(|link| u64::from(link.resumes)).sum();
        self.world.trace.note("all is told to stop");
        let limit = Instant::now() + STOP_LIMIT;
        self.nodes.iter().for_each(|node| node.disk.before_syncs(None));
        let mut processes = Vec::new();
        let mut running: Vec<_> = self.nodes.iter_mut().filter_map(|node| node.running.take()).collect();
        for process in &running {
            process.replicators.iter().for_each(|active| active.replicator.stop());
            process.listener.close_all();
        }
        for process in running.drain(..) {
            for active in &process.replicators {
                if timeout_at(limit, active.replicator.wait_until_stopped()).await.is_err() {
                    let status = active.replicator.status();
                    self.world.violation(format!("a replicator does not stop: {:?} {status:?}", active.edge));
                }
            }
            if timeout_at(limit, process.listener.wait_until_closed()).await.is_err() {
                self.world.violation("a listener does not close");
            }
            process.accepting.iter().for_each(tokio::task::JoinHandle::abort);
            processes.push(process.process.clone());
        }
        let limit = Instant::now() + TASKS_LIMIT;
        for process in processes {
            while process.tasks() > 0 && Instant::now() < limit {
                sleep(Duration::from_secs(1)).await;
            }
            if process.tasks() > 0 {
                self.world.violation(format!("{} tasks have not ended", process.tasks()));
            }
        }
        for at in 0..self.nodes.len() {
            self.nodes[at].disk.crash();
            match gattway::database::Database::open_simulated(&self.nodes[at].disk, Default::default()) {
                Ok(db) => checks::check_node(&self.world, at, &db),
                Err(error) => self.world.violation(format!("node {at} does not open at the end: {error}")),
            }
        }
    }

    fn outcome(mut self) -> Outcome {
        let world = &self.world;
        let air = world.radio.counters();
        let disks = || self.nodes.iter().map(|node| node.disk.counts());
        world.faults_many(FaultKind::Drop, air.packets().dropped);
        world.faults_many(FaultKind::Reorder, air.packets().overtaken);
        world.faults_many(FaultKind::Loss, air.on_air().lost_pdus);
        if world.plan.kind == PlanKind::Adverse {
            world.faults_many(FaultKind::FailedSync, disks().map(|disk| disk.syncs_failed).sum());
            world.faults_many(FaultKind::Compaction, disks().map(|disk| disk.compactions).sum());
        }
        world.faults_many(FaultKind::FullDisk, disks().map(|disk| disk.refused_full).sum());
        for node in &self.nodes {
            world.trace.note(format!("digest of the disk of {}: {:08x}", node.index, node.disk.digest()));
        }
        let mut counts = std::mem::take(&mut self.counts);
        counts.crashes_with_loss = disks().map(|disk| disk.crashes_with_loss).sum();
        counts.faults = world.faults();
        counts.crossings = world.crossings();
        counts.blob_parts = world.blobs.parts();
        let adverse = ADVERSE_KINDS.into_iter().filter(|_| world.plan.kind == PlanKind::Adverse);
        for kind in FAULT_KINDS.into_iter().chain(adverse) {
            counts.faults.entry(kind).or_default();
        }
        counts.acknowledgements = world.model().acknowledgements;
        counts.events = world.model().len() as u64;
        counts.packets = world.trace.packets();
        counts.simulated = Duration::from_micros(world.trace.micros());
        Outcome {
            plan: world.plan.clone(),
            violations: world.violations(),
            lines: world.trace.lines(),
            hash: world.trace.hash(),
            counts,
        }
    }
}
