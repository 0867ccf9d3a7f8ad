//! `gattway db repair`: what is whole of a damaged database, in a new one.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::backup::{check_space, size_of};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{Output, counted, note, thousands};
use crate::cli::support::progress::Progress;
use crate::cli::support::store;
use crate::database::{Database, DocumentName, SalvageReport};

/// Documents printed for people; `--json` lists them all.
const PRINTED_MAX: usize = 20;

/// Save what is whole of a damaged database into a new one.
///
/// The damaged one is not changed. Without --to the new one takes its place once it is whole and on stable storage, and the
/// damaged one stays beside it as DIR.damaged-N. Revisions and sequences stay; the database gets a new source ID, and
/// compares everything with its peers at the next sync, which brings back what they have. Ends with code 1 if something
/// was lost. A sound database is left as it is; with --to a new one is made all the same.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db verify
  gattway --db my.db db repair
  gattway --db my.db db repair --to /mnt/sound/my.db --json | jq .lost
  gattway --db my.db sync ble:any      # what a peer has comes back")]
pub(crate) struct RepairArgs {
    /// Directory of the new database: new or empty. Where the card fails, one on another card
    #[arg(long, value_name = "NEW_DIR")]
    to: Option<PathBuf>,

    /// Print the result as one JSON object, with every document that is lost
    #[arg(long)]
    json: bool,
}

pub(super) fn run(path: &Path, args: &RepairArgs) -> Result<(), CliError> {
    store::check_existing(path)?;
    if args.to.is_none()
        && store::when_free(path, || Database::examine(path)).is_ok_and(|report| report.is_sound())
    {
        return tell_sound(path, args.json);
    }
    let beside =
        path.with_file_name(format!("{}.repaired", path.file_name().unwrap_or_default().to_string_lossy()));
    let to = args.to.as_ref().unwrap_or(&beside);
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    check_space(parent, size_of(path))?;
    let mut progress = Progress::start("repair", 0, args.json);
    let report =
        store::when_free(path, || Database::repair(path, to, |done| progress.update(done, 0, "revisions")))?;
    drop(progress);
    let kept = if args.to.is_none() { Some(take_place(path, to)?) } else { None };
    let place = if kept.is_some() { path } else { to.as_path() };
    let mut out = Output::new();
    if args.json {
        let mut value = as_json(&report);
        value["changed"] = json!(true);
        value["path"] = json!(place.to_string_lossy());
        value["damaged"] = json!(kept.as_deref().unwrap_or(path).to_string_lossy());
        out.json(&value)?;
    } else {
        out.line(format!("{}: {} saved", place.display(), counted(report.documents, "document")))?;
        if let Some(kept) = &kept {
            out.line(format!("{}: the damaged database, as it was", kept.display()))?;
        }
    }
    out.flush()?;
    if report.is_complete() {
        return Ok(());
    }
    if !args.json {
        tell(&report);
    }
    let message = format!("{} could not be saved", lost_text(&report));
    Err(CliError::new(Exit::Failure, message).help("sync with a peer: what it has comes back"))
}

/// Nothing was changed: not a byte, and not who the database is to its peers.
fn tell_sound(path: &Path, json: bool) -> Result<(), CliError> {
    let mut out = Output::new();
    if json {
        out.json(
            &json!({"complete": true, "changed": false, "path": path.to_string_lossy(), "problems": 0}),
        )?;
    } else {
        out.line(format!("{}: sound, nothing to repair, nothing was changed", path.display()))?;
    }
    out.flush()
}

/// Puts the new database into the place of the damaged one; gives where that is now.
fn take_place(path: &Path, new: &Path) -> Result<PathBuf, CliError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let kept = (1..).map(|n| path.with_file_name(format!("{name}.damaged-{n}"))).find(|kept| !kept.exists());
    let kept = kept.unwrap_or_else(|| path.with_extension("damaged"));
    let failed = |error: std::io::Error| {
        CliError::new(
            Exit::Database,
            format!(
                "the repaired database is whole in {}, and cannot take its place: {error}",
                new.display()
            ),
        )
        .help(format!("move {} away and {} there", path.display(), new.display()))
    };
    fs::rename(path, &kept).map_err(failed)?;
    if let Err(error) = fs::rename(new, path) {
        // The damaged one is better than none in this place.
        let _ = fs::rename(&kept, path);
        return Err(failed(error));
    }
    if let Some(parent) = path.canonicalize().ok().as_deref().and_then(Path::parent) {
        fs::File::open(parent).and_then(|d| d.sync_all()).map_err(failed)?;
    }
    Ok(kept)
}

/// What is lost, in a few words.
pub(super) fn lost_text(report: &SalvageReport) -> String {
    let mut words = Vec::new();
    if report.lost_count > 0 {
        words.push(counted(report.lost_count, "document"));
    }
    if report.unconfirmed_count > 0 {
        words.push(format!("what is newest of {}", counted(report.unconfirmed_count, "document")));
    }
    if !report.ranges.is_empty() {
        words.push(counted(report.ranges.len() as u64, "range"));
    }
    words.join(", ")
}

/// Lists what is lost on standard error.
pub(super) fn tell(report: &SalvageReport) {
    for range in &report.ranges {
        note(&format!("lost: {range}"));
    }
    let list = |what: &str, names: &[DocumentName], count: u64| {
        for name in names.iter().take(PRINTED_MAX) {
            note(&format!("{what}: {} {:?}", name.collection, name.id));
        }
        if count > PRINTED_MAX as u64 {
            note(&format!("{what}: {} more", thousands(count - PRINTED_MAX as u64)));
        }
    };
    list("lost", &report.lost, report.lost_count);
    list("perhaps not the newest", &report.unconfirmed, report.unconfirmed_count);
}

/// For scripts.
fn as_json(report: &SalvageReport) -> Value {
    let names = |names: &[DocumentName]| -> Vec<Value> {
        names.iter().map(|name| json!({"collection": name.collection, "id": name.id})).collect()
    };
    json!({
        "complete": report.is_complete(),
        "documents": report.documents,
        "tombstones": report.tombstones,
        "problems": report.problems,
        "lost": names(&report.lost),
        "lost_count": report.lost_count,
        "unconfirmed": names(&report.unconfirmed),
        "unconfirmed_count": report.unconfirmed_count,
        "ranges": report.ranges,
        "source": report.source.map(|source| source.to_string()),
        "former_source": report.former_source.map(|source| source.to_string()),
    })
}
