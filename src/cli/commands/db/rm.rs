//! `gattway db rm`: deletes documents.

use clap::Args;
use serde_json::json;

use super::CollectionArg;
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::Output;
use crate::cli::support::store;
use crate::database::Database;

/// Delete documents. The deletion is a revision of its own, which peers learn of.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db rm valve-7 valve-8
  gattway --db my.db db rm valve-7 --purge   # here only: peers keep it, and bring it back once it is changed there")]
pub(crate) struct RmArgs {
    /// IDs of the documents
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,

    /// Remove the document from this database without telling anybody; it does not come back as it was
    #[arg(long)]
    purge: bool,

    #[command(flatten)]
    collection: CollectionArg,

    /// Print one JSON object a line for each: `_id`, and `deleted` or `purged`
    #[arg(long)]
    json: bool,
}

pub(super) fn run(db: &Database, args: &RmArgs, out: &mut Output) -> Result<(), CliError> {
    let collection = store::collection(db, &args.collection.collection)?;
    let mut missing = Vec::new();
    for id in &args.ids {
        let removed = if args.purge { store::purge(&collection, id) } else { store::delete(&collection, id) };
        match removed {
            Err(error) if error.exit() == Exit::NotFound => {
                missing.push(error);
                continue;
            }
            removed => removed?,
        }
        match args.json {
            true if args.purge => out.json(&json!({"_id": id, "purged": true}))?,
            true => out.json(&json!({"_id": id, "deleted": true}))?,
            false => out.text(id)?,
        }
    }
    out.flush()?;
    // One that is not there keeps none of the others.
    let Some(last) = missing.pop() else { return Ok(()) };
    missing.iter().for_each(|error| out.note(&error.to_string()));
    Err(last)
}
