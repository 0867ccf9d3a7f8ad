//! One error for all of the library, for code that handles each alike.

use crate::database::DatabaseError;
use crate::node::{NodeError, SyncError};
use crate::replicator::{ListenerError, ReplicatorError};

/// Any error of the library. Calls give the narrower one; `?` makes this of it.
///
/// ```
/// use gattway::{Database, DatabaseConfig, Error, Node};
///
/// async fn serve(path: &str) -> Result<Node, Error> {
///     let db = Database::open(path, DatabaseConfig::default())?;
///     Ok(Node::builder(db).start().await?)
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Of a database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Of a node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Of a sync of a node.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// Of a replicator.
    #[error(transparent)]
    Replicator(#[from] ReplicatorError),
    /// A listener that took no connection.
    #[error(transparent)]
    Listener(#[from] ListenerError),
}
