//! Runs that carry some of the documents: those of a set of IDs, or those that a filter of each direction lets pass. What is
//! chosen depends on the ID alone, so that an edge lets the same pass all the time, tombstones as well.
//!
//! A node has of others only what comes to it on edges that let it pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use gattway::replicator::{CollectionConfig, ReplicationFilter};

use super::checks::{COLLECTION, Content};
use super::model::{EventId, NodeIndex};
use super::plan::{Bug, Edge, Plan};
use super::world::World;

/// Which documents an edge lets pass: a bit for each number of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// All.
    #[default]
    All,
    /// Those of a set of IDs, in both directions.
    Ids(u64),
    /// Those that filters of the two directions let pass.
    Filters { push: u64, pull: u64 },
}

/// A name as [`Run::document`](super::run::Run::document) gives it.
pub fn name(number: usize) -> String {
    format!("document-{number}")
}

fn is_in(set: u64, id: &str) -> bool {
    let number = id.strip_prefix("document-").and_then(|number| number.parse::<u32>().ok());
    // Others have what no node made: what is wrong with it is found elsewhere.
    number.is_none_or(|number| number >= u64::BITS || set >> number & 1 == 1)
}

impl Selection {
    pub fn drawn(rng: &mut Rng) -> Selection {
        let (set, other) = (rng.u64(..), rng.u64(..));
        match rng.u32(0..10) {
            0..2 => Selection::All,
            2..5 => Selection::Ids(set),
            5..7 => Selection::Filters { push: set, pull: set },
            7 => Selection::Filters { push: set, pull: u64::MAX },
            8 => Selection::Filters { push: u64::MAX, pull: set },
            _ => Selection::Filters { push: set, pull: other },
        }
    }

    /// Whether a document goes from the active side to the passive one.
    pub fn pushes(self, id: &str) -> bool {
        match self {
            Selection::All => true,
            Selection::Ids(set) | Selection::Filters { push: set, .. } => is_in(set, id),
        }
    }

    /// Whether a document comes from the passive side to the active one.
    pub fn pulls(self, id: &str) -> bool {
        match self {
            Selection::All => true,
            Selection::Ids(set) | Selection::Filters { pull: set, .. } => is_in(set, id),
        }
    }

    /// What the replicator is told.
    pub fn config(self, documents: usize, bug: Option<Bug>) -> CollectionConfig {
        let mut config = CollectionConfig::new(COLLECTION);
        match self {
            Selection::All => {}
            Selection::Ids(set) => {
                config.document_ids = Some((0..documents).map(name).filter(|id| is_in(set, id)).collect());
            }
            Selection::Filters { push, pull } => {
                let all = bug == Some(Bug::IgnoresFilter);
                let filter = |set: u64| -> Option<ReplicationFilter> {
                    (set != u64::MAX)
                        .then(|| -> ReplicationFilter { Arc::new(move |input| all || is_in(set, input.id)) })
                };
                (config.push_filter, config.pull_filter) = (filter(push), filter(pull));
            }
        }
        config
    }
}

/// Whether a document may come from one node to another, by any way.
fn reaches(plan: &Plan, id: &str, from: NodeIndex, to: NodeIndex) -> bool {
    let mut reached = vec![from];
    let mut at = 0;
    while let Some(&node) = reached.get(at) {
        if node == to {
            return true;
        }
        let next = |edge: &Edge| {
            let pushed = edge.active == node && edge.selection.pushes(id);
            let pulled = edge.passive == node && edge.selection.pulls(id);
            pushed.then_some(edge.passive).or(pulled.then_some(edge.active))
        };
        let next: Vec<NodeIndex> = plan.edges.iter().chain(&plan.lied_to).filter_map(next).collect();
        next.into_iter().for_each(|node| {
            if !reached.contains(&node) {
                reached.push(node);
            }
        });
        at += 1;
    }
    false
}

/// What a node has of others has come to it on edges that let it pass.
pub fn check(world: &World, node: NodeIndex, events: &BTreeMap<String, EventId>) {
    for (id, event) in events {
        let author = world.model().author(*event);
        if !reaches(&world.plan, id, author, node) {
            let name = world.model().name(*event).to_owned();
            world.violation(format!("chosen: node {node} has {id} {name}, which no edge lets come to it"));
        }
    }
}

/// Whether one side lacks a document that an edge carries in one direction alone, or in none. The active side has what the
/// passive one has, or what has come of it; the passive side takes nothing that is in conflict with its own.
pub fn lacks(
    world: &World,
    id: &str,
    (pushes, pulls): (bool, bool),
    active: &Content,
    passive: &Content,
) -> bool {
    let event = |content: &Content| {
        let found = content.get(id)?;
        world.model().identify(id, found.version, found.body.as_ref()).ok()
    };
    match (event(active), event(passive)) {
        (ours, Some(theirs)) if pulls => ours.is_none_or(|ours| !world.model().covers(ours, theirs)),
        (Some(ours), theirs) if pushes => {
            let model = world.model();
            theirs.is_none_or(|theirs| ours != theirs && model.covers(ours, theirs))
        }
        _ => false,
    }
}
