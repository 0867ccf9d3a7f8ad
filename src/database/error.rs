//! What can go wrong in the database layer.

use std::path::PathBuf;

use crate::replica::Invalid;
use crate::replica::revision::Versioning;

/// A failure of the database. Unless a variant says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// Another process, or another handle in this one, has the database open.
    #[error("database {path} is in use by another process: close it there, or choose another directory", path = path.display())]
    InUse {
        /// Directory of the database.
        path: PathBuf,
    },
    /// Written by a newer release.
    #[error("database {path} has format {found}, this release reads up to {supported}: update gattway", path = path.display())]
    NewerFormat {
        /// Directory of the database.
        path: PathBuf,
        /// Format version found.
        found: u32,
        /// Newest format version this release reads.
        supported: u32,
    },
    /// A new database was to be made where there is something already; that is as it was.
    #[error("{path} is there already: a new database needs a directory that is new or empty", path = path.display())]
    Occupied {
        /// The directory, or file.
        path: PathBuf,
    },
    /// It identifies revisions in another way than was asked for ([`DatabaseConfig::versioning`](super::DatabaseConfig::versioning)).
    #[error("database {path} has {found}, and not {asked}: that is chosen when a database is made, and stays", path = path.display())]
    OtherVersioning {
        /// Directory of the database.
        path: PathBuf,
        /// How it does.
        found: Versioning,
        /// How it was to do.
        asked: Versioning,
    },
    /// The directory holds something else.
    #[error("{path} is not a gattway database: {reason}", path = path.display())]
    NotADatabase {
        /// The directory.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The stored bytes contradict themselves. What can still be read may be exported; restore from a peer.
    #[error("database is damaged: {detail}")]
    Damaged {
        /// What was found where.
        detail: String,
    },
    /// Storage is full. What was acknowledged before is safe. If a commit was refused before it was begun, the handle
    /// takes the next ones when there is room again; after a write that the operating system refused
    /// ([`Database::failure`](super::Database::failure) says so) it must be opened again.
    #[error("no space left for the database: {detail}")]
    Full {
        /// What is free, or the operating system's words.
        detail: String,
    },
    /// The operating system refused a read or a write. After a failed write the handle refuses more; open it again.
    #[error("database {action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// An earlier write failed, so this handle accepts no more. What was acknowledged before is safe.
    #[error("database was closed after an earlier failure ({reason}): open it again")]
    Failed {
        /// The first failure.
        reason: String,
    },
    /// It was opened to be read alone ([`DatabaseConfig::read_only`](super::DatabaseConfig::read_only)).
    #[error("database {path} is open to be read alone: nothing can be saved", path = path.display())]
    ReadOnly {
        /// Directory of the database.
        path: PathBuf,
    },
    /// This database was closed in order ([`Database::close`](super::Database::close)); other handles of it in this process
    /// are refused from then on.
    #[error("the database was closed: open it again")]
    Closed,
    /// The document was changed since it was read. Read it again, apply the change, save again.
    #[error("document {id:?} was changed by somebody else since it was read")]
    Conflict {
        /// The document.
        id: String,
    },
    /// No such document, or it is deleted.
    #[error("no document {id:?}")]
    NotFound {
        /// The document.
        id: String,
    },
    /// An ID that no peer would take: empty, too long, with control characters or reserved.
    #[error("{id:?} cannot be a document ID: {reason}")]
    InvalidId {
        /// What was given, shortened.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not `scope.name`, `name` or `_default` of allowed characters.
    #[error(
        "{name:?} is not a valid collection name: `name` or `scope.name` of A-Z a-z 0-9 _ - %, not starting with `_` or `%`"
    )]
    InvalidCollectionName {
        /// What was given, shortened.
        name: String,
    },
    /// No index can be declared so.
    #[error("no index can be made so: {reason}")]
    BadIndex {
        /// What is wrong.
        reason: String,
    },
    /// There is an index of this name on other paths. Drop it first, or choose another name.
    #[error("there is an index {name:?} on other paths already: drop it first, or choose another name")]
    IndexExists {
        /// Its name.
        name: String,
    },
    /// No such collection.
    #[error("no collection {name:?}")]
    UnknownCollection {
        /// Full name.
        name: String,
    },
    /// More collections than a database may have.
    #[error("a database holds at most {max} collections")]
    TooManyCollections {
        /// The limit.
        max: usize,
    },
    /// Not a JSON object that can be stored and synced.
    #[error("document body: {reason}")]
    BadBody {
        /// What is wrong with it.
        reason: String,
    },
    /// Body above the limit.
    #[error("document body of {actual} bytes, at most {max} can be synced: split it")]
    TooLarge {
        /// Limit in bytes.
        max: usize,
        /// Size in bytes.
        actual: usize,
    },
    /// A document names a blob that is not here. [Save](super::Database::save_blob) its content first.
    #[error("blob {digest} is not here: save its content before a document that names it")]
    MissingBlob {
        /// By which the document names it.
        digest: String,
    },
    /// A blob above the limit.
    #[error("a blob has at most {max} bytes")]
    BlobTooLarge {
        /// Limit in bytes.
        max: u64,
    },
    /// Not a backup, or not a whole one.
    #[error("this is no usable backup: {reason}")]
    BadBackup {
        /// What is wrong with it.
        reason: String,
    },
    /// Not a query, or more than one may have.
    #[error("query: {reason}")]
    BadQuery {
        /// What is wrong with it, and where.
        reason: String,
    },
    /// The query would take more memory than one may.
    #[error("query: {reason}")]
    QueryTooLarge {
        /// What takes it, and what to do.
        reason: String,
    },
    /// A choice of the format that this release knows but does not implement.
    #[error("{feature} is not supported by this release")]
    Unsupported {
        /// What was asked for.
        feature: &'static str,
    },
}

impl DatabaseError {
    /// Whether the same call can succeed later without repair: a full disk, a conflict.
    pub fn is_recoverable(&self) -> bool {
        matches!(
            self,
            DatabaseError::Full { .. } | DatabaseError::Conflict { .. } | DatabaseError::InUse { .. }
        )
    }

    /// Whether the document is to blame, not stable storage.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // for imports and the gateway
    pub(crate) fn is_of_a_document(&self) -> bool {
        matches!(
            self,
            DatabaseError::InvalidId { .. }
                | DatabaseError::BadBody { .. }
                | DatabaseError::TooLarge { .. }
                | DatabaseError::MissingBlob { .. }
        )
    }
}

impl From<Invalid> for DatabaseError {
    fn from(invalid: Invalid) -> DatabaseError {
        match invalid {
            Invalid::TooLarge { actual } => DatabaseError::TooLarge { max: super::DOCUMENT_BODY_MAX, actual },
            invalid => DatabaseError::BadBody { reason: invalid.to_string() },
        }
    }
}
