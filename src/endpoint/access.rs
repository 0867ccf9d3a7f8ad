//! What a peer may do, as its connection says it: a transport that knows who the peer is gives the rule.

use std::sync::Arc;

/// What one peer may do with a collection, within what its side is set up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectionAccess {
    /// Whether it may push to us.
    pub push: bool,
    /// Whether it may pull from us.
    pub pull: bool,
}

/// Says what a peer may do with the collection of a full name. With neither, the collection does not exist for it.
pub type AccessRule = Arc<dyn Fn(&str) -> CollectionAccess + Send + Sync>;
