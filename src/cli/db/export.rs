//! `gattway db export`: prints all documents as NDJSON.

use clap::Args;

use super::CollectionArg;
use crate::cli::output::Output;
use crate::cli::{CliError, store};
use crate::database::Database;

/// Print all documents as NDJSON, in ID order, each with its `_id`.
///
/// Two databases with the same documents give the same text; with --revisions, two that are in sync.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db export > backup.ndjson
  gattway --db other.db db import backup.ndjson
  diff <(gattway --db a.db db export --revisions) <(gattway --db b.db db export --revisions)")]
pub(in crate::cli) struct ExportArgs {
    /// Add each document's revision as `_rev`
    #[arg(long)]
    revisions: bool,

    #[command(flatten)]
    collection: CollectionArg,
}

pub(super) fn run(db: &Database, args: &ExportArgs) -> Result<(), CliError> {
    let collection = store::collection(db, &args.collection.collection)?;
    let mut out = Output::new();
    for document in collection.iter() {
        let document = document.map_err(store::failed)?;
        out.json(&store::with_meta(document, args.revisions))?;
    }
    out.flush()
}
