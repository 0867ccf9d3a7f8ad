//! `gattway db changes`: prints the change feed of a collection, and with `--follow` what comes later.

use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;

use super::CollectionArg;
use crate::cli::args::GlobalArgs;
use crate::cli::output::Output;
use crate::cli::{CliError, store};
use crate::database::{Change, Collection};

/// How often `--follow` looks at the database's files.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// Changes that are read at once.
const PAGE: usize = 1000;

/// Print what changed, in order: each document once, at its newest change.
///
/// With --follow it goes on. Only one process can have a database open, so it opens the database for a moment whenever
/// its files have changed: other short commands go on working beside it. While a `serve` or `sync` has the database it
/// waits; those tell of their documents themselves, with --json.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db changes
  gattway --db my.db db changes --since 8759 --json
  gattway --db my.db db changes --follow")]
pub(in crate::cli) struct ChangesArgs {
    /// Only changes after this sequence
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    since: u64,

    /// At most this many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Go on and print changes as they come, until Ctrl-C
    #[arg(long)]
    follow: bool,

    #[command(flatten)]
    collection: CollectionArg,

    /// One JSON object a line, with `sequence`, `_id`, `_rev` and `deleted`
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &GlobalArgs, args: &ChangesArgs) -> Result<(), CliError> {
    let path = global.db_path()?;
    let mut feed =
        Feed { args, since: args.since, left: args.limit.unwrap_or(usize::MAX), out: Output::new() };
    let mut seen = newest_file(path);
    feed.print(&store::collection(&store::open_to_read(path)?, &args.collection.collection)?)?;
    while args.follow && feed.left > 0 {
        thread::sleep(FOLLOW_INTERVAL);
        let now = newest_file(path);
        if now == seen {
            continue;
        }
        if let Some(db) = store::open_if_free(path)? {
            feed.print(&store::collection(&db, &args.collection.collection)?)?;
            drop(db);
            // What opening and closing did to the files is not news.
            seen = newest_file(path);
        }
    }
    Ok(())
}

/// The time of the newest change to any file of the database.
fn newest_file(path: &Path) -> Option<SystemTime> {
    let times =
        std::fs::read_dir(path).ok()?.flatten().filter_map(|file| file.metadata().ok()?.modified().ok());
    times.max()
}

struct Feed<'a> {
    args: &'a ChangesArgs,
    since: u64,
    left: usize,
    out: Output,
}

impl Feed<'_> {
    fn print(&mut self, collection: &Collection) -> Result<(), CliError> {
        while self.left > 0 {
            let page = collection.changes_since(self.since, self.left.min(PAGE)).map_err(store::failed)?;
            let Some(last) = page.last() else { break };
            self.since = last.sequence;
            self.left -= page.len();
            for change in &page {
                self.line(change)?;
            }
        }
        self.out.flush()
    }

    fn line(&mut self, change: &Change) -> Result<(), CliError> {
        let revision = change.revision.id().to_string();
        if self.args.json {
            let Change { sequence, id, deleted, .. } = change;
            self.out.json(&json!({"sequence": sequence, "_id": id, "_rev": revision, "deleted": deleted}))
        } else {
            let deleted = if change.deleted { "  deleted" } else { "" };
            self.out.text(&format!("{:>8}  {}{deleted}", change.sequence, change.id))
        }
    }
}
