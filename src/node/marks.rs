//! Which neighbour has something new, by its advert and by what was synced with it before: a quiet one costs no connection.
//!
//! For each peer the database keeps two counters: that of the peer (as it advertised it before the last sync that succeeded;
//! everything up to there is here) and that of this database at that time (everything up to there is at the peer). A sync that
//! moved something changes a counter, so the next sight of the peer leads to one more sync, which finds nothing to do and
//! leaves both counters as they are: then there is silence. Nothing is ever concluded from what a sync is believed to have
//! changed at the other side.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::advert::change_counter;
use crate::database::Database;
use crate::replica::OWN_PREFIX;
use crate::replica::store::{CollectionId, ReplicaStore};
use crate::transport::bluez::profile::{AdvertCodec, AdvertState, Sighting};
use crate::transport::bluez::scan::Neighbour;

/// Which way documents go in the syncs that are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Directions {
    pub(super) push: bool,
    pub(super) pull: bool,
}

/// What was synced with one peer, as the database keeps it, in postcard. Counters are the low 24 bits, as advertised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Everything here up to this counter of ours is at the peer.
    pushed: Option<u32>,
    /// Everything at the peer up to this counter of its is here.
    pulled: Option<u32>,
}

/// Judges neighbours for the syncs of some collections.
pub(super) struct SyncMarks {
    db: Database,
    collections: Vec<String>,
    codec: Arc<dyn AdvertCodec>,
    directions: Directions,
}

/// Both counters before a sync; to be noted when it has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    sighting: Sighting,
    own: u32,
}

impl SyncMarks {
    pub(super) fn new(
        db: &Database,
        collections: &[String],
        codec: Arc<dyn AdvertCodec>,
        directions: Directions,
    ) -> SyncMarks {
        let mut collections = collections.to_vec();
        collections.sort_unstable();
        SyncMarks { db: db.clone(), collections, codec, directions }
    }

    /// What a neighbour says; the inner `None`: it may be ours and cannot be read, the outer: it is not for us.
    pub(super) fn read(&self, neighbour: &Neighbour) -> Option<Option<Sighting>> {
        self.codec.may_be_ours(&neighbour.state).then(|| self.codec.read(&neighbour.state))
    }

    /// The counter of this database.
    pub(super) fn own(&self) -> u32 {
        change_counter(&self.db, &self.collections)
    }

    /// Both counters as they are now, to be taken before a sync begins.
    pub(super) fn before(&self, sighting: Sighting) -> Before {
        Before { sighting, own: self.own() }
    }

    /// How many changes a sync with that peer may have to look at, on both sides together; 0: it has nothing to do.
    pub(super) fn pending(&self, sighting: Sighting) -> u32 {
        let record = self.record(sighting.device);
        // What was never synced is all that there is, and at least a look.
        let since = |now: u32, synced: Option<u32>| match synced {
            Some(synced) => now.wrapping_sub(synced) & AdvertState::CHANGE_MAX,
            None => now.max(1),
        };
        let push = if self.directions.push { since(self.own(), record.pushed) } else { 0 };
        let pull = if self.directions.pull { since(sighting.change, record.pulled) } else { 0 };
        push + pull
    }

    /// A sync that began at `before` has moved all that there was to move. Nothing is lost if this is: it costs a sync.
    pub(super) fn note(&self, before: Before) {
        let device = before.sighting.device;
        let old = self.record(device);
        let record = Record {
            pushed: if self.directions.push { Some(before.own) } else { old.pushed },
            pulled: if self.directions.pull { Some(before.sighting.change) } else { old.pulled },
        };
        if record == old {
            return;
        }
        let Some(place) = self.place() else { return };
        let name = self.name(device);
        let stored = || {
            let revision = self.db.checkpoint(place, &name)?.map(|stored| stored.revision);
            let body = postcard::to_stdvec(&record).unwrap_or_default();
            self.db.set_checkpoint(place, &name, revision.as_deref(), Bytes::from(body))
        };
        match stored() {
            Ok(Some(_)) => debug!(device, ?record, "noted"),
            Ok(None) => debug!(device, "noted by somebody else at the same time"),
            Err(error) => warn!(%error, "cannot note what was synced; the next sync is not saved"),
        }
    }

    fn record(&self, device: u32) -> Record {
        let stored =
            self.place().and_then(|place| self.db.checkpoint(place, &self.name(device)).ok().flatten());
        stored.and_then(|stored| postcard::from_bytes(&stored.body).ok()).unwrap_or_default()
    }

    /// Kept with the checkpoints of the first collection, under a name that no peer may use.
    fn place(&self) -> Option<CollectionId> {
        self.collections.iter().find_map(|name| ReplicaStore::collection(&self.db, name))
    }

    /// Another choice of collections has counters of its own.
    fn name(&self, device: u32) -> String {
        let collections = crc32fast::hash(self.collections.join("\n").as_bytes());
        format!("{OWN_PREFIX}neighbour/{device:08x}/{collections:08x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::DatabaseConfig;
    use crate::secure::advert::Urgency;
    use crate::transport::bluez::profile::PlainAdvert;

    const BOTH: Directions = Directions { push: true, pull: true };
    const PEER: Sighting = Sighting { device: 7, change: 40, urgency: Urgency::None };

    fn sync_marks(db: &Database, collections: &[&str], directions: Directions) -> SyncMarks {
        let collections: Vec<String> = collections.iter().map(|name| (*name).to_owned()).collect();
        SyncMarks::new(db, &collections, Arc::new(PlainAdvert { group: 0, device: 1 }), directions)
    }

    #[test]
    fn a_peer_is_quiet_until_one_of_the_two_counters_moves() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("db");
        {
            let db = Database::open(&path, DatabaseConfig::default())?;
            let collection = db.default_collection()?;
            let sync_marks = sync_marks(&db, &["_default"], BOTH);
            assert!(sync_marks.pending(PEER) > 0, "never synced");
            let before = sync_marks.before(PEER);
            // It pulls something in: what came from there need not go back, but that is not for us to guess.
            collection.put("a", &serde_json::json!({"from": "the peer"}))?;
            sync_marks.note(before);
            assert!(sync_marks.pending(PEER) > 0);
            sync_marks.note(sync_marks.before(PEER));
            assert_eq!(sync_marks.pending(PEER), 0);
            assert_eq!(sync_marks.pending(Sighting { change: 43, ..PEER }), 3);
            assert!(sync_marks.pending(Sighting { device: 8, ..PEER }) > 0, "another one");
            collection.put("b", &serde_json::json!({"from": "here"}))?;
            assert!(sync_marks.pending(PEER) > 0);
            sync_marks.note(sync_marks.before(PEER));
        }
        let db = Database::open(&path, DatabaseConfig::default())?;
        assert_eq!(sync_marks(&db, &["_default"], BOTH).pending(PEER), 0, "it survives the process");
        Ok(())
    }

    #[test]
    fn directions_and_collections_are_kept_apart() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let db = Database::open(directory.path().join("db"), DatabaseConfig::default())?;
        db.create_collection("plant.readings")?;
        let push = sync_marks(&db, &["_default"], Directions { push: true, pull: false });
        push.note(push.before(PEER));
        assert_eq!(push.pending(Sighting { change: 99, ..PEER }), 0, "what the peer has does not matter");
        assert!(sync_marks(&db, &["_default"], BOTH).pending(PEER) > 0, "nothing was pulled");
        assert!(sync_marks(&db, &["_default", "plant.readings"], BOTH).pending(PEER) > 0);
        let pull = sync_marks(&db, &["_default"], Directions { push: false, pull: true });
        pull.note(pull.before(PEER));
        let both = sync_marks(&db, &["_default"], BOTH);
        assert_eq!(both.pending(PEER), 0, "both were done, one after the other");
        Ok(())
    }
}
