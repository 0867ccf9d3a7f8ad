//! What has to become of a document and of a whole run, by the plan and the contents before it.

use std::collections::BTreeMap;

use gattway::lab::replica::revision::TREE_SOURCE;

use super::content::{Both, Content, Found, Relation, is_tree, relation};
use super::exchange::full_name;
use super::history::Step;
use super::plan::{ACTIVE, CollectionPlan, PASSIVE, Plan, Resolving};

/// What a side has to have.
#[derive(Clone, Debug)]
pub enum Want<'f> {
    /// One of the revisions before, or nothing.
    As(Option<&'f Found>),
    /// A new revision with this body; `None`: a tombstone.
    New(Option<String>),
}

/// What has to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Nothing,
    /// The sides differ: it stands on the active side's list. `back`: the other side knows it as well.
    Listed {
        back: bool,
    },
}

/// What has to become of one document.
#[derive(Clone, Debug)]
pub struct Expected<'f> {
    pub content: [Want<'f>; 2],
    pub told: Told,
    pub relation: Option<Relation>,
    /// The active side's result may come to the passive one in this run or in the next.
    pub later: bool,
}

/// Which way a document may go.
#[derive(Clone, Copy)]
struct Ways {
    /// The active side sends it; the passive one takes it.
    pushes: bool,
    taken: bool,
    /// The passive side gives it; the active one takes it.
    pulls: bool,
    accepted: bool,
}

/// What the resolver makes of a conflict.
enum Kept {
    Side { side: usize, own_version: bool },
    New(Option<String>),
}

/// What has to become of a document.
pub fn document<'f>(
    plan: &Plan,
    collection: &CollectionPlan,
    id: &str,
    before: [Option<&'f Found>; 2],
) -> Expected<'f> {
    let ways = ways(plan, collection, id);
    let stays = |told| Expected { content: before.map(Want::As), told, relation: None, later: false };
    // A revision that is news at one side: `(from, whether it is sent, whether its kind is taken)`.
    let goes = |from: usize, sent: bool, taken: bool| {
        let found = before[from];
        match (sent, taken, found.is_some_and(|found| found.has_blob)) {
            (false, ..) => stays(Told::Nothing),
            // What a filter of the active side leaves out is left out on purpose.
            (_, false, _) if from == PASSIVE => stays(Told::Nothing),
            (_, false, _) => stays(Told::Listed { back: false }),
            (_, _, true) => stays(Told::Listed { back: true }),
            _ => Expected { content: [Want::As(found), Want::As(found)], ..stays(Told::Nothing) },
        }
    };
    let mut expected = match before {
        [None, None] => stays(Told::Nothing),
        // What was purged does not come back as it was.
        [Some(_), None] if is_purged(collection, id, PASSIVE) => stays(Told::Nothing),
        [None, Some(_)] if is_purged(collection, id, ACTIVE) => stays(Told::Nothing),
        [Some(_), None] => goes(ACTIVE, ways.pushes, ways.taken),
        [None, Some(_)] => goes(PASSIVE, ways.pulls, ways.accepted),
        [Some(active), Some(passive)] => match relation(&active.vector, &passive.vector) {
            Relation::Same => stays(Told::Nothing),
            Relation::Newer => goes(ACTIVE, ways.pushes, ways.taken),
            Relation::Older => goes(PASSIVE, ways.pulls, ways.accepted),
            _ => conflict(plan, id, [active, passive], ways),
        },
    };
    if let [Some(active), Some(passive)] = before {
        expected.relation = Some(relation(&active.vector, &passive.vector));
    }
    expected
}

/// Whether the last that happened to a document was that one side purged it.
fn is_purged(collection: &CollectionPlan, id: &str, side: usize) -> bool {
    let mut documents = collection.documents.iter().filter(|document| document.id == id);
    documents.any(|document| document.steps.last() == Some(&Step::Purge { at: side }))
}

fn ways(plan: &Plan, collection: &CollectionPlan, id: &str) -> Ways {
    let passes = |filter: Option<super::plan::Filter>| filter.is_none_or(|filter| filter.passes(id));
    let asked = end(plan, collection).is_asked && passes(collection.only);
    Ways {
        pushes: asked && plan.direction.pushes() && collection.access.push && passes(collection.push_filter),
        taken: passes(plan.incoming),
        pulls: asked && plan.direction.pulls() && collection.access.pull && passes(plan.outgoing),
        accepted: passes(collection.pull_filter),
    }
}

fn conflict<'f>(plan: &Plan, id: &str, both: [&'f Found; 2], ways: Ways) -> Expected<'f> {
    let ([active, passive], before) = (both, both.map(Some));
    let stays = |told| Expected { content: before.map(Want::As), told, relation: None, later: false };
    let brought = ways.pulls && ways.accepted && !passive.has_blob;
    let kept = resolved(plan.resolver, id, active, passive).filter(|_| brought);
    let Some(kept) = kept else {
        // The passive side refuses the active one's, and nothing settles it.
        let refused = ways.pushes;
        let not_accepted = ways.pulls && ways.accepted;
        return match refused || not_accepted {
            true => stays(Told::Listed { back: ways.pulls && ways.accepted && passive.has_blob }),
            false => stays(Told::Nothing),
        };
    };
    let (result, is_news_there, has_blob) = match kept {
        Kept::Side { side, own_version: false } => {
            (Want::As(before[side]), side == ACTIVE, side == ACTIVE && active.has_blob)
        }
        Kept::Side { side, own_version: true } => {
            let found = both[side];
            (Want::New(found.body.clone()), true, found.has_blob)
        }
        Kept::New(body) => (Want::New(body), true, false),
    };
    if !is_news_there {
        return Expected { content: [result.clone(), result], ..stays(Told::Nothing) };
    }
    let alone = |told| Expected { content: [result.clone(), Want::As(Some(passive))], ..stays(told) };
    match () {
        () if !ways.pushes => alone(Told::Nothing),
        // The next run pushes it.
        () if plan.pushes_resolutions_later() => Expected { later: true, ..alone(Told::Nothing) },
        () if !ways.taken => alone(Told::Listed { back: false }),
        () if has_blob => alone(Told::Listed { back: true }),
        () => Expected { content: [result.clone(), result], ..stays(Told::Nothing) },
    }
}

/// What the active side's resolver makes of two revisions; `None`: it fails.
fn resolved(resolving: Resolving, id: &str, active: &Found, passive: &Found) -> Option<Kept> {
    let key = |found: &Found| (found.vector.current.time, found.vector.current.source);
    let later = if key(active) > key(passive) { ACTIVE } else { PASSIVE };
    let is_same = active.body == passive.body;
    let stays = Kept::Side { side: later, own_version: false };
    match resolving {
        Resolving::Failing(filter) if !filter.passes(id) => return None,
        Resolving::Merging => {
            let body = serde_json::json!({ "merged": id }).to_string();
            return Some(if is_same && active.body.as_ref() == Some(&body) {
                stays
            } else {
                Kept::New(Some(body))
            });
        }
        Resolving::Deleting => {
            return Some(if is_same && active.body.is_none() { stays } else { Kept::New(None) });
        }
        _ if is_same => return Some(stays),
        _ => {}
    }
    let side = match (&active.body, &passive.body) {
        (None, Some(_)) => ACTIVE,
        (Some(_), None) => PASSIVE,
        _ => later,
    };
    let (kept, other) = if side == ACTIVE { (active, passive) } else { (passive, active) };
    // Of revisions that cross the winner needs one, and so does a revision of a tree that wins against another kind.
    let wins_as_tree =
        kept.vector.current.source == TREE_SOURCE && !(is_tree(&kept.vector) && is_tree(&other.vector));
    let own_version = relation(&active.vector, &passive.vector) == Relation::Crossing || wins_as_tree;
    Some(Kept::Side { side, own_version })
}

/// Whether something comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Comes {
    No,
    /// It depends on which message is first.
    May,
    Must,
}

/// How a collection fares as a whole.
pub struct CollectionEnd {
    /// Both sides have it, and the peer may know of it.
    pub is_asked: bool,
    pub is_missing: bool,
}

pub fn end(plan: &Plan, collection: &CollectionPlan) -> CollectionEnd {
    let there = collection.at[PASSIVE] && (collection.access.push || collection.access.pull);
    let asked = |collection: &&CollectionPlan| collection.at[ACTIVE];
    let is_missing = |c: &CollectionPlan| !(c.at[PASSIVE] && (c.access.push || c.access.pull));
    let mut all = plan.collections.iter().filter(asked);
    let stops = match plan.optional {
        true => all.all(is_missing),
        false => all.any(is_missing),
    };
    CollectionEnd {
        is_asked: collection.at[ACTIVE] && there && !stops,
        is_missing: collection.at[ACTIVE] && !there,
    }
}

/// What has to become of the whole.
pub struct RunEnd {
    pub error: Comes,
    /// By name of the collection and the beginning of what is said of it.
    pub lacks: BTreeMap<(String, &'static str), Comes>,
}

pub const MISSING: &str = "the peer does not have it";
pub const NOT_SENT: &str = "nothing was sent";
pub const NOT_RECEIVED: &str = "nothing was received";

pub fn run(plan: &Plan, before: &Both) -> RunEnd {
    let mut lacks = BTreeMap::new();
    let asked: Vec<&CollectionPlan> = plan.collections.iter().filter(|c| c.at[ACTIVE]).collect();
    let missing = asked.iter().filter(|c| end(plan, c).is_missing).count();
    if missing > 0 && (!plan.optional || missing == asked.len()) {
        return RunEnd { error: Comes::Must, lacks };
    }
    let mut halves = Vec::new();
    for collection in &asked {
        let name = full_name(&collection.name);
        if end(plan, collection).is_missing {
            let is_empty = before[ACTIVE].get(&name).is_none_or(|documents| documents.is_empty());
            if name != "_default" || !is_empty {
                lacks.insert((name, MISSING), Comes::Must);
            }
            continue;
        }
        if plan.direction.pushes() {
            let refused = if collection.access.push { Comes::No } else { push(collection, before) };
            halves.push(refused);
            lacks.insert((name.clone(), NOT_SENT), refused);
        }
        if plan.direction.pulls() {
            let refused = if collection.access.pull { Comes::No } else { Comes::Must };
            halves.push(refused);
            lacks.insert((name, NOT_RECEIVED), refused);
        }
    }
    let error = match plan.optional {
        true => halves.iter().copied().min(),
        false => halves.iter().copied().max(),
    };
    if !plan.optional {
        lacks.values_mut().for_each(|comes| *comes = Comes::No);
    }
    RunEnd { error: error.unwrap_or(Comes::No), lacks }
}

/// Whether the active side tries to push something of a collection.
fn push(collection: &CollectionPlan, before: &Both) -> Comes {
    let passes =
        |filter: Option<super::plan::Filter>, id: &str| filter.is_none_or(|filter| filter.passes(id));
    let name = full_name(&collection.name);
    let of = |content: &'_ Content, id: &str| content.get(&name).and_then(|found| found.get(id)).cloned();
    let mut comes = Comes::No;
    for (id, active) in before[ACTIVE].get(&name).into_iter().flatten() {
        if !passes(collection.push_filter, id) || !passes(collection.only, id) {
            continue;
        }
        let is_news = match of(&before[PASSIVE], id) {
            None => true,
            Some(passive) => relation(&active.vector, &passive.vector) == Relation::Newer,
        };
        comes = comes.max(if is_news { Comes::Must } else { Comes::May });
    }
    comes
}
