//! What a peer of the stock protocol pushed in earlier runs, so that it is not listed to it again.
//!
//! The peer's position in our feed is behind what it pushes: its next run would be listed all of it, and answer that it has
//! it. The note kept here names those sequences of ours, each with the peer's own, and they are left out of the lists. That is
//! right as long as the peer's database is what it was then. One that was put back to an older copy lacks some of them, and
//! that has to show before its position passes what was left out, or else be made good:
//! - **Two are listed all the same**: the one with the peer's highest sequence, and the last of our feed, which moves the
//!   peer's position past the others. A database that has the highest has all, for its sequences only grow. The word that
//!   the feed ends here waits for the answers.
//! - **Signs that it was put back**: it wants what it pushed; proposes such a revision as if it did not know that it is here;
//!   pushes a revision with a sequence that its checkpoint has passed already; sets a checkpoint that is less than the last.
//! - After such a sign the note is dropped, and everything from the first place in it on is listed, in this run or the next:
//!   the record of that outlives the session, and ends only when it was done.
//! - What is pushed is noted when the peer's checkpoint covers it, and only in a session in which the notes from before have
//!   proved right.
//!
//! Source: `firmware-notes/replication.md`, what a peer pushed.

#![deny(clippy::disallowed_methods)]

mod record;

use crate::replica::revision::VersionVector;
use crate::replica::store::{Change, CollectionId, ReplicaStore, ReplicaStoreError};
use crate::replicator::checkpoint::Checkpoint;
use crate::replicator::sequences::{RemoteSequence, SequenceSet};
#[cfg(test)]
pub(in crate::replicator) use record::PREFIX;
use record::{Run, record_name};

/// Runs in a note; the oldest are left out beyond that, and listed again.
const RUNS_MAX: usize = 512;

/// Runs of one session that wait for the peer's checkpoint; further revisions are not noted, and listed again.
const FRESH_RUNS_MAX: usize = 1_024;

/// Sequences that are looked up to find one whose revision is still the newest of its document.
const LOOKED_UP_MAX: usize = 64;

/// How often the record is written when another session with the same peer writes it at the same time.
const SAVES_MAX: u32 = 3;

/// How far the peer's answers have shown that what is left out is there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Proof {
    /// It has not asked for the feed, or was put back: what it pushes is not noted.
    None,
    /// These sequences are listed and not answered.
    Awaited(Vec<u64>),
    /// It has what was left out, or nothing was.
    Given,
}

/// What of the feed a subscription gets.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::replicator) struct Listing {
    /// The position that it begins after.
    pub since: u64,
    /// What the peer has pushed, and need not be listed.
    pub left_out: SequenceSet,
}

/// The note of one collection and one checkpoint of a peer.
#[derive(Debug)]
pub(in crate::replicator) struct PushedNote {
    collection: CollectionId,
    /// The checkpoint's ID; `None`: nothing is noted.
    client: Option<String>,
    name: String,
    /// Revision of the record.
    stored: Option<String>,
    /// By the peer's sequences.
    runs: Vec<Run>,
    /// Our sequences in them.
    sequences: SequenceSet,
    /// The peer's sequences that its checkpoint has passed.
    covered: u64,
    /// The peer was put back: everything after this position is to be listed to it.
    list_from: Option<u64>,
    /// Pushed in this session, not yet covered by the peer's checkpoint.
    fresh: Vec<Run>,
    proof: Proof,
    /// Where the peer's own position was when it asked for the feed.
    since: Option<u64>,
    /// The position after which everything is listed in this session.
    listed_from: Option<u64>,
    is_dirty: bool,
    /// Whether it has to be stored before anything else is sent.
    is_urgent: bool,
    /// Whether the subscription has not been told yet.
    was_put_back: bool,
}

impl PushedNote {
    /// For a peer of which nothing is noted.
    pub fn none(collection: CollectionId) -> PushedNote {
        PushedNote {
            collection,
            client: None,
            name: String::new(),
            stored: None,
            runs: Vec::new(),
            sequences: SequenceSet::new(),
            covered: 0,
            list_from: None,
            fresh: Vec::new(),
            proof: Proof::None,
            since: None,
            listed_from: None,
            is_dirty: false,
            is_urgent: false,
            was_put_back: false,
        }
    }

    /// Reads what is noted for a checkpoint of a peer, named by what it has proven (empty: nothing).
    pub fn load(
        store: &dyn ReplicaStore,
        collection: CollectionId,
        peer: &str,
        client: &str,
    ) -> Result<PushedNote, ReplicaStoreError> {
        let mut note = PushedNote::none(collection);
        note.client = Some(client.to_owned());
        note.name = record_name(peer, client);
        let Some(stored) = store.checkpoint(collection, &note.name)? else { return Ok(note) };
        note.stored = Some(stored.revision);
        if store.checkpoint(collection, client)?.is_none() {
            // Without its checkpoint the peer asks for everything; what was noted goes with it.
            note.is_dirty = true;
            return Ok(note);
        }
        match record::read(&stored.body) {
            Some(record) => {
                (note.covered, note.list_from) = (record.covered, record.list_from);
                note.set_runs(record.runs);
            }
            // What it left out is not known any more.
            None => note.list_from = Some(0),
        }
        Ok(note)
    }

    /// Whether it is that of this checkpoint.
    pub fn is_of(&self, client: &str) -> bool {
        self.client.as_deref() == Some(client)
    }

    fn set_runs(&mut self, mut runs: Vec<Run>) {
        runs.sort_unstable_by_key(|run| (run.remote, run.local));
        self.runs.clear();
        for run in runs {
            match self.runs.last_mut().filter(|last| last.continues(&run)) {
                Some(last) => last.count += run.count,
                None => self.runs.push(run),
            }
        }
        while self.runs.len() > RUNS_MAX {
            let oldest = (0..self.runs.len()).min_by_key(|n| self.runs[*n].local).unwrap_or(0);
            self.runs.remove(oldest);
        }
        self.sequences = SequenceSet::new();
        for run in &self.runs {
            self.sequences.insert_range(run.local..=run.local + (run.count - 1));
        }
    }

    /// The peer asks for the feed after a position: what it gets.
    pub fn subscribe(&mut self, store: &dyn ReplicaStore, since: u64) -> Result<Listing, ReplicaStoreError> {
        (self.since, self.proof, self.was_put_back) = (Some(since), Proof::Given, false);
        let from = self.list_from.map_or(since, |from| from.min(since));
        self.listed_from = Some(from);
        let mut left_out = SequenceSet::new();
        if self.list_from.is_none() {
            self.sequences.ranges().for_each(|range| {
                left_out.insert_range((*range.start()).max(since.saturating_add(1))..=*range.end())
            });
        }
        if left_out == SequenceSet::new() {
            return Ok(Listing { since: from, left_out });
        }
        let Some(highest) = self.highest(store)?.filter(|highest| *highest > since) else {
            // Nothing left by which the peer could show that it has all the others.
            let runs = self.runs.iter().filter(|run| run.local + (run.count - 1) <= since).copied().collect();
            self.set_runs(runs);
            self.is_dirty = true;
            return Ok(Listing { since, left_out: SequenceSet::new() });
        };
        left_out.remove(highest);
        let mut awaited = vec![highest];
        if let Some(last) = last_of(&left_out, self.collection, store)? {
            left_out.remove(last);
            awaited.push(last);
        }
        self.proof = Proof::Awaited(awaited);
        Ok(Listing { since, left_out })
    }

    /// Our sequence of what has the highest of the peer's, among what is still the newest revision of its document.
    fn highest(&self, store: &dyn ReplicaStore) -> Result<Option<u64>, ReplicaStoreError> {
        let down = self.runs.iter().rev().flat_map(|run| (run.local..run.local + run.count).rev());
        first_in_feed(down, self.collection, store)
    }

    /// Whether the answers are awaited that show whether what was left out is there.
    pub fn is_awaited(&self) -> bool {
        matches!(self.proof, Proof::Awaited(_))
    }

    /// The feed is read to its end, all lists are answered, and what should have shown that the peer has the rest was not
    /// among them: it was replaced meanwhile.
    pub fn proof_is_missing(&mut self) {
        if self.is_awaited() {
            self.put_back();
        }
    }

    /// The peer has answered what was listed to it.
    pub fn answered(&mut self, sequence: u64, is_there: bool) {
        if !is_there && self.sequences.contains(sequence) {
            return self.put_back();
        }
        if let Proof::Awaited(awaited) = &mut self.proof {
            awaited.retain(|one| *one != sequence);
            if awaited.is_empty() {
                self.proof = Proof::Given;
            }
        }
    }

    /// The peer proposes a document that is here; `known` is what it knows to be here.
    pub fn proposed(&mut self, here: &Change, known: Option<&VersionVector>) {
        let has_ancestor = known.is_some_and(|known| known.current == here.vector.current);
        if !has_ancestor && self.sequences.contains(here.sequence) {
            self.put_back();
        }
    }

    /// The peer has nothing to propose: it can have got nothing from elsewhere that stands in the note. What it had passed
    /// when it asked for the feed is over and done with.
    pub fn nothing_proposed(&mut self) {
        let Some(since) = self.since.filter(|_| self.list_from.is_none()) else { return };
        if self.runs.iter().any(|run| run.local + (run.count - 1) <= since) {
            let runs = self.runs.iter().filter(|run| run.local + (run.count - 1) > since).copied().collect();
            self.set_runs(runs);
            self.is_dirty = true;
        }
    }

    /// A revision of the peer has come; `local` is its place in our feed if it is new here.
    pub fn came(&mut self, remote: &RemoteSequence, local: Option<u64>) {
        let Some(remote) = remote.number().filter(|_| self.client.is_some()) else { return };
        if remote <= self.covered && !self.runs.is_empty() {
            self.put_back();
        }
        let Some(local) = local else { return };
        let run = Run { remote, local, count: 1 };
        if !run.is_valid() {
            return;
        }
        let is_full = self.fresh.len() >= FRESH_RUNS_MAX;
        match self.fresh.last_mut().filter(|last| last.continues(&run)) {
            Some(last) => last.count += 1,
            None if !is_full => self.fresh.push(run),
            None => {}
        }
    }

    /// The peer has set its checkpoint: what it covers is noted.
    pub fn checkpoint_set(&mut self, body: &[u8]) {
        let covered = Checkpoint::from_json(body).local_sequence();
        if covered < self.covered && !self.runs.is_empty() {
            self.put_back();
        }
        self.is_dirty |= covered != self.covered && !self.runs.is_empty();
        self.covered = covered;
        if self.proof != Proof::Given {
            return;
        }
        let mut runs = self.runs.clone();
        let mut rest = Vec::new();
        for run in std::mem::take(&mut self.fresh) {
            let (done, left) = run.split(covered);
            runs.extend(done);
            rest.extend(left);
        }
        self.fresh = rest;
        if runs != self.runs {
            self.set_runs(runs);
            self.is_dirty = true;
        }
    }

    /// The peer's database is not what it was: nothing is left out any more, and what was is listed.
    fn put_back(&mut self) {
        let first = self.runs.iter().map(|run| run.local - 1).min();
        self.list_from = self.list_from.into_iter().chain(first).min();
        self.set_runs(Vec::new());
        (self.proof, self.listed_from) = (Proof::None, None);
        (self.is_dirty, self.is_urgent, self.was_put_back) = (true, true, true);
    }

    /// The position after which a subscription has to list everything now, once after each sign that the peer was put back.
    pub fn take_put_back(&mut self) -> Option<u64> {
        std::mem::take(&mut self.was_put_back).then_some(self.list_from).flatten()
    }

    /// A subscription goes back to this position.
    pub fn lists_from(&mut self, position: u64) {
        (self.listed_from, self.proof) = (Some(position), Proof::Given);
    }

    /// The peer has answered all of the feed.
    pub fn all_listed(&mut self) {
        if let (Some(due), Some(listed)) = (self.list_from, self.listed_from)
            && listed <= due
        {
            self.list_from = None;
            self.is_dirty = true;
        }
    }

    /// Whether it has to be stored before anything else is sent.
    pub fn is_urgent(&self) -> bool {
        self.is_urgent
    }

    /// Makes the store keep it if it has changed. What cannot be kept only costs that the peer is listed more.
    pub fn save(&mut self, store: &dyn ReplicaStore) {
        if let Err(error) = self.try_save(store) {
            tracing::warn!(%error, "cannot note what the peer has pushed: it is listed to it again");
        }
    }

    fn try_save(&mut self, store: &dyn ReplicaStore) -> Result<(), ReplicaStoreError> {
        let is_empty = self.runs.is_empty() && self.list_from.is_none();
        if !self.is_dirty || self.client.is_none() || (is_empty && self.stored.is_none()) {
            return Ok(());
        }
        self.is_dirty = false;
        let is_urgent = std::mem::take(&mut self.is_urgent);
        for _ in 0..SAVES_MAX {
            let body = bytes::Bytes::from(record::write(self.covered, self.list_from, &self.runs)?);
            match store.set_checkpoint(self.collection, &self.name, self.stored.as_deref(), body)? {
                Some(revision) => {
                    self.stored = Some(revision);
                    // The peer may soon have what showed that it was put back, and would show it no more.
                    return if is_urgent { store.make_durable() } else { Ok(()) };
                }
                // Another session of the same peer: which of the two knows better cannot be told.
                None => self.merge(store)?,
            }
        }
        Ok(())
    }

    /// Takes what another session has stored: everything in both is listed.
    fn merge(&mut self, store: &dyn ReplicaStore) -> Result<(), ReplicaStoreError> {
        self.put_back();
        let stored = store.checkpoint(self.collection, &self.name)?;
        if let Some(stored) = &stored {
            let first = record::read(&stored.body).map_or(Some(0), |record| {
                record.runs.iter().map(|run| run.local - 1).chain(record.list_from).min()
            });
            self.list_from = self.list_from.into_iter().chain(first).min();
        }
        self.stored = stored.map(|stored| stored.revision);
        (self.is_dirty, self.is_urgent) = (false, false);
        Ok(())
    }
}

/// The last sequence of a set whose revision is still the newest of its document.
fn last_of(
    set: &SequenceSet,
    collection: CollectionId,
    store: &dyn ReplicaStore,
) -> Result<Option<u64>, ReplicaStoreError> {
    let ranges: Vec<_> = set.ranges().collect();
    first_in_feed(ranges.into_iter().rev().flat_map(Iterator::rev), collection, store)
}

/// The first of some sequences whose revision is still the newest of its document.
fn first_in_feed(
    sequences: impl Iterator<Item = u64>,
    collection: CollectionId,
    store: &dyn ReplicaStore,
) -> Result<Option<u64>, ReplicaStoreError> {
    for sequence in sequences.take(LOOKED_UP_MAX) {
        let found = store.changes(collection, sequence - 1, 1, false)?;
        if found.first().is_some_and(|change| change.sequence == sequence) {
            return Ok(Some(sequence));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
