//! What a node advertises over Bluetooth LE, and how long.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::access::{Security, TrustRefresher};
use crate::database::Database;
use crate::replica::store::ReplicaStore;
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

    /// The state to advertise now.
    pub(super) fn state(&self) -> AdvertBytes {
        self.codec.write(change_counter(&self.db, &self.collections))
    }
}

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
