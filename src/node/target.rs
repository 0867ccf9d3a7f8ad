//! With whom a node syncs.

use std::sync::Arc;

#[cfg(feature = "bluetooth")]
use super::ble::{Ble, BlePeer};
use super::connect::Connect;

/// With whom a node syncs: a way to one peer, or all Bluetooth neighbours (`Ble::any`).
pub struct SyncTarget(pub(super) TargetKind);

pub(super) enum TargetKind {
    One(Arc<dyn Connect>),
    #[cfg(feature = "bluetooth")]
    Neighbours(Vec<BlePeer>),
}

impl<T: Connect> From<T> for SyncTarget {
    fn from(way: T) -> SyncTarget {
        SyncTarget(TargetKind::One(Arc::new(way)))
    }
}

#[cfg(feature = "bluetooth")]
impl Ble {
    /// All devices nearby that may be met, reached by several adapters, at least one, each with its settings.
    ///
    /// # Panics
    /// Without any.
    pub(crate) fn any_through(adapters: Vec<BlePeer>) -> SyncTarget {
        assert!(!adapters.is_empty(), "no adapter");
        SyncTarget(TargetKind::Neighbours(adapters))
    }

    /// Whoever is near: one neighbour after the other that has something new, or once the first such.
    pub fn any() -> SyncTarget {
        Ble::peer("any").any_neighbour()
    }
}

#[cfg(feature = "bluetooth")]
impl BlePeer {
    /// All devices nearby that may be met, reached with these settings; the name does not matter.
    pub(crate) fn any_neighbour(self) -> SyncTarget {
        SyncTarget(TargetKind::Neighbours(vec![self]))
    }
}
