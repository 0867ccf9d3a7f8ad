//! How far others have come in a feed of ours, as the checkpoints say that are kept of them.

use crate::replica::OWN_PREFIX;
use crate::replica::store::{CollectionId, ReplicaStore, ReplicaStoreError};

use super::checkpoint::Checkpoint;
use super::sequences::RemoteSequence;

/// Before the name under which is kept how far a peer has confirmed a feed; see [`Confirmation`].
const CONFIRMED_PREFIX: &str = "own/confirmed/";

/// Our copies of the checkpoints of our own runs.
const OWN_CHECKPOINT_PREFIX: &str = "own/cp-";

/// The name of our own copy of the checkpoint that a peer has under `client`.
pub(super) fn own_checkpoint(client: &str) -> String {
    format!("{OWN_PREFIX}{client}")
}

/// The sequence up to which every peer has the feed of which there is a checkpoint: those that come here, and those that we go
/// to. The highest number if there is none.
pub(crate) fn delivered_until(
    store: &dyn ReplicaStore,
    collection: CollectionId,
) -> Result<u64, ReplicaStoreError> {
    Ok(positions(store, collection)?.into_iter().min().unwrap_or(u64::MAX))
}

/// The sequence up to which some peer has the feed, of those of which there is a checkpoint; 0 if there is none.
pub(crate) fn delivered_to_any(
    store: &dyn ReplicaStore,
    collection: CollectionId,
) -> Result<u64, ReplicaStoreError> {
    Ok(positions(store, collection)?.into_iter().max().unwrap_or(0))
}

/// How far each peer has come of which there is a checkpoint.
fn positions(store: &dyn ReplicaStore, collection: CollectionId) -> Result<Vec<u64>, ReplicaStoreError> {
    let mut positions = Vec::new();
    for client in store.checkpoint_clients(collection, "")? {
        let is_own = client.starts_with(OWN_CHECKPOINT_PREFIX);
        if !is_own && client.starts_with(OWN_PREFIX) {
            continue;
        }
        let Some(stored) = store.checkpoint(collection, &client)? else { continue };
        let checkpoint = Checkpoint::from_json(&stored.body);
        let position = match (is_own, checkpoint.remote) {
            (true, _) => checkpoint.local.prefix(),
            (false, RemoteSequence::Number(remote)) => remote,
            (false, _) => 0,
        };
        positions.push(position);
    }
    Ok(positions)
}

/// Up to which sequence the peer of this name has confirmed the feed of a collection; 0 if it has confirmed nothing.
pub(crate) fn confirmed_until(
    store: &dyn ReplicaStore,
    collection: CollectionId,
    name: &str,
) -> Result<u64, ReplicaStoreError> {
    let stored = store.checkpoint(collection, &record_name(name))?;
    Ok(stored.and_then(|stored| sequence_of(&stored.body)).unwrap_or(0))
}

fn record_name(name: &str) -> String {
    format!("{CONFIRMED_PREFIX}{name}")
}

fn sequence_of(body: &[u8]) -> Option<u64> {
    body.try_into().ok().map(u64::from_be_bytes)
}

/// Notes for whoever asks by [`confirmed_until`] how far a peer has confirmed a feed, under a name that goes with the
/// configuration: what the peer has proven, and the checkpoint that follows from it, may not be known without it.
pub(super) struct Confirmation {
    name: String,
    noted: Option<u64>,
}

impl Confirmation {
    pub(super) fn new(name: &str) -> Confirmation {
        Confirmation { name: record_name(name), noted: None }
    }

    /// The peer has everything up to this sequence, and no more as far as is known.
    pub(super) fn note(
        &mut self,
        collection: CollectionId,
        sequence: u64,
        store: &dyn ReplicaStore,
    ) -> Result<(), ReplicaStoreError> {
        if self.noted == Some(sequence) {
            return Ok(());
        }
        let stored = store.checkpoint(collection, &self.name)?;
        if stored.as_ref().and_then(|stored| sequence_of(&stored.body)) != Some(sequence) {
            let before = stored.as_ref().map(|stored| stored.revision.as_str());
            let body = bytes::Bytes::copy_from_slice(&sequence.to_be_bytes());
            store.set_checkpoint(collection, &self.name, before, body)?;
        }
        self.noted = Some(sequence);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicator::memory_store::MemoryStore;

    const MAIN: CollectionId = CollectionId(0);

    /// Whoever is furthest behind says how far all have come, and whoever is ahead how far any; what is kept for other things says nothing.
    #[test]
    fn all_have_what_the_one_furthest_behind_has() {
        for (kept, until, by_any) in [
            (&[][..], u64::MAX, 0),
            (&[("cp-a", r#"{"remote":7,"local":2}"#)], 7, 7),
            (&[("own/cp-b", r#"{"remote":7,"local":2}"#)], 2, 2),
            (
                &[("cp-a", r#"{"remote":7}"#), ("own/cp-b", r#"{"local":9}"#), ("cp-c", r#"{"remote":8}"#)],
                7,
                9,
            ),
            (&[("cp-a", r#"{"remote":7}"#), ("own/note/cp-a", r#"{"sent":1}"#), ("own/other", "{}")], 7, 7),
            (&[("cp-a", r#"{"remote":7}"#), ("cp-d", r#"{"remote":"17:4"}"#)], 0, 7),
            (&[("cp-a", r#"{"remote":7}"#), ("cp-e", "garbage")], 0, 7),
        ] {
            let store = MemoryStore::new(1);
            for (client, body) in kept {
                let body = bytes::Bytes::from_static(body.as_bytes());
                assert!(store.set_checkpoint(MAIN, client, None, body).expect("kept").is_some());
            }
            assert_eq!(delivered_until(&store, MAIN).expect("read"), until, "{kept:?}");
            assert_eq!(delivered_to_any(&store, MAIN).expect("read"), by_any, "{kept:?}");
        }
    }

    /// What is noted is what was said last, under its name alone, and is written when it changes.
    #[test]
    fn what_was_confirmed_last_is_known_by_its_name() {
        let store = MemoryStore::new(1);
        let until = |name| confirmed_until(&store, MAIN, name).expect("read");
        let revision = || store.checkpoint(MAIN, &record_name("up")).expect("read").map(|it| it.revision);
        assert_eq!((until("up"), revision()), (0, None));
        let mut confirmation = Confirmation::new("up");
        for (sequence, written) in [(5, "1-cc"), (5, "1-cc"), (3, "2-cc"), (9, "3-cc")] {
            confirmation.note(MAIN, sequence, &store).expect("noted");
            assert_eq!((until("up"), until("other")), (sequence, 0));
            assert_eq!(revision().as_deref(), Some(written), "{sequence}");
        }
        // A run later.
        let mut confirmation = Confirmation::new("up");
        confirmation.note(MAIN, 9, &store).expect("noted");
        assert_eq!(revision().as_deref(), Some("3-cc"));
        confirmation.note(MAIN, 10, &store).expect("noted");
        assert_eq!(until("up"), 10);
    }
}
