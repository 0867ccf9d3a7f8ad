//! What is on its way: revisions that were sent, what our requests await, and messages whose revisions wait for the store.

#![deny(clippy::disallowed_methods)]

use super::extension::RevsFormat;
use super::extension::answer::{RevAnswer, encode};
use super::limits::InFlight;
use crate::blip::{MessageNumber, OutgoingMessage};
use crate::replica::blobs::BlobDigest;
use crate::replica::revision::RevId;
use crate::replica::store::Change;

/// An entry of a list. Their order is that of the feed: lists are made in the order of their message numbers, although a
/// short one may overtake a long one on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    pub list: u64,
    pub entry: usize,
}

/// A revision that the peer wants.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub id: String,
    pub sequence: u64,
    pub revision: RevId,
    /// A revision that the peer has of this document, as far as that is known.
    pub known: Option<RevId>,
    /// Revisions of it that the peer has, for a delta.
    pub bases: Vec<RevId>,
}

impl Wanted {
    pub fn of(change: Change) -> Wanted {
        let (revision, known) = (change.vector.id(), change.remote_ancestor);
        let bases = known.into_iter().collect();
        Wanted { id: change.id, sequence: change.sequence, revision, known, bases }
    }

    /// One of which the peer has said what it has. Of several tree IDs a revision names one: the peer must find its own,
    /// which it may name by the version that stands for it.
    pub fn on_top_of(change: Change, ancestors: &[RevId]) -> Wanted {
        let ours = ancestors.iter().find_map(|id| change.vector.tree_named_by(*id));
        let known = ours.map(RevId::Tree).or(change.remote_ancestor);
        Wanted { known, bases: ancestors.to_vec(), ..Wanted::of(change) }
    }
}

/// A revision in flight.
#[derive(Clone, Debug)]
pub(super) struct SentRev {
    pub id: String,
    pub sequence: u64,
    pub deleted: bool,
    pub revision: RevId,
    /// Of its body.
    pub bytes: usize,
    /// Whether its history names one tree ID of several without a word of the peer that it has that one.
    pub guesses_tree: bool,
    /// What its history names as known to the peer.
    pub known: Option<RevId>,
    /// Whether its body is a delta.
    pub is_delta: bool,
}

impl SentRev {
    /// The same once more, with its whole body.
    pub fn whole(self) -> Wanted {
        let SentRev { id, sequence, revision, known, .. } = self;
        Wanted { id, sequence, revision, known, bases: Vec::new() }
    }
}

/// A revision in flight.
#[derive(Clone, Debug)]
pub(super) struct SentRevision {
    pub id: String,
    pub sequence: u64,
    pub deleted: bool,
    /// What went with it.
    pub sent: Sent,
    /// For sending it when it is wanted.
    pub revision: RevId,
}

/// What went with a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Body,
    Offer,
    Gone,
}

/// A message whose revisions are on their way.
#[derive(Debug)]
pub(super) struct RevsReceived {
    /// To be answered.
    pub request: MessageNumber,
    /// Or not.
    pub no_reply: bool,
    /// Index of the collection.
    pub collection: usize,
    /// As in the message.
    pub asked: bool,
    /// Feed position before it.
    pub from: u64,
    /// Feed position after it.
    pub through: u64,
    /// For each revision its sequence at the sender, and its answer; `None` while it is being committed.
    pub answers: Vec<(u64, Option<RevAnswer>)>,
}

impl RevsReceived {
    /// The reply, when all answers are there. Sequences tell how much this side stores, and from whom else: a peer that may not
    /// read gets numbers in their place that count its own revisions. It has no use for others, since it pulls nothing.
    pub fn to_reply(&self, format: RevsFormat, may_read: bool) -> OutgoingMessage {
        let mut answers: Vec<RevAnswer> =
            self.answers.iter().map(|(_, answer)| answer.clone().unwrap_or(RevAnswer::Known)).collect();
        if !may_read {
            let stored = answers.iter_mut().filter_map(|answer| match answer {
                RevAnswer::Stored(sequence) => Some(sequence),
                _ => None,
            });
            stored.zip(1..).for_each(|(sequence, number)| *sequence = number);
        }
        OutgoingMessage::default().with_body(encode(&answers, format))
    }
}

/// What a request of ours awaits.
#[derive(Debug)]
pub(super) enum Awaiting {
    /// The peer's collections and checkpoints.
    Collections,
    /// A checkpoint; `after_conflict`: to learn its revision after a refused save.
    Checkpoint { collection: usize, after_conflict: bool },
    /// The revision of a saved checkpoint.
    CheckpointSaved { collection: usize, body: String },
    /// Whether we may pull.
    Subscribed { collection: usize },
    /// Which of these the peer wants (active).
    Proposals { collection: usize, changes: Vec<Change> },
    /// Which of these the peer wants (passive).
    Changes { collection: usize, changes: Vec<Change> },
    /// Whether a revision is durable there.
    Rev { collection: usize, rev: SentRev },
    /// The content of a blob.
    Blob { digest: BlobDigest },
    /// What became of several revisions.
    Revs { collection: usize, revisions: Vec<SentRevision>, bytes: usize },
}

impl InFlight {
    pub(super) fn add(&mut self, awaiting: &Awaiting) {
        match awaiting {
            Awaiting::Proposals { .. } | Awaiting::Changes { .. } => self.lists += 1,
            Awaiting::Rev { rev, .. } => {
                self.revs += 1;
                self.rev_bytes += rev.bytes;
                self.revisions += 1;
            }
            Awaiting::Revs { bytes, revisions, .. } => {
                self.batches += 1;
                self.batch_bytes += bytes;
                self.revisions += revisions.len() as u64;
            }
            _ => {}
        }
    }

    pub(super) fn remove(&mut self, awaiting: &Awaiting) {
        match awaiting {
            Awaiting::Proposals { .. } | Awaiting::Changes { .. } => self.lists -= 1,
            Awaiting::Rev { rev, .. } => {
                self.revs -= 1;
                self.rev_bytes -= rev.bytes;
                self.revisions -= 1;
            }
            Awaiting::Revs { bytes, revisions, .. } => {
                self.batches -= 1;
                self.batch_bytes -= bytes;
                self.revisions -= revisions.len() as u64;
            }
            _ => {}
        }
    }
}
