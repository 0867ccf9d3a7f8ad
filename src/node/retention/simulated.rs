//! Rules of retention for the simulation of whole systems: what a gateway does by and by (`gateway::retention`,
//! `gateway::tombstones`) is done at once, by the same cores and the same calls.

use std::time::Duration;

use super::tombstones::{Span, TombstoneKeeper};
use super::{Extent, Keeper, Rule, Step};
use crate::database::{Collection, Database, DatabaseError};
use crate::replica::store::{CollectionId, ReplicaStore, ReplicaStoreError};
use crate::replicator::delivery;

/// Documents that are looked at in one step, and that one commit removes. Small, so that few documents are several steps.
const LOOKED_AT: usize = 7;
const REMOVED_AT_ONCE: usize = 3;

/// Keeps a collection within an age and a number of bytes.
#[doc(hidden)]
#[derive(Debug)]
pub struct SimulatedKeeper {
    keeper: Keeper,
    only_confirmed: Option<String>,
}

impl SimulatedKeeper {
    /// `only_confirmed`: the name under which it is noted how far a peer has confirmed what is here, if nothing may go before.
    pub fn new(age: Option<Duration>, bytes: Option<u64>, only_confirmed: Option<&str>) -> SimulatedKeeper {
        let rule = Rule { age, bytes, documents: None };
        SimulatedKeeper { keeper: Keeper::new(rule), only_confirmed: only_confirmed.map(str::to_owned) }
    }

    /// Removes what is beyond the rule; gives the IDs of what went.
    ///
    /// # Errors
    /// Of the store; some may have gone.
    pub fn keep(&mut self, db: &Database, name: &str) -> Result<Vec<Box<str>>, DatabaseError> {
        let (collection, id) = both(db, name)?;
        let mut gone = Vec::new();
        loop {
            let extent = Extent {
                documents: collection.count(),
                last_sequence: collection.last_sequence(),
                confirmed: match &self.only_confirmed {
                    Some(name) => delivery::confirmed_until(db, id, name).map_err(failed)?,
                    None => u64::MAX,
                },
            };
            match self.keeper.next(collection.wall(), extent) {
                Step::Wait(_) => return Ok(gone),
                Step::Look { after } => {
                    let (seen, until) = collection.ages_since(after, LOOKED_AT)?;
                    seen.iter().for_each(|seen| self.keeper.look(seen));
                    self.keeper.looked(until);
                }
                Step::Sweep(mut sweep) => {
                    let mut after = 0;
                    while after < extent.last_sequence {
                        let (seen, until) = collection.ages_since(after, LOOKED_AT)?;
                        seen.into_iter().for_each(|seen| sweep.see(seen));
                        after = until;
                    }
                    for some in self.keeper.swept(collection.wall(), sweep).chunks(REMOVED_AT_ONCE) {
                        let places = some.iter().map(|aged| (&*aged.id, aged.sequence));
                        collection.remove_aged(places, self.only_confirmed.is_some())?;
                        gone.extend(some.iter().map(|aged| aged.id.clone()));
                    }
                }
            }
        }
    }
}

/// Keeps the tombstones of a collection for a time.
#[doc(hidden)]
#[derive(Debug)]
pub struct SimulatedTombstones {
    keeper: TombstoneKeeper,
    limit: Duration,
}

impl SimulatedTombstones {
    /// Until every peer that is known has them, and for this time at most.
    pub fn new(limit: Duration) -> SimulatedTombstones {
        SimulatedTombstones { keeper: TombstoneKeeper::default(), limit }
    }

    /// Removes tombstones whose time is over; gives their IDs. `now` is nanoseconds of a clock that may go faster than that of the
    /// database.
    ///
    /// # Errors
    /// Of the store; some may have gone.
    pub fn forget(&mut self, db: &Database, name: &str, now: u64) -> Result<Vec<Box<str>>, DatabaseError> {
        let (collection, id) = both(db, name)?;
        self.keeper.note(now, collection.last_sequence(), self.limit);
        let delivered = delivery::delivered_until(db, id).map_err(failed)?;
        let mut gone = Vec::new();
        let Some(Span { mut after, until }) = self.keeper.due(now, delivered, self.limit) else {
            return Ok(gone);
        };
        while after < until {
            let (found, last) = collection.tombstones_since(after, until, LOOKED_AT)?;
            for some in found.chunks(REMOVED_AT_ONCE) {
                collection.remove_tombstones(some.iter().map(|(id, sequence)| (&**id, *sequence)))?;
                gone.extend(some.iter().map(|(id, _)| id.clone()));
            }
            after = last.max(after + 1);
        }
        self.keeper.removed(until);
        Ok(gone)
    }
}

fn both(db: &Database, name: &str) -> Result<(Collection, CollectionId), DatabaseError> {
    db.collection(name)
        .zip(ReplicaStore::collection(db, name))
        .ok_or_else(|| DatabaseError::UnknownCollection { name: name.to_owned() })
}

fn failed(error: ReplicaStoreError) -> DatabaseError {
    DatabaseError::Failed { reason: error.message }
}
