//! What a sync tells.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::access::peer_name;
use super::event::{ConflictText, DocumentText, StatusText};
use crate::replicator::{ConflictReport, DocumentReplication, ReplicatorStatus};
use crate::secure::{Authentication, PeerId};

/// Something that happened in a [`SyncHandle`](super::SyncHandle). `Display` gives one line for a log; what the peer chose stands in it as it was sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SyncEvent {
    /// The peer has proven who it is. Not where nobody proves anything.
    #[non_exhaustive]
    Authenticated {
        /// Where it is.
        address: Arc<str>,
        /// Who it is.
        peer: PeerId,
        /// The name by which this database knows it, if it has one.
        name: Option<String>,
        /// What it has proven.
        #[doc(hidden)]
        via: Authentication,
    },
    /// The state has changed.
    #[non_exhaustive]
    Status {
        /// Where the peer is.
        address: Arc<str>,
        /// The state now; [`ReplicatorActivity::Stopped`](crate::replicator::ReplicatorActivity) is the last of a peer.
        status: ReplicatorStatus,
    },
    /// A document was not replicated; where the sync reports documents, also each that was.
    #[non_exhaustive]
    Document {
        /// Where the peer is.
        address: Arc<str>,
        /// The document.
        document: DocumentReplication,
    },
    /// Both sides had changed a document.
    #[non_exhaustive]
    Conflict {
        /// Where the peer is.
        address: Arc<str>,
        /// The conflict.
        conflict: ConflictReport,
    },
    /// A neighbour was chosen, and is connected to.
    #[non_exhaustive]
    Visiting {
        /// Where it is: the address of its other events.
        address: Arc<str>,
        /// What people call it.
        peer: String,
        /// Whether the connection is kept, for nobody else is near.
        stays: bool,
        /// What its advert says it is, which outlives the address where the advert can be read.
        #[doc(hidden)]
        advertised: Arc<str>,
    },
    /// Others are near: the neighbour that is connected is left, and each is visited that has something new.
    OthersNear,
    /// The visit has ended.
    #[non_exhaustive]
    Visited {
        /// Where it is.
        address: Arc<str>,
        /// What people call the neighbour.
        peer: String,
        /// How.
        status: ReplicatorStatus,
    },
    /// No neighbour that was heard has anything new: none was connected to. The end of a sync that is done once.
    #[non_exhaustive]
    NothingNew {
        /// Who was heard.
        peers: Vec<String>,
    },
    /// Bluetooth cannot be used now; it is tried again. Told once for each cause.
    #[non_exhaustive]
    Offline {
        /// Why.
        error: Arc<io::Error>,
    },
}

impl fmt::Display for SyncEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncEvent::Authenticated { address, peer, name, .. } => {
                write!(f, "{address}: {}, encrypted", peer_name(peer, name.as_deref()))
            }
            SyncEvent::Status { address, status } => write!(f, "{address}: {}", StatusText(status)),
            SyncEvent::Document { address, document } => write!(f, "{address}: {}", DocumentText(document)),
            SyncEvent::Conflict { address, conflict } => write!(f, "{address}: {}", ConflictText(conflict)),
            SyncEvent::Visiting { peer, .. } => write!(f, "connecting to {peer}"),
            SyncEvent::OthersNear => f.write_str("others are near: visiting each that has something new"),
            SyncEvent::Visited { peer, status, .. } => {
                write!(f, "visit of {peer} ended: {}", StatusText(status))
            }
            SyncEvent::NothingNew { peers } => write!(f, "nothing new at {}", peers.join(", ")),
            SyncEvent::Offline { error } => write!(f, "offline: {error}; will try again"),
        }
    }
}
