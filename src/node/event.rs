//! What a node tells.

use std::fmt;
use std::sync::Arc;

use super::error::ListenError;
use crate::endpoint::MessagingError;
use crate::replicator::{ConflictReport, DocumentReplication, ListenerError, ReplicatorStatus};
use crate::secure::{Authentication, PeerId};
use crate::trust::GroupNews;

/// Something that happened at a [`Node`](super::Node). `Display` gives one line for a log; what peers chose (names, IDs,
/// reasons) stands in it as they sent it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NodeEvent {
    /// Peers can connect now.
    #[non_exhaustive]
    Listening {
        /// Where; for TCP with the real port.
        address: String,
    },
    /// It does not listen there now, and tries again after a pause. Told once for each cause.
    #[non_exhaustive]
    ListenFailed {
        /// Where, as it was configured.
        address: String,
        /// Why.
        error: ListenError,
    },
    /// A peer has proven who it is and may come in. Not where nobody proves anything.
    #[non_exhaustive]
    Authenticated {
        /// Where it came from.
        label: String,
        /// Who it is.
        peer: PeerId,
        /// The name by which this database knows it, if it has one.
        name: Option<String>,
        /// What it has proven.
        #[doc(hidden)]
        via: Authentication,
    },
    /// A peer was refused before it became a connection.
    #[non_exhaustive]
    Refused {
        /// Where it came from.
        label: String,
        /// Who it is, if it came so far as to prove it.
        peer: Option<PeerId>,
        /// Why.
        error: MessagingError,
    },
    /// A peer that may come in has a connection.
    #[non_exhaustive]
    Connected {
        /// Names it in later events; no other connection in the life of a node has this number.
        connection: u64,
        /// What people call the peer: its name and the beginning of its ID, or where it came from.
        peer: Arc<str>,
        /// The ID in full that it has proven.
        uid: Option<String>,
    },
    /// A connection was taken back, for there was no room for it. The peer is told.
    #[non_exhaustive]
    Declined {
        /// Which one.
        connection: u64,
        /// The peer.
        peer: Arc<str>,
        /// Why.
        error: ListenerError,
    },
    /// A connection changed its state; [`ReplicatorActivity::Stopped`](crate::replicator::ReplicatorActivity) is its last.
    #[non_exhaustive]
    Status {
        /// Which one.
        connection: u64,
        /// The peer.
        peer: Arc<str>,
        /// Its state now.
        status: ReplicatorStatus,
    },
    /// A document was not replicated; where the node reports documents, also each that was.
    #[non_exhaustive]
    Document {
        /// With which peer.
        peer: Arc<str>,
        /// The document.
        document: DocumentReplication,
    },
    /// Both sides had changed a document.
    #[non_exhaustive]
    Conflict {
        /// With which peer.
        peer: Arc<str>,
        /// The conflict.
        conflict: ConflictReport,
    },
    /// Something has become of the secret of this database's group.
    Group(GroupNews),
    /// A Bluetooth connection was made, or something of it has changed.
    #[cfg(feature = "bluetooth")]
    Radio(crate::transport::bluez::radio::RadioStatus),
}

impl fmt::Display for NodeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeEvent::Listening { address } => write!(f, "listening on {address}"),
            NodeEvent::ListenFailed { error, .. } => write!(f, "{error}; will try again"),
            NodeEvent::Authenticated { label, peer, name, .. } => {
                write!(f, "{label}: {}, encrypted", super::access::peer_name(peer, name.as_deref()))
            }
            NodeEvent::Refused { label, peer: None, error } => write!(f, "{label}: refused: {error}"),
            NodeEvent::Refused { label, peer: Some(peer), error } => {
                write!(f, "{label}: {peer}: refused: {error}")
            }
            NodeEvent::Connected { peer, .. } => write!(f, "{peer}: connected"),
            NodeEvent::Declined { peer, error, .. } => write!(f, "{peer}: refused: {error}"),
            NodeEvent::Status { peer, status, .. } => write!(f, "{peer}: {}", StatusText(status)),
            NodeEvent::Document { peer, document } => write!(f, "{peer}: {}", DocumentText(document)),
            NodeEvent::Conflict { peer, conflict } => write!(f, "{peer}: {}", ConflictText(conflict)),
            NodeEvent::Group(news) => news.fmt(f),
            #[cfg(feature = "bluetooth")]
            NodeEvent::Radio(status) => write!(f, "radio: {status}"),
        }
    }
}

/// A state as one line.
pub(super) struct StatusText<'a>(pub(super) &'a ReplicatorStatus);

impl fmt::Display for StatusText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = self.0.progress;
        let activity = format!("{:?}", self.0.activity).to_lowercase();
        write!(f, "{activity}, {} of {} done", progress.completed, progress.total)?;
        match &self.0.error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

/// A document as one line.
pub(super) struct DocumentText<'a>(pub(super) &'a DocumentReplication);

impl fmt::Display for DocumentText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DocumentReplication { collection, id, direction, access_removed, error, .. } = self.0;
        let direction = format!("{direction:?}").to_lowercase();
        match error {
            None if *access_removed => write!(f, "removed {id:?} of {collection}: it is no longer for us"),
            None => write!(f, "{direction} {id:?} of {collection}"),
            Some(error) => write!(f, "{id:?} of {collection} was not {direction}: {error}"),
        }
    }
}

/// A conflict as one line.
pub(super) struct ConflictText<'a>(pub(super) &'a ConflictReport);

impl fmt::Display for ConflictText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConflictReport { collection, id, outcome } = self.0;
        write!(f, "both sides have changed {id:?} of {collection}: {outcome:?}")
    }
}
