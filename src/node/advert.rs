//! What a node advertises over Bluetooth LE, and how long.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::access::{Security, TrustRefresher};
use super::advertising::{AdvertPolicy, Summary};
use crate::database::Database;
use crate::replica::store::ReplicaStore;
use crate::replicator::delivery::delivered_to_any;
use crate::transport::bluez::profile::{AdvertBytes, AdvertCodec, AdvertState, PlainAdvert};
use crate::transport::bluez::sealed::SealedAdvert;

/// Limits of [`advert_lifetime`]: about as long as an address lives with BlueZ's Privacy.
const ADVERT_LIFETIME_S: RangeInclusive<u64> = 600..=900;
/// Limits of [`advert_turn`]: each registration costs a round trip to bluetoothd and a moment without an advert.
const ADVERT_TURN_S: RangeInclusive<u64> = 20..=40;

/// What is advertised of a database, and how adverts are read.
pub(crate) struct Advert {
    pub(super) db: Database,
    pub(super) collections: Vec<String>,
    pub(super) codec: Arc<dyn AdvertCodec>,
}

impl Advert {
    pub(super) fn new(
        db: &Database,
        collections: &[String],
        security: &Security,
        trust_refresher: &TrustRefresher,
    ) -> Advert {
        let codec = advert_codec(db, security, trust_refresher);
        Advert { db: db.clone(), collections: collections.to_vec(), codec }
    }

    /// What is pending now, by a policy; `delivered`: how far peers have come, by collection.
    pub(super) fn summary(&self, policy: &AdvertPolicy, delivered: &Delivered) -> Summary {
        let (mut pending, mut of_urgent) = (0, 0);
        for name in &self.collections {
            let Some(id) = ReplicaStore::collection(&self.db, name) else { continue };
            let reached = delivered.0.get(name).copied().unwrap_or(0);
            let lacking = self.db.last_sequence(id).saturating_sub(reached);
            pending += lacking;
            of_urgent += if policy.urgent_collections.contains(name) { lacking } else { 0 };
        }
        let is_urgent = policy.is_urgent(pending, of_urgent);
        Summary { change: change_counter(&self.db, &self.collections), pending, is_urgent }
    }

    /// How far peers have come in each collection.
    pub(super) fn delivered(&self) -> Delivered {
        let of = |name: &String| {
            let id = ReplicaStore::collection(&self.db, name)?;
            match delivered_to_any(&self.db, id) {
                Ok(sequence) => Some((name.clone(), sequence)),
                Err(error) => {
                    warn!(%error, "cannot read what peers have; all counts as pending");
                    None
                }
            }
        };
        Delivered(self.collections.iter().filter_map(of).collect())
    }

    /// The state that says this.
    pub(super) fn state(&self, summary: &Summary) -> AdvertBytes {
        self.codec.write(summary.change, summary.urgency())
    }
}

/// Up to which sequence of a collection, by its name, some peer has all changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Delivered(HashMap<String, u64>);

/// How this device's adverts are written, and those of others read: sealed unless all is plain.
fn advert_codec(
    db: &Database,
    security: &Security,
    trust_refresher: &TrustRefresher,
) -> Arc<dyn AdvertCodec> {
    if let (Security::Secure(config), Some(trust)) = (security, trust_refresher.trust()) {
        let (trust, identity) = (Arc::clone(trust), Arc::clone(&config.identity));
        let strangers = config.policy.admits_strangers();
        return Arc::new(SealedAdvert::new(trust, identity, strangers, fastrand::u16(..)));
    }
    let source = db.source().0;
    let device = u32::from_le_bytes([source[0], source[1], source[2], source[3]]);
    Arc::new(PlainAdvert { group: 0, device })
}

/// How long one advert is used at most: another time each time, so that the change itself gives nobody away.
pub(super) fn advert_lifetime() -> Duration {
    Duration::from_secs(fastrand::u64(ADVERT_LIFETIME_S))
}

/// The same while members with a former secret of the group and those with the new one have to find this device by turns.
pub(super) fn advert_turn() -> Duration {
    Duration::from_secs(fastrand::u64(ADVERT_TURN_S))
}

/// The counter that is advertised: it grows with each change of `collections`, and comes from the database, so that it outlives
/// the process. Its low 24 bits are told.
pub(super) fn change_counter(db: &Database, collections: &[String]) -> u32 {
    let sequences = collections.iter().filter_map(|name| {
        let id = ReplicaStore::collection(db, name)?;
        Some(db.last_sequence(id))
    });
    let sum = sequences.fold(0, u64::wrapping_add);
    (sum & u64::from(AdvertState::CHANGE_MAX)) as u32
}
