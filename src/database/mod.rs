//! Documents, revisions and the change feed, on a compact sled store.
//!
//! A [`Database`] holds [`Collection`]s of documents; a document is a JSON object with an ID, a version vector
//! ([`VersionVector`]) and a place in its collection's change feed. Everything here is synchronous; [`Database::watch`] lets
//! asynchronous code wait for changes. How bytes get to stable storage is the business of `store/`:
//! `firmware-notes/store.md`.
//!
//! ```
//! use gattway::database::{Database, DatabaseConfig};
//! use serde_json::json;
//!
//! # let directory = tempfile::tempdir()?;
//! let database = Database::open(directory.path().join("station"), DatabaseConfig::default())?;
//! let readings = database.create_collection("station.readings")?;
//! readings.put("2010-01-01T01:00", &json!({"temperature": 4.0, "wind": 3.8}))?;
//! let mut reading = readings.get("2010-01-01T01:00")?.expect("it was put");
//! reading.body_mut().insert("checked".into(), true.into());
//! readings.save(&mut reading)?;
//! assert_eq!(readings.count(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg_attr(not(feature = "cli"), allow(dead_code))] // for the gateway
mod attachment;
mod batch;
#[cfg(feature = "cli")]
pub(crate) mod bench;
pub(crate) mod blob;
mod changes;
mod clock;
mod collection;
mod columns;
pub(crate) mod config;
mod document;
mod edit;
mod error;
#[cfg(feature = "test-faults")]
#[doc(hidden)]
pub(crate) mod faults;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod handle;
mod info;
mod name;
mod packed;
mod pages;
mod path;
mod query;
mod reindex;
mod replica;
#[cfg_attr(not(feature = "cli"), allow(dead_code))] // for the gateway
pub(crate) mod retained;
mod save;
mod store;
#[cfg(test)]
mod tests;
pub(crate) mod unsendable;
mod value;
#[cfg_attr(not(feature = "cli"), allow(dead_code))] // for the gateway
mod writes;

#[cfg_attr(not(feature = "cli"), allow(unused_imports))] // for the gateway
pub(crate) use self::attachment::AttachmentPath;
pub use self::batch::Batch;
#[cfg_attr(not(feature = "cli"), allow(unused_imports))] // for the command
pub(crate) use self::blob::BlobInfo;
pub use self::blob::{Blob, BlobReader};
pub use self::changes::Changes;
#[cfg(test)]
pub(crate) use self::clock::AHEAD_MAX as CLOCK_AHEAD_NS_MAX;
#[cfg(test)]
pub(crate) use self::clock::wall_now;
pub use self::collection::{Change, Collection, Documents};
pub use self::config::{DatabaseConfig, Durability};
pub use self::document::Document;
pub use self::error::DatabaseError;
pub use self::handle::Database;
pub use self::info::{CollectionInfo, DatabaseInfo};
#[doc(hidden)]
pub use self::name::canonical_collection_name;
pub(crate) use self::name::check_document_id;
#[cfg(feature = "mqtt")]
pub(crate) use self::packed::Step as PathStep;
#[cfg(feature = "mqtt")]
pub(crate) use self::path::{Path as DocumentPath, Place as PathPlace, look_up};
#[cfg_attr(not(feature = "cli"), allow(unused_imports))] // for the gateway
pub(crate) use self::query::Step as QueryStep;
pub use self::query::{Aggregate, Filter, Query, Rows, Test};
#[cfg(feature = "mqtt")]
pub(crate) use self::query::{moment, moment_text};
#[cfg_attr(not(feature = "cli"), allow(unused_imports))] // for the gateway
pub(crate) use self::store::BLOB_BYTES_MAX;
#[cfg(feature = "cli")]
pub(crate) use self::store::contains_panics;
#[cfg(feature = "cli")]
pub(crate) use self::store::lock_file;
pub(crate) use self::store::{AHEAD_COUNTED_MAX, Twin};
pub use self::store::{
    BackupInfo, Damage, DocumentName, IndexInfo, Lack, RenewReport, RestoreReport, Room, SalvageReport,
    VerifyReport,
};
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub use self::store::{DiskCounts, FileLie, SimulatedDisk};
pub use crate::replica::revision::{RevisionError, SourceId, Version, VersionVector, Versioning};
pub use crate::replica::{DOCUMENT_BODY_MAX, DOCUMENT_ID_MAX};
