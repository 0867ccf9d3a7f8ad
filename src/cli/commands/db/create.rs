//! `gattway db create`: a new, empty database.

use std::path::Path;

use clap::Args;
use serde_json::json;

use crate::cli::support::error::CliError;
use crate::cli::support::output::Output;
use crate::cli::support::store;
use crate::database::{Database, DatabaseConfig, DatabaseError, Versioning};

/// Make a new, empty database.
///
/// `db put`, `db import`, `serve`, `sync`, `pair` and `id` make one too, with version vectors. This is for choosing how revisions
/// are identified, which stays as it is for the life of a database: `rev-trees` for peers whose Couchbase Lite is of generation
/// 3, `version-vectors` for all others. Databases sync with others of their kind alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db create
  gattway --db old-fleet.db db create --versioning rev-trees")]
pub(crate) struct CreateArgs {
    /// How revisions are identified: `version-vectors` or `rev-trees`
    #[arg(long, value_name = "KIND", default_value_t = Versioning::VersionVectors)]
    versioning: Versioning,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(path: &Path, args: &CreateArgs) -> Result<(), CliError> {
    if Database::exists(path) {
        return Err(store::failed(DatabaseError::Occupied { path: path.to_owned() }));
    }
    let config = DatabaseConfig { versioning: Some(args.versioning), ..DatabaseConfig::default() };
    let db = store::when_free(path, || Database::open(path, config.clone()))?;
    let mut out = Output::new();
    if args.json {
        let path = path.to_string_lossy();
        out.json(&json!({"path": path, "versioning": db.versioning().to_string()}))?;
    } else {
        out.line(format!("made {} with {}", path.display(), db.versioning()))?;
    }
    out.flush()
}
