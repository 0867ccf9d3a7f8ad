//! `gattway db ls`: lists document IDs.

use clap::Args;
use serde_json::json;

use super::CollectionArg;
use crate::cli::support::error::CliError;
use crate::cli::support::output::Output;
use crate::cli::support::store;
use crate::database::Database;

/// List document IDs, in order.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db ls
  gattway --db my.db db ls --prefix 2010-07- --limit 10
  gattway --db my.db db ls --json      # with revision and sequence")]
pub(crate) struct LsArgs {
    /// Only IDs that begin with this
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,

    /// At most this many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    #[command(flatten)]
    collection: CollectionArg,

    /// One JSON object a line, with `_id`, `_rev` and `sequence`
    #[arg(long)]
    json: bool,
}

pub(super) fn run(db: &Database, args: &LsArgs, out: &mut Output) -> Result<(), CliError> {
    let collection = store::collection(db, &args.collection.collection)?;
    let mut left = args.limit.unwrap_or(usize::MAX);
    for document in collection.iter() {
        let document = document.map_err(store::failed)?;
        if !document.id().starts_with(&args.prefix) {
            continue;
        }
        if left == 0 {
            break;
        }
        left -= 1;
        if args.json {
            let revision = store::revision_of(&document);
            out.json(&json!({"_id": document.id(), "_rev": revision, "sequence": document.sequence()}))?;
        } else {
            out.text(document.id())?;
        }
    }
    out.flush()
}
