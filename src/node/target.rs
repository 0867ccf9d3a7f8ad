//! With whom a node syncs.

use std::sync::Arc;

#[cfg(feature = "bluetooth")]
use super::ble::{BleNeighbours, BlePeer};
use super::connect::Connect;

/// With whom a node syncs.
pub struct SyncTarget(pub(super) TargetKind);

pub(super) enum TargetKind {
    One(Arc<dyn Connect>),
    #[cfg(feature = "bluetooth")]
    Neighbours(BlePeer),
}

impl<T: Connect> From<T> for SyncTarget {
    fn from(way: T) -> SyncTarget {
        SyncTarget(TargetKind::One(Arc::new(way)))
    }
}

#[cfg(feature = "bluetooth")]
impl From<BleNeighbours> for SyncTarget {
    fn from(neighbours: BleNeighbours) -> SyncTarget {
        SyncTarget(TargetKind::Neighbours(neighbours.0))
    }
}
