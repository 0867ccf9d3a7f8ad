//! `gattway db get`: prints one document.

use clap::Args;

use super::CollectionArg;
use crate::cli::support::error::CliError;
use crate::cli::support::output::Output;
use crate::cli::support::store;
use crate::database::Database;

/// Print a document as JSON, with its `_id` and `_rev`.
///
/// On a terminal it is laid out for reading, otherwise it is one line.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db get valve-7
  gattway --db my.db db get valve-7 --body | jq .open")]
pub(crate) struct GetArgs {
    /// The document's ID
    id: String,

    /// Only the body, without `_id` and `_rev`
    #[arg(long)]
    body: bool,

    #[command(flatten)]
    collection: CollectionArg,

    /// One line, on a terminal too
    #[arg(long)]
    json: bool,
}

pub(super) fn run(db: &Database, args: &GetArgs, out: &mut Output) -> Result<(), CliError> {
    let collection = store::collection(db, &args.collection.collection)?;
    let document = store::get(&collection, &args.id)?;
    let value = if args.body { document.into_body().into() } else { store::with_meta(document, true) };
    if out.is_for_people() && !args.json {
        out.pretty_json(&value)?;
    } else {
        out.json(&value)?;
    }
    out.flush()
}
