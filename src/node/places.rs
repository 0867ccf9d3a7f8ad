//! The places of a node, of which some come and go while it runs.

use std::collections::HashMap;

use tokio::task::AbortHandle;

use super::listen::Places;

/// The places of a node.
pub(super) struct PlaceSet {
    pub(super) places: Places,
    pub(super) next: usize,
    pub(super) added: HashMap<usize, AbortHandle>,
}

/// A place that was added to a node that runs.
#[derive(Debug)]
pub(crate) struct PlaceId(pub(super) usize);
