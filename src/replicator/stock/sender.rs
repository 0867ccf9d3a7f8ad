//! Sending single revisions that the peer asked for, as Couchbase Lite does: a few in flight, each with its own reply.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::replica::revision::{RevId, Versioning};
use crate::replica::store::{Change, CollectionId, ReplicaStore, ReplicaStoreError};
use crate::replicator::blobs::stubs::with_stubs;
use crate::replicator::context::SessionContext;
use crate::replicator::deltas::DELTA_SOURCE;
use crate::replicator::error::SessionError;
use crate::replicator::in_flight::{Awaiting, SentRev, Wanted};
use crate::replicator::messages::{refuse, unsendable, write_norev, write_rev};
use crate::replicator::unsynced::failure::Failure;

/// Most revisions that are read from the store at a time. They lie side by side there; one alone costs nearly as much.
const PAGE_ROWS: usize = 64;

/// Revisions of one collection that the peer wants: queued, read ahead, and under way.
#[derive(Debug, Default)]
pub(super) struct RevSender {
    wanted: VecDeque<Wanted>,
    in_flight: usize,
    /// Revisions read ahead, by their sequence.
    page: HashMap<u64, Change>,
    /// The last sequence that was read ahead.
    page_end: u64,
    /// Sequences whose revision is not here any more: nothing is left to do for them.
    pub gone: Vec<u64>,
}

impl RevSender {
    /// Notes a revision that the peer wants.
    pub fn want(&mut self, wanted: Wanted) {
        self.wanted.push_back(wanted);
    }

    /// Revisions that are not sent yet.
    pub fn queued(&self) -> usize {
        self.wanted.len()
    }

    /// Whether nothing is queued or in flight.
    pub fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.in_flight == 0
    }

    /// Forgets what is not sent yet.
    pub fn clear(&mut self) {
        self.wanted.clear();
        self.page.clear();
    }

    /// The document of a wanted revision as it was a moment ago, from what was read ahead or from the store. A newer
    /// revision that came meanwhile is further on in the feed.
    fn read(
        &mut self,
        collection: CollectionId,
        wanted: &Wanted,
        store: &dyn ReplicaStore,
    ) -> Result<Option<Change>, ReplicaStoreError> {
        if wanted.sequence > self.page_end {
            self.read_ahead(collection, wanted.sequence, store)?;
        }
        match self.page.remove(&wanted.sequence) {
            Some(_) if store.is_expired(collection, &wanted.id)? => Ok(None),
            Some(change) => Ok(Some(change)),
            None => store.document(collection, &wanted.id),
        }
    }

    /// Reads the run of wanted revisions that begins at `first`, as long as most of its sequences are wanted.
    fn read_ahead(
        &mut self,
        collection: CollectionId,
        first: u64,
        store: &dyn ReplicaStore,
    ) -> Result<(), ReplicaStoreError> {
        let (mut last, mut count) = (first, 1);
        for wanted in self.wanted.iter().take(PAGE_ROWS - 1) {
            let span = wanted.sequence.saturating_sub(first);
            if wanted.sequence <= last || span > 2 * count {
                break;
            }
            (last, count) = (wanted.sequence, count + 1);
        }
        if count > 1 {
            self.page_end = last;
            let span = usize::try_from(last - first).unwrap_or(PAGE_ROWS) + 1;
            let rows = store.changes(collection, first.saturating_sub(1), span, true)?;
            let rows = rows.into_iter().filter(|change| change.sequence <= last);
            self.page = rows.map(|change| (change.sequence, change)).collect();
        }
        Ok(())
    }

    /// Sends what the limits allow. A revision that is not the newest of its document any more gives a `norev`: the
    /// newer one is further on in the feed.
    pub fn pump(
        &mut self,
        context: &mut SessionContext,
        collection: usize,
        store: &dyn ReplicaStore,
        no_conflicts: bool,
    ) -> Result<bool, SessionError> {
        let mut sent = false;
        while context.may_send_rev(self.in_flight) {
            let Some(wanted) = self.wanted.pop_front() else { break };
            let Some(target) = context.collections.get(collection) else { break };
            let index = target.index.clone();
            let newest = self
                .read(target.id, &wanted, store)?
                .filter(|change| change.vector.current == wanted.revision.version());
            sent = true;
            let Wanted { id, sequence, revision, .. } = &wanted;
            let norev = |error| write_norev(index.as_deref(), id, &revision.to_string(), *sequence, error);
            if let Some(error) = newest.as_ref().and_then(|change| unsendable(change, context.body_size_max))
            {
                context.notify(norev(&error))?;
                context.failed(collection, Failure::sent(id, *revision, *sequence, false, error));
                self.gone.push(wanted.sequence);
                continue;
            }
            let Some(mut change) = newest else {
                context.notify(norev(&refuse::gone()))?;
                self.gone.push(wanted.sequence);
                continue;
            };
            change.remote_ancestor = match context.versioning {
                // What another peer has says nothing of this one.
                Versioning::RevisionTrees => wanted.known,
                _ => wanted.known.or(change.remote_ancestor),
            };
            let guesses_tree =
                change.remote_ancestor.is_none() && !change.vector.is_tree() && change.vector.trees.len() > 1;
            // Where it was listed. The same revision may stand in the feed once more by now, and the peer waits for this place.
            change.sequence = wanted.sequence;
            let mut message = write_rev(index.as_deref(), &change, no_conflicts, context.versioning);
            let stubs = if context.peer_finds_blobs { None } else { stubs_of(&change) };
            let delta = match stubs {
                Some(_) => None,
                None => context.deltas.of(target.id, &change, &wanted.bases, store)?,
            };
            let is_delta = delta.is_some();
            if let Some(body) = stubs {
                message.body = body;
            } else if let Some((base, delta)) = delta {
                message.properties.set(DELTA_SOURCE, &base.to_string());
                message.body = delta.into();
            }
            let bytes = message.body.len();
            self.in_flight += 1;
            let Wanted { id, sequence, revision, known, .. } = wanted;
            let deleted = change.deleted;
            let rev = SentRev { id, sequence, deleted, revision, bytes, guesses_tree, known, is_delta };
            context.request(message, Awaiting::Rev { collection, rev })?;
        }
        Ok(sent)
    }

    /// A reply has come.
    pub fn replied(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}

/// The body with stubs of its blobs, if it names any.
fn stubs_of(change: &Change) -> Option<Bytes> {
    let generation = match change.vector.id() {
        RevId::Tree(tree) => tree.generation(),
        // A peer of version vectors has none; it may be any but 0.
        RevId::Version(_) => 1,
    };
    with_stubs(change.body.as_ref()?, generation)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::blip::BlipConfig;
    use crate::replica::revision::{SourceId, TreeId, Version, VersionVector};
    use crate::replica::store::{ConflictPolicy, IncomingRevision};
    use crate::replicator::context::SessionCollection;
    use crate::replicator::memory_store::MemoryStore;

    /// Whether the revision that goes out for this vector is said to name a tree ID by guess.
    fn guesses(vector: &VersionVector, known: Option<RevId>) -> bool {
        let (store, collection) = (MemoryStore::new(1), CollectionId(0));
        let (id, body) = ("d".to_owned(), Bytes::from_static(b"{}"));
        let revision = IncomingRevision { collection, id, vector: vector.clone(), deleted: false, body };
        store.commit(&[revision], ConflictPolicy::Refuse).expect("taken");
        let mut context = SessionContext::new(BlipConfig::default(), false, false, Duration::from_secs(60));
        let name = "_default".to_owned();
        context.collections = vec![SessionCollection {
            name,
            id: collection,
            index: None,
            incoming_filter: None,
            outgoing_filter: None,
        }];
        let mut sender = RevSender::default();
        let change = store.document(collection, "d").expect("read").expect("there");
        sender.want(Wanted { known, ..Wanted::of(change) });
        assert!(sender.pump(&mut context, 0, &store, true).expect("sent"));
        match context.take_awaiting(context.blip.last_request()) {
            Some(Awaiting::Rev { rev, .. }) => rev.guesses_tree,
            other => panic!("{other:?}"),
        }
    }

    /// Of several tree IDs a revision names one. If the peer has said nothing, that is a guess; the only one, the revision itself
    /// and what the peer has named are none.
    #[test]
    fn a_tree_id_is_guessed_where_there_are_several_and_no_word_of_the_peer() {
        let tree = |n: u8| TreeId::new(u32::from(n), &[n; 16]).expect("an ID");
        let edited = |trees: Vec<TreeId>| {
            let current = Version { time: 1 << 60, source: SourceId([2; 16]) };
            VersionVector { trees, ..VersionVector::new(current) }
        };
        let at_tree = VersionVector { trees: vec![tree(3), tree(2)], ..VersionVector::at_tree(tree(3)) };
        let named = Some(RevId::Tree(tree(2)));
        for (vector, known, guess) in [
            (edited(vec![tree(3), tree(2)]), None, true),
            (edited(vec![tree(3), tree(2)]), named, false),
            (edited(vec![tree(3)]), None, false),
            (edited(vec![]), None, false),
            (at_tree, None, false),
        ] {
            assert_eq!(guesses(&vector, known), guess, "{vector:?} {known:?}");
        }
    }
}
