//! What a number of first syncs had in them, kind by kind: a test of random things shows nothing of what never came up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gattway::database::{DOCUMENT_BODY_MAX, Durability};
use gattway::replicator::ReplicatorType;

use super::content::{Both, Found, Relation};
use super::exchange::{Outcome, full_name};
use super::expect::{self, Told};
use super::plan::{ACTIVE, PASSIVE, Plan, Resolving};

/// Bodies within so many bytes of the largest that there may be are around the limit.
const AROUND_LIMIT: usize = 8 << 10;

/// All kinds, so that one that never came up is seen. Those before the first of documents count syncs.
const KINDS: [&str; 62] = [
    "push and pull",
    "push",
    "pull",
    "once",
    "continuous",
    "over TCP",
    "over a Unix socket",
    "encrypted",
    "plain",
    "both speak the extension",
    "only the active side does",
    "only the passive side does",
    "neither does",
    "relaxed durability",
    "relaxed, and synced at once",
    "clocks that are wrong",
    "by the commands",
    "by the commands, exit code 0",
    "by the commands, exit code 7",
    "by the commands, another exit code",
    "with a third database",
    "nothing to sync",
    "one collection",
    "two to five collections",
    "six collections and more",
    "a collection that the passive side lacks",
    "a collection that the active side lacks",
    "a collection that may be read only",
    "a collection that may be written only",
    "a collection that may not be seen",
    "strict about what the peer lacks or refuses",
    "ended with an error, as it has to",
    "a push filter",
    "a pull filter",
    "a filter of what the passive side takes",
    "a filter of what the passive side offers",
    "only certain document IDs",
    "a resolver that fails",
    "a resolver that merges",
    "a resolver that deletes",
    "something is left out",
    "documents: all",
    "documents: of 100 KB and more",
    "documents: of 1 MiB and more",
    "documents: of 4 MiB and more",
    "documents: around the largest size",
    "documents: tombstones",
    "documents: IDs of 200 bytes and more",
    "documents: of 300 authors and more",
    "documents: of as many authors as there may be",
    "documents: with an ID of a revision tree",
    "documents: with a blob",
    "documents: only at the active side",
    "documents: only at the passive side",
    "documents: the same at both",
    "documents: newer at the active side",
    "documents: newer at the passive side",
    "documents: in conflict",
    "documents: kept against each other",
    "documents: not synced, and told",
    "documents: not synced, told by both",
    "writes refused where they entered",
];

/// How often each kind came up, and how much it was.
#[derive(Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<&'static str, u64>,
    pub syncs: u64,
    pub documents: u64,
    pub body_bytes: u64,
    pub socket_bytes: u64,
}

impl Coverage {
    fn add(&mut self, kind: &'static str, n: u64) {
        debug_assert!(KINDS.contains(&kind), "{kind}");
        *self.counts.entry(kind).or_default() += n;
    }

    fn note(&mut self, kind: &'static str, is_there: bool) {
        self.add(kind, is_there.into());
    }

    pub fn merge(&mut self, other: &Coverage) {
        other.counts.iter().for_each(|(kind, n)| self.add(kind, *n));
        self.syncs += other.syncs;
        self.documents += other.documents;
        self.body_bytes += other.body_bytes;
        self.socket_bytes += other.socket_bytes;
    }

    /// Kinds that never came up.
    pub fn missing(&self) -> Vec<&'static str> {
        KINDS.into_iter().filter(|kind| self.counts.get(kind).is_none_or(|n| *n == 0)).collect()
    }

    /// Kinds that came up.
    pub fn kinds(&self) -> BTreeSet<&'static str> {
        self.counts.iter().filter(|(_, n)| **n > 0).map(|(kind, _)| *kind).collect()
    }

    /// Adds one sync; what a plan promises counts only as far as the databases have it.
    pub fn sync(&mut self, plan: &Plan, refused: u64, before: &Both, outcome: &Outcome) {
        self.syncs += 1;
        self.socket_bytes += outcome.bytes.unwrap_or(0);
        self.add("writes refused where they entered", refused);
        self.meeting(plan);
        self.restrictions(plan);
        self.note("ended with an error, as it has to", outcome.error.is_some());
        self.note("something is left out", outcome.left_out != super::exchange::LeftOut::default());
        let exit = outcome.exit.map(|(code, _)| code);
        self.note("by the commands, exit code 0", exit == Some(0));
        self.note("by the commands, exit code 7", exit == Some(7));
        self.note("by the commands, another exit code", exit.is_some_and(|code| ![0, 7].contains(&code)));
        self.note("nothing to sync", before.iter().all(|content| content.values().all(BTreeMap::is_empty)));
        for collection in &plan.collections {
            let name = full_name(&collection.name);
            let of = |side: usize| before[side].get(&name);
            let ids: BTreeSet<&String> =
                [ACTIVE, PASSIVE].into_iter().flat_map(of).flat_map(BTreeMap::keys).collect();
            for id in ids {
                let found = [ACTIVE, PASSIVE].map(|side| of(side).and_then(|documents| documents.get(id)));
                found.iter().flatten().for_each(|found| self.document(id, found));
                let expected = expect::document(plan, collection, id, found);
                self.relation(found, expected.relation);
                self.note("documents: not synced, and told", expected.told != Told::Nothing);
                let both = expected.told == (Told::Listed { back: true });
                self.note("documents: not synced, told by both", both);
            }
        }
    }

    fn meeting(&mut self, plan: &Plan) {
        self.note("push and pull", plan.direction == ReplicatorType::PushAndPull);
        self.note("push", plan.direction == ReplicatorType::Push);
        self.note("pull", plan.direction == ReplicatorType::Pull);
        self.note("once", !plan.continuous);
        self.note("continuous", plan.continuous);
        self.note("over TCP", plan.tcp);
        self.note("over a Unix socket", !plan.tcp);
        self.note("encrypted", plan.secure);
        self.note("plain", !plan.secure);
        self.note("both speak the extension", plan.extension == [true, true]);
        self.note("only the active side does", plan.extension == [true, false]);
        self.note("only the passive side does", plan.extension == [false, true]);
        self.note("neither does", plan.extension == [false, false]);
        let relaxed = plan.durability.contains(&Durability::Relaxed);
        self.note("relaxed durability", relaxed);
        self.note("relaxed, and synced at once", relaxed && !plan.reopened && plan.documents() > 0);
        self.note("clocks that are wrong", plan.skew_s.iter().any(|skew| *skew != 0));
        self.note("by the commands", plan.commands);
        self.note("with a third database", plan.third && plan.databases() > 2);
        self.note("one collection", plan.collections.len() == 1);
        self.note("two to five collections", (2..6).contains(&plan.collections.len()));
        self.note("six collections and more", plan.collections.len() >= 6);
    }

    fn restrictions(&mut self, plan: &Plan) {
        let any = |is: &dyn Fn(&super::plan::CollectionPlan) -> bool| plan.collections.iter().any(is);
        self.note("a collection that the passive side lacks", any(&|c| !c.at[PASSIVE]));
        self.note("a collection that the active side lacks", any(&|c| !c.at[ACTIVE]));
        let may = |push: bool, pull: bool| any(&|c| (c.access.push, c.access.pull) == (push, pull));
        self.note("a collection that may be read only", may(false, true));
        self.note("a collection that may be written only", may(true, false));
        self.note("a collection that may not be seen", may(false, false));
        let is_limited = any(&|c| !c.at[PASSIVE] || !c.access.push || !c.access.pull);
        self.note("strict about what the peer lacks or refuses", !plan.optional && is_limited);
        self.note("a push filter", any(&|c| c.push_filter.is_some()));
        self.note("a pull filter", any(&|c| c.pull_filter.is_some()));
        self.note("a filter of what the passive side takes", plan.incoming.is_some());
        self.note("a filter of what the passive side offers", plan.outgoing.is_some());
        self.note("only certain document IDs", any(&|c| c.only.is_some()));
        self.note("a resolver that fails", matches!(plan.resolver, Resolving::Failing(_)));
        self.note("a resolver that merges", plan.resolver == Resolving::Merging);
        self.note("a resolver that deletes", plan.resolver == Resolving::Deleting);
    }

    fn document(&mut self, id: &str, found: &Found) {
        let (size, versions) = (found.size, found.vector.versions().count());
        self.documents += 1;
        self.body_bytes += size as u64;
        self.add("documents: all", 1);
        self.note("documents: of 100 KB and more", size >= 100_000);
        self.note("documents: of 1 MiB and more", size >= 1 << 20);
        self.note("documents: of 4 MiB and more", size >= 4 << 20);
        self.note("documents: around the largest size", size >= DOCUMENT_BODY_MAX - AROUND_LIMIT);
        self.note("documents: tombstones", found.body.is_none());
        self.note("documents: IDs of 200 bytes and more", id.len() >= 200);
        self.note("documents: of 300 authors and more", versions >= 300);
        let max = gattway::lab::replica::revision::VERSIONS_MAX;
        self.note("documents: of as many authors as there may be", versions == max);
        self.note("documents: with an ID of a revision tree", !found.vector.trees.is_empty());
        self.note("documents: with a blob", found.has_blob);
    }

    fn relation(&mut self, found: [Option<&Found>; 2], relation: Option<Relation>) {
        self.note("documents: only at the active side", found[PASSIVE].is_none());
        self.note("documents: only at the passive side", found[ACTIVE].is_none());
        self.note("documents: the same at both", relation == Some(Relation::Same));
        self.note("documents: newer at the active side", relation == Some(Relation::Newer));
        self.note("documents: newer at the passive side", relation == Some(Relation::Older));
        self.note("documents: in conflict", relation == Some(Relation::Conflict));
        self.note("documents: kept against each other", relation == Some(Relation::Crossing));
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} first syncs; {} documents with {} bytes of bodies in the databases, {} bytes over sockets",
            self.syncs, self.documents, self.body_bytes, self.socket_bytes,
        )?;
        KINDS.into_iter().try_for_each(|kind| {
            writeln!(f, "{:>9}  {kind}", self.counts.get(kind).copied().unwrap_or_default())
        })
    }
}
