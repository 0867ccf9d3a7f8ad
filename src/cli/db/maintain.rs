//! `gattway db info`, `compact` and `verify`: the database as a whole.

use clap::Args;
use serde_json::json;

use crate::cli::output::{Output, bytes_text, counted};
use crate::cli::{CliError, store};
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
