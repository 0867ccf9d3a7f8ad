//! The documents of one collection that could not be synced with one peer, as the store keeps them beside the checkpoints.
//!
//! One file, because what is on a list, how many may be, and how it is stored are one format.

#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::failure::Failure;
use super::named::{LISTED_MAX, TAKES, Unsynced, UnsyncedDocument};
use crate::blip::ErrorReply;
use crate::replica::revision::RevId;
use crate::replica::store::{CollectionId, ReplicaStore, ReplicaStoreError};
use crate::replicator::direction::Direction;
use crate::replicator::error::is_conflict;
use crate::replicator::messages::refuse;
use crate::replicator::sequences::RemoteSequence;

/// Before the hash of the peer's name, in the name of the record that holds its list. No peer may store one of this name.
pub const PREFIX: &str = "own/unsynced/";

/// Form of the record.
const FORMAT: u8 = 1;

/// Documents on a list; further ones are counted.
const DOCUMENTS_MAX: usize = 500;

/// Bytes of a list, below what a checkpoint may have; further documents are counted.
const BYTES_MAX: usize = 60 << 10;

/// Bytes of a document ID on a list: longer ones are cut, for no document can have them.
const ID_BYTES_MAX: usize = 256;

/// Bytes of a revision, an error's domain, its message and a peer's name on a list.
const TEXT_BYTES_MAX: usize = 200;

/// What an entry takes beside its texts, in bytes, at most.
const ENTRY_OVERHEAD: usize = 24;

/// Which way, and the document's ID.
type Key = (bool, String);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    sent: bool,
    id: String,
    revision: String,
    deleted: bool,
    /// JSON text.
    sequence: String,
    is_open: bool,
    domain: String,
    code: i32,
    message: String,
}

impl Entry {
    fn new(failure: Failure) -> Entry {
        let Failure { direction, id, revision, deleted, sequence, is_open, error } = failure;
        Entry {
            sent: direction == Direction::Sent,
            id: clip(&id, ID_BYTES_MAX),
            revision: clip(&revision, TEXT_BYTES_MAX),
            deleted,
            sequence: sequence.to_string(),
            is_open,
            domain: clip(&error.domain, TEXT_BYTES_MAX),
            code: error.code,
            message: clip(&error.message, TEXT_BYTES_MAX),
        }
    }

    fn size(&self) -> usize {
        let Entry { id, revision, sequence, domain, message, .. } = self;
        ENTRY_OVERHEAD + id.len() + revision.len() + sequence.len() + domain.len() + message.len()
    }

    fn sequence(&self) -> RemoteSequence {
        RemoteSequence::from_json(&self.sequence)
    }

    fn to_document(&self, collection: &str) -> UnsyncedDocument {
        UnsyncedDocument {
            collection: collection.to_owned(),
            direction: if self.sent { Direction::Sent } else { Direction::Received },
            id: self.id.clone(),
            revision: self.revision.clone(),
            deleted: self.deleted,
            error: self.error(),
            is_open: self.is_open,
        }
    }

    fn error(&self) -> ErrorReply {
        ErrorReply::new(self.domain.as_str(), self.code, self.message.as_str())
    }

    /// Whether it is settled by what the store has by now: the revision came from elsewhere, or ours is not the newest any
    /// more, so that the feed brings another.
    fn is_moot(&self, collection: CollectionId, store: &dyn ReplicaStore) -> Result<bool, ReplicaStoreError> {
        let here = store.revision(collection, &self.id)?;
        if self.sent {
            return Ok(here.is_none_or(|here| here.vector.id().to_string() != self.revision));
        }
        let Ok(refused) = self.revision.parse::<RevId>() else { return Ok(false) };
        Ok(here.is_some_and(|here| here.vector.contains(refused.version())))
    }
}

/// Documents of one direction that found no room on the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct More {
    count: u64,
    /// The first place in the feed where one of them stands.
    from: u64,
}

/// The list as stored, in postcard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    format: u8,
    peer: String,
    /// What this side took when it was last saved, and what the peer said it takes.
    takes: u32,
    peer_takes: u32,
    /// Received, sent.
    more: [More; 2],
    entries: Vec<Entry>,
}

/// What of a feed is to be tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::replicator) struct Retry {
    /// Places of single documents.
    pub sequences: Vec<RemoteSequence>,
    /// Everything from here on.
    pub from: Option<u64>,
}

impl Retry {
    /// The position in the feed before the first of them; `None` if there is none.
    pub fn position(&self) -> Option<RemoteSequence> {
        let before = |sequence: &RemoteSequence| sequence.number().map_or(0, |n| n.saturating_sub(1));
        let first = self.sequences.iter().map(before).chain(self.from.map(|n| n.saturating_sub(1))).min();
        first.map(RemoteSequence::Number)
    }
}

/// The list of one collection and one peer, in memory; [`save`](Self::save) keeps it.
#[derive(Debug)]
pub(in crate::replicator) struct UnsyncedList {
    collection: CollectionId,
    name: String,
    /// Revision of the record.
    stored: Option<String>,
    peer: String,
    takes: u32,
    peer_takes: u32,
    more: [More; 2],
    entries: BTreeMap<Key, Entry>,
    /// Of all entries.
    bytes: usize,
    /// Entries that are tried again in this run and have not come to anything yet.
    retried: HashSet<Key>,
    is_dirty: bool,
}

impl UnsyncedList {
    /// Reads the list kept for a peer of this name (empty: for all that have proven none), without what is settled by now.
    pub fn load(
        store: &dyn ReplicaStore,
        collection: CollectionId,
        peer: &str,
    ) -> Result<UnsyncedList, ReplicaStoreError> {
        let name = format!("{PREFIX}{}", STANDARD.encode(Sha1::digest(peer.as_bytes())));
        let mut list = UnsyncedList {
            collection,
            name,
            stored: None,
            peer: peer.to_owned(),
            takes: TAKES,
            peer_takes: 0,
            more: [More::default(); 2],
            entries: BTreeMap::new(),
            bytes: 0,
            retried: HashSet::new(),
            is_dirty: false,
        };
        let Some(stored) = store.checkpoint(collection, &list.name)? else { return Ok(list) };
        list.stored = Some(stored.revision);
        let Some(record) = read(&stored.body) else {
            tracing::warn!(peer, "the list of what could not be synced cannot be read; it begins anew");
            return Ok(list);
        };
        (list.takes, list.peer_takes, list.more) = (record.takes, record.peer_takes, record.more);
        for entry in record.entries {
            if entry.is_moot(collection, store)? {
                list.is_dirty = true;
            } else {
                list.insert(entry);
            }
        }
        Ok(list)
    }

    fn insert(&mut self, entry: Entry) {
        self.bytes += entry.size();
        if let Some(old) = self.entries.insert((entry.sent, entry.id.clone()), entry) {
            self.bytes -= old.size();
        }
    }

    /// A document was not synced.
    pub fn note(&mut self, failure: Failure) {
        let place = failure.sequence.number().unwrap_or(0);
        let entry = Entry::new(failure);
        let key = (entry.sent, entry.id.clone());
        self.retried.remove(&key);
        let old = self.entries.get(&key);
        if old == Some(&entry) {
            return;
        }
        self.is_dirty = true;
        let bytes = self.bytes - old.map_or(0, Entry::size) + entry.size();
        if bytes > BYTES_MAX || (old.is_none() && self.entries.len() >= DOCUMENTS_MAX) {
            let more = &mut self.more[usize::from(entry.sent)];
            more.from = if more.count == 0 { place } else { more.from.min(place) };
            more.count += 1;
            return;
        }
        self.insert(entry);
    }

    /// The document is at the other side now. Whether it was on the list.
    pub fn settle(&mut self, direction: Direction, id: &str) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        let key = (direction == Direction::Sent, clip(id, ID_BYTES_MAX));
        let Some(entry) = self.entries.remove(&key) else { return false };
        self.bytes -= entry.size();
        self.retried.remove(&key);
        self.is_dirty = true;
        true
    }

    /// What is told of a conflict of which the peer's feed has brought nothing. `all_listed`: from its beginning. One that is met
    /// for the first time is perhaps with what the next run brings anyway.
    pub fn conflict_of(&self, id: &str, all_listed: bool) -> ErrorReply {
        let before = self.entries.get(&(true, clip(id, ID_BYTES_MAX)));
        match before.filter(|before| is_conflict(&before.error())) {
            _ if all_listed => refuse::hidden_conflict(),
            None => refuse::conflict(),
            Some(before) if before.error() == refuse::hidden_conflict() => refuse::hidden_conflict(),
            Some(_) => refuse::unlisted_conflict(),
        }
    }

    /// Whether a document conflicts with what the peer listed long ago, and has not listed again for it.
    pub fn has_unlisted_conflict(&self) -> bool {
        let unlisted = refuse::unlisted_conflict();
        self.entries.values().any(|entry| entry.sent && entry.is_open && entry.error() == unlisted)
    }

    /// Whether there is nothing on it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.more == [More::default(); 2]
    }

    /// What the peer said it takes; its word is kept with the list. Whether that is other than before.
    pub fn peer_takes(&mut self, takes: u32) -> bool {
        let changed = self.peer_takes != takes;
        self.peer_takes = takes;
        self.is_dirty |= changed && !self.entries.is_empty();
        changed
    }

    /// Whether this side takes other documents than when the list was made.
    pub fn is_outdated(&self) -> bool {
        self.takes != TAKES
    }

    /// Begins to try again what goes in this direction: all of it, or what is open.
    pub fn begin_retry(&mut self, direction: Direction, all: bool) -> Retry {
        let sent = direction == Direction::Sent;
        let chosen = self.entries.iter().filter(|((s, _), entry)| *s == sent && (all || entry.is_open));
        let mut retry = Retry::default();
        for (key, entry) in chosen {
            self.retried.insert(key.clone());
            retry.sequences.push(entry.sequence());
        }
        let more = &mut self.more[usize::from(sent)];
        if all && more.count > 0 {
            retry.from = Some(more.from);
            *more = More::default();
            self.is_dirty = true;
        }
        retry
    }

    /// Everything that was to be tried again in this direction was: what the other side did not even name is no more.
    /// Whether there was any; there is none the second time.
    pub fn end_retry(&mut self, direction: Direction) -> bool {
        let sent = direction == Direction::Sent;
        let gone: Vec<Key> = self.retried.extract_if(|(s, _)| *s == sent).collect();
        for (_, id) in &gone {
            self.settle(direction, id);
        }
        if !sent && self.is_outdated() {
            self.takes = TAKES;
            self.is_dirty = true;
        }
        !gone.is_empty()
    }

    /// Makes the store keep it, if it has changed: durable no later than whatever the store keeps after it.
    pub fn save(&mut self, store: &dyn ReplicaStore) -> Result<(), ReplicaStoreError> {
        const ATTEMPTS_MAX: u32 = 3;
        if !self.is_dirty {
            return Ok(());
        }
        for _ in 0..ATTEMPTS_MAX {
            let body = bytes::Bytes::from(self.to_bytes()?);
            match store.set_checkpoint(self.collection, &self.name, self.stored.as_deref(), body)? {
                Some(revision) => {
                    self.stored = Some(revision);
                    self.is_dirty = false;
                    return Ok(());
                }
                // Another session with the same peer has written it: what it found is kept too.
                None => self.merge(store)?,
            }
        }
        Ok(())
    }

    fn merge(&mut self, store: &dyn ReplicaStore) -> Result<(), ReplicaStoreError> {
        let other = UnsyncedList::load(store, self.collection, &self.peer)?;
        self.stored = other.stored;
        for (key, entry) in other.entries {
            let has_room = self.entries.len() < DOCUMENTS_MAX && self.bytes + entry.size() <= BYTES_MAX;
            if has_room && !self.entries.contains_key(&key) {
                self.insert(entry);
            }
        }
        Ok(())
    }

    fn to_bytes(&self) -> Result<Vec<u8>, ReplicaStoreError> {
        let record = Record {
            format: FORMAT,
            peer: clip(&self.peer, TEXT_BYTES_MAX),
            takes: self.takes,
            peer_takes: self.peer_takes,
            more: self.more,
            entries: self.entries.values().cloned().collect(),
        };
        postcard::to_stdvec(&record)
            .map_err(|error| ReplicaStoreError { message: error.to_string(), recoverable: false })
    }

    /// Adds it to what is told.
    pub fn tell(&self, collection: &str, unsynced: &mut Unsynced) {
        let more: u64 = self.more.iter().map(|more| more.count).sum();
        unsynced.documents += self.entries.len() as u64 + more;
        let room = LISTED_MAX.saturating_sub(unsynced.listed.len());
        unsynced.listed.extend(self.entries.values().take(room).map(|entry| entry.to_document(collection)));
    }
}

/// Documents of one collection that could not be synced with one peer, as the store remembers them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnsyncedWithPeer {
    /// Who the peer has proven to be, or the name it was given; empty for peers that were let in without one.
    pub peer: String,
    /// Full name of the collection.
    pub collection: String,
    /// By direction and ID.
    pub documents: Vec<UnsyncedDocument>,
    /// How often others were refused that found no room on the list.
    pub more: u64,
}

/// What could not be synced so far, by collection and peer, without what has come another way since.
///
/// # Errors
/// Of the store.
pub fn stored(store: &dyn ReplicaStore) -> Result<Vec<UnsyncedWithPeer>, ReplicaStoreError> {
    let mut all = Vec::new();
    for (id, collection) in store.collections() {
        for client in store.checkpoint_clients(id, PREFIX)? {
            let record = store.checkpoint(id, &client)?.and_then(|stored| read(&stored.body));
            let Some(record) = record else { continue };
            let more = record.more.iter().map(|more| more.count).sum();
            let mut documents = Vec::new();
            for entry in &record.entries {
                if !entry.is_moot(id, store)? {
                    documents.push(entry.to_document(&collection));
                }
            }
            if !documents.is_empty() || more > 0 {
                all.push(UnsyncedWithPeer {
                    peer: record.peer,
                    collection: collection.clone(),
                    documents,
                    more,
                });
            }
        }
    }
    all.sort_by(|a, b| (&a.peer, &a.collection).cmp(&(&b.peer, &b.collection)));
    Ok(all)
}

fn read(bytes: &[u8]) -> Option<Record> {
    postcard::from_bytes::<Record>(bytes).ok().filter(|record| record.format == FORMAT)
}

/// The text, cut after the last whole character within so many bytes.
fn clip(text: &str, max: usize) -> String {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= max).last();
    text[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
impl UnsyncedList {
    /// As if an earlier release had kept the list, with a peer of an earlier release.
    pub(in crate::replicator) fn make_outdated(
        store: &dyn ReplicaStore,
        collection: CollectionId,
        peer: &str,
    ) {
        let mut list = UnsyncedList::load(store, collection, peer).expect("readable");
        (list.takes, list.peer_takes, list.is_dirty) = (0, 0, true);
        list.save(store).expect("kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicator::memory_store::MemoryStore;

    const MAIN: CollectionId = CollectionId(0);

    fn failure(id: &str, sequence: u64, error: ErrorReply) -> Failure {
        Failure::received(id, "1@x".into(), RemoteSequence::Number(sequence), false, error)
    }

    #[test]
    fn two_sessions_with_one_peer_keep_what_both_found() {
        let store = MemoryStore::new(1);
        let load = || UnsyncedList::load(&store, MAIN, "peer").expect("readable");
        let (mut one, mut other) = (load(), load());
        one.note(failure("a", 1, ErrorReply::http(400, "a")));
        other.note(failure("b", 2, ErrorReply::http(400, "b")));
        one.save(&store).expect("kept");
        other.save(&store).expect("kept");
        let mut told = Unsynced::default();
        load().tell("_default", &mut told);
        let ids: Vec<&str> = told.listed.iter().map(|document| document.id.as_str()).collect();
        assert_eq!((ids, told.documents), (vec!["a", "b"], 2));
        let nobody = UnsyncedList::load(&store, MAIN, "another").expect("readable");
        assert!(nobody.entries.is_empty());
    }

    fn load(store: &MemoryStore) -> UnsyncedList {
        UnsyncedList::load(store, MAIN, "peer").expect("readable")
    }

    fn note_many(list: &mut UnsyncedList, prefix: &str, count: u64, text: &str) {
        (0..count)
            .for_each(|n| list.note(failure(&format!("{prefix}{n}"), n + 1, ErrorReply::http(400, text))));
    }

    /// What two sessions found is kept as far as there is room, and of the same document what was found last.
    #[test]
    fn lists_are_merged_within_the_limits() {
        for (count, text) in [(300, String::new()), (150, "x".repeat(200))] {
            let store = MemoryStore::new(1);
            let (mut one, mut other) = (load(&store), load(&store));
            note_many(&mut one, "a", count, &text);
            note_many(&mut other, "b", count, &text);
            one.note(failure("both", 1, ErrorReply::http(400, "first")));
            other.note(failure("both", 1, ErrorReply::http(400, "last")));
            one.save(&store).expect("kept");
            other.save(&store).expect("kept");
            let kept = load(&store);
            assert!(kept.entries.len() <= DOCUMENTS_MAX && kept.bytes <= BYTES_MAX, "{}", kept.entries.len());
            assert!(kept.entries.len() as u64 > count + 1, "some of the other's found room");
            let both = &kept.entries[&(false, "both".to_owned())];
            assert_eq!(both.to_document("_default").error.message, "last");
        }
    }

    /// Documents that found no room are something, when those that did are settled too.
    #[test]
    fn what_is_only_counted_is_not_nothing() {
        let store = MemoryStore::new(1);
        let mut list = load(&store);
        assert!(list.is_empty() && stored(&store).expect("readable").is_empty());
        note_many(&mut list, "a", DOCUMENTS_MAX as u64 + 1, "");
        let told = |list: &mut UnsyncedList| {
            list.save(&store).expect("kept");
            let stored = stored(&store).expect("readable");
            stored.iter().map(|with| (with.documents.len(), with.more)).collect::<Vec<_>>()
        };
        assert_eq!(told(&mut list), [(DOCUMENTS_MAX, 1)]);
        (0..DOCUMENTS_MAX).for_each(|n| assert!(list.settle(Direction::Received, &format!("a{n}"))));
        assert!(!list.is_empty());
        assert_eq!(told(&mut list), [(0, 1)]);
        list.begin_retry(Direction::Received, true);
        list.note(failure("a", 1, ErrorReply::http(400, "")));
        assert!(!list.is_empty());
        assert_eq!(told(&mut list), [(1, 0)]);
        list.settle(Direction::Received, "a");
        assert!(list.is_empty());
        assert_eq!(told(&mut list), []);
    }

    /// A retry ends with what it began with, in its direction.
    #[test]
    fn only_what_is_tried_again_can_turn_out_to_be_gone() {
        let mut list = load(&MemoryStore::new(1));
        list.note(failure("a", 1, ErrorReply::http(400, "")));
        assert!(!list.end_retry(Direction::Received), "it was not tried");
        list.begin_retry(Direction::Received, true);
        assert!(!list.end_retry(Direction::Sent), "in the other direction");
        assert!(list.end_retry(Direction::Received) && list.is_empty());
        assert!(!list.end_retry(Direction::Received), "once");
    }

    /// Whatever a peer makes of IDs and errors, a list stays within what the store takes and comes back as it was.
    #[test]
    fn texts_of_peers_cannot_outgrow_the_record() {
        let store = MemoryStore::new(1);
        let mut list = UnsyncedList::load(&store, MAIN, &"p".repeat(10_000)).expect("readable");
        for n in 0..5_000u64 {
            let id = format!("{n}{}", "\u{1F4A9}".repeat(300));
            let error = ErrorReply::new(&"d".repeat(5_000), -1, "\0\u{7f}".repeat(5_000));
            list.note(failure(&id, u64::MAX - n, error));
        }
        list.note(Failure {
            sequence: RemoteSequence::Other("[1,2]".into()),
            ..failure("", 0, ErrorReply::http(1, ""))
        });
        list.save(&store).expect("kept");
        let record = store.checkpoint(MAIN, &list.name).expect("readable").expect("kept");
        assert!(record.body.len() <= 64 << 10, "{} bytes", record.body.len());
        let mut again = UnsyncedList::load(&store, MAIN, &"p".repeat(10_000)).expect("readable");
        assert_eq!(again.entries, list.entries);
        let mut told = Unsynced::default();
        again.tell("_default", &mut told);
        assert_eq!((told.documents, told.listed.len()), (5_001, list.entries.len().min(LISTED_MAX)));
        assert_eq!(again.begin_retry(Direction::Received, true).position(), Some(RemoteSequence::START));
        assert!(read(&record.body[..record.body.len() - 1]).is_none(), "a part is no list");
    }

    /// What a retry leaves untried is no more, once; and a list of an earlier release is one of this release then.
    #[test]
    fn a_retry_ends_once_in_each_direction() {
        let store = MemoryStore::new(1);
        let mut list = load(&store);
        assert!(
            !list.end_retry(Direction::Received) && !list.is_dirty,
            "there was none, and nothing has changed"
        );
        list.takes = 0;
        list.note(failure("a", 1, ErrorReply::http(400, "")));
        list.save(&store).expect("kept");
        list.begin_retry(Direction::Received, true);
        assert!(
            !list.end_retry(Direction::Sent) && list.is_outdated() && !list.is_dirty,
            "the other direction"
        );
        assert!(list.end_retry(Direction::Received) && list.is_dirty);
        assert!(list.is_empty() && !list.is_outdated());
        assert!(!list.end_retry(Direction::Received), "once");
    }

    /// The whole feed of a peer is listed again for a conflict that was met twice, and once.
    #[test]
    fn everything_is_listed_once_for_a_conflict() {
        let mut list = load(&MemoryStore::new(1));
        let mut meet = |all_listed| {
            let error = list.conflict_of("a", all_listed);
            let failure = failure("a", 7, error);
            list.note(Failure { direction: Direction::Sent, is_open: true, ..failure });
            list.has_unlisted_conflict()
        };
        let met = [meet(false), meet(false), meet(true), meet(false), meet(true)];
        assert_eq!(met, [false, true, false, false, false]);
    }

    /// Only a conflict that this side met while it sent, and that is open, is worth that everything is listed again.
    #[test]
    fn only_an_open_conflict_of_what_was_sent_is_unlisted() {
        for (direction, is_open, error, expected) in [
            (Direction::Sent, true, refuse::unlisted_conflict(), true),
            (Direction::Sent, false, refuse::unlisted_conflict(), false),
            (Direction::Sent, true, refuse::conflict(), false),
            (Direction::Received, true, refuse::unlisted_conflict(), false),
        ] {
            let mut list = load(&MemoryStore::new(1));
            list.note(Failure { direction, is_open, ..failure("a", 7, error.clone()) });
            assert_eq!(list.has_unlisted_conflict(), expected, "{direction:?} {is_open} {error:?}");
        }
    }

    /// What the peer takes is kept with a list, and alone it is not worth one.
    #[test]
    fn what_the_peer_takes_is_kept_with_what_it_does_not_take() {
        let store = MemoryStore::new(1);
        let mut list = load(&store);
        assert!(list.peer_takes(70) && !list.is_dirty);
        list.note(failure("a", 1, ErrorReply::http(400, "")));
        list.save(&store).expect("kept");
        assert!(!list.peer_takes(70) && !list.is_dirty);
        assert!(list.peer_takes(71) && list.is_dirty);
        list.save(&store).expect("kept");
        let mut list = load(&store);
        assert!(!list.peer_takes(71) && !list.is_dirty);
    }
}
