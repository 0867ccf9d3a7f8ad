//! `gattway db export`: prints all documents as NDJSON.

use std::path::Path;

use clap::Args;

use super::CollectionArg;
use super::repair::{lost_text, tell};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{self, Output};
use crate::cli::support::store;
use crate::database::Database;
use crate::replica::blobs_in;

/// Print all documents as NDJSON, in ID order, each with its `_id`.
///
/// Two databases with the same documents give the same text; with --revisions, two that are in sync.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db export > backup.ndjson
  gattway --db other.db db import backup.ndjson
  gattway --db damaged.db db export --keep-going > rest.ndjson
  diff <(gattway --db a.db db export --revisions) <(gattway --db b.db db export --revisions)")]
pub(crate) struct ExportArgs {
    /// Add each document's revision as `_rev`
    #[arg(long)]
    revisions: bool,

    /// Print what is whole of a damaged database, in the order of changes; what is lost is told on standard error, and
    /// the code is 1
    #[arg(long)]
    pub(super) keep_going: bool,

    #[command(flatten)]
    collection: CollectionArg,
}

pub(super) fn run(db: &Database, args: &ExportArgs, out: &mut Output) -> Result<(), CliError> {
    let collection = store::collection(db, &args.collection.collection)?;
    let mut without = 0;
    for document in collection.iter() {
        let document = document.map_err(store::failed)?;
        let text = output::json_of(&store::with_meta(document, args.revisions))?;
        without += u64::from(!blobs_in(text.as_bytes()).is_empty());
        out.json_text(&text)?;
    }
    out.flush()?;
    if without > 0 {
        let named =
            if without == 1 { "1 document names".to_owned() } else { format!("{without} documents name") };
        out.note(&format!(
            "{named} attachments, whose content is not in this: `gattway db backup` has it, `gattway db blob get` writes it"
        ));
    }
    Ok(())
}

/// Prints what is whole, whatever is damaged.
pub(super) fn keep_going(path: &Path, args: &ExportArgs) -> Result<(), CliError> {
    store::check_existing(path)?;
    let mut out = Output::new();
    let mut printed = Ok(());
    let report = store::when_free(path, || {
        Database::salvage(path, &args.collection.collection, |document| {
            if printed.is_ok() {
                printed = out.json(&store::with_meta(document, args.revisions));
            }
            Ok(())
        })
    })?;
    printed?;
    out.flush()?;
    if report.is_complete() {
        return Ok(());
    }
    tell(&report);
    Err(CliError::new(Exit::Failure, format!("not exported: {}", lost_text(&report))))
}
