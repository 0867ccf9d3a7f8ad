//! What a database and a replicator share: revision IDs, the trait between the two, names, limits, and the rule of what a
//! document may be.
//!
//! It knows neither of them. A database implements [`store::ReplicaStore`], a replicator is written against it.

pub mod blobs;
mod canonical;
mod clip;
pub(crate) mod delta;
mod limits;
mod name;
pub mod revision;
pub mod store;
#[cfg_attr(not(feature = "cli"), allow(dead_code))] // the command checks more at its ways in
pub(crate) mod validate;

pub(crate) use self::blobs::blobs_in;
pub use self::canonical::canonical_json;
pub(crate) use self::clip::clip;
pub use self::limits::{
    CHECKPOINT_CLIENT_MAX, CHECKPOINT_SIZE_MAX, COLLECTION_NAME_MAX, COMMITS_IN_FLIGHT_MAX,
    DOCUMENT_BODY_MAX, DOCUMENT_DEPTH_MAX, DOCUMENT_ID_MAX, DOCUMENT_OVERHEAD_MAX,
};
pub use self::name::{DEFAULT_NAME, OWN_PREFIX, canonical_collection_name};
pub(crate) use self::validate::Invalid;
