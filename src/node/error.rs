//! Why a node, a place or a sync has failed.

use std::io;
use std::sync::Arc;

use super::access::AccessError;
use crate::replicator::ReplicatorError;

/// Why a node did not start, or did not end as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The identity or the list of peers cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// It can listen nowhere.
    #[error("{first}")]
    #[non_exhaustive]
    Listen {
        /// What failed first.
        first: ListenError,
        /// What failed then.
        others: Vec<ListenError>,
    },
    /// A listener has panicked, which is a bug.
    #[error("accepting connections panicked")]
    Panicked,
    /// So many connections did not come to an orderly end in time.
    #[error("{connections} connections did not end in time: cut off")]
    #[non_exhaustive]
    CutOff {
        /// How many.
        connections: usize,
    },
}

/// Why a place does not listen.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {} {address}: {source}", if *.accepts { "accept on" } else { "listen on" })]
pub struct ListenError {
    address: String,
    /// Whether it has listened before.
    accepts: bool,
    source: Arc<io::Error>,
}

impl ListenError {
    pub(super) fn new(address: String, accepts: bool, error: io::Error) -> ListenError {
        ListenError { address, accepts, source: Arc::new(error) }
    }

    /// Where.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // for advice of the command
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Whether it never began to listen.
    pub(crate) fn is_of_opening(&self) -> bool {
        !self.accepts
    }

    /// What the system says.
    pub fn io_error(&self) -> &io::Error {
        &self.source
    }
}

/// Why a sync has ended before all was synced.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The replication with a peer has failed.
    #[error("sync with {address} stopped: {source}")]
    #[non_exhaustive]
    Replication {
        /// Where the peer is.
        address: Arc<str>,
        /// Why.
        source: ReplicatorError,
    },
    /// No neighbour can be looked for, or none was found.
    #[error("{0}")]
    Search(Arc<io::Error>),
}
