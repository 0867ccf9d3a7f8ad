//! `gattway db info`, `compact` and `verify`: the database as a whole.

use clap::Args;
use serde_json::json;

use crate::cli::output::{Output, bytes_text, counted};
use crate::cli::{CliError, Exit, store};
use crate::database::Database;

/// Say what the database holds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db info
  gattway --db my.db db info --json | jq .disk_bytes")]
pub(in crate::cli) struct InfoArgs {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Rewrite the database without what is no longer needed. Safe to interrupt.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db compact")]
pub(in crate::cli) struct CompactArgs {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Read everything and check it. Ends with code 1 if something is wrong.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db verify
  gattway --db my.db db verify --json || restore-from-peer")]
pub(in crate::cli) struct VerifyArgs {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn info(db: &Database, args: &InfoArgs) -> Result<(), CliError> {
    let info = db.info().map_err(store::failed)?;
    let mut out = Output::new();
    if args.json {
        let collections: Vec<_> = info
            .collections
            .iter()
            .map(
                |c| json!({"collection": c.name, "documents": c.documents, "last_sequence": c.last_sequence}),
            )
            .collect();
        out.json(&json!({
            "path": db.path(),
            "source": info.source.to_string(),
            "format": info.format,
            "disk_bytes": info.disk_bytes,
            "collections": collections,
        }))?;
        return out.flush();
    }
    out.line(format!("database    {}", db.path().display()))?;
    out.line(format!("source      {}", info.source))?;
    out.line(format!("format      {}", info.format))?;
    out.line(format!("on disk     {}", bytes_text(info.disk_bytes)))?;
    for collection in &info.collections {
        let documents = counted(collection.documents, "document");
        out.line(format!(
            "collection  {}: {documents}, sequence {}",
            collection.name, collection.last_sequence
        ))?;
    }
    out.flush()
}

pub(super) fn compact(db: &Database, args: &CompactArgs) -> Result<(), CliError> {
    let (before, after) = db.compact().map_err(store::failed)?;
    let mut out = Output::new();
    if args.json {
        out.json(&json!({"disk_bytes_before": before, "disk_bytes": after}))?;
    } else {
        out.line(format!("{} on disk, {} before", bytes_text(after), bytes_text(before)))?;
    }
    out.flush()
}

pub(super) fn verify(db: &Database, args: &VerifyArgs) -> Result<(), CliError> {
    let report = db.verify().map_err(store::failed)?;
    let mut out = Output::new();
    if args.json {
        out.json(&json!({
            "ok": report.is_sound(),
            "documents": report.documents,
            "tombstones": report.tombstones,
            "problems": report.problems,
            "listed": report.listed,
        }))?;
    } else {
        for problem in &report.listed {
            out.line(problem)?;
        }
        let documents = counted(report.documents, "document");
        out.line(format!("{documents} checked, {}", counted(report.problems, "problem")))?;
    }
    out.flush()?;
    if report.is_sound() {
        return Ok(());
    }
    Err(CliError::new(Exit::Failure, format!("{} is damaged", db.path().display()))
        .help("save what can be read with `gattway db export`, then sync a new database from a peer"))
}
