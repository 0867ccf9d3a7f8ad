//! What a seed decides of a run before it begins. One file, because all of it is drawn from one stream of numbers.

use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

use super::blobs::BlobPlan;
use super::removal::Rules;
use super::selection::Selection;

/// What tells the runs of adverse plans from those of usual ones.
const ADVERSE_SEED: u64 = 0xad5e_5e00;

/// The same for plans whose nodes remove documents.
const REMOVING_SEED: u64 = 0x0e_50_7e_00;

/// The same for what a plan has of blobs.
const BLOB_SEED: u64 = 0xb10b_5000;

/// The same for what its edges carry.
const SELECTION_SEED: u64 = 0x5e1e_c700;

/// Longest time of edits and faults in such a plan: blobs are much to send.
const BLOB_DURATION_MAX: Duration = Duration::from_secs(40);

/// Documents more than in other plans, so that some are left alone after they were deleted.
const REMOVING_DOCUMENTS: usize = 15;

/// Share of the usual faults that such a plan, or an adverse one, has.
const USUAL_FAULT_SHARE: f64 = 0.2;

/// Wrong behaviour that is put in to see whether it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The disk says that it has synced, and has not.
    SyncLies,
    /// A node says that it has stored a revision, and has not.
    ForgetsRevisions,
    /// A checkpoint claims more than the two sides have exchanged.
    CheckpointAhead,
    /// Conflicts are refused by the active side too, so that nobody resolves them.
    OpenConflicts,
    /// Nodes that remove documents remember nothing of them.
    ForgetsRemovals,
    /// They take some of what they never had for removed.
    TakesForRemoved,
    /// Their rules do not wait for the confirmation that they should wait for.
    RemovesUnconfirmed,
    /// The disk says that it has synced the content of a blob, and has not.
    BlobsUnsynced,
    /// The same of the names of blobs.
    BlobNamesUnsynced,
    /// Filters of runs let all pass.
    IgnoresFilter,
}

/// A kind of fault that a run may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// The radio connection of two nodes breaks, or they are out of range for a while.
    Cut,
    /// Link-layer PDUs are lost, which delays packets.
    Loss,
    /// Hosts drop packets.
    Drop,
    /// Packets arrive twice.
    Duplicate,
    /// Packets overtake each other.
    Reorder,
    /// Nothing is delivered for some time.
    Delay,
    /// A process is killed and started again.
    Reboot,
    /// The power fails, at any moment.
    PowerCut,
    /// The power fails in the middle of a write or a sync.
    PowerCutInWrite,
    /// The disk is full for a while.
    FullDisk,
    /// The wall clock jumps.
    ClockJump,
    /// Commits take up to seconds.
    SlowPeer,
    /// A node goes and does not come back.
    Vanish,
    /// Somebody who does not belong to the nodes sends to one.
    Stranger,
    /// Syncs of the disk fail, and then work again.
    FailedSync,
    /// A process is killed while the page cache stays, or is given up meanwhile.
    Restart,
    /// A database is compacted while peers sync.
    Compaction,
    /// A node's database is put back to a copy that was made earlier in the run.
    OlderCopy,
    /// The trust list of a node is gone for a while.
    TrustLost,
    /// A node syncs with a member that lies.
    Liar,
    /// A listener stands where a node is expected, and says what it has overheard of it.
    Replay,
}

impl FaultKind {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Cut => "connection cut",
            FaultKind::Loss => "link-layer PDU lost",
            FaultKind::Drop => "packet dropped",
            FaultKind::Duplicate => "packet duplicated",
            FaultKind::Reorder => "packet overtaken",
            FaultKind::Delay => "delivery delayed",
            FaultKind::Reboot => "process killed",
            FaultKind::PowerCut => "power cut",
            FaultKind::PowerCutInWrite => "power cut in a write",
            FaultKind::FullDisk => "write refused by a full disk",
            FaultKind::ClockJump => "clock jump",
            FaultKind::SlowPeer => "slow peer",
            FaultKind::Vanish => "node gone for good",
            FaultKind::Stranger => "attack of a stranger",
            FaultKind::FailedSync => "sync of the disk failed",
            FaultKind::Restart => "process killed, page cache kept or given up",
            FaultKind::Compaction => "compaction while peers sync",
            FaultKind::OlderCopy => "database put back to an older copy",
            FaultKind::TrustLost => "trust list lost",
            FaultKind::Replay => "listener that replays",
            FaultKind::Liar => "connection to a member that lies",
        }
    }
}

/// Those of a plan of the usual kind.
pub const FAULT_KINDS: [FaultKind; 14] = [
    FaultKind::Cut,
    FaultKind::Loss,
    FaultKind::Drop,
    FaultKind::Duplicate,
    FaultKind::Reorder,
    FaultKind::Delay,
    FaultKind::Reboot,
    FaultKind::PowerCut,
    FaultKind::PowerCutInWrite,
    FaultKind::FullDisk,
    FaultKind::ClockJump,
    FaultKind::SlowPeer,
    FaultKind::Vanish,
    FaultKind::Stranger,
];

/// Those that a plan of the adverse kind has beside them.
pub const ADVERSE_KINDS: [FaultKind; 7] = [
    FaultKind::FailedSync,
    FaultKind::Restart,
    FaultKind::Compaction,
    FaultKind::OlderCopy,
    FaultKind::TrustLost,
    FaultKind::Liar,
    FaultKind::Replay,
];

/// From which faults a plan draws. A seed gives another run in each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanKind {
    /// Radio, power and clocks fail, and strangers attack.
    Usual,
    /// Beside a few of those: disks, files and members that cannot be trusted.
    Adverse,
    /// Beside a few of those: nodes that remove documents, each for itself.
    Removing,
    /// As usual, with revision trees.
    Trees,
}

/// How nodes are connected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Topology {
    /// Field devices around a gateway.
    Star,
    /// Each with the next.
    Chain,
    /// A ring with some chords.
    Mesh,
}

/// One active replicator.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// Who asks.
    pub active: usize,
    /// Who answers.
    pub passive: usize,
    /// Whether it goes on with every change.
    pub continuous: bool,
    /// Whether the extension between gattway peers is offered; else it speaks as the original does.
    pub extension: bool,
    /// ATT MTU of its connections.
    pub att_mtu: u16,
    /// Connection interval.
    pub interval: Duration,
    /// Which documents it carries.
    pub selection: Selection,
}

/// How connections are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    Plain,
    /// A group has a secret.
    Group,
    /// Each knows the others' keys.
    Paired,
    /// A group has a secret; each node keeps it and a trust list in files.
    Files,
}

/// How conflicts are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolving {
    /// A deletion wins, then the later clock.
    Default,
    /// A merge of both.
    Merge,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides all of it.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// The connections.
    pub edges: Vec<Edge>,
    /// Which nodes accept the extension.
    pub accepts_extension: Vec<bool>,
    /// What goes wrong.
    pub faults: Vec<FaultKind>,
    /// How many different documents.
    pub documents: usize,
    /// How long edits and faults go on.
    pub duration: Duration,
    /// Pause between two actions, in milliseconds.
    pub gap_ms: Range<u64>,
    /// How connections are protected.
    pub security: Security,
    /// What decides conflicts.
    pub resolving: Resolving,
    /// What is wrong on purpose.
    pub bug: Option<Bug>,
    /// What it draws from.
    pub kind: PlanKind,
    /// Nodes whose database syncs by and by.
    pub relaxed: Vec<bool>,
    /// Nodes that purge documents, let them expire, and keep only so many.
    pub removes: Vec<bool>,
    /// The rules by which they do that.
    pub rules: Vec<Rules>,
    /// What documents have of blobs, if anything.
    pub blobs: Option<BlobPlan>,
    /// Runs with a member that lies, which is no node: its number is that after the nodes and the stranger.
    pub lied_to: Vec<Edge>,
}

/// How often more than the other faults a node may be put back.
const OLDER_COPIES: usize = 6;

impl Plan {
    /// The run of a seed.
    pub fn new(seed: u64) -> Plan {
        let mut rng = Rng::with_seed(seed);
        let nodes = match rng.u32(0..100) {
            0..40 => 2,
            40..65 => 3,
            65..90 => rng.usize(4..=6),
            90..98 => rng.usize(7..=12),
            _ => rng.usize(13..=20),
        };
        Plan::drawn(seed, nodes, 0.5, &mut rng)
    }

    /// The run of a seed whose disks, files and members cannot be trusted.
    pub fn adverse(seed: u64) -> Plan {
        let mut rng = Rng::with_seed(seed ^ ADVERSE_SEED);
        let nodes = rng.usize(2..=4);
        let mut plan = Plan::drawn(seed, nodes, USUAL_FAULT_SHARE, &mut rng);
        plan.kind = PlanKind::Adverse;
        let certain = rng.usize(0..ADVERSE_KINDS.len());
        let kinds = ADVERSE_KINDS.into_iter().enumerate();
        plan.faults.extend(kinds.filter(|(n, _)| *n == certain || rng.f64() < 0.4).map(|(_, kind)| kind));
        plan.relaxed = (0..nodes).map(|_| rng.f64() < 0.3).collect();
        if plan.faults.contains(&FaultKind::TrustLost) {
            plan.security = Security::Files;
        }
        let lied_to = rng.usize(0..nodes);
        if plan.faults.contains(&FaultKind::Liar) {
            let some = (0..nodes).filter(|node| *node == lied_to || rng.bool());
            let some: Vec<usize> = some.collect();
            plan.lied_to = some.into_iter().map(|node| edge(node, plan.liar(), nodes, &mut rng)).collect();
        }
        if plan.faults.contains(&FaultKind::OlderCopy) {
            // By a clock that was put back too, what a node writes anew may be older than what it has forgotten.
            plan.faults.retain(|kind| *kind != FaultKind::ClockJump);
            // Often, so that several are put back in turn, each to a copy of another time.
            plan.faults.extend([FaultKind::OlderCopy; OLDER_COPIES].into_iter().filter(|_| rng.bool()));
        }
        plan
    }

    /// The run of a seed whose nodes remove documents.
    pub fn removing(seed: u64) -> Plan {
        let mut rng = Rng::with_seed(seed ^ REMOVING_SEED);
        let nodes = rng.usize(2..=4);
        let mut plan = Plan::drawn(seed, nodes, USUAL_FAULT_SHARE, &mut rng);
        plan.kind = PlanKind::Removing;
        // What has expired by a clock that is put back has not.
        plan.faults.retain(|kind| *kind != FaultKind::ClockJump);
        let certain = rng.usize(0..nodes);
        plan.documents += REMOVING_DOCUMENTS;
        plan.removes = (0..nodes).map(|node| node == certain || rng.bool()).collect();
        plan.rules = (0..nodes).map(|node| Rules::drawn(node, &plan.edges, &mut rng)).collect();
        plan
    }

    /// The usual run of a seed with databases that have revision trees. Nobody deletes: the same deletion by two nodes is one
    /// revision, and the model counts events.
    pub fn trees(seed: u64) -> Plan {
        Plan { kind: PlanKind::Trees, ..Plan::new(seed) }
    }

    /// A run some of whose edges carry some of the documents; one in two has blobs too.
    pub fn selecting(seed: u64) -> Plan {
        let mut plan = Plan::with_blobs(seed);
        let mut rng = Rng::with_seed(seed ^ SELECTION_SEED);
        let certain = rng.usize(0..plan.edges.len());
        for (n, edge) in plan.edges.iter_mut().enumerate() {
            let selection = Selection::drawn(&mut rng);
            if n == certain || rng.bool() {
                edge.selection = selection;
            }
        }
        // What a node has forgotten of others it may never hear of again where an edge carries one way alone.
        plan.faults.retain(|kind| *kind != FaultKind::OlderCopy);
        plan.blobs = plan.blobs.filter(|_| rng.bool());
        plan
    }

    /// A run with blobs in its documents: one of the adverse ones, a usual one, or one with trees.
    pub fn with_blobs(seed: u64) -> Plan {
        let mut rng = Rng::with_seed(seed ^ BLOB_SEED);
        let mut plan = match seed % 5 {
            0 | 1 => Plan::adverse(seed),
            other => {
                let nodes = rng.usize(2..=4);
                let kind = if other == 2 { PlanKind::Trees } else { PlanKind::Usual };
                Plan { kind, ..Plan::drawn(seed, nodes, 0.5, &mut rng) }
            }
        };
        plan.duration = plan.duration.min(BLOB_DURATION_MAX);
        plan.blobs = Some(BlobPlan::drawn(&plan.edges, &mut rng));
        plan
    }

    /// The number of the liar.
    pub fn liar(&self) -> usize {
        self.nodes + 1
    }

    fn drawn(seed: u64, nodes: usize, fault_share: f64, rng: &mut Rng) -> Plan {
        let topology = match rng.u32(0..3) {
            0 => Topology::Star,
            1 => Topology::Chain,
            _ => Topology::Mesh,
        };
        let links = links(topology, nodes, rng);
        let edges = links.into_iter().map(|(active, passive)| edge(active, passive, nodes, rng)).collect();
        let faults = FAULT_KINDS.into_iter().filter(|_| rng.f64() < fault_share);
        let faults = faults.filter(|kind| *kind != FaultKind::Vanish || nodes > 2).collect();
        let slowest = rng.u64(100..2_000);
        Plan {
            seed,
            nodes,
            edges,
            accepts_extension: (0..nodes).map(|_| rng.f64() < 0.85).collect(),
            faults,
            documents: rng.usize(1..=20),
            duration: Duration::from_secs(rng.u64(10..90)),
            gap_ms: 1..slowest,
            security: match rng.u32(0..10) {
                0..2 => Security::Plain,
                2..8 => Security::Group,
                _ => Security::Paired,
            },
            resolving: if rng.f64() < 0.6 { Resolving::Default } else { Resolving::Merge },
            bug: None,
            kind: PlanKind::Usual,
            relaxed: vec![false; nodes],
            removes: vec![false; nodes],
            rules: vec![Rules::default(); nodes],
            blobs: None,
            lied_to: Vec::new(),
        }
    }

    /// The same run with something wrong in it, and with what it takes to see that.
    pub fn with_bug(seed: u64, bug: Bug) -> Plan {
        let of_removal = [Bug::ForgetsRemovals, Bug::TakesForRemoved, Bug::RemovesUnconfirmed].contains(&bug);
        let of_blobs = [Bug::BlobsUnsynced, Bug::BlobNamesUnsynced].contains(&bug);
        let plan = match (of_removal, of_blobs) {
            (true, _) => Plan::removing(seed),
            (_, true) => Plan::with_blobs(seed),
            _ if bug == Bug::IgnoresFilter => Plan::selecting(seed),
            _ => Plan::new(seed),
        };
        let mut plan = Plan { bug: Some(bug), ..plan };
        if bug == Bug::ForgetsRemovals {
            plan.removes.fill(true);
        }
        let needed: &[FaultKind] = match bug {
            Bug::SyncLies | Bug::BlobsUnsynced | Bug::BlobNamesUnsynced => {
                &[FaultKind::PowerCut, FaultKind::PowerCutInWrite]
            }
            _ => &[],
        };
        for kind in needed {
            if !plan.faults.contains(kind) {
                plan.faults.push(*kind);
            }
        }
        plan
    }
}

fn links(topology: Topology, nodes: usize, rng: &mut Rng) -> Vec<(usize, usize)> {
    let mut links: Vec<(usize, usize)> = match topology {
        Topology::Star => (1..nodes).map(|node| (node, 0)).collect(),
        Topology::Chain => (1..nodes).map(|node| (node - 1, node)).collect(),
        Topology::Mesh => (0..nodes).map(|node| (node, (node + 1) % nodes)).collect(),
    };
    if topology == Topology::Mesh {
        for _ in 0..rng.usize(0..=nodes / 2) {
            let (a, b) = (rng.usize(0..nodes), rng.usize(0..nodes));
            if a != b && !links.contains(&(a, b)) {
                links.push((a, b));
            }
        }
    }
    for link in &mut links {
        if rng.f64() < 0.25 {
            *link = (link.1, link.0);
        }
    }
    links.sort_unstable();
    links.dedup();
    links
}

fn edge(active: usize, passive: usize, nodes: usize, rng: &mut Rng) -> Edge {
    let interval = if nodes > 6 { rng.u64(40..=200) } else { rng.u64(15..=100) };
    Edge {
        active,
        passive,
        continuous: rng.f64() < 0.7,
        extension: rng.f64() < 0.7,
        att_mtu: [23, 64, 185, 247, 247, 517][rng.usize(0..6)],
        // In the steps of the specification.
        interval: Duration::from_micros(interval * 1_000 / 1_250 * 1_250),
        selection: Selection::All,
    }
}
