//! `gattway db changes`: prints the change feed of a collection, and with `--follow` what comes later.

use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use clap::Args;

use super::CollectionArg;
use crate::cli::commands::control::changes::{Request, Row, Rows};
use crate::cli::support::error::CliError;
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::output::Output;
use crate::cli::support::store;
use crate::database::{Collection, Database};

/// How often `--follow` looks at the database's files.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// Changes that are read at once.
const PAGE: usize = 1000;

/// Print what changed, in order: each document once, at its newest change.
///
/// Only one process can have a database open: while a `serve` or `sync` has it, that one is asked. With --follow it goes on; it
/// opens the database for a moment whenever its files have changed, so that other short commands go on working beside it, and
/// is told at once of what a `serve` or `sync` takes and sends.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db changes
  gattway --db my.db db changes --since 8759 --json
  gattway --db my.db db changes --follow")]
pub(crate) struct ChangesArgs {
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
    feed.print_once(path)?;
    while args.follow && feed.left > 0 {
        thread::sleep(FOLLOW_INTERVAL);
        let now = newest_file(path);
        if now != seen && feed.try_print(path)? {
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
    /// Prints what there is, also of a database that another process has open for longer.
    fn print_once(&mut self, path: &Path) -> Result<(), CliError> {
        if Database::exists(path) && self.ask(path)? {
            return Ok(());
        }
        // A short command ends soon, and what answers nothing is told.
        let db = store::open_to_read(path)?;
        self.print(&store::collection(&db, &self.args.collection.collection)?)
    }

    /// Prints what is new, and with a `serve` or `sync` what comes while it runs; true if the database was opened for it.
    fn try_print(&mut self, path: &Path) -> Result<bool, CliError> {
        if self.ask(path)? {
            // What was written while that process ended is looked for next.
            return Ok(false);
        }
        let Some(db) = store::open_if_free(path)? else { return Ok(false) };
        self.print(&store::collection(&db, &self.args.collection.collection)?)?;
        Ok(true)
    }

    /// Lets the process that has the database tell; false if none does.
    fn ask(&mut self, path: &Path) -> Result<bool, CliError> {
        let request = Request {
            collection: self.args.collection.collection.clone(),
            since: self.since,
            follow: self.args.follow,
        };
        let Some(mut rows) = Rows::ask(path, &request)? else { return Ok(false) };
        while self.left > 0 {
            if !rows.has_more() {
                self.out.flush()?;
            }
            let Some(row) = rows.next() else { break };
            self.line(&row)?;
        }
        self.out.flush()?;
        Ok(true)
    }

    fn print(&mut self, collection: &Collection) -> Result<(), CliError> {
        while self.left > 0 {
            let page = collection.changes_since(self.since, self.left.min(PAGE)).map_err(store::failed)?;
            if page.is_empty() {
                break;
            }
            for change in page {
                self.line(&change.into())?;
            }
        }
        self.out.flush()
    }

    fn line(&mut self, row: &Row) -> Result<(), CliError> {
        self.since = row.sequence;
        self.left -= 1;
        if self.args.json {
            self.out.json(row)
        } else {
            let deleted = if row.deleted { "  deleted" } else { "" };
            self.out.text(&format!("{:>8}  {}{deleted}", row.sequence, row.id))
        }
    }
}
