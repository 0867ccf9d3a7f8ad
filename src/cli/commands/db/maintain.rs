//! `gattway db info`, `compact` and `verify`: the database as a whole.

use clap::Args;
use serde_json::json;
use std::path::Path;

use crate::cli::commands::group::summary;
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{Output, bytes_text, counted};
use crate::cli::support::{condition, store};
use crate::database::{AHEAD_COUNTED_MAX, Database};
use crate::trust::group::Group;
use crate::trust::problems::problems;

/// Say what the database holds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db info
  gattway --db my.db db info --json | jq .disk_bytes")]
pub(crate) struct InfoArgs {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Rewrite the database without what is no longer needed. Safe to interrupt.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db compact")]
pub(crate) struct CompactArgs {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Read everything and check it. Ends with code 1 if something is wrong.
///
/// Each damaged place is told with its file and byte, and what was there, as far as it is known. A damaged database is
/// not changed by this.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db verify
  gattway --db my.db db verify --json || restore-from-peer")]
pub(crate) struct VerifyArgs {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn info(db: &Database, args: &InfoArgs, out: &mut Output) -> Result<(), CliError> {
    let info = db.info().map_err(store::failed)?;
    let ahead = db.count_ahead().map_err(store::failed)?;
    // What is wrong with its file is told by `db verify`.
    let group = Group::load(db.path()).ok().flatten();
    if args.json {
        let collections: Vec<_> = info
            .collections
            .iter()
            .map(
                |c| json!({"collection": c.name, "documents": c.documents, "last_sequence": c.last_sequence}),
            )
            .collect();
        out.json(&json!({
            "path": db.path().to_string_lossy(),
            "source": info.source.to_string(),
            "versioning": info.versioning.to_string(),
            "format": info.format,
            "disk_bytes": info.disk_bytes,
            "free_bytes": info.room.free_bytes,
            "keep_free_bytes": info.room.keep_free_bytes,
            "full": info.room.is_short,
            "group": group.as_ref().map(|group| json!({
                "name": group.name(), "fingerprint": group.fingerprint(), "epoch": group.epoch(),
            })),
            "read_only": db.is_read_only(),
            "versions_ahead": ahead,
            "blobs": info.blobs,
            "blob_bytes": info.blob_bytes,
            "clock_ahead_seconds": db.clock_ahead().as_secs(),
            "clock_set": Database::is_clock_plausible(),
            "copy": db.twin().map(|twin| json!({
                "collection": twin.collection, "_id": twin.id, "_rev": twin.version.to_string(),
            })),
            "collections": collections,
        }))?;
        return out.flush();
    }
    out.line(format!("database    {}", db.path().display()))?;
    out.line(format!("source      {}", info.source))?;
    out.line(format!("revisions   {}", info.versioning))?;
    out.line(format!("format      {}", info.format))?;
    if let Some(group) = &group {
        out.line(format!("in          {}", summary(group)))?;
    }
    out.line(format!("on disk     {}", bytes_text(info.disk_bytes)))?;
    if info.blobs > 0 {
        out.line(format!("blobs       {}, {}", info.blobs, bytes_text(info.blob_bytes)))?;
    }
    if let Some(free) = info.room.free_bytes {
        let note = if info.room.is_short { ": too little, nothing is stored" } else { "" };
        out.line(format!("free        {}{note}", bytes_text(free)))?;
    }
    if db.is_read_only() {
        out.line("writable    no: it is read as it is, and nothing can be saved")?;
    }
    if ahead > 0 {
        let more = if ahead >= AHEAD_COUNTED_MAX { " or more" } else { "" };
        out.line(format!(
            "ahead       {}{more}: the clock of who wrote it, or this device's, is wrong by more than a day; once it is \
             right, `gattway db renew` mends them",
            counted(ahead, "document")
        ))?;
    }
    if !Database::is_clock_plausible() {
        out.line("clock       the system's was never set: versions go on from where they were")?;
    } else if db.clock_ahead() > condition::CLOCK_TOLD {
        out.line(format!("clock       {}", condition::clock_text(db.clock_ahead())))?;
    }
    if let Some(twin) = db.twin() {
        out.line(format!("copy        {}; {}", condition::copy_text(&twin), condition::COPY_HELP))?;
    }
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

pub(super) fn verify(path: &Path, args: &VerifyArgs) -> Result<(), CliError> {
    store::check_existing(path)?;
    let report = store::when_free(path, || Database::check(path))?;
    let mut private = problems(path);
    private.retain(|problem| problem.is_damage);
    let problems = report.problems + private.len() as u64;
    let mut out = Output::new();
    if args.json {
        let damage: Vec<_> = report
            .damage
            .iter()
            .map(|damage| json!({"file": damage.file, "offset": damage.offset, "what": damage.what}))
            .chain(
                private
                    .iter()
                    .map(|problem| json!({"file": problem.file, "offset": null, "what": problem.advice})),
            )
            .collect();
        out.json(&json!({
            "ok": problems == 0,
            "documents": report.documents,
            "tombstones": report.tombstones,
            "problems": problems,
            "damage": damage,
            "listed": report.listed,
        }))?;
    } else {
        for damage in &report.damage {
            let place = damage.offset.map(|offset| format!(", byte {offset}")).unwrap_or_default();
            out.line(format!("damaged: {}{place}: {}", damage.file, damage.what))?;
        }
        for problem in &private {
            out.line(format!("damaged: {}: {}", problem.found, problem.advice))?;
        }
        for problem in &report.listed {
            out.line(problem)?;
        }
        let documents = counted(report.documents, "document");
        let read = if report.damage.is_empty() { "checked" } else { "can be read" };
        out.line(format!("{documents} {read}, {}", counted(problems, "problem")))?;
    }
    out.flush()?;
    if problems == 0 {
        return Ok(());
    }
    Err(CliError::new(Exit::Failure, format!("{} is damaged", path.display())).help(
        "copy the directory to a sound medium, then `gattway db repair --to NEW_DIR` saves what is whole; \
         syncing with a peer brings back what the peer has",
    ))
}
