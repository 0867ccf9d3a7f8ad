//! `gattway db collections`: lists, creates and deletes collections.

use clap::Args;
use serde_json::json;

use crate::cli::support::error::CliError;
use crate::cli::support::output::{Output, counted};
use crate::cli::support::store;
use crate::database::Database;

/// List the collections, or create or delete some.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db collections
  gattway --db my.db db collections --create plant.readings
  gattway --db my.db db collections --delete plant.readings   # and every document in it")]
pub(crate) struct CollectionsArgs {
    /// Create a collection (again: no error if it exists)
    #[arg(long, value_name = "NAME")]
    create: Vec<String>,

    /// Delete a collection with all its documents, here only
    #[arg(long, value_name = "NAME")]
    delete: Vec<String>,

    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl CollectionsArgs {
    /// Whether it makes collections, and so a database that there is not.
    pub(super) fn creates(&self) -> bool {
        !self.create.is_empty()
    }

    /// Whether it takes some away.
    pub(super) fn deletes(&self) -> bool {
        !self.delete.is_empty()
    }
}

pub(super) fn run(db: &Database, args: &CollectionsArgs, out: &mut Output) -> Result<(), CliError> {
    for name in &args.create {
        store::create_collection(db, name)?;
    }
    for name in &args.delete {
        store::collection(db, name)?;
        db.delete_collection(name).map_err(store::failed)?;
    }
    for name in db.collections() {
        let collection = store::collection(db, &name)?;
        let documents = collection.count();
        if args.json {
            out.json(&json!({"collection": name, "documents": documents}))?;
        } else {
            out.line(format!("{name}  {}", counted(documents, "document")))?;
        }
    }
    out.flush()
}
